package cache

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

// streaming is a world with a stream that tells of everything, and one entry
// that was read when it began.
func streaming(t *testing.T) (*world, time.Time) {
	w := newWorld(t, func(o *Options) { o.Lag, o.Reconcile = 2*time.Second, 30*time.Second })
	w.origin.cursors = false
	w.origin.put("secret/data/a", "x")
	since := w.clock.now()
	w.Whole(since, since)
	w.load(key("secret/data/a"), "")
	for k := range w.Uncovered() {
		w.Cover(map[Key]bool{k: true})
	}
	return w, since
}

// whole says that the stream is whole up to now.
func (w *world) whole(since time.Time) { w.Whole(since, w.clock.now()) }

func TestG1AStreamVerifiesWhatWasReadAfterItAndItsLastChange(t *testing.T) {
	t.Parallel()
	w, since := streaming(t)
	k := key("secret/data/a")
	w.clock.add(1500 * time.Millisecond)
	w.whole(since)
	w.expect(k, "", Unverified, "") // a node that lags may have answered
	w.clock.add(time.Second)
	w.load(k, "")
	w.clock.add(5 * time.Second)
	w.expect(k, "", Unverified, "") // nothing was heard since
	w.whole(since)
	w.expect(k, "", Fresh, "x")
	if h := w.look(k, "", w.clock.now()); !h.ByEvents || h.ByIndex {
		t.Errorf("verified by the stream: %v, by a cursor: %v", h.ByEvents, h.ByIndex)
	}
	w.clock.add(31 * time.Second)
	w.whole(since)
	w.expect(k, "", Unverified, "") // to be reconciled
	w.load(k, "")
	w.clock.add(3 * time.Second)
	w.whole(since)
	w.expect(k, "", Fresh, "x")
	w.Whole(time.Time{}, time.Time{}) // it ended
	w.expect(k, "", Unverified, "")
	later := w.clock.now()
	w.whole(later) // and began anew: what was read before it does not count
	w.clock.add(3 * time.Second)
	w.whole(later)
	w.expect(k, "", Unverified, "")
}

func TestG1AChangeIsNotServedOld(t *testing.T) {
	t.Parallel()
	w, since := streaming(t)
	k := key("secret/data/a")
	w.clock.add(3 * time.Second)
	w.load(k, "")
	w.whole(since)
	w.expect(k, "", Fresh, "x")
	checks := w.Changed(NewWrite("", "secret/destroy/a"))
	if len(checks) != 1 || checks[0].Key != k || checks[0].ID != w.Own() {
		t.Fatalf("to read again: %v", checks)
	}
	w.whole(since)
	w.expect(k, "", Unverified, "")
	// A read that follows, of a node that may lag, counts for its own time only.
	w.clock.add(100 * time.Millisecond)
	w.load(k, "")
	w.expect(k, "", Fresh, "x")
	w.clock.add(1500 * time.Millisecond)
	w.whole(since)
	w.expect(k, "", Unverified, "")
	// One of a node that has the change counts for as long as nothing is heard.
	if _, err := w.Load(t.Context(), Want{Key: k, ID: w.Own(), Alone: true, After: &Change{}}); err != nil {
		t.Fatal(err)
	}
	w.clock.add(1500 * time.Millisecond)
	w.whole(since)
	w.expect(k, "", Fresh, "x")
	// But not if the origin could not make sure of that.
	w.Changed(NewWrite("", "secret/data/a"))
	if _, err := w.Load(t.Context(), Want{Key: k, ID: w.Own(), Alone: true, After: &Change{Weak: true}}); err != nil {
		t.Fatal(err)
	}
	w.clock.add(1500 * time.Millisecond)
	w.whole(since)
	w.expect(k, "", Unverified, "")
}

func TestAStreamCountsForWhatItTellsOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Reconcile = 30 * time.Second })
	w.origin.cursors = false
	w.origin.put("secret/data/a", "x")
	w.load(key("secret/data/a"), "")
	if got := w.Uncovered(); got != nil {
		t.Errorf("without a stream: %v", got)
	}
	since := w.clock.now()
	w.whole(since)
	got := w.Uncovered()
	want := []string{"secret/data/a", "secret/metadata/a", "secret/delete/a", "secret/undelete/a", "secret/destroy/a"}
	if len(got) != 1 || !slices.Equal(got[key("secret/data/a")], want) {
		t.Fatalf("%v", got)
	}
	w.Cover(map[Key]bool{key("secret/data/a"): false})
	if again := slices.Collect(maps.Keys(w.Uncovered())); len(again) != 0 {
		t.Errorf("asked again: %v", again)
	}
	w.clock.add(3 * time.Second)
	w.load(key("secret/data/a"), "")
	w.clock.add(2 * time.Second)
	w.whole(since)
	w.expect(key("secret/data/a"), "", Unverified, "")
	w.clock.add(5 * time.Minute)
	if len(w.Uncovered()) != 1 {
		t.Error("rights are taken for what they were for ever")
	}
}

