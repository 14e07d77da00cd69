package cache

import (
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// permit is what an identity may do with an entry now.
type permit uint8

const (
	denied      permit = iota
	overdue            // the read itself is to be sent, under this identity
	unconfirmed        // what it holds wants confirmation before anything else
	endless            // the same, and the token may have ended
	allowed
)

// How long a capability lasts, in refresh intervals.
const (
	readFor  = 12 // without a read under the identity
	readFrom = 9  // polls make that read beside hits from here on
	busyFor  = 3  // without a confirmation, as the origin refuses it for load and answers others

	restyledFor = 2 // the same, as something in between refuses it
)

// restyled reports whether a status that came without the origin's shape may be about
// the request alone: the origin's refusal, dressed up by something in between, or that
// one's own of what it finds too long.
func restyled(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusRequestEntityTooLarge
}

// check says whether id may see what needs one capability and was asked for by
// another: the latest version by its number, say. A policy may deny the parameter,
// so it has to hold both. What was leased to a token ends with that.
func (a *Access) check(id *Identity, needs, asked Capability, leased bool, now time.Time) (permit, known) {
	a.mu.Lock()
	defer a.mu.Unlock()
	of, ok := a.heldLocked(id, needs, now)
	if ok && asked.Query != needs.Query {
		var other known
		other, ok = a.heldLocked(id, asked, now)
		of = of.older(other)
	}
	bound := a.heard.bound(id.refused, id.own, now)
	switch {
	case !ok:
		return denied, known{}
	case clock.Ended(id.learned, id.token.Expires, now):
		a.resetLocked(id)
		id.known, id.wanted, id.token = false, true, Token{} // Vault rounds it down: it may have a second left
		return denied, known{}
	case leased && (id.token.Hidden || id.ended(now)):
		return denied, known{}
	case leased && !id.own && !id.known:
		id.wanted = true
		return endless, of
	case of.read.IsZero(), !clock.Within(of.read, now, a.every.reads(readFor)), bound > 0 && !a.every.within(of.confirmed, now, bound):
		return overdue, of
	case (!a.every.within(of.confirmed, now, 1) || id.wanted && !id.known) && id.retryDue(now):
		return unconfirmed, of
	}
	return allowed, of
}

// known is what counts of a hold.
type known struct {
	read, confirmed time.Time
	since           time.Time // when it was last confirmed, whatever is doubted
	found           bool      // it has read more than a 404
}

func (k known) older(o known) known {
	earlier := func(a, b time.Time) time.Time {
		if b.Before(a) {
			return b
		}
		return a
	}
	return known{earlier(k.read, o.read), earlier(k.confirmed, o.confirmed), earlier(k.since, o.since), k.found && o.found}
}

// heldLocked returns what counts of id's capability. Capabilities say nothing of the
// mounts preflight (it answers 200 where they say deny), so it counts as confirmed
// with the newest of the identity's capabilities below its mount, and not at all
// without one.
func (a *Access) heldLocked(id *Identity, p Capability, now time.Time) (of known, ok bool) {
	held := id.held[a.index.index[p]]
	if held == nil {
		return known{}, false
	}
	of = known{a.readAtLocked(held), confirmedAt(held), held.confirmed, held.found}
	if _, preflight := preflightPath(p.Path); !preflight {
		return of, true
	}
	of.confirmed, of.since = time.Time{}, time.Time{}
	for c, below := range id.held {
		if !p.HangsOn(c.Capability) {
			continue
		}
		if at := confirmedAt(below); !ok || at.After(of.confirmed) {
			of.confirmed, of.since, ok = at, below.confirmed, true
		}
		if a.every.within(of.confirmed, now, 1) {
			break
		}
	}
	return of, ok
}

func (id *Identity) retryDue(now time.Time) bool {
	return id.retry.IsZero() || !now.Before(id.retry) || !clock.Within(now, id.retry, time.Minute)
}

// interval is the refresh interval, in which a confirmation is due once.
type interval time.Duration

// within reports whether a time is less than n intervals ago.
func (i interval) within(at, now time.Time, n time.Duration) bool {
	return clock.Within(at, now, n*time.Duration(i))
}

// Bounds of readFor intervals.
const (
	readLeast = time.Minute
	readMost  = 24 * time.Hour
)

// reads is how long n intervals without a read are.
func (i interval) reads(n time.Duration) time.Duration {
	return min(max(readFor*time.Duration(i), readLeast), readMost) / readFor * n
}
