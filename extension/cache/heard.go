package cache

import (
	"net/http"
	"sync"
	"time"
)

// Heard is what the origin answered of late: it tells an outage from a refusal. It is
// safe for concurrent use.
type Heard struct {
	every interval

	mu     sync.Mutex // guards the fields below
	reads  time.Time  // when a read or a confirmation was sent that the origin last answered, be it by a refusal, whoever sent it
	itself time.Time  // the same of what it says of itself
}

func (h *Heard) read(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads = later(h.reads, at)
}

// OfItself records that the origin answered what was sent at a time of itself: that
// takes no token, and is not refused for load.
func (h *Heard) OfItself(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.itself = later(h.itself, at)
}

// Others reports whether the origin answered anybody's read within the last interval:
// then a refusal for load is no outage.
func (h *Heard) Others(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.every.within(h.reads, now, 1)
}

// Anything reports whether the origin answered anything within the last interval: then
// a refusal that is not of its shape is no outage.
func (h *Heard) Anything(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.every.within(later(h.reads, h.itself), now, 1)
}

// bound is for how many intervals a capability lasts whose confirmation was refused
// with a status; 0: for any number, as in an outage.
func (h *Heard) bound(status int, own bool, now time.Time) time.Duration {
	switch {
	case status == http.StatusTooManyRequests && !own && h.Others(now):
		return busyFor
	case restyled(status) && h.Anything(now):
		return restyledFor
	}
	return 0
}
