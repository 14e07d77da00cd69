package cache

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestG7GuessedTokensAreBoundedAndCostNobodyElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		bytes int64
		token string // of a guess, with its number
	}{
		{"by memory", 64 << 10, "guess-%d"},
		{"by number", 16 << 20, "guess-%d"},
		{"long ones", 64 << 10, strings.Repeat("x", 6000) + "%d"},
		{"longer than any token", 64 << 10, strings.Repeat("x", 60000) + "%d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *Options) { o.Bytes = c.bytes })
			w.origin.put("secret/data/a", "one")
			w.load(key("secret/data/a"), "alice")
			w.Learned(w.Caller("alice"), Token{})
			for i := range 3000 {
				w.clock.add(time.Microsecond)
				w.look(key("secret/data/a"), fmt.Sprintf(c.token, i), w.clock.now())
				if n := w.Counters(); n.Bytes > c.bytes || n.Identities > leastCallers {
					t.Fatalf("after %d guesses: %d bytes, %d identities", i, n.Bytes, n.Identities)
				}
			}
			w.expect(key("secret/data/a"), "alice", Fresh, "one")
		})
	}
}

func TestG7ATokenTooLongToRememberIsStillServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
	token := strings.Repeat("x", maxToken+1)
	for range 2 {
		id := w.Caller(token)
		hit := w.Lookup(key("secret/data/a"), id, false, w.clock.now())
		if hit.State != Absent {
			t.Fatalf("state %v", hit.State)
		}
		a, err := w.Load(t.Context(), Want{Key: key("secret/data/a"), ID: id})
		if err != nil || a.Status != 200 || a.Stored {
			t.Fatalf("status %d, stored %v, %v", a.Status, a.Stored, err)
		}
	}
}

// What other instances may read comes without anything that is stored.
func TestG7CapabilitiesOfOtherInstancesCountAgainstTheBound(t *testing.T) {
	t.Parallel()
	const bound = 64 << 10
	w := newWorld(t, func(o *Options) { o.Bytes = bound })
	for i := range 1000 {
		now := w.clock.now()
		w.Take(map[Capability]Confirmation{key(fmt.Sprint("secret/data/", i)).Capability(): {Read: now, At: now}})
		if n := w.Counters(); n.Bytes > bound {
			t.Fatalf("after %d capabilities: %d bytes", i+1, n.Bytes)
		}
	}
}

// A read that finds what is cached stores nothing, but leaves a grant.
func TestG7GrantsCountAgainstTheBound(t *testing.T) {
	t.Parallel()
	const limit = 16 << 10
	w := newWorld(t, func(o *Options) { o.Bytes = limit })
	for i := range 20 {
		p := fmt.Sprint("secret/data/", i)
		w.origin.put(p, "one")
		for caller := range 4 {
			w.load(key(p), fmt.Sprint("caller-", caller))
			if n := w.Counters().Bytes; n > limit {
				t.Fatalf("%d bytes after caller %d read %s", n, caller, p)
			}
		}
	}
}

// A read in a long namespace leaves a grant, an entry and what is known of the
// mount, each with the namespace in it.
func TestG7LongNamespacesCountAgainstTheBound(t *testing.T) {
	t.Parallel()
	r, bare := Capability{Namespace: strings.Repeat("n", 2048), Path: "secret/data/a"}, Capability{Path: "secret/data/a"}
	if got := r.size() - bare.size(); got != 2048 {
		t.Errorf("a namespace of 2048 bytes adds %d to a grant", got)
	}
	const limit = 1 << 20
	w := newWorld(t, func(o *Options) { o.Bytes = limit })
	configured := Mount{Path: "kv", Version: 1}
	for i := range 2 * maxMounts {
		w.Learn(Mount{Namespace: fmt.Sprintf("%0*d", 2000, i), Path: "secret", Version: 2})
	}
	known := 0
	for i := range 2 * maxMounts {
		if _, ok := w.Knows(fmt.Sprintf("%0*d", 2000, i), "secret/data/a"); ok {
			known++
		}
	}
	if size := known * 2000; known == 0 || size > limit/16 {
		t.Errorf("%d mounts of %d bytes are remembered beside a cache of %d", known, size, limit)
	}
	w.Learn(Mount{Namespace: fmt.Sprintf("%0*d", 2000, 0), Path: "secret", Version: 1})
	if m, _ := w.Knows(fmt.Sprintf("%0*d", 2000, 0), "secret/data/a"); m.Version != 1 {
		t.Errorf("version %d of a mount that was learned anew", m.Version)
	}
	end := NewWrite("", "sys/mounts/secret")
	w.BeginWrite(end)
	w.EndWrite(end, false)
	w.Learn(configured)
	if m, ok := w.Knows("", "kv/a"); !ok || m != configured {
		t.Errorf("%+v, %v: no room after all mounts were forgotten", m, ok)
	}
}

