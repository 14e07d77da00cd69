package cache

import (
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// State says what a lookup found.
type State uint8

// States, from nothing to a hit.
const (
	Absent      State = iota // no such entry, or none that this identity may see: ask the origin
	Unconfirmed              // the capability wants confirmation before anything else
	Aged                     // older than the TTL, or its capability wants a read: read it again
	Unverified               // known, but not verified in time
	Failing                  // not verified, since the origin failed that just now
	Fresh                    // serve it
)

// Hit is the result of a Lookup.
type Hit struct {
	State    State
	Entry    *Entry       // nil when Absent
	Verified Revalidation // newest
	True     time.Time    // when the answer was last known to be true; zero: it may be of before an own write
	Shared   bool         // filled from the shared cache
	ByIndex  bool         // verified by an index check rather than by a read of its own
	ByEvents bool         // verified by a stream of events rather than by a request
	Stale    bool         // may be served although unverified while the origin fails
	Err      error        // why the origin failed, when Failing

	Confirmed bool // the capability was confirmed within the interval
	Lately    bool // within two of them
	Overdue   bool // the capability wants a read
}

// Lookup looks key up for an identity. Who may see it uses it. What is kept because
// a request opted in is only for one that opted in itself: each plain read of
// dynamic credentials wants its own.
func (c *Cache) Lookup(key Key, id *Identity, optedIn bool, now time.Time) Hit {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger.watchClockLocked(now)
	s := c.findLocked(key, id)
	if s == nil || s.entry.Kind == Other && (!optedIn || s.leases != id.leases.Load()) {
		return Hit{}
	}
	e := s.entry
	h := c.ledger.judgeLocked(s, now)
	if h.State == Absent {
		if s.aside == 0 {
			c.removeLocked(s)
		}
		return Hit{}
	}
	may, of := c.access.check(id, e.Key.Capability(), key.Capability(), e.Leased, now)
	if may == denied || e.Status == http.StatusOK && !of.found {
		c.dropUnseenLocked() // it may drop s: of one that may be seen, too, after a loss that was made good
		return Hit{}
	}
	if !c.Covers(e, c.o.Required(id)) {
		return Hit{}
	}
	s.truth.asked, s.truth.passed = c.ledger.moment.asking, time.Time{}
	c.store.use(s)
	h.Shared, h.Overdue = s.shared, may == overdue
	h.Confirmed, h.Lately = c.access.every.within(of.confirmed, now, 1), c.access.every.within(of.confirmed, now, restyledFor)
	h.Stale = h.Stale && may != endless && (of.since.IsZero() || clock.Within(of.since, now, max(c.o.StaleIfError, c.o.RefreshInterval)))
	switch {
	case may == unconfirmed, may == endless:
		h.State = Unconfirmed
	case h.Overdue && h.State != Failing:
		h.State = Aged
	}
	return h
}

// Rereads lists, of the capabilities by which cached entries are read, at most most
// with which a read is due soon. It lets others have the lock after each identity.
func (c *Cache) Rereads(now time.Time, most int) (due []Check) {
	for _, id := range c.access.renewing(now) {
		if len(due) == most {
			break
		}
		c.mu.Lock()
		due = append(due, c.access.renewals(id, now, most-len(due), func(p Capability) bool {
			s := c.findLocked(p.key(0), id)
			return s != nil && s.entry.Kind != Other
		})...)
		c.mu.Unlock()
	}
	return due
}

// findLocked finds the slot that answers key for id: its own, the latest read
// of just this version, the preflight of the path's mount, or the identity's
// personal one.
func (c *Cache) findLocked(key Key, id *Identity) *slot {
	slots := c.store.slots
	if key.Op == List && !id.own {
		key.Personal = id.ID
	}
	if s := slots[key]; s != nil {
		return s
	}
	if n := versionOf(key.Query); n > 0 {
		latest := key
		latest.Query = ""
		if s := slots[latest]; s != nil && s.entry.Kind == Data && s.entry.Version == n {
			return s
		}
	}
	if mounted, ok := preflightPath(key.Path); ok && key.Op == Read && key.Query == "" {
		for end := len(mounted); end > 0; end = strings.LastIndexByte(mounted[:end], '/') {
			if s := slots[Key{Namespace: key.Namespace, Path: preflightPrefix + mounted[:end]}]; s != nil {
				return s
			}
		}
	}
	key.Personal = id.ID
	return slots[key]
}

// Covers reports whether e was read late enough for a request that itself requires a
// state of the origin.
func (c *Cache) Covers(e *Entry, state string) bool { return c.o.covers(e.ReadAt, state) }

func (o *Options) covers(readAt, required string) bool {
	return required == "" || readAt == required || o.Covers != nil && o.Covers(readAt, required)
}
