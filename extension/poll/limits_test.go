package poll

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/vault"
)

const mine = "secret/data/mine" // what is taken away from alice in these tests

// dueBeside has alice's right to mine fall due beside n others.
func (w *world) dueBeside(n int, other func(i int) string) *cache.Identity {
	w.t.Helper()
	id := w.cache.Access().Caller("alice")
	for i := range n {
		w.cluster.put(other(i))
		if _, err := w.cache.Load(w.t.Context(), cache.Want{Key: cache.Key{Path: other(i)}, ID: id}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.cluster.put(mine)
	return w.due("alice", mine)
}

// confirm asks as a read of mine does, which waits for no longer than 1.5s.
func (w *world) confirm(id *cache.Identity) cache.State {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 1500*time.Millisecond)
	defer cancel()
	w.poller.o.Permissions.Confirm(ctx, id, cache.Capability{Path: mine})
	return w.callersState("alice", mine)
}

func TestG2NoNumberOrLengthOfNamesKeepsARevokedRight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		n, length int
		each      time.Duration // what a path takes the origin
		tries     int           // reads until it is noticed; those before ask the origin themselves
	}{
		"long names":                  {800, 2000, 0, 1},
		"many names":                  {2500, 5, 0, 1},
		"many that the origin mulls":  {1000, 5, 2 * time.Millisecond, 2},
		"a few that the origin mulls": {50, 5, 2 * time.Millisecond, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				id := w.dueBeside(c.n, func(i int) string { return fmt.Sprintf("secret/data/%d", i) + strings.Repeat("<", c.length) })
				w.cluster.deny("alice", mine)
				w.cluster.answers(func(q request) (*http.Response, error) { return nil, q.takes(c.each * time.Duration(len(q.paths()))) })
				for try := 1; ; try++ {
					switch s := w.confirm(id); {
					case s == cache.Absent && try == c.tries:
						return
					case s != cache.Unconfirmed || try == c.tries:
						t.Fatalf("state %d after try %d", s, try)
					}
				}
			})
		})
	}
}

func TestG2WhatTheOriginDidNotSayKeepsNoRight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		err    error
		want   cache.State
	}{
		"400":                {http.StatusBadRequest, nil, cache.Unconfirmed},
		"413":                {http.StatusRequestEntityTooLarge, nil, cache.Unconfirmed},
		"422":                {http.StatusUnprocessableEntity, nil, cache.Unconfirmed},
		"429":                {http.StatusTooManyRequests, nil, cache.Fresh},
		"503":                {http.StatusServiceUnavailable, nil, cache.Fresh},
		"too many in flight": {0, &vault.Error{Op: "POST", Addr: "x", Kind: vault.Limited, Err: errors.New("64 requests are in flight already")}, cache.Unconfirmed},
		"down":               {0, errDown, cache.Fresh},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				id := w.dueBeside(0, nil)
				w.cluster.set(func(k *cluster) { k.down = c.err })
				if c.status != 0 {
					w.cluster.instead(trouble(c.status), capabilitiesPath)
				}
				if s := w.confirm(id); s != c.want {
					t.Errorf("state %d, want %d", s, c.want)
				}
			})
		})
	}
}

// TestG2NoBodyThatAGatewayRefusesKeepsARevokedRight: who holds much makes a confirmation
// long, and what stands before the origin may refuse it for that. Then fewer are asked
// for, and where that is no help the read itself is sent.
func TestG2NoBodyThatAGatewayRefusesKeepsARevokedRight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status, n, length int
		want              cache.State // of what was taken away: after two calls, and two intervals later
	}{
		"413, many names":  {http.StatusRequestEntityTooLarge, 500, 5, cache.Absent},
		"403, many names":  {http.StatusForbidden, 500, 5, cache.Absent},
		"400, many names":  {http.StatusBadRequest, 500, 5, cache.Absent},
		"413, long names":  {http.StatusRequestEntityTooLarge, 50, 1500, cache.Aged},
		"403, long names":  {http.StatusForbidden, 50, 1500, cache.Aged},
		"an honest outage": {http.StatusBadGateway, 500, 5, cache.Fresh},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *cache.Options, _ *Options) { o.Recheck = time.Hour })
				defer w.close()
				id := w.dueBeside(c.n, func(i int) string { return fmt.Sprintf("secret/data/%d", i) + strings.Repeat("x", c.length) })
				w.cluster.deny("alice", mine)
				w.cluster.answers(func(q request) (*http.Response, error) {
					if paths := q.paths(); len(strings.Join(paths, "")) > 8<<10 || len(paths) > 0 && c.status >= 500 {
						return page(c.status)()
					}
					return nil, nil
				})
				w.confirm(id)
				state := w.confirm(id)
				if c.want == cache.Aged {
					time.Sleep(5 * time.Minute)
					if _, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Path: mine}, ID: w.cache.Own()}); err != nil {
						t.Fatal(err)
					}
					state = w.confirm(id)
				}
				if state != c.want {
					t.Errorf("state %d, want %d", state, c.want)
				}
			})
		})
	}
}

// However many rights there are, a silent origin is told from our own limits by
// the second call at the latest.
func TestG4ASilentOriginIsToldFromOurOwnLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, tries int }{{0, 1}, {few - 1, 1}, {few, 2}, {3000, 2}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.close()
			id := w.dueBeside(c.n, func(i int) string { return fmt.Sprintf("secret/data/%d", i) })
			w.cluster.set(func(k *cluster) { k.slow = time.Hour })
			for try := 1; try <= c.tries; try++ {
				want := cache.Unconfirmed
				if try == c.tries {
					want = cache.Fresh // optimistic
				}
				time.Sleep(time.Second) // what is verified lasts for as long
				w.cluster.set(func(k *cluster) { k.slow = 0 })
				if _, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Path: mine}, ID: w.cache.Own()}); err != nil {
					t.Fatal(err)
				}
				w.cluster.set(func(k *cluster) { k.slow = time.Hour })
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				w.poller.o.Permissions.Confirm(ctx, id, cache.Capability{Path: mine})
				cancel()
				if s := w.callersState("alice", mine); s != want {
					t.Errorf("%d others, try %d: state %d, want %d", c.n, try, s, want)
				}
			}
		})
	}
}

// A read waits for one call, that of its namespace; a poll asks for all, and
// running out of time among many is no failure of the origin.
func TestG2NoNumberOfNamespacesHoldsUpOrPutsOffAConfirmation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		id := w.cache.Own()
		w.cluster.put(mine)
		last := cache.Key{Namespace: "n99", Path: mine}
		for i := range 100 {
			if _, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Namespace: fmt.Sprint("n", i), Path: mine}, ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(6 * time.Minute)
		w.cluster.requests()
		w.cluster.set(func(k *cluster) { k.slow = 50 * time.Millisecond })
		ctx, cancel := context.WithTimeout(t.Context(), 1475*time.Millisecond)
		defer cancel()
		w.poller.o.Permissions.ConfirmAll(ctx, id)
		if n := w.cluster.requests(); n != 30 {
			t.Errorf("%d calls", n)
		}
		due, _ := w.cache.Access().Due(id, time.Now())
		if len(due) != 71 {
			t.Errorf("%d namespaces are due, want all but the 29 that were answered", len(due))
		}
		w.cluster.deny(own, mine)
		w.poller.o.Permissions.Confirm(t.Context(), id, last.Capability())
		if n := w.cluster.requests(); n > 1 || len(due["n99"]) == 1 && w.cache.Lookup(last, w.cache.Own(), false, time.Now()).State != cache.Absent {
			t.Errorf("%d calls for one namespace", n)
		}
	})
}
