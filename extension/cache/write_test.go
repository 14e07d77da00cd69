package cache

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestWritesEvictWhatTheyCanChange(t *testing.T) {
	t.Parallel()
	keys := []Key{
		{Path: "secret/data/a/b"}, {Path: "secret/data/a/b", Query: "version=1"}, {Path: "secret/metadata/a/b"}, {Path: "secret/subkeys/a/b"},
		{Path: "secret/metadata", Op: List}, {Path: "secret/metadata/a", Op: List}, {Path: "secret/data/other"}, {Path: "secret/metadata/other"},
		{Path: "kv/a/b"}, {Path: "kv/a", Op: List}, {Path: "kv", Op: List}, {Path: "kv/c"}, {Namespace: "ns", Path: "secret/data/a/b"},
	}
	// The same path in a namespace goes too: community servers ignore the header.
	v2all := "ns/secret/data/a/b secret/data/a/b secret/data/a/b?version=1 secret/metadata/a/b secret/subkeys/a/b secret/metadata/ secret/metadata/a/"
	cases := []struct {
		namespace, path string
		evicts          string
	}{
		{"", "secret/data/a/b", v2all},
		{"", "secret/metadata/a/b", v2all},
		{"", "secret/delete/a/b", v2all},
		{"", "secret/undelete/a/b", v2all},
		{"", "secret/destroy/a/b", v2all},
		{"", "secret/data/a/b/", v2all},
		{"", "secret/data/x/../a/b", v2all},
		{"", "secret//data/a/b", v2all},
		{"ns", "secret/data/a/b", v2all},
		{"", "ns/secret/data/a/b", "ns/secret/data/a/b"},
		{"", "kv/a/b", "kv/a/b kv/a/ kv/"},
		{"", "transit/encrypt/a", ""},
		{"", "sys/mounts/secret", "all"},
		{"", "sys/remount", "all"},
	}
	for _, c := range cases {
		w := newWorld(t)
		for _, path := range []string{"secret/data/a/b", "secret/data/other", "kv/a/b", "kv/c", "ns/secret/data/a/b"} {
			w.origin.put(path, "x")
		}
		for _, k := range keys {
			w.load(k, "")
		}
		write := NewWrite(c.namespace, c.path)
		w.BeginWrite(write)
		w.EndWrite(write, false)
		var gone []string
		for _, k := range keys {
			if w.state(k, "") == Absent {
				gone = append(gone, asked(k))
			}
		}
		want := strings.Fields(c.evicts)
		if c.evicts == "all" {
			if len(gone) != len(keys) {
				t.Errorf("write %s: evicted only %v", c.path, gone)
			}
			continue
		}
		left := map[string]bool{}
		for _, g := range gone {
			left[g] = true
		}
		for _, p := range want {
			if !left[p] {
				t.Errorf("write %q %s: %s stays", c.namespace, c.path, p)
			}
			delete(left, p)
		}
		if len(left) > 0 {
			t.Errorf("write %q %s: evicted %v besides", c.namespace, c.path, left)
		}
	}
}

func TestAFillDuringAWriteIsNotStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "old")
	release := w.held(key("secret/data/a"), "")
	write := NewWrite("", "secret/data/a")
	w.BeginWrite(write)
	w.EndWrite(write, false)
	release()
	w.expect(key("secret/data/a"), "", Absent, "")
}

func TestAReadAfterAWriteSharesNoReadFromBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "old")
	release := w.held(key("secret/data/a"), "")
	write := NewWrite("", "secret/data/a")
	w.BeginWrite(write)
	w.origin.put("secret/data/a", "new")
	w.EndWrite(write, false)
	a := w.load(key("secret/data/a"), "")
	release()
	if !strings.Contains(string(a.Body), "new") || a.Shared {
		t.Fatalf("got %s, shared %v", a.Body, a.Shared)
	}
}

// TestAMountThatChangesIsNotLearnedAsItWas: the question which mount a path is on
// was on its way when the mount was replaced.
func TestAMountThatChangesIsNotLearnedAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	preflight := key(preflightPrefix + "secret/data/a")
	release := w.held(preflight, "")
	change := NewWrite("", "sys/mounts/secret")
	w.BeginWrite(change)
	w.EndWrite(change, false)
	release()
	if m, known := w.Knows("", "secret/data/a"); known {
		t.Errorf("learned %+v", m)
	}
}

