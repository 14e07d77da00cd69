package cache

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// tier is a shared tier in memory, for this instance and for what others read.
type tier struct {
	mu      sync.Mutex // guards the fields below while the cache may ask
	records map[Key]Record
	grants  map[Capability]Confirmation
}

func newTier() *tier {
	return &tier{records: make(map[Key]Record), grants: make(map[Capability]Confirmation)}
}

func (s *tier) Fetch(_ context.Context, keys []Key) ([]Record, map[Capability]Confirmation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var records []Record
	grants := make(map[Capability]Confirmation)
	for _, k := range keys {
		if r, ok := s.records[k]; ok {
			records = append(records, r)
		}
		if c, ok := s.grants[k.Capability()]; ok {
			grants[k.Capability()] = c
		}
	}
	return records, grants
}

func (s *tier) Keep(_ context.Context, records []Record, confirmed map[Capability]Confirmation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.records[r.Key] = r
	}
	for p, c := range confirmed {
		s.grants[p] = c
	}
}

func (s *tier) Drop(_ context.Context, keys []Key, lost []Capability, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		delete(s.records, k)
	}
	for _, p := range lost {
		c := s.grants[p]
		c.Ended = at
		s.grants[p] = c
	}
}

// put has another instance keep what it read.
func (s *tier) put(k Key, body string, a Index, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[k] = Record{Entry: Entry{Key: k, Kind: Data, Status: 200, Body: []byte(body), FetchedAt: at}, SentAt: at, Index: a}
}

// TestAnotherAnswersStampEndsWhatWasVerifiedBefore: another instance found another
// answer, so ours is not fresh, however young its verification is.
func TestAnotherAnswersStampEndsWhatWasVerifiedBefore(t *testing.T) {
	t.Parallel()
	shared := newTier()
	w := newWorld(t, func(o *Options) { o.MaxAge, o.Skew, o.Shared = time.Minute, time.Second, shared })
	k := key("secret/data/a")
	w.origin.put(k.Path, "one")
	w.load(k, "")
	own := w.look(k, "", w.clock.now()).Entry
	w.Begin(w.clock.add(5 * time.Second))
	if !w.Stamped(k, Stamp{w.clock.now().Add(-time.Second), Fingerprint(own.Status, own.Body)}) {
		t.Error("the same answer is another one")
	}
	w.expect(k, "", Fresh, "one")
	if w.Stamped(k, Stamp{w.clock.now().Add(-4 * time.Second), [32]byte{1}}) {
		t.Error("another answer is the same")
	}
	w.expect(k, "", Fresh, "one") // its stamp is older
	w.Stamped(k, Stamp{w.clock.now(), [32]byte{1}})
	w.expect(k, "", Unverified, "one")
	w.Revalidate(w.origin.Index(t.Context(), 0), Revalidation{w.clock.now(), w.Epoch()})
	w.expect(k, "", Unverified, "one")
	// It was true until just now: while the origin is away it may be served.
	if hit := w.look(k, "", w.clock.now()); !hit.Stale || !hit.True.Equal(w.clock.now().Add(-2*time.Second)) {
		t.Errorf("true at %v, may be stale: %v", hit.True, hit.Stale)
	}
}

// TestAdoptNewerTakesWhatTheCursorProves: after the cursor moved, what another
// instance read since then spares the read of the origin.
func TestAdoptNewerTakesWhatTheCursorProves(t *testing.T) {
	t.Parallel()
	shared := newTier()
	w := newWorld(t, func(o *Options) { o.Shared = shared })
	k := key("secret/data/a")
	w.origin.put(k.Path, "one")
	w.load(k, "")
	w.origin.put(k.Path, "two")
	at := w.origin.Index(t.Context(), 0)
	epoch := w.Begin(w.clock.add(time.Second))
	shared.put(k, v2("two", 2), at, w.clock.now().Add(-time.Millisecond))
	w.Revalidate(at, Revalidation{w.clock.now(), epoch})
	w.expect(k, "", Unverified, "one")
	w.FillNewer(t.Context(), []Key{k})
	w.expect(k, "", Fresh, "two")
	shared.put(k, v2("one", 1), at, w.clock.now().Add(-time.Second))
	w.FillNewer(t.Context(), []Key{k})
	w.expect(k, "", Fresh, "two") // never an older one
}

