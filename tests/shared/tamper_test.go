package shared

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/thaw-project/thaw/tests/harness"
)

// dump is all that lies in memcached, as whoever reaches it sees it.
func (o *site) dump(hostile *memcache.Client) map[string]*memcache.Item {
	o.t.Helper()
	keys, err := o.cache.Keys(o.t.Context())
	harness.Must(o.t, err)
	items, err := hostile.GetMulti(keys)
	harness.Must(o.t, err)
	return items
}

func store(t testing.TB, hostile *memcache.Client, items map[string]*memcache.Item) {
	t.Helper()
	for _, it := range items {
		harness.Must(t, hostile.Set(&memcache.Item{Key: it.Key, Value: it.Value, Flags: it.Flags}))
	}
}

func (o *site) hostile() *memcache.Client {
	c := memcache.New(o.cache.Addr())
	c.Timeout = 5 * time.Second
	o.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestG5TamperingIsNeverServed: whoever writes to memcached without the key
// makes misses, and no wrong answers.
func TestG5TamperingIsNeverServed(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []string{"0", "60s"} {
		t.Run("max-age "+maxAge, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			hostile := o.hostile()
			names := o.fill(4)
			may := o.login(true).With(harness.Settings{"THAW_MAX_AGE": maxAge})
			harness.Must(t, o.vault.PutPolicy(t.Context(), "none", `path "secret/data/elsewhere" { capabilities = ["read"] }`))
			mayNot := o.login(true, "none").With(harness.Settings{"THAW_MAX_AGE": maxAge})
			dev := may.With(harness.Settings{"THAW_AUDIENCE": "dev"})
			o.warm(harness.Settings{"THAW_MAX_AGE": maxAge})
			for _, s := range []harness.Settings{may, dev} {
				i := cold(t, s)
				i.reads(o, names)
				i.shutdown()
			}
			random := rand.New(rand.NewPCG(2, 3))
			for what, tamper := range map[string]func(value, other []byte) []byte{
				"swapped":    func(_, other []byte) []byte { return other },
				"flipped":    func(v, _ []byte) []byte { v[random.IntN(len(v))] ^= 1 << random.IntN(8); return v },
				"truncated":  func(v, _ []byte) []byte { return v[:random.IntN(len(v))] },
				"lengthened": func(v, other []byte) []byte { return append(v, other...) },
				"spliced": func(v, other []byte) []byte {
					n := random.IntN(min(len(v), len(other)) + 1)
					return append(slices.Clone(v[:n]), other[n:]...)
				},
			} {
				whole := o.dump(hostile)
				keys := slices.Sorted(maps.Keys(whole))
				if len(keys) < 3*len(names) {
					t.Fatalf("only %d items in memcached", len(keys))
				}
				changed := map[string]*memcache.Item{}
				for _, k := range keys {
					other := whole[keys[random.IntN(len(keys))]]
					changed[k] = &memcache.Item{Key: k, Value: tamper(slices.Clone(whole[k].Value), other.Value), Flags: random.Uint32()}
				}
				store(t, hostile, changed)
				for _, s := range []harness.Settings{may, dev} {
					i := cold(t, s)
					i.reads(o, names)
					i.shutdown()
				}
				i := cold(t, mayNot)
				i.invoke(func(ctx context.Context) { i.get(ctx, names[0]).refused(t, what) })
				i.shutdown()
				if t.Failed() {
					t.Fatal(what)
				}
			}
		})
	}
}

// TestG1AReplayedOldValueNeverPassesForFresh: all that memcached held before a
// rotation is put back after it.
func TestG1AReplayedOldValueNeverPassesForFresh(t *testing.T) {
	t.Parallel()
	for maxAge, wait := range map[string]time.Duration{"0": 0, "3s": 3 * time.Second} {
		t.Run("max-age "+maxAge, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			hostile := o.hostile()
			names := o.fill(3)
			s := o.login(true).With(harness.Settings{"THAW_MAX_AGE": maxAge})
			more := harness.Settings{"THAW_MAX_AGE": maxAge}
			o.warm(more)
			held := cold(t, s)
			held.reads(o, names)
			first := cold(t, s)
			first.reads(o, names)
			first.shutdown()
			old := o.dump(hostile)
			o.put(names[0])
			o.warm(more)
			o.put(names[1])
			harness.Pause(t.Context(), wait)
			for range 3 {
				store(t, hostile, old)
				held.reads(o, names)
				store(t, hostile, old)
				i := cold(t, s)
				i.reads(o, names)
				i.shutdown()
			}
			// Under an outage it may be served, and says what it is.
			store(t, hostile, old)
			o.counter.Cut()
			i := cold(t, s)
			i.invoke(func(ctx context.Context) {
				for _, name := range names {
					if a := i.get(ctx, name); a.Status == http.StatusOK && !a.stale() {
						t.Errorf("%s: %v %.200s is not marked stale", name, a.Header, a.Body)
					}
				}
			})
			harness.Must(t, o.counter.Mend())
			i.reads(o, names)
		})
	}
}
