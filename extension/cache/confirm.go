package cache

import (
	"context"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Learned records when a caller's token ends; the zero time means never.
func (a *Access) Learned(id *Identity, expires time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.holders[id]; h != nil {
		h.learned, h.expires, h.known = a.now(), expires, true
	}
}

// Due lists the capabilities of id that want confirmation at now, by namespace,
// and whether the end of its token is to be learned. Both are empty while a
// confirmation that the origin failed is not to be repeated. Preflights are
// left out: sys/capabilities-self says nothing of them. Where nothing is due it
// costs nothing until something can be.
func (a *Access) Due(id *Identity, now time.Time) (due map[string][]Capability, lifetime bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.currentLocked(a.holders[id])
	if h == nil || !h.retryDue(now) {
		return nil, false
	}
	lifetime = !h.own && !h.known && len(h.held) > 0
	if !h.walked.IsZero() && h.walked.After(a.doubted) && h.walked.After(h.doubted) && clock.Within(h.walked, now, h.quiet) {
		return nil, lifetime
	}
	wanted, late := make(map[string][]Capability), make(map[string][]Capability)
	quiet := a.refresh
	for c, held := range h.held {
		if _, preflight := preflightPath(c.Path); preflight {
			continue
		}
		if at := a.confirmedAtLocked(held); a.confirmedLocked(at, now) {
			late[c.Namespace] = append(late[c.Namespace], c.Capability)
			quiet = min(quiet, a.refresh-clock.Elapsed(at, now))
		} else {
			wanted[c.Namespace] = append(wanted[c.Namespace], c.Capability)
		}
	}
	if len(wanted) == 0 {
		h.walked, h.quiet = now, quiet
		return nil, lifetime
	}
	// One call confirms all of a namespace: those not yet due ride along, behind
	// the others.
	for namespace := range wanted {
		wanted[namespace] = append(wanted[namespace], late[namespace]...)
	}
	return wanted, lifetime
}

// Confirm records the answer to a confirmation sent at sentAt: held are the
// capabilities that id still has, lost those that it has no more.
func (a *Access) Confirm(id *Identity, sentAt time.Time, held, lost []Capability) {
	a.confirm(id, sentAt, held, lost)
	if a.shared == nil || !id.own {
		return
	}
	confirmed := make(map[Capability]time.Time, len(held))
	for _, p := range held {
		confirmed[p] = sentAt
	}
	a.shared.Keep(context.Background(), nil, confirmed)
	if len(lost) > 0 {
		a.shared.Drop(context.Background(), nil, lost, sentAt)
	}
}

func (a *Access) confirm(id *Identity, sentAt time.Time, held, lost []Capability) {
	defer a.lock()()
	h := a.currentLocked(a.holders[id])
	if h == nil {
		return
	}
	h.retry = time.Time{}
	for _, p := range held {
		if held := h.held[a.index.index[p]]; held != nil {
			a.confirmLocked(held, sentAt)
		}
	}
	for _, p := range lost {
		if a.confirmedAtLocked(h.held[a.index.index[p]]).After(sentAt) {
			continue // read successfully after the question was sent
		}
		a.revokeLocked(h, p)
	}
}

// ConfirmFailed records that the origin failed a confirmation of id's
// capabilities. Under the optimistic behaviour they stay, and the next try is at
// again.
func (a *Access) ConfirmFailed(id *Identity, again time.Time) {
	defer a.lock()()
	switch h := a.holders[id]; {
	case h == nil:
	case a.pessimistic:
		a.emptyLocked(h)
	default:
		h.retry = again
	}
}

// Grant records capabilities of the extension's own identity that were confirmed
// by a request sent at sentAt, although nothing was read with them yet. resets is
// what the identity's Resets were then.
func (a *Access) Grant(held []Capability, sentAt time.Time, resets uint64) {
	confirmed := make(map[Capability]time.Time, len(held))
	for _, p := range held {
		if a.grantFor(a.own, resets, p, sentAt) {
			confirmed[p] = sentAt
		}
	}
	if a.shared != nil && len(confirmed) > 0 {
		a.shared.Keep(context.Background(), nil, confirmed)
	}
	a.lost()
}
