package poll

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// due reads path as a caller and lets the grant fall due.
func (w *world) due(token, path string) *cache.Identity {
	w.t.Helper()
	id := w.cache.Access().Caller(token)
	if _, err := w.cache.Load(w.t.Context(), cache.Want{Key: cache.Key{Path: path}, ID: id}); err != nil {
		w.t.Fatal(err)
	}
	w.cache.Access().Learned(id, cache.Token{})
	time.Sleep(6 * time.Minute)
	if _, err := w.cache.Load(w.t.Context(), cache.Want{Key: cache.Key{Path: path}, ID: w.cache.Own()}); err != nil {
		w.t.Fatal(err) // verified by someone else
	}
	return id
}

func (w *world) callersState(token, path string) cache.State {
	return w.cache.Lookup(cache.Key{Path: path}, w.cache.Access().Caller(token), false, time.Now()).State
}

func TestG2LeavingPutsNoConfirmationOff(t *testing.T) {
	t.Parallel()
	for _, pessimistic := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(o *cache.Options, _ *Options) { o.Pessimistic = pessimistic })
			defer w.close()
			w.cluster.put("secret/data/a")
			id := w.due("alice", "secret/data/a")
			ctx, leave := context.WithCancel(t.Context())
			w.cluster.set(func(c *cluster) { c.slow = time.Minute })
			go func() {
				time.Sleep(time.Millisecond)
				leave()
			}()
			w.poller.o.Permissions.Confirm(ctx, id, cache.Capability{Path: "secret/data/a"})
			if s := w.callersState("alice", "secret/data/a"); s != cache.Unconfirmed {
				t.Errorf("pessimistic %v: state %d after the caller left", pessimistic, s)
			}
		})
	}
}

func TestASilentConfirmationIsNotRepeatedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.put("secret/data/a")
		id := w.due("alice", "secret/data/a")
		w.cluster.set(func(c *cluster) { c.slow = time.Hour })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // longer than the pause between tries
		defer cancel()
		w.poller.o.Permissions.Confirm(ctx, id, cache.Capability{Path: "secret/data/a"})
		w.cluster.requests()
		w.poller.o.Permissions.Confirm(t.Context(), id, cache.Capability{Path: "secret/data/a"})
		if n := w.cluster.count(capabilitiesPath); n != 0 {
			t.Errorf("asked %d times again at once", n)
		}
	})
}

func TestG2ATokenThatMayNotBeLookedUpIsAskedForItsRights(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.put("secret/data/a")
		id := w.cache.Access().Caller("revoked")
		if _, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Path: "secret/data/a"}, ID: id}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute) // the interval bounds it
		w.cluster.deny("revoked", capabilitiesPath, lookupPath)
		w.poller.o.Permissions.Confirm(t.Context(), id, cache.Capability{Path: "secret/data/a"})
		if s := w.callersState("revoked", "secret/data/a"); s != cache.Absent {
			t.Errorf("state %d for a token that was revoked after its first read", s)
		}

		id = w.cache.Access().Caller("narrow")
		if _, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Path: "secret/data/a"}, ID: id}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute) // the interval bounds it
		w.cluster.deny("narrow", lookupPath)
		w.poller.o.Permissions.Confirm(t.Context(), id, cache.Capability{Path: "secret/data/a"})
		if s := w.callersState("narrow", "secret/data/a"); s != cache.Unverified {
			t.Errorf("state %d for a token that may read but not look itself up", s)
		}
	})
}

func TestG4AGatewaysOwnAnswerToTheCursorFailsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.hold("secret/data/a")
		w.cluster.put("secret/data/a")
		w.cluster.instead(page(http.StatusOK), leaderPath)
		time.Sleep(time.Minute)
		w.invoke()
		if s, v := w.state("secret/data/a"), w.value("secret/data/a"); s != cache.Fresh || !strings.Contains(v, `"v":"2"`) {
			t.Errorf("state %d, %s", s, v)
		}
	})
}

func TestG4ASilentHealthFailsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.put("secret/data/a")
		w.cluster.answers(func(q request) (*http.Response, error) {
			if q.path == healthPath {
				return nil, q.takes(time.Hour)
			}
			return nil, nil
		})
		w.poller.Invoke(time.Now())
		w.read("secret/data/a")
		time.Sleep(time.Minute)
		w.invoke()
		if s := w.state("secret/data/a"); s == cache.Failing {
			t.Error("failing although the node answers")
		}
		if n := w.poller.Counts().Failed; n != 0 {
			t.Errorf("%d polls failed", n)
		}
	})
}

func TestG4OneBadGatewayEndsThePoll(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 502, 503, 504} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(_ *cache.Options, o *Options) { o.Concurrency = 1 })
			defer w.close()
			w.poller.Invoke(time.Now())
			for _, p := range []string{"a", "b", "c", "d"} {
				w.cluster.put("secret/data/" + p)
				w.read("secret/data/" + p)
			}
			synctest.Wait()
			w.cluster.instead(trouble(status))
			w.cluster.requests()
			time.Sleep(time.Minute)
			w.invoke()
			if n := w.cluster.requests(); n > 2 {
				t.Errorf("%d: %d requests to an origin that fails", status, n)
			}
			if s := w.state("secret/data/d"); s != cache.Failing {
				t.Errorf("%d: state %d", status, s)
			}
		})
	}
}

func TestG4APollThatAFreezeInterruptedFailsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var clock skipped
		w := newWorld(t, func(c *cache.Options, o *Options) {
			c.Pessimistic, c.Now, o.Now = true, clock.now, clock.now
		})
		defer w.close()
		w.cluster.put("secret/data/a")
		w.poller.Invoke(clock.now())
		w.read("secret/data/a")
		time.Sleep(time.Minute)
		w.cluster.set(func(c *cluster) { c.slow = time.Hour })
		w.poller.Invoke(clock.now())
		time.Sleep(time.Millisecond)
		clock.skip(time.Hour) // the timers of the poll fire late, and before the next INVOKE
		time.Sleep(10 * time.Second)
		if w.cache.Empty() {
			t.Error("the cache was dropped for a freeze")
		}
	})
}

func TestG4ABudgetThatEndsLateWasFrozen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		late time.Duration
		want error
	}{{0, context.DeadlineExceeded}, {200 * time.Millisecond, context.DeadlineExceeded}, {time.Second, errFroze}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *cache.Options, _ *Options) { c.Pessimistic = true })
			defer w.close()
			w.hold("secret/data/a")
			time.Sleep(time.Minute)
			w.cluster.set(func(c *cluster) { c.slow = time.Hour })
			w.poller.Invoke(time.Now())
			w.poller.mu.Lock()
			r := w.poller.running
			w.poller.mu.Unlock()
			r.budget.over(time.Now().Add(500*time.Millisecond + c.late)) // as its timer does after a thaw
			<-r.done
			if cause := context.Cause(r.budget.ctx); !errors.Is(cause, c.want) {
				t.Errorf("%v late: %v", c.late, cause)
			}
			if frozen := c.want == errFroze; w.cache.Empty() == frozen {
				t.Errorf("%v late: the cache was dropped: %v", c.late, !frozen)
			}
		})
	}
}

func TestNothingBeginsAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster.put("secret/data/a")
		w.read("secret/data/a")
		w.close()
		w.cluster.requests()
		w.poller.Wait(t.Context(), cache.Key{})
		if r := w.poller.current(0, true); r.err == nil {
			t.Error("a poll ran after Close")
		}
		if n := w.cluster.requests(); n != 0 {
			t.Errorf("%d requests after Close", n)
		}
	})
}
