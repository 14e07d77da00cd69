package poll

import (
	"testing"
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
