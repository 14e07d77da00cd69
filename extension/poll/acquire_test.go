package poll

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

type directory []cache.Capability

func (d directory) Known(context.Context) []cache.Capability { return d }

// TestAcquireAsksOnceForWhatIsReadAtOnce: reads that begin together and lack
// their rights share one call, or the next one, and never read instead.
func TestAcquireAsksOnceForWhatIsReadAtOnce(t *testing.T) {
	t.Parallel()
	read := func(path string) cache.Capability { return cache.Capability{Path: path} }
	for name, c := range map[string]struct {
		known []cache.Capability
		calls int
	}{
		"all are known":    {[]cache.Capability{read("a"), read("b"), read("c"), {Path: "d", Query: "version=1"}, {Namespace: "n", Path: "e"}}, 1},
		"nothing is known": {nil, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.close()
			var asked []string // of the calls, all paths
			w.cluster.set(func(k *cluster) {
				k.slow = 50 * time.Millisecond
				k.caps = func(_, path string) []string {
					asked = append(asked, path)
					return []string{"read"}
				}
			})
			p := NewPermissions(w.cache, w.cluster, directory(c.known), slog.New(slog.DiscardHandler), time.Now)
			var wg sync.WaitGroup
			for _, path := range []string{"a", "b", "c", "a"} {
				wg.Go(func() { p.Acquire(t.Context(), read(path)) })
			}
			wg.Wait()
			if n := w.cluster.count("capabilities"); n > c.calls {
				t.Errorf("%s: %d calls, want %d", name, n, c.calls)
			}
			slices.Sort(asked)
			if !slices.Equal(asked, []string{"a", "b", "c"}) {
				t.Errorf("%s: asked for %q", name, asked)
			}
			p.Acquire(t.Context(), cache.Capability{Path: "a", Query: "version=1"})
			if n := w.cluster.count("capabilities"); n > c.calls {
				t.Errorf("%s: asked for a right with a query, of which the origin says nothing", name)
			}
		})
	}
}

// TestWhatWasAcquiredBeforeAResetIsNotHeld: what a token may do that a login under
// other policies replaced meanwhile says nothing of its successor.
func TestWhatWasAcquiredBeforeAResetIsNotHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.set(func(k *cluster) {
			k.slow = 50 * time.Millisecond
			k.caps = func(string, string) []string { return []string{"read"} }
		})
		p := NewPermissions(w.cache, w.cluster, nil, slog.New(slog.DiscardHandler), time.Now)
		key := cache.Key{Path: "a"}
		time.AfterFunc(25*time.Millisecond, w.cache.Own().Reset)
		p.Acquire(t.Context(), key.Capability())
		if w.cache.Access().Reader(key, time.Now()) != nil {
			t.Error("held after the reset")
		}
		p.Acquire(t.Context(), key.Capability())
		if w.cache.Access().Reader(key, time.Now()) == nil {
			t.Error("not held although it was asked for again")
		}
	})
}
