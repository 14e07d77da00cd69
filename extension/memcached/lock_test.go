package memcached

import (
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

func TestRotationSeesOldAndNewNames(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	k, r := read("a"), cache.Capability{Path: "a"}
	ring := func(keys ...byte) *Tier {
		return s.tier(t, func(o *TierOptions) { o.Keys = keyring(t, keys...) })
	}
	old, added, moved, dropped := ring(1), ring(1, 2), ring(2, 1), ring(2)
	old.Put(ctx, []cache.Record{s.record(k, "old", 9)})
	old.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: readAt(s.clk.now().Add(-9))})
	for name, x := range map[string]*Tier{"added": added, "moved": moved} {
		if x.body(ctx, k) != "old" || len(x.confirmed(ctx, []cache.Capability{r})) != 1 {
			t.Errorf("%s: what the old key wrote is not found", name)
		}
	}
	if dropped.body(ctx, k) != "miss" {
		t.Error("a key that was dropped still opens")
	}
	// A late writer loses, under whichever name.
	moved.Put(ctx, []cache.Record{s.record(k, "older", 10)})
	moved.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: readAt(s.clk.now().Add(-10))})
	if got := added.body(ctx, k); got != "old" {
		t.Errorf("a late writer with the new key won: %q", got)
	}
	// A newer one wins, and leaves nothing under the old name to come back.
	moved.Put(ctx, []cache.Record{s.record(k, "new", 5)})
	if a, b, c := added.body(ctx, k), dropped.body(ctx, k), old.body(ctx, k); a != "new" || b != "new" || c != "miss" {
		t.Errorf("%q %q %q", a, b, c)
	}
	added.Put(ctx, []cache.Record{s.record(k, "older", 7)})
	if got := moved.body(ctx, k); got != "new" {
		t.Errorf("a late writer with the old key won: %q", got)
	}
	moved.Drop(ctx, nil, []cache.Capability{r}, s.clk.now())
	moved.Remove(ctx, []cache.Key{k}, s.clk.now())
	added.Put(ctx, []cache.Record{s.record(k, "older", 1)})
	added.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: readAt(s.clk.now().Add(-1))})
	for name, x := range map[string]*Tier{"old": old, "added": added, "moved": moved, "dropped": dropped} {
		if got := x.body(ctx, k); got != "miss" {
			t.Errorf("%s: removed, and found %q", name, got)
		}
		if got := x.confirmed(ctx, []cache.Capability{r}); len(got) != 0 {
			t.Errorf("%s: revoked, and granted %v", name, got)
		}
	}
	// Locks exclude across the rotation.
	if _, ok, _ := old.Lock(ctx, "l", time.Minute, false); !ok {
		t.Fatal("not locked")
	}
	if _, ok, _ := moved.Lock(ctx, "l", time.Minute, false); ok {
		t.Error("locked twice, under two names")
	}
	old.PutState(ctx, "s", 1, time.Hour)
	s.clk.advance(1)
	moved.PutState(ctx, "s", 2, time.Hour)
	var n int
	if added.State(ctx, "s", &n); n != 2 {
		t.Errorf("state %d", n)
	}
}

func TestALockHasOneHolder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	a, b := s.tier(t, nil), s.tier(t, nil)
	mine, ok, _ := a.Lock(ctx, "l", 10*time.Second, false)
	if !ok {
		t.Fatal("not locked")
	}
	if _, ok, _ := b.Lock(ctx, "l", time.Minute, false); ok {
		t.Error("locked twice")
	}
	if _, ok, _ := b.Lock(ctx, "other", time.Minute, false); !ok {
		t.Error("another name is locked")
	}
	if _, ok, _ := s.tier(t, func(o *TierOptions) { o.Audience = "dev" }).Lock(ctx, "l", time.Minute, false); !ok {
		t.Error("another audience is locked out")
	}
	if !mine.Renew(ctx) {
		t.Error("not renewed")
	}
	// Held past its time, by the wall clock: another takes it, and the first
	// neither renews nor releases it any more.
	s.clk.advance(12 * time.Second)
	theirs, ok, _ := b.Lock(ctx, "l", 10*time.Second, false)
	if !ok {
		t.Fatal("a lease that is over still holds")
	}
	if mine.Renew(ctx) {
		t.Error("renewed what another holds")
	}
	mine.Release(ctx)
	if !theirs.Renew(ctx) {
		t.Error("released by who no longer held it")
	}
	theirs.Release(ctx)
	if l, ok, _ := a.Lock(ctx, "l", time.Minute, false); !ok {
		t.Error("released, and still held")
	} else {
		l.Release(ctx)
	}
	// Lost by memcached: whoever is first has it.
	if !mine.Renew(ctx) || theirs.Renew(ctx) {
		t.Error("a lost lock is not one holder's")
	}
	// Nonsense in its place, or an old lease put back, locks nobody out.
	name := a.place(kindLock, "l").names[0]
	old := s.dump(t)[name]
	must(t, s.c.Set(ctx, name, []byte("x"), time.Hour))
	if _, ok, _ := b.Lock(ctx, "l", time.Second, false); !ok {
		t.Error("nonsense holds the lock")
	}
	s.clk.advance(time.Minute)
	must(t, s.c.Set(ctx, name, old, time.Hour))
	if _, ok, _ := b.Lock(ctx, "l", time.Second, false); !ok {
		t.Error("a lease put back holds the lock")
	}
	var zero Lease
	if zero.Renew(ctx) {
		t.Error("the zero lease is held")
	}
	zero.Release(ctx)
	must(t, s.m.Flush(ctx))
	var wg sync.WaitGroup
	won := make(chan bool, 20)
	for range 20 {
		wg.Go(func() {
			if _, ok, _ := s.tier(t, nil).Lock(ctx, "race", time.Minute, false); ok {
				won <- true
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d won a race for the lock", len(won))
	}
}

func TestStateIsKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	type progress struct {
		Full time.Time
		Next string
	}
	a, b := s.tier(t, nil), s.tier(t, nil)
	var got progress
	if b.State(ctx, "warm", &got) {
		t.Error("state from nowhere")
	}
	want := progress{s.clk.now().UTC(), "secret/x"}
	a.PutState(ctx, "warm", want, time.Hour)
	if !b.State(ctx, "warm", &got) || !got.Full.Equal(want.Full) || got.Next != want.Next {
		t.Errorf("%+v", got)
	}
	if b.State(ctx, "other", &got) || s.tier(t, func(o *TierOptions) { o.Audience = "dev" }).State(ctx, "warm", &got) {
		t.Error("another's state")
	}
	var number int
	if b.State(ctx, "warm", &number) {
		t.Error("state of another shape")
	}
	a.PutState(ctx, "warm", func() {}, time.Hour) // not JSON: what was there stays
	if !b.State(ctx, "warm", &got) {
		t.Error("gone")
	}
	s.clk.advance(-2 * time.Second)
	if b.State(ctx, "warm", &got) {
		t.Error("state from the future")
	}
}
