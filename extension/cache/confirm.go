package cache

import (
	"context"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Learned records what is known of a caller's token. Of one whose uses are counted
// nothing is kept. What was asked before a renewal or a revocation tells nothing of
// what came of it.
func (a *Access) Learned(id *Identity, t Token) {
	defer a.lock()()
	if a.holders[id] && (t.Asked.IsZero() || t.Asked.After(id.unsureAt)) {
		id.learned, id.token, id.known, id.wanted = a.o.Now(), t, true, false
		if t.Counted {
			a.emptyLocked(id)
		}
	}
}

// Unsure makes what callers hold wait for a confirmation: a token was revoked through
// the proxy. children: only those of others can have ended with it. What was leased to
// them may have ended, too.
func (a *Access) Unsure(children bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range a.callers {
		if !children || !id.token.Orphan {
			id.makeUnsure(a.o.Now())
			id.EndLeases()
		}
	}
}

// Renewed makes the end of a caller's token be asked for anew, and what it holds wait
// for that; an empty token means all.
func (a *Access) Renewed(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for of, id := range a.callers {
		if token == "" || of == token {
			id.makeUnsure(a.o.Now())
			id.known = false
		}
	}
}

func (id *Identity) makeUnsure(now time.Time) {
	id.unsure++
	id.unsureAt, id.retry = now, time.Time{}
}

// Due lists the capabilities of id that want confirmation at now, by namespace,
// and whether the end of its token is to be learned with it. Both are empty while a
// confirmation that the origin failed is not to be repeated. Preflights are
// left out: sys/capabilities-self says nothing of them. Where nothing is due it
// costs nothing until something can be.
func (a *Access) Due(id *Identity, now time.Time) (due map[string][]Capability, lifetime bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.holders[id] || !id.retryDue(now) {
		return nil, false
	}
	alone := id.wanted && !id.known
	if id.confirmed.at(now) && id.confirmed.since.After(id.unsureAt) {
		return nil, alone
	}
	wanted, late := make(map[string][]Capability), make(map[string][]Capability)
	next := time.Duration(a.every)
	for c, held := range id.held {
		if _, preflight := preflightPath(c.Path); preflight {
			continue
		}
		if at := confirmedAt(held); a.every.within(at, now, 1) {
			late[c.Namespace] = append(late[c.Namespace], c.Capability)
			next = min(next, time.Duration(a.every)-clock.Elapsed(at, now))
		} else {
			wanted[c.Namespace] = append(wanted[c.Namespace], c.Capability)
		}
	}
	if len(wanted) == 0 {
		id.confirmed = quiet{now, next}
		return nil, alone
	}
	// One call confirms all of a namespace: those not yet due ride along, behind
	// the others.
	for namespace := range wanted {
		wanted[namespace] = append(wanted[namespace], late[namespace]...)
	}
	return wanted, !id.own && !id.known
}

// Confirm records the answer to a confirmation sent at sentAt: held are the
// capabilities that id still has, lost those that it has no more.
func (a *Access) Confirm(id *Identity, sentAt time.Time, held, lost []Capability) {
	confirmed := a.confirm(id, sentAt, held, lost)
	if a.o.Shared == nil || !id.own {
		return
	}
	a.o.Shared.Keep(context.Background(), nil, confirmed)
	if len(lost) > 0 {
		a.o.Shared.Drop(context.Background(), nil, lost, sentAt)
	}
}

// confirm returns what counts now of what is held.
func (a *Access) confirm(id *Identity, sentAt time.Time, held, lost []Capability) map[Capability]Confirmation {
	defer a.lock()()
	a.heard.read(sentAt)
	confirmed := make(map[Capability]Confirmation, len(held))
	id.retry, id.refused = time.Time{}, 0
	for _, p := range held {
		if held := id.held[a.index.index[p]]; held != nil {
			a.confirmLocked(held, sentAt)
			if read := a.readAtLocked(held); !read.IsZero() && held.found {
				confirmed[p] = Confirmation{Read: read, At: confirmedAt(held)}
			}
		}
	}
	for _, p := range lost {
		if a.readAtLocked(id.held[a.index.index[p]]).After(sentAt) {
			continue // read successfully after the question was sent
		}
		a.revokeLocked(id, p)
	}
	return confirmed
}

// ConfirmFailed records that the origin failed a confirmation of id's
// capabilities, with a status or without an answer (0). Under the optimistic
// behaviour they stay, and the next try is at again. While the origin answers
// others, two are no outage for good (Heard.bound): a refusal for load, which a caller
// can bring about, and a 401, 403 or 413 that is not of the origin's shape, which may be
// its own refusal, dressed up by something in between, or be about long names.
func (a *Access) ConfirmFailed(id *Identity, again time.Time, status int) {
	defer a.lock()()
	if a.o.Pessimistic {
		a.emptyLocked(id)
		return
	}
	id.retry, id.refused = again, status
}

// Take takes in what other instances of the extension's own identity know of its
// capabilities. An old one waits for confirmation, or while the origin is away
// serves as one does that this instance has had all the while. A login that the
// origin refused ends that.
func (a *Access) Take(found map[Capability]Confirmation) {
	defer a.lock()()
	own, now := a.o.Own, a.o.Now()
	for p, c := range found {
		switch held := own.held[a.index.index[p]]; {
		case held != nil && !c.Ended.IsZero() && held.read.Sub(c.Ended) <= a.o.Skew:
			a.loseLocked(held)
		case !c.Ended.IsZero() || own.barred.Load() || c.Read.IsZero() || !clock.Within(c.At.Add(-a.o.Skew), now, max(a.o.StaleIfError, a.o.RefreshInterval)):
		default:
			a.grantLocked(own, own.resets.Load(), p, Confirmation{Read: c.Read.Add(-a.o.Skew), At: c.At.Add(-a.o.Skew)})
			own.confirmed, own.renewed = quiet{}, quiet{}
		}
	}
}