// TestG4AWriteInVainTakesNothing: what a write set aside comes back when it changed
// nothing for certain, unverified, unless another write may have changed it, or the
// entry ended meanwhile by something else.
func TestG4AWriteInVainTakesNothing(t *testing.T) {
	t.Parallel()
	const path = "secret/data/a"
	other := func() *Write { return NewWrite("", "secret/metadata/a") }
	for name, c := range map[string]struct {
		meanwhile func(w *world) // while the write runs
		after     func(w *world)
		want      State
	}{
		"alone":                              {want: Unverified},
		"of a mount":                         {want: Unverified, meanwhile: func(w *world) { w.BeginWrite(NewWrite("", "sys/mounts/x")) }, after: nil},
		"another that succeeded meanwhile":   {want: Absent, meanwhile: func(w *world) { o := other(); w.BeginWrite(o); w.EndWrite(o, false) }},
		"another in vain meanwhile":          {want: Unverified, meanwhile: func(w *world) { o := other(); w.BeginWrite(o); w.EndWrite(o, true) }},
		"another of something else":          {want: Unverified, meanwhile: func(w *world) { o := NewWrite("", "kv/b"); w.BeginWrite(o); w.EndWrite(o, false) }},
		"a purge meanwhile":                  {want: Absent, meanwhile: func(w *world) { w.Purge("", "secret/") }},
		"a revocation meanwhile":             {want: Absent, meanwhile: func(w *world) { w.Own().Reset() }},
		"all was cleared meanwhile":          {want: Absent, meanwhile: func(w *world) { w.Clear() }},
		"another begins and goes on":         {want: Absent, meanwhile: func(w *world) { w.BeginWrite(other()) }},
		"another begins and succeeds after":  {want: Absent, meanwhile: nil, after: func(w *world) { o := other(); w.BeginWrite(o); w.EndWrite(o, false) }},
		"an event tells of a change":         {want: Unverified, meanwhile: func(w *world) { w.Changed(other()) }},
		"the origin says 404":                {want: Absent, meanwhile: func(w *world) { w.origin.put(path, ""); w.clock.add(time.Millisecond); w.load(key(path), "") }},
		"the origin says 403":                {want: Absent, meanwhile: func(w *world) { w.deny("", path); w.clock.add(time.Millisecond); w.load(key(path), "") }},
		"an index check finds nothing moved": {want: Unverified, meanwhile: func(w *world) { w.Revalidate(w.origin.Index(t.Context(), 0), Revalidation{w.clock.now(), w.Epoch()}) }},
		"a stamp":                            {want: Unverified, meanwhile: func(w *world) { w.Stamped(key(path), Stamp{At: w.clock.now()}) }},
		"it is read meanwhile":               {want: Unverified, meanwhile: func(w *world) { w.load(key(path), "") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.origin.put(path, "one")
			w.load(key(path), "")
			write := NewWrite("", path)
			w.BeginWrite(write)
			w.expect(key(path), "", Absent, "")
			w.expect(Key{Path: path, Query: "version=1"}, "", Absent, "")
			if c.meanwhile != nil {
				c.meanwhile(w)
			}
			w.expect(key(path), "", Absent, "")
			if open := w.Unverified(w.clock.now()); len(open) != 0 {
				t.Errorf("polls read %v, which they may not keep", open)
			}
			if name == "of a mount" {
				w.expect(key(path), "", Absent, "")
				for o := range w.writes {
					if o != write {
						w.EndWrite(o, true)
					}
				}
			}
			w.EndWrite(write, true)
			if c.after != nil {
				c.after(w)
			}
			w.expect(key(path), "", c.want, "")
			if c.want != Absent && !w.look(key(path), "", w.clock.now()).Stale {
				t.Error("it may not be served in an outage")
			}
			w.origin.put(path, "two")
			w.clock.add(time.Millisecond)
			if c.want != Absent {
				w.load(key(path), "")
				w.expect(key(path), "", Fresh, "two")
			}
		})
	}
}

