package poll

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/wire"
	"github.com/thaw-project/thaw/tests/standin"
)

// TestG1AStampCountsOnlyWhereTheOriginIsAsItSays: whoever knows better than the instance
// that made it asks the origin itself.
func TestG1AStampCountsOnlyWhereTheOriginIsAsItSays(t *testing.T) {
	t.Parallel()
	health := func(more string) func(*world, *cluster) {
		return func(w *world, c *cluster) {
			c.instead(func() (*http.Response, error) {
				return response(http.StatusOK, "application/json", `{"initialized":true,"sealed":false,"standby":false,"cluster_id":"c",`+more+`}`), nil
			}, healthPath)
			w.ask()
			w.cursor.Learn(w.t.Context())
		}
	}
	meets := func(w *world) {
		w.poller.Invoke(time.Now())
		w.ask()
		w.cursor.Learn(w.t.Context())
	}
	seen := func(w *world, _ *cluster) { w.cursor.Seen(http.Header{wire.NodeHeader: {"n"}}) }
	for name, row := range map[string]struct {
		known func(*world, *cluster)
		taken bool
	}{
		"nothing is known":              {func(*world, *cluster) {}, true},
		"standbys forward reads":        {health(`"version":"1.21.0"`), true},
		"standbys serve reads":          {health(`"version":"2.5.0"`), false},
		"nobody knows who serves reads": {health(`"version":"2.0.0-HEAD"`), false},
		"a secondary":                   {health(`"version":"1.21.0+ent","replication_performance_mode":"secondary"`), false},
		"another leader has followed since": {func(w *world, c *cluster) {
			meets(w)
			time.Sleep(2 * time.Second)
			said := standin.Ask(c.node, "", http.MethodGet, leaderPath, "").Body.String()
			active, _ := c.Origin.Leader()
			c.instead(func() (*http.Response, error) {
				return response(http.StatusOK, "application/json", strings.Replace(said, active, "2026-11-21T09:00:00Z", 1)), nil
			}, leaderPath)
			meets(w)
		}, false},
		"an answer has named its node since":   {seen, false},
		"one has, and standbys forward anyway": {func(w *world, c *cluster) { health(`"version":"1.21.0"`)(w, c); seen(w, c) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, b := newCluster(), newBoard(3*time.Second)
				c.put(secretName(1))
				other, w := instance(t, c, b), instance(t, c, b)
				defer other.close()
				defer w.close()
				other.hold(secretName(1))
				b.SetForwards(t.Context(), "", false, time.Time{}) // each finds out by itself
				l, err := c.Leader(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				row.known(w, c)
				time.Sleep(4 * time.Second)
				b.PutStamps(t.Context(), cache.CursorStamp{At: time.Now(), Committed: l.Committed, ActiveTime: l.ActiveTime}, nil)
				c.requests()
				w.poller.Invoke(time.Now())
				w.cache.FillShared(t.Context(), cache.Key{Path: secretName(1)})
				w.poller.TakeStamps(t.Context())
				if taken := c.requests() == 0 && w.state(secretName(1)) == cache.Fresh; taken != row.taken {
					t.Errorf("verified by it: %t", taken)
				}
			})
		})
	}
}

// TestG1WhatAnotherWasToldOfTheOriginAgesWithIt: an upgrade may have begun since.
func TestG1WhatAnotherWasToldOfTheOriginAgesWithIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, b := newCluster(), newBoard(3*time.Second)
		c.put(secretName(1))
		first := instance(t, c, b)
		first.hold(secretName(1))
		first.cursor.Learn(t.Context())
		first.close()
		asks := func(w *world, want int) {
			t.Helper()
			c.requests()
			w.poller.Invoke(time.Now())
			w.ask()
			w.cursor.Learn(t.Context())
			if n := c.count(healthPath); n != want {
				t.Errorf("sys/health was asked %d times, want %d", n, want)
			}
		}
		time.Sleep(9 * time.Minute)
		second, third := instance(t, c, b), instance(t, c, b)
		defer second.close()
		defer third.close()
		asks(second, 0)
		time.Sleep(2 * time.Minute)
		asks(second, 1)
		asks(third, 0) // the second told
		b.heard = b.heard.Add(-24 * time.Hour)
		fourth := instance(t, c, b)
		defer fourth.close()
		asks(fourth, 1)
	})
}

// TestWhatAnotherWasToldSparesTheQuestionForLists: nobody asks sys/health for the lists of
// folders alone while others say that standbys forward reads.
func TestWhatAnotherWasToldSparesTheQuestionForLists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, b := newCluster(), newBoard(3*time.Second)
		first := instance(t, c, b)
		first.hold(secretName(0))
		first.cursor.Learn(t.Context())
		first.close()
		w := instance(t, c, b, func(o *Options) { o.Stamps, o.Shared, o.Folder = nil, true, noFolder })
		defer w.close()
		w.cache.Mounts().Learn(cache.Mount{Path: "secret", Version: 2})
		c.requests()
		for i := range folderLeast {
			w.hold(secretName(i))
		}
		time.Sleep(10 * time.Second)
		c.put(secretName(0)) // the index moves
		w.poller.Invoke(time.Now())
		w.poller.Wait(t.Context(), cache.Key{Path: secretName(0)})
		w.cursor.Learn(t.Context())
		if n := c.count(healthPath); n != 0 {
			t.Errorf("sys/health was asked %d times", n)
		}
	})
}

// noFolder is an origin that lists none.
func noFolder(context.Context, *cache.Identity, string, string) (wire.Answer, error) {
	return wire.Answer{Status: http.StatusNotFound}, nil
}
