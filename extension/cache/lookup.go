package cache

import (
	"strings"
	"time"
)

// State says what a lookup found.
type State uint8

// States, from nothing to a hit.
const (
	Absent      State = iota // no such entry, or none that this identity may see: ask the origin
	Unconfirmed              // the grant wants confirmation before anything else
	Aged                     // older than the TTL: read it again
	Unverified               // known, but not verified in time
	Failing                  // not verified, since the origin failed that just now
	Fresh                    // serve it
)

// Hit is the result of a Lookup.
type Hit struct {
	State    State
	ID       *Identity
	Entry    *Entry // nil when Absent
	Verified Mark
	True     time.Time // when the answer was last known to be true
	Shared   bool      // came from the shared tier
	Proven   bool      // verified by the cursor rather than by a read of its own
	Streamed bool      // verified by a stream of events rather than by a request; not Proven then
	Stale    bool      // may be served although unverified while the origin fails
	Err      error     // why the origin failed, when Failing
}

// Lookup looks key up for the extension's own identity (token empty) or for a
// caller's token. A hit counts as use. What is kept because a request opted in
// is not looked at: each plain read of dynamic credentials wants its own.
func (c *Cache) Lookup(key Key, token string, now time.Time) Hit {
	return c.lookup(key, token, now, false)
}

// LookupOptedIn is Lookup for a request that opted in itself.
func (c *Cache) LookupOptedIn(key Key, token string, now time.Time) Hit {
	return c.lookup(key, token, now, true)
}

func (c *Cache) lookup(key Key, token string, now time.Time, optIn bool) Hit {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.Shared != nil {
		c.watchClockLocked(now)
	}
	id := c.own
	if token != "" {
		if id = c.callers[token]; id == nil {
			return Hit{ID: c.callerLocked(token)}
		}
		id.used = now
	}
	s := c.findLocked(key, id)
	if s == nil || s.entry.Kind == Other && !optIn {
		return Hit{ID: id}
	}
	e := s.entry
	if ended(e.FetchedAt, e.Expires, now) {
		c.removeLocked(s)
		return Hit{ID: id}
	}
	confirmed, ok := c.grantLocked(id, e.Key)
	if ok && e.Key.Query != key.Query && !id.own {
		// The latest, asked for by its version: a policy may deny the parameter.
		var asked time.Time
		if asked, ok = c.grantLocked(id, key); asked.Before(confirmed) {
			confirmed = asked
		}
	}
	if !ok {
		return Hit{ID: id}
	}
	if ended(id.learned, id.expires, now) {
		c.forgetLocked(id)
		return Hit{ID: c.callerLocked(token)}
	}
	if c.o.Consistency != nil && !c.coversLocked(e, id) {
		return Hit{ID: id} // others may have it
	}
	h := Hit{ID: id, Entry: e, Verified: c.markLocked(s)}
	h.Streamed = !c.stream.since.IsZero() && h.Verified != c.askedLocked(s)
	h.Proven = !h.Streamed && h.Verified != s.mark
	h.Shared = s.shared
	h.True = c.trueLocked(s)
	unseen := h.Verified.At.IsZero() && !s.since.IsZero() // an own write
	h.Stale = !unseen && !c.o.Pessimistic && c.o.StaleIfError > 0 && Within(h.True, now, c.o.StaleIfError)
	switch {
	case (!c.confirmedLocked(confirmed, now) || !id.own && !id.known) && id.retryDue(now):
		h.State = Unconfirmed
	case c.o.TTL > 0 && !Within(e.FetchedAt, now, c.o.TTL):
		h.State = Aged
		if f, err := c.failedLocked(s, now); f {
			h.State, h.Err = Failing, err
		}
	case e.Kind == Other || c.freshLocked(h.Verified, now):
		h.State = Fresh
		c.frontLocked(s)
	default:
		h.State = Unverified
		if f, err := c.failedLocked(s, now); f {
			h.State, h.Err = Failing, err
		}
	}
	return h
}

func (id *Identity) retryDue(now time.Time) bool {
	return id.retry.IsZero() || !now.Before(id.retry) || !Within(now, id.retry, time.Minute)
}

// findLocked finds the slot that answers key for id: its own, the latest read
// of just this version, the preflight of the path's mount, or the identity's
// personal one.
func (c *Cache) findLocked(key Key, id *Identity) *slot {
	if key.Op == List && !id.own {
		key.Personal = id.ID
	}
	if s := c.slots[key]; s != nil {
		return s
	}
	if n := versionOf(key.Query); n > 0 {
		latest := key
		latest.Query = ""
		if s := c.slots[latest]; s != nil && s.entry.Kind == Data && s.entry.Version == n {
			return s
		}
	}
	if mounted, ok := preflightPath(key.Path); ok && key.Op == Read && key.Query == "" {
		for end := len(mounted); end > 0; end = strings.LastIndexByte(mounted[:end], '/') {
			if s := c.slots[Key{Namespace: key.Namespace, Path: preflightPrefix + mounted[:end]}]; s != nil {
				return s
			}
		}
	}
	key.Personal = id.ID
	return c.slots[key]
}

// failedLocked reports whether the last verification of s, not longer ago than
// Recheck and in this epoch, was one that the origin failed.
func (c *Cache) failedLocked(s *slot, now time.Time) (bool, error) {
	newest := c.markLocked(s).At
	for _, f := range [...]struct {
		m   Mark
		err error
	}{{s.failed, s.failedErr}, {c.failed, c.failedErr}} {
		if f.m.At.After(newest) && f.m.Epoch == c.epoch && Within(f.m.At, now, max(c.o.Recheck, 100*time.Millisecond)) {
			return true, f.err
		}
	}
	return false, nil
}

// Check is an entry that wants verification, and an identity that may read it.
type Check struct {
	Key Key
	ID  *Identity
}

// Unproven lists the entries that are not verified at now, most recently used
// first, each with an identity that holds a grant for it.
func (c *Cache) Unproven(now time.Time) []Check {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Check
	for s := c.lru.next; s != &c.lru; s = s.next {
		if s.entry.Kind == Other || c.freshLocked(c.markLocked(s), now) {
			continue
		}
		if id := c.readerLocked(s.entry.Key, now); id != nil {
			out = append(out, Check{s.entry.Key, id})
		}
	}
	return out
}

// Anchored counts the entries that the anchor would prove, and all.
func (c *Cache) Anchored(a Anchor) (anchored, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.slots {
		if s.entry.Kind == Other {
			continue
		}
		all++
		if s.entry.Anchor.Same(a) {
			anchored++
		}
	}
	return anchored, all
}

// readerLocked returns an identity with a grant for k, the extension's own
// before any caller's; for a personal answer only whose it is.
func (c *Cache) readerLocked(k Key, now time.Time) *Identity {
	if _, ok := c.grantLocked(c.own, k); ok && (k.Personal == 0 || k.Personal == c.own.ID) {
		return c.own
	}
	var best *Identity
	for _, id := range c.callers {
		if ended(id.learned, id.expires, now) || k.Personal != 0 && k.Personal != id.ID {
			continue
		}
		if _, ok := c.grantLocked(id, k); ok && (best == nil || id.used.After(best.used)) {
			best = id
		}
	}
	return best
}

// Verified reports whether key's entry is gone or verified at now.
func (c *Cache) Verified(key Key, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[key]
	return s == nil || c.freshLocked(c.markLocked(s), now)
}