// A mount may have slashes in its path, and segments that look like a kind.
func TestG1ItIsAskedForTheRightsOfTheMountsOwnPaths(t *testing.T) {
	t.Parallel()
	below := func(mount, key string) (paths []string) {
		for _, kind := range []string{"data", "metadata", "delete", "undelete", "destroy"} {
			paths = append(paths, mount+"/"+kind+"/"+key)
		}
		return paths
	}
	for path, want := range map[string][]string{
		"secret/data/a":                  below("secret", "a"),
		"team/kv/data/a":                 below("team/kv", "a"),
		"team/kv/data/b/c":               below("team/kv", "b/c"),
		"metadata/kv/data/a":             below("metadata/kv", "a"),
		"team/data/data/a":               slices.Concat(below("team", "data/a"), below("team/data", "a")), // either may be it
		"known/data/data/a":              below("known/data", "a"),
		"secret/data/a/data/b/data/c":    slices.Concat(below("secret", "a/data/b/data/c"), below("secret/data/a", "b/data/c"), below("secret/data/a/data/b", "c")),
		"x/data/data/data/data/data/key": nil, // too many: polled
	} {
		w := newWorld(t, func(o *Options) { o.Mounts = []Mount{{Path: "known/data", Version: 2}} })
		w.origin.put(path, "x")
		w.load(key(path), "")
		w.whole(w.clock.now())
		if got := w.Uncovered()[key(path)]; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
		if _, again := w.Uncovered()[key(path)]; again != (want != nil) {
			t.Errorf("%s: asked again: %v", path, again)
		}
	}
}

func TestManyChangesAreRememberedAsOne(t *testing.T) {
	t.Parallel()
	w, _ := streaming(t)
	for i := range 3 * maxRecent {
		w.Changed(NewWrite("", fmt.Sprint("other/data/", i)))
	}
	if n := len(w.moment.stream.recent.known); n > maxRecent {
		t.Errorf("%d are remembered", n)
	}
	if w.moment.stream.recent.of(key("secret/data/a"), time.Time{}).IsZero() {
		t.Error("what was forgotten is not taken for a change of everything")
	}
	w.clock.add(time.Hour)
	w.Changed(NewWrite("", "other/data/x"))
	if at := w.moment.stream.recent.of(key("secret/data/a"), time.Time{}); !at.IsZero() {
		t.Errorf("long after, everything is taken for changed at %v", at)
	}
}

// TestG6WhatAStreamCoversIsAskedOnce: also of more secrets than are remembered when they
// are cached no more.
func TestG6WhatAStreamCoversIsAskedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Bytes = 1 << 24 })
	w.whole(w.clock.now())
	store := func(path string) {
		w.Cache.mu.Lock()
		defer w.Cache.mu.Unlock()
		w.insertLocked(&slot{entry: &Entry{Key: key(path), Kind: KV1}}, Index{})
	}
	cover := func() {
		told := make(map[Key]bool)
		for k := range w.Uncovered() {
			told[k] = true
		}
		w.Cover(told)
	}
	for i := range maxCovered + 1 {
		store(fmt.Sprint("kv/", i))
	}
	cover()
	if left := w.Uncovered(); len(left) > 0 {
		t.Errorf("%d are asked for once more", len(left))
	}
	w.Purge("", "kv/")
	store("kv/a")
	cover()
	if n := len(w.moment.stream.covered); n > 1 {
		t.Errorf("%d are remembered, and one is cached", n)
	}
}

// TestAStreamMayEndWhileItsSecretsAreListed: others have the lock in between.
func TestAStreamMayEndWhileItsSecretsAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Bytes = 1 << 24 })
	since := w.clock.now()
	for i := range 2 * piece {
		w.Cache.mu.Lock()
		w.insertLocked(&slot{entry: &Entry{Key: key(fmt.Sprint("kv/", i)), Kind: Data}}, Index{})
		w.Cache.mu.Unlock()
	}
	for range 100 {
		w.whole(since)
		var ending sync.WaitGroup
		ending.Go(func() { w.Whole(time.Time{}, since) })
		w.Uncovered()
		ending.Wait()
	}
}