// TestAWriteInVainTellsOthersNothing.
func TestAWriteInVainTellsOthersNothing(t *testing.T) {
	t.Parallel()
	shared := &others{tier: newTier()}
	w := newWorld(t, func(o *Options) { o.Shared = shared })
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "")
	for _, inVain := range []bool{true, false} {
		write := NewWrite("", "secret/data/a")
		w.BeginWrite(write)
		w.EndWrite(write, inVain)
		if told := len(shared.dropped) > 0; told == inVain {
			t.Errorf("in vain %v, others told: %v", inVain, told)
		}
	}
}

// TestG7AWriteToALongPathCostsLittle: a path may name a secret of a mount at each of its
// segments, and whoever writes chooses how many there are.
func TestG7AWriteToALongPathCostsLittle(t *testing.T) {
	t.Parallel()
	shared := &countingTier{tier: newTier()}
	w := newWorld(t, func(o *Options) { o.Shared = shared })
	for path, least := range map[string]int{
		"secret/data/team/app":                      6,
		"secret" + strings.Repeat("/data", 400):     100,
		"secret" + strings.Repeat("/data/x", 600):   0,
		"secret" + strings.Repeat("/data", 12<<10):  0,
		"secret/data/" + strings.Repeat("x/", 1000): 100,
	} {
		shared.dropped, shared.longest = 0, 0
		write := NewWrite("", path)
		w.BeginWrite(write)
		w.EndWrite(write, false)
		if shared.dropped < least || shared.dropped > maxDropped || shared.longest > maxPath {
			t.Errorf("a path of %d bytes: %d keys of up to %d bytes are dropped", len(path), shared.dropped, shared.longest)
		}
	}
}

// TestG7AWriteLooksAtWhatItsPathNames: however much others have cached, and however many
// mounts the path may be on.
func TestG7AWriteLooksAtWhatItsPathNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kinds := []string{"", "/data", "/metadata", "/subkeys", "/detailed-metadata", "/data/data", "/delete/data"}
	w.Cache.mu.Lock()
	defer w.Cache.mu.Unlock()
	for _, namespace := range []string{"", "ns", "ns/data"} {
		for _, mount := range []string{"kv", "ns/kv", "data", "ns/data/kv"} {
			for _, kind := range kinds {
				for _, rest := range []string{"", "/a", "/a/b", "/data", "/b/kv"} {
					for _, op := range []Op{Read, List} {
						k := Key{Namespace: namespace, Path: mount + kind + rest, Op: op}
						w.insertLocked(&slot{entry: &Entry{Key: k}}, Index{})
						k.Query = "version=1"
						w.insertLocked(&slot{entry: &Entry{Key: k}}, Index{})
					}
				}
			}
		}
	}
	for _, namespace := range []string{"", "ns"} {
		for written := range w.store.slots {
			if written.Op == List || written.Query != "" {
				continue
			}
			write := NewWrite(namespace, written.Path)
			affected := make(map[Key]int)
			w.affectedLocked(write, func(s *slot) { affected[s.entry.Key]++ })
			for k := range w.store.slots {
				if n := affected[k]; n > 1 || (n == 1) != write.affects(k) {
					t.Fatalf("a write to %q in %q finds %+v %d times; affected: %v", written.Path, namespace, k, n, write.affects(k))
				}
			}
		}
	}
	few := len(w.store.slots)
	for i := range 1000 {
		w.insertLocked(&slot{entry: &Entry{Key: key(fmt.Sprint("kv/data/others/", i))}}, Index{})
	}
	for _, path := range []string{"kv/data/others/none", "kv/data/others/1", "kv" + strings.Repeat("/data/others", 300)} {
		looked := 0
		for _, name := range NewWrite("", path).names() {
			looked += len(w.store.named[name])
		}
		if looked > few {
			t.Errorf("a write to a path of %d bytes looks at %d of %d entries", len(path), looked, len(w.store.slots))
		}
	}
	for _, s := range w.store.slots {
		w.removeLocked(s)
	}
	if n := len(w.store.named); n > 0 {
		t.Errorf("%d names are left", n)
	}
}

// countingTier is a shared tier that counts what it is told to drop.
type countingTier struct {
	*tier
	dropped, longest int
}

func (s *countingTier) Drop(_ context.Context, keys []Key, _ []Capability, _ time.Time) {
	s.dropped += len(keys)
	for _, k := range keys {
		s.longest = max(s.longest, len(k.Path))
	}
}
