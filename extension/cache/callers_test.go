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
			w.origin.put("secret/data/a", v2("one", 1, ""))
			w.load(key("secret/data/a"), "alice")
			w.Learned(w.Caller("alice"), time.Time{})
			for i := range 3000 {
				w.clock.add(time.Microsecond)
				w.Lookup(key("secret/data/a"), fmt.Sprintf(c.token, i), w.clock.now())
				if n := w.Counters(); n.Bytes > c.bytes || n.Identities > maxCallers {
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
	w.origin.put("secret/data/a", v2("one", 1, ""))
	token := strings.Repeat("x", maxToken+1)
	for range 2 {
		hit := w.Lookup(key("secret/data/a"), token, w.clock.now())
		if hit.State != Absent {
			t.Fatalf("state %v", hit.State)
		}
		a, err := w.Load(t.Context(), Want{Key: key("secret/data/a"), ID: hit.ID})
		if err != nil || a.Status != 200 || a.Stored {
			t.Fatalf("status %d, stored %v, %v", a.Status, a.Stored, err)
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
		w.origin.put(p, v2("one", 1, ""))
		for caller := range 4 {
			w.load(key(p), fmt.Sprint("caller-", caller))
			if n := w.Counters().Bytes; n > limit {
				t.Fatalf("%d bytes after caller %d read %s", n, caller, p)
			}
		}
	}
}