// Who comes when all places are taken by callers that hold something has the place
// of the one that was not used for the longest time.
func TestANewCallerIsRememberedThoughAllHoldSomething(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Bytes = 16 << 20 })
	a := key("secret/data/a")
	w.origin.put(a.Path, "one")
	for i := range leastCallers + 1 {
		w.clock.add(time.Microsecond)
		token := fmt.Sprint("caller-", i)
		w.load(a, token)
		w.known(token)
	}
	w.expect(a, fmt.Sprint("caller-", leastCallers), Fresh, "one")
	if w.callers["caller-0"] != nil || w.callers["caller-1"] == nil || len(w.callers) != leastCallers {
		t.Errorf("%d callers are remembered; not the first is gone", len(w.callers))
	}
}

// Callers whose tokens live on, but who come no more, cost nobody what is cached or
// what they may see, however much they hold. Who stays has it all from the cache.
func TestG7WhoComesNoMoreCostsNobodyWhatIsCached(t *testing.T) {
	t.Parallel()
	const limit, secrets = 256 << 10, 10
	const many = "secret/data/of-many" // a secret of which any number of versions is kept
	version := func(n int) Key { return Key{Path: many, Query: fmt.Sprint("version=", n)} }
	for name, reads := range map[string]func(w *world, n int){
		"what all read": func(w *world, n int) {
			for i := range secrets {
				w.load(key(fmt.Sprint("secret/data/", i)), fmt.Sprint("gone-", n))
			}
		},
		"with many queries": func(w *world, n int) {
			for i := range 4 * secrets {
				if n == 0 {
					w.origin.put(many, "old")
				}
				w.load(version(1+i), fmt.Sprint("gone-", n))
			}
		},
		"of its own": func(w *world, n int) {
			for i := range secrets {
				p := fmt.Sprintf("secret/data/of-%d/%d", n, i)
				w.origin.put(p, "one")
				w.load(key(p), fmt.Sprint("gone-", n))
			}
		},
		"with a long token": func(w *world, n int) {
			w.load(key("secret/data/0"), fmt.Sprint("gone-", n, strings.Repeat("x", maxToken/2)))
		},
		"one caller alone": func(w *world, n int) {
			w.origin.put(many, "old")
			w.load(version(1+n), "gone")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *Options) { o.Bytes = limit })
			for i := range secrets {
				w.origin.put(fmt.Sprint("secret/data/", i), "one")
				w.load(key(fmt.Sprint("secret/data/", i)), "stays")
			}
			w.known("stays")
			w.origin.write("secret/metadata/of-many", `{"max_versions":1000}`)
			for n := range 1000 {
				w.clock.add(time.Microsecond)
				reads(w, n)
				w.clock.add(time.Microsecond)
				for i := range secrets {
					w.expect(key(fmt.Sprint("secret/data/", i)), "stays", Fresh, "one")
				}
				if size := w.Counters().Bytes; size > limit || t.Failed() {
					t.Fatalf("%d bytes after %d callers", size, n+1)
				}
			}
		})
	}
}

// The number of callers that are remembered grows with the memory that there is.
func TestManyCallersAreRememberedWhereThereIsMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Bytes = 1 << 30 })
	a := key("secret/data/a")
	w.origin.put(a.Path, "one")
	const callers = 10_000
	for i := range callers {
		w.load(a, fmt.Sprint("caller-", i))
	}
	for i := range callers {
		w.expect(a, fmt.Sprint("caller-", i), Fresh, "one")
	}
}

// TestAHitOutlivesALossThatWasMadeGood: a capability was lost and got back before
// the loss was taken in. A lookup between the two has to stand that.
func TestAHitOutlivesALossThatWasMadeGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := Key{Path: "secret/metadata", Op: List}
	for _, path := range []string{"a", "b"} {
		w.origin.put("secret/data/"+path, "one")
	}
	w.load(k, "hvs.a")
	w.load(key("secret/data/a"), "hvs.a")
	id := w.Caller("hvs.a")
	w.Learned(id, Token{})
	p := k.Capability()
	w.revoke(id, p)
	w.grant(id, id.resets.Load(), p, w.clock.now(), false)
	if h := w.Lookup(k, id, false, w.clock.now()); h.State != Fresh && h.State != Absent {
		t.Errorf("state %d", h.State)
	}
	w.load(k, "hvs.a")
	w.expect(k, "hvs.a", Fresh, "a")
}

// TestOurOwnListGoesWithOurOwnCapability: callers have lists of their own, so none
// of them could read ours again.
func TestOurOwnListGoesWithOurOwnCapability(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := Key{Path: "secret/metadata", Op: List}
	w.origin.put("secret/data/a", "one")
	w.load(k, "")
	w.load(k, "hvs.a")
	w.Confirm(w.Own(), w.clock.add(time.Second), nil, []Capability{k.Capability()})
	if keys := w.Held(); len(keys) != 1 || keys[0].Personal == 0 {
		t.Errorf("held: %v", keys)
	}
}
