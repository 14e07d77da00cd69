package poll

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// trip is how long the origin takes for an answer.
const trip = 20 * time.Millisecond

// TestAReadIsSentAtOnceWhateverIsKnownOfTheIndex: it waits for one round trip, its
// own, and so do several at a time. What it costs later is one read more where the index that
// it was sent under is not the index of the next poll.
func TestAReadIsSentAtOnceWhateverIsKnownOfTheIndex(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		known, young, moved bool // of the index: there is one, of just now, and it has moved since
		beside, after       int  // requests besides the reads', and of the next poll
	}{
		"none is known":              {beside: 1, after: 1 + 3},
		"one of just now":            {known: true, young: true, after: 1},
		"one of just now, now moved": {known: true, young: true, moved: true, after: 1 + 3},
		"an older one":               {known: true, beside: 1, after: 1},
		"an older one, moved":        {known: true, moved: true, beside: 1, after: 1 + 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.close()
			paths := []string{"secret/data/a", "secret/data/b", "secret/data/c"}
			for _, p := range paths {
				w.cluster.put(p)
			}
			if c.known {
				w.ask()
			}
			if !c.young {
				time.Sleep(time.Minute)
			}
			if c.moved {
				w.cluster.put("secret/data/other")
			}
			w.poller.Invoke(time.Now())
			synctest.Wait()
			w.cluster.requests()
			w.cluster.set(func(c *cluster) { c.slow = trip })
			began, done := time.Now(), make(chan time.Duration, len(paths))
			for _, p := range paths {
				go func() {
					w.read(p)
					done <- time.Since(began)
				}()
			}
			for range paths {
				if took := <-done; took != trip {
					t.Errorf("%s: a read took %v, want one round trip of %v", name, took, trip)
				}
			}
			time.Sleep(10 * trip)
			if got := w.cluster.count(leaderPath); got != c.beside {
				t.Errorf("%s: %d requests for the index beside the reads, want %d", name, got, c.beside)
			}
			w.cluster.requests()
			w.invoke()
			if got := w.cluster.requests(); got != c.after {
				t.Errorf("%s: the next poll made %d requests, want %d", name, got, c.after)
			}
			for _, p := range paths {
				if s := w.state(p); s != cache.Fresh {
					t.Errorf("%s: %s has state %d after the poll", name, p, s)
				}
			}
		})
	}
}
