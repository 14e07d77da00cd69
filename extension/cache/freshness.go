package cache

import (
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// This file decides whether an entry is still true: judge is a pure function of
// what is known of the entry (record), of the settings (Options), of all entries
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

// judge says whether an entry is still true at now: it is Absent (its time is over),
// Aged, Unverified, Failing or Fresh.
func (o *Options) judge(e *Entry, r *record, m *moment, now time.Time) Hit {
	if clock.Ended(e.FetchedAt, e.Expires, now) {
		return Hit{}
	}
	h := Hit{State: Unverified, Entry: e}
	h.Verified, h.ByIndex = r.newest()
	if at, ok := m.stream.verifies(e, r, h.Verified, o); ok {
		h.Verified, h.ByIndex, h.ByEvents = Revalidation{at, m.epoch}, false, true
	}
	h.True = later(r.trueAt, h.Verified.At)
	if h.True.IsZero() && r.since.IsZero() {
		h.True = e.FetchedAt
	}
	h.Stale = !h.True.IsZero() && !o.Pessimistic && o.StaleIfError > 0 && clock.Within(h.True, now, o.StaleIfError)
	switch {
	case o.TTL > 0 && !clock.Within(e.FetchedAt, now, o.TTL):
		h.State = Aged
	case e.Kind == Other || o.fresh(h.Verified, m, now):
		h.State = Fresh
		return h
	}
	for _, f := range [...]*failure{r.failed, m.failed} {
		if f != nil && f.At.After(h.Verified.At) && f.Epoch == m.epoch && clock.Within(f.At, now, max(o.Recheck, 100*time.Millisecond)) {
			h.State, h.Err = Failing, f.why
			break
		}
	}
	return h
}

// askingTime is what stands for an epoch where no invocation begins one.
const askingTime = 15 * time.Second

// polled reports whether polls read an entry again, that was last known to be true at
// trueAt: it was asked for in one of the last epochs, or should stay one that may be
// served while the origin fails. The others are verified when they are asked for.
func (o *Options) polled(r *record, m *moment, trueAt, now time.Time) bool {
	const parts = 24
	return r.lately(m) || o.StaleIfError > 0 && !clock.Within(trueAt, now, o.StaleIfError/parts)
}

// lately reports whether an entry was asked for in one of the last epochs.
func (r *record) lately(m *moment) bool { return r.asked+4 >= m.asking }

// newest returns the newest verification by a request, and whether that was an index check.
func (r *record) newest() (v Revalidation, byIndex bool) {
	if r.index != nil && r.index.checked.newer(r.read) && !r.index.checked.At.Before(r.since) {
		return r.index.checked, true
	}
	return r.read, false
}

// fresh reports whether a verification counts at now.
func (o *Options) fresh(v Revalidation, m *moment, now time.Time) bool {
	allowed := o.MaxAge + o.Recheck
	switch {
	case v.At.IsZero():
		return false
	case o.TTLOnly:
		return clock.Within(v.At, now, max(allowed, o.TTL))
	case !clock.Within(v.At, now, allowed):
		return false
	case v.Epoch == sharedEpoch && o.MaxAge > 0 && !v.At.Before(m.began):
		return true // another instance verified it since this epoch began
	}
	return v.Epoch == m.epoch || o.MaxAge > 0 && clock.Within(v.At, m.began, o.MaxAge)
}