// TestG1AClockSetBackHidesNoAgeOfWhatOthersTold: their times have no monotonic
// reading, so a step back would make a verification of a minute ago one of now,
// and a right confirmed long ago a fresh one.
func TestG1AClockSetBackHidesNoAgeOfWhatOthersTold(t *testing.T) {
	t.Parallel()
	shared := newTier()
	w := newWorld(t, func(o *Options) {
		o.MaxAge, o.Recheck, o.RefreshInterval, o.Shared = time.Minute, time.Second, 5*time.Minute, shared
	})
	stamped, adopted := key("secret/data/a"), key("secret/data/b")
	began := time.Now() // a time with a monotonic reading, as the process has it
	w.clock.set(began)
	w.origin.put(stamped.Path, "one")
	w.load(stamped, "")
	shared.put(adopted, v2("two", 1), Index{}, began.Round(0))
	shared.grants[adopted.Capability()] = Confirmation{Read: began.Round(0), At: began.Round(0)}
	if got := w.FillShared(t.Context(), adopted); !got {
		t.Fatalf("adopted: %v", got)
	}
	if !w.Stamped(stamped, Stamp{began.Add(2 * time.Second).Round(0), Fingerprint(200, w.look(stamped, "", began).Entry.Body)}) {
		t.Fatal("the stamp is of another answer")
	}
	later := began.Add(40 * time.Second)
	w.Begin(w.clock.set(later))
	w.expect(stamped, "", Fresh, "one")
	w.expect(adopted, "", Fresh, "two")
	// The monotonic clock goes on; the wall clock is where it was a while ago.
	back := thawed(t, later, -35*time.Second)
	w.clock.set(back)
	if back.Sub(later) != 0 || w.look(stamped, "", back).State == Fresh {
		t.Error("verified by another's stamp of unknown age")
	}
	if s := w.look(adopted, "", back).State; s != Aged {
		t.Errorf("a right that another confirmed, at an unknown time: %v", s)
	}
}

// TestG1NothingOlderThanAnOwnWriteIsFilled: the cursor of this epoch was asked
// for before the write, so it proves what the write replaced; and Drop may not
// have got there.
func TestG1NothingOlderThanAnOwnWriteIsFilled(t *testing.T) {
	t.Parallel()
	shared := newTier()
	w := newWorld(t, func(o *Options) { o.Shared, o.Skew = shared, time.Second })
	k, untouched := key("secret/data/a"), key("secret/data/b")
	read := w.clock.now()
	anchor := w.origin.Index(t.Context(), 0)
	w.Revalidate(anchor, Revalidation{read, w.Begin(read)})
	write := NewWrite("", "secret/data/a")
	w.BeginWrite(write)
	written := w.clock.add(100 * time.Millisecond)
	w.EndWrite(write, false)
	for _, tt := range []struct {
		key    Key
		sent   time.Time
		filled bool
		state  State
		stale  bool // it may be served, marked so, if the origin is away
	}{
		{k, read.Add(-time.Second), false, Absent, false},
		{k, written.Add(-time.Second + 1), true, Unverified, false}, // by a clock that may be a second behind
		{k, written.Add(time.Second), true, Unverified, false},      // or ahead
		{k, written.Add(time.Second + 1), true, Unverified, true},
		{untouched, read, true, Fresh, true},
	} {
		shared.put(tt.key, v2("one", 1), anchor, tt.sent)
		shared.grants[tt.key.Capability()] = Confirmation{Read: read, At: read}
		w.Purge("", "")
		if got := w.FillShared(t.Context(), tt.key); got != tt.filled {
			t.Errorf("%s, verified %v after the write: %v, want %v", tt.key.Path, tt.sent.Sub(written), got, tt.filled)
		}
		h := w.look(tt.key, "", w.clock.now())
		if h.State != tt.state || h.Stale != tt.stale {
			t.Errorf("%s, verified %v after the write: %v, want %v; may be served marked stale: %v", tt.key.Path, tt.sent.Sub(written), h.State, tt.state, h.Stale)
		}
	}
	// The next epoch's cursor is asked for after the write.
	w.Purge("", "")
	shared.put(k, v2("one", 1), anchor, written.Add(time.Second))
	w.FillShared(t.Context(), k)
	now := w.clock.add(time.Millisecond)
	w.Revalidate(anchor, Revalidation{now, w.Begin(now)})
	w.expect(k, "", Fresh, "one")
	for i := range maxEnded + 1 {
		other := NewWrite("", fmt.Sprint("secret/data/", i))
		w.BeginWrite(other)
		w.EndWrite(other, false)
	}
	if n := len(w.written.known); n != maxEnded {
		t.Errorf("%d writes are kept", n)
	}
	w.Purge("", "")
	shared.put(k, v2("one", 1), anchor, read.Add(-time.Second))
	if got := w.FillShared(t.Context(), k); got {
		t.Errorf("a write among too many to keep: %v", got)
	}
}

