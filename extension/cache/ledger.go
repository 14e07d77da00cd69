package cache

import (
	"net/http"
	"runtime"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Ledger records what verifies entries, and what casts doubt on them. Whether
// one is still true by that is for judge to say. Cache.mu guards it.
type Ledger struct {
	c      *Cache
	moment moment
	groups map[Index]*group
	latest *group    // of the last index check; counts for entries that come later, too
	looked time.Time // when the clocks were last compared; see watchClockLocked
}

// Begin starts a new epoch: verifications sent before now count only within
// MaxAge from here on. It returns the epoch's number.
func (l *Ledger) Begin(now time.Time) uint64 {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.watchClockLocked(now)
	l.moment.epoch++
	l.moment.asking++
	l.moment.began = now
	return l.moment.epoch
}

// Epoch returns the number of the running epoch.
func (l *Ledger) Epoch() uint64 {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	return l.moment.epoch
}

// Heard returns what the origin answered of late.
func (l *Ledger) Heard() *Heard { return &l.c.access.heard }

// Revalidate records that a request sent at v.At found the origin's index where
// index says: every entry that was read at that index is verified as of v. It
// costs the same however many there are.
func (l *Ledger) Revalidate(index Index, v Revalidation) {
	if index.Zero() {
		return
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	g := l.joinLocked(index)
	if v.newer(g.checked) {
		g.checked = v
	}
	if l.latest != nil && !v.newer(l.latest.checked) && g != l.latest {
		l.leaveLocked(g)
		return
	}
	l.leaveLocked(l.latest)
	l.latest = g
}

// RevalidateShared is Revalidate for an index that another instance asked for at
// sentAt.
func (l *Ledger) RevalidateShared(index Index, sentAt time.Time) {
	l.Revalidate(index, Revalidation{sentAt.Add(-l.c.o.Skew), sharedEpoch})
}

// joinLocked returns the group of an index for one more entry; nil for none.
func (l *Ledger) joinLocked(index Index) *group {
	if index.Zero() {
		return nil
	}
	k := index
	k.FirstSeen = time.Time{} // of which two may differ
	g := l.groups[k]
	if g == nil {
		g = &group{at: k}
		l.groups[k] = g
	}
	g.entries++
	return g
}

// readLocked takes in that a read at index found, as of v, what is held.
func (l *Ledger) readLocked(r *record, index Index, v Revalidation) {
	if newest, _ := r.newest(); !newest.newer(v) { // else an index check was quicker
		l.leaveLocked(r.index)
		r.index = l.joinLocked(index)
	}
	r.read = v
}

func (l *Ledger) leaveLocked(g *group) {
	if g == nil {
		return
	}
	if g.entries--; g.entries == 0 {
		delete(l.groups, g.at)
	}
}

// Fail records that a verification of everything was tried at v.At and that the
// origin failed it. Under the pessimistic behaviour that ends everything that is
// cached.
func (l *Ledger) Fail(v Revalidation, err error) {
	l.c.mu.Lock()
	l.moment.failed = &failure{v, err}
	l.c.mu.Unlock()
	if l.c.o.Pessimistic {
		l.c.Clear()
	}
}

// judgeLocked says whether a slot's entry is still true; while a write may change it,
// it is as if it were not there.
func (l *Ledger) judgeLocked(s *slot, now time.Time) Hit {
	if s.aside > 0 {
		return Hit{}
	}
	return l.c.o.judge(s.entry, &s.truth, &l.moment, now)
}

// done reports whether an entry is verified at now, or its time over, as it is judged.
func (l *Ledger) done(h Hit, now time.Time) bool {
	return h.State == Absent || l.c.o.fresh(h.Verified, &l.moment, now)
}

// doubtLocked takes in that a slot's answer is not, or no more, what the origin
// answers: it is not verified, and no index check can change that. It stays known
// when it was last true.
func (l *Ledger) doubtLocked(s *slot, now time.Time) {
	t := &s.truth
	t.trueAt = l.c.o.judge(s.entry, t, &l.moment, now).True
	l.leaveLocked(t.index)
	t.read, t.index = Revalidation{}, nil
	e := *s.entry
	s.entry = &e // so that whoever compared the other one meanwhile verifies nothing
}

// piece is how many entries are looked at before others may have the lock.
const piece = 256

// enough is more than a poll has time to read again.
const enough = 4096

// Unverified lists the keys of the entries that are not verified at now and that polls
// read again, most recently used first.
func (l *Ledger) Unverified(now time.Time) []Key {
	l.c.mu.Lock()
	m := &l.moment
	whole := m.epoch > 0 // else once in a while: what was asked for last comes first
	if !whole && clock.Elapsed(m.turned, now) >= askingTime {
		m.asking++
		m.turned, whole = now, true
	}
	l.c.mu.Unlock()
	var out []Key
	l.walk(func(s *slot) bool {
		if s.entry.Kind != Other && !clock.Within(s.truth.passed, now, passedFor) {
			if h := l.judgeLocked(s, now); !l.done(h, now) && l.c.o.polled(&s.truth, m, h.True, now) {
				out = append(out, s.entry.Key)
			}
		}
		return whole || s.truth.lately(m) && len(out) < enough
	})
	return out
}

// AllVerified reports whether all that an index check could verify is verified at now.
func (l *Ledger) AllVerified(now time.Time) (all bool) {
	all = true
	l.walk(func(s *slot) bool {
		all = s.entry.Kind == Other || l.done(l.judgeLocked(s, now), now)
		return all
	})
	return all
}

// Held lists the keys of all entries that a stamp could verify.
func (l *Ledger) Held() []Key {
	var out []Key
	l.walk(func(s *slot) bool {
		if s.entry.Kind != Other {
			out = append(out, s.entry.Key)
		}
		return true
	})
	return out
}

// walk visits all slots, and lets others have the lock now and then.
func (l *Ledger) walk(visit func(*slot) bool) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.store.walk(piece, visit, func() {
		l.c.mu.Unlock()
		runtime.Gosched() // else this goroutine has it again before who waits is awake
		l.c.mu.Lock()
	})
}

// passedFor is how long polls leave out what they have nobody's token for.
const passedFor = time.Minute

// PassOver has polls leave out key's entry for a minute from now on, or until it is
// asked for: they have nobody's token to read it with.
func (l *Ledger) PassOver(key Key, now time.Time) {
	l.look(key, func(s *slot) { s.truth.passed = now })
}

// look gives key's slot to f, under the lock, if there is one.
func (l *Ledger) look(key Key, f func(*slot)) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if s := l.c.store.slots[key]; s != nil {
		f(s)
	}
}

