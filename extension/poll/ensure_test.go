package poll

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// What is done about what a lookup found: each remedy once, then the origin.
func TestWhatIsDoneAboutALookup(t *testing.T) {
	t.Parallel()
	now := time.Now()
	entry := &cache.Entry{FetchedAt: now.Add(-10 * time.Second)}
	hit := func(s cache.State) cache.Hit {
		return cache.Hit{State: s, Entry: entry, Stale: true, True: now.Add(-10 * time.Second)}
	}
	own, caller := cache.NewOwn(), &cache.Identity{ID: 2, Token: "caller"}
	for name, c := range map[string]struct {
		hit  cache.Hit
		want func(*Want)
		path []remedy // until it is answered or asked, while the lookup stays the same
	}{
		"fresh":                        {hit(cache.Fresh), nil, []remedy{serve}},
		"fresh, and to be asked for":   {hit(cache.Fresh), func(w *Want) { w.Again = true }, []remedy{ask}},
		"fresh, within max-age":        {hit(cache.Fresh), func(w *Want) { w.MaxAge = 10 * time.Second }, []remedy{serve}},
		"fresh, beyond max-age":        {hit(cache.Fresh), func(w *Want) { w.MaxAge = 9 * time.Second }, []remedy{ask}},
		"nothing":                      {cache.Hit{}, nil, []remedy{fillShared, ask}},
		"nothing, for a caller":        {cache.Hit{}, func(w *Want) { w.ID = caller }, []remedy{ask}},
		"nothing, and to be asked for": {cache.Hit{}, func(w *Want) { w.Again = true }, []remedy{ask}},
		"unconfirmed":                  {hit(cache.Unconfirmed), nil, []remedy{confirm, ask}},
		"aged":                         {hit(cache.Aged), nil, []remedy{ask}},
		"unverified":                   {hit(cache.Unverified), nil, []remedy{awaitPoll, awaitFill, ask}},
		"unverified, only if cached":   {hit(cache.Unverified), func(w *Want) { w.OnlyCached = true }, []remedy{awaitPoll, ask}},
		"failing":                      {hit(cache.Failing), nil, []remedy{serveStale}},
		"failing, stale-if-error":      {hit(cache.Failing), func(w *Want) { w.StaleFor = 10 * time.Second }, []remedy{serveStale}},
		"failing, beyond it":           {hit(cache.Failing), func(w *Want) { w.StaleFor = 9 * time.Second }, []remedy{ask}},
		"failing, and to be asked for": {hit(cache.Failing), func(w *Want) { w.Again = true }, []remedy{ask}},
	} {
		w := Want{ID: own, MaxAge: -1, StaleFor: -1}
		if c.want != nil {
			c.want(&w)
		}
		var tried [ask]bool
		for i, want := range c.path {
			got := new(Reads).next(&w, &c.hit, tried, now)
			if got != want {
				t.Errorf("%s: step %d is %d, want %d", name, i, got, want)
				break
			}
			if got < ask {
				tried[got] = true
			}
		}
	}
}

// TestWhoeverComesWhileAReadEndsAsksNothing, wherever that falls between its own
// look-up and its request.
func TestWhoeverComesWhileAReadEndsAsksNothing(t *testing.T) {
	t.Parallel()
	for ends := 1; ends <= 5; ends++ {
		for _, token := range []string{"", "alice"} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				id, looked := w.cache.Own(), 0
				if token != "" {
					id = w.cache.Access().Caller(token)
				}
				w.cluster.put(mine)
				now := func() time.Time {
					if looked++; looked == ends {
						if _, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Path: mine}, ID: id}); err != nil {
							t.Error(err)
						}
					}
					return time.Now()
				}
				reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: now})
				o := reads.Ensure(t.Context(), Want{Key: cache.Key{Path: mine}, ID: id, MaxAge: -1, StaleFor: -1})
				if n := w.cluster.count(mine); n != 1 || o.Err != nil {
					t.Errorf("%d reads, with another that ended at look %d, token %q: %+v", n, ends, token, o)
				}
			})
		}
	}
}

// TestG1NoTokenOfAnothersMakesAnOutage: what stands before the origin may refuse a
// request for the token that it brings. That is no outage for those who bring others,
// while the origin answers them.
func TestG1NoTokenOfAnothersMakesAnOutage(t *testing.T) {
	t.Parallel()
	for status, outage := range map[int]bool{400: false, 401: false, 403: false, 404: false, 413: false, 429: false, 431: false, 200: false, 302: false, 502: true, 503: true} {
		for _, token := range []string{"", "alice"} {
			t.Run(fmt.Sprint(status, token), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					defer w.close()
					w.cluster.refuse(func(token string) (*http.Response, error) {
						if len(token) > 1000 {
							return page(status)()
						}
						return nil, nil
					})
					reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
					id := w.cache.Own()
					if token != "" {
						id = w.cache.Access().Caller(token)
					}
					k := cache.Key{Path: mine}
					w.cluster.put(mine)
					ensure := func() Outcome {
						return reads.Ensure(t.Context(), Want{Key: k, ID: id, MaxAge: -1, StaleFor: -1})
					}
					ensure()
					time.Sleep(2 * time.Second)
					if _, err := w.cache.Load(t.Context(), cache.Want{Key: k, ID: w.cache.Access().Caller(strings.Repeat("x", 2000))}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Nanosecond)
					if o := ensure(); (o.Result == Stale) != outage {
						t.Errorf("result %v, %+v", o.Result, o.Hit)
					}
				})
			})
		}
	}
}