// TestAStampVerifiesOnlyTheAnswerItWasComparedWith: while the fingerprint of a long
// answer is made, a read may bring another.
func TestAStampVerifiesOnlyTheAnswerItWasComparedWith(t *testing.T) {
	t.Parallel()
	shared := newTier()
	w := newWorld(t, func(o *Options) { o.MaxAge, o.Skew, o.Shared, o.Bytes = time.Minute, time.Second, shared, 16<<20 })
	k := key("secret/data/a")
	long := strings.Repeat("x", 1<<20)
	for i := range 20 {
		w.origin.put(k.Path, long)
		w.load(k, "")
		old := w.look(k, "", w.clock.now()).Entry
		stamp := Stamp{w.clock.now().Add(2 * time.Second), Fingerprint(old.Status, old.Body)}
		w.origin.put(k.Path, "short")
		stamped := make(chan struct{})
		go func() {
			defer close(stamped)
			w.Stamped(k, stamp)
		}()
		if _, err := w.Load(t.Context(), Want{Key: k, ID: w.Own(), Alone: true}); err != nil {
			t.Fatal(err)
		}
		<-stamped
		if h := w.look(k, "", w.clock.now()); h.Entry.Version == 2*i+2 && h.Verified.Epoch == sharedEpoch {
			t.Fatal("verified by the stamp of another answer")
		}
	}
}

// TestG4WhatWasReadSinceAnOwnWriteStays: what another instance read just then may be
// from before the write, as clocks may be. It takes no place of what was read here since.
func TestG4WhatWasReadSinceAnOwnWriteStays(t *testing.T) {
	t.Parallel()
	shared := newTier()
	w := newWorld(t, func(o *Options) { o.Shared, o.Skew, o.StaleIfError = shared, time.Second, time.Hour })
	k := key("secret/data/a")
	write := NewWrite("", k.Path)
	w.BeginWrite(write)
	w.EndWrite(write, false)
	w.clock.add(20 * time.Millisecond)
	w.origin.put(k.Path, "two")
	w.load(k, "")
	for _, sent := range []time.Duration{-2 * time.Second, time.Millisecond, 500 * time.Millisecond} {
		shared.put(k, v2("other", 2), Index{}, w.clock.now().Add(sent))
		shared.grants[k.Capability()] = Confirmation{Read: w.clock.now(), At: w.clock.now()}
		w.FillNewer(t.Context(), []Key{k})
		if h := w.look(k, "", w.clock.now()); h.State != Fresh || !h.Stale || !strings.Contains(string(h.Entry.Body), "two") {
			t.Errorf("another's read, sent %v later: state %v, may be served in an outage: %v, %s", sent, h.State, h.Stale, h.Entry.Body)
		}
	}
	// When the clocks cannot be that far apart any more, the newer one counts.
	shared.put(k, v2("other", 2), Index{}, w.clock.add(2*time.Second))
	w.FillNewer(t.Context(), []Key{k})
	if h := w.look(k, "", w.clock.now()); h.Entry == nil || !strings.Contains(string(h.Entry.Body), "other") {
		t.Errorf("state %v", h.State)
	}
}
