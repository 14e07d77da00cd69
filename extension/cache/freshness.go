package cache

import (
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// This file decides whether an entry is still true: judge is a pure function of
// what is known of the entry (record), of the settings (policy), of all entries
// (moment), and of the time. Index checks, reads, other instances' stamps, a
// subscription to events and own writes only change the records and the moment,
// by the methods of Ledger.

// record is what is known of one entry's truth.
type record struct {
	read   Revalidation // newest by a read of its own, or by another instance's
	index  *group       // entries with the same recorded index; nil: it has none
	since  time.Time    // it changed then: what was sent before does not verify it
	trueAt time.Time    // when it was known to be true before that
	failed *failure     // newest attempt that the origin failed; nil: none
	asked  uint64       // moment.asking when it was last asked for
	passed time.Time    // when, since then, a poll had nobody's token to read it with
}

// failure is an attempt to verify that the origin failed.
type failure struct {
	Revalidation
	why error
}

// group is what index checks tell of all entries that were read at one recorded
// index: one check verifies all of them, however many there are.
type group struct {
	at      Index
	checked Revalidation
	entries int
}

// policy is what the settings say of freshness; the fields are those of Options.
type policy struct {
	maxAge, recheck, ttl, staleIfError, lag, reconcile time.Duration
	ttlOnly, pessimistic                               bool
}

// moment is what is known of all entries together.
type moment struct {
	epoch  uint64
	began  time.Time // the epoch
	asking uint64    // counts epochs, or where there are none quarters of a minute
	turned time.Time // when the last quarter began
	failed *failure  // the last verification of everything that the origin failed; nil: none
	stream listening
}

// sharedEpoch marks a verification by another instance: it belongs to none of
// our epochs, and counts within MaxAge only.
const sharedEpoch = 1<<64 - 1

// means says what verified an entry.
type means uint8

const (
	byRead   means = iota // a read of its own
	byIndex               // an index check
	byEvents              // a subscription that notified of no change
)

// standing is what comes of it.
type standing struct {
	state    State        // Absent (its time is over), Aged, Unverified, Failing or Fresh
	verified Revalidation // newest
	by       means
	trueAt   time.Time // when the answer was last known to be true; zero: it may be of before an own write
	stale    bool      // it may be served although unverified while the origin fails
	failure  error     // why it is Failing
}

// judge says whether an entry is still true at now.
func (p *policy) judge(e *Entry, r *record, m *moment, now time.Time) standing {
	if clock.Ended(e.FetchedAt, e.Expires, now) {
		return standing{}
	}
	s := standing{state: Unverified}
	s.verified, s.by = r.newest()
	if by, ok := m.stream.verifies(e, r, s.verified, p); ok {
		s.verified, s.by = Revalidation{by, m.epoch}, byEvents
	}
	s.trueAt = r.trueAt
	if s.verified.At.After(s.trueAt) {
		s.trueAt = s.verified.At
	}
	if s.trueAt.IsZero() && r.since.IsZero() {
		s.trueAt = e.FetchedAt
	}
	s.stale = !s.trueAt.IsZero() && !p.pessimistic && p.staleIfError > 0 && clock.Within(s.trueAt, now, p.staleIfError)
	switch {
	case p.ttl > 0 && !clock.Within(e.FetchedAt, now, p.ttl):
		s.state = Aged
	case e.Kind == Other || p.fresh(s.verified, m, now):
		s.state = Fresh
		return s
	}
	for _, f := range [...]*failure{r.failed, m.failed} {
		if f != nil && f.At.After(s.verified.At) && f.Epoch == m.epoch && clock.Within(f.At, now, max(p.recheck, 100*time.Millisecond)) {
			s.state, s.failure = Failing, f.why
			break
		}
	}
	return s
}

// askingTime is what stands for an epoch where no invocation begins one.
const askingTime = 15 * time.Second

// polled reports whether polls read an entry again, that was last known to be true at
// trueAt: it was asked for in one of the last epochs, or should stay one that may be
// served while the origin fails. The others are verified when they are asked for.
func (p *policy) polled(r *record, m *moment, trueAt, now time.Time) bool {
	const parts = 24
	return r.lately(m) || p.staleIfError > 0 && !clock.Within(trueAt, now, p.staleIfError/parts)
}

// lately reports whether an entry was asked for in one of the last epochs.
func (r *record) lately(m *moment) bool { return r.asked+4 >= m.asking }

// newest returns the newest verification by a request.
func (r *record) newest() (Revalidation, means) {
	if r.index != nil && r.index.checked.newer(r.read) && !r.index.checked.At.Before(r.since) {
		return r.index.checked, byIndex
	}
	return r.read, byRead
}

// fresh reports whether a verification counts at now.
func (p *policy) fresh(v Revalidation, m *moment, now time.Time) bool {
	allowed := p.maxAge + p.recheck
	switch {
	case v.At.IsZero():
		return false
	case p.ttlOnly:
		return clock.Within(v.At, now, max(allowed, p.ttl))
	case !clock.Within(v.At, now, allowed):
		return false
	case v.Epoch == sharedEpoch && p.maxAge > 0 && !v.At.Before(m.began):
		return true // another instance verified it since this epoch began
	}
	return v.Epoch == m.epoch || p.maxAge > 0 && clock.Within(v.At, m.began, p.maxAge)
}
