package faults

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// What instances of one role share through memcached: what one of them has read,
// all may be asked for while the origin is away, and what one of them lost, all have.

// common is a resource that a role reads.
type common struct {
	role                int
	resource, namespace string
}

// loss is a 403 to a read under an instance's own identity, which ends the role's
// capability for all that start after it.
type loss struct {
	common
	from, until moment // of the read
}

// settled is how long memcached must have been well before it is relied upon: its
// clients look at a node that was out less and less often.
const settled = 2 * time.Minute

// common is what an answer means to others with the same role, if it does.
func (w *world) common(a *answer) (c common, ok bool) {
	return common{w.role(a.inst), a.resource, a.namespace},
		w.setup.Shared && a.token < 0 && !a.odd && !a.wrapped && a.group != "" && a.group != allGroups
}

// upset notes that something happens to memcached. What it does returns whether it is
// out afterwards.
func (w *world) upset(what func() (out bool)) {
	w.note(&w.h.upsets, true)
	out := what()
	w.mu.Lock()
	clear(w.fleet)
	w.mu.Unlock()
	w.note(&w.h.upsets, out)
}

// missed notes that an instance found memcached out.
func (w *world) missed() {
	w.h.mu.Lock()
	n := len(w.h.upsets)
	known := n > 0 && w.h.upsets[n-1].open()
	w.h.mu.Unlock()
	if !known {
		w.upset(func() (out bool) { return false })
	}
}

// well reports whether memcached had no trouble between two moments, nor shortly before.
func (h *history) well(from, to moment) bool {
	return !slices.ContainsFunc(h.upsets, func(s span) bool {
		return s.from.seq < to.seq && (s.open() || s.until.seq > from.seq || from.at-s.until.at < settled)
	})
}

// lose notes what a role lost.
func (w *world) lose(a *answer) {
	c, ok := w.common(a)
	if !ok || a.status != http.StatusForbidden || a.own() || !strings.Contains(a.body, "permission denied") || strings.Contains(a.body, "invalid token") {
		return
	}
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.h.lost = append(w.h.lost, loss{c, a.start, a.end})
}

// judgeLost is G2 for a role's capability that ended: no instance that starts after
// that takes it from memcached.
func (w *world) judgeLost(a *answer) {
	c, ok := w.common(a)
	if !ok || !a.hit() {
		return
	}
	began := w.h.began[process{a.inst, a.inc}]
	for _, l := range w.h.lost {
		if l.common == c && l.until.seq < began.seq && w.h.well(l.from, a.end) &&
			!slices.ContainsFunc(w.held(w.role(a.inst), a.group, wayOf(a.resource), span{}), func(s span) bool {
				return s.from.seq < a.end.seq && (s.open() || s.until.seq > l.from.seq)
			}) {
			w.broke("G2: an answer from memcached to a role that lost it at "+l.until.at.String(), a)
			return
		}
	}
}