// Verified reports whether key's entry is gone or verified at now.
func (l *Ledger) Verified(key Key, now time.Time) (done bool) {
	done = true
	l.look(key, func(s *slot) { done = l.done(l.judgeLocked(s, now), now) })
	return done
}

// Stamped records that another instance verified key's answer, by a stamp. It
// reports false when the answer held here is another one; that one is not
// verified any more, unless it was by a request that was certainly sent later.
func (l *Ledger) Stamped(key Key, stamp Stamp) bool {
	e, sum := l.fingerprint(key)
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	s := l.c.store.slots[key]
	if s == nil || s.entry != e {
		return true // gone, or read meanwhile: the stamp was not compared with what is here now
	}
	if *sum != stamp.Fingerprint {
		if s.entry.Status == http.StatusNotFound && stamp.Fingerprint == ([32]byte{}) {
			return true // the other has nothing either: a 404 is kept where it was read
		}
		now := l.c.o.Now()
		if stamp.At.Add(l.c.o.Skew).After(l.judgeLocked(s, now).Verified.At) {
			l.doubtLocked(s, now)
		}
		return false
	}
	if v := (Revalidation{stamp.At.Add(-l.c.o.Skew), sharedEpoch}); v.newer(s.truth.read) && !v.At.Before(s.truth.since) {
		s.truth.read = v
	}
	return true
}

// fingerprint returns key's entry with its fingerprint; nil where there is none. No read
// waits while it is made.
func (l *Ledger) fingerprint(key Key) (e *Entry, sum *[32]byte) {
	l.look(key, func(s *slot) { e, sum = s.entry, s.entry.sum })
	if e != nil && sum == nil {
		made := Fingerprint(e.Status, e.Body)
		sum = &made
		l.look(key, func(*slot) { e.sum = sum })
	}
	return e, sum
}

// SharedLately reports whether another instance verified what is held for key,
// not longer ago than three times MaxAge: others that are awake want it too.
func (l *Ledger) SharedLately(key Key, now time.Time) (lately bool) {
	l.look(key, func(s *slot) {
		lately = s.truth.read.Epoch == sharedEpoch && clock.Within(s.truth.read.At.Add(l.c.o.Skew), now, 3*l.c.o.MaxAge)
	})
	return lately
}

// clockStep is more than the wall clock falls back between two looks by running
// slower for a while.
const clockStep = 50 * time.Millisecond

// watchClockLocked sees that the wall clock was set back since the last look.
// The times that come from other instances are on the wall clock alone, which would
// make them younger than they are: they count no more. Our
// own have a monotonic reading.
func (l *Ledger) watchClockLocked(now time.Time) {
	last := l.looked
	l.looked = now
	if l.c.o.Shared == nil || last.IsZero() || clock.Step(last, now) > -clockStep {
		return
	}
	for _, g := range l.groups {
		if g.checked.Epoch == sharedEpoch {
			g.checked = Revalidation{}
		}
	}
	for _, s := range l.c.store.slots {
		t := &s.truth
		if t.read.Epoch == sharedEpoch {
			t.read = Revalidation{}
		}
		if t.trueAt == clock.Wall(t.trueAt) { // of another instance
			t.trueAt = time.Time{}
		}
	}
	l.c.access.setBack()
}
