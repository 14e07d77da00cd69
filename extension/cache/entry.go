package cache

import (
	"bytes"
	"net/http"
	"time"
)

// Mark says when a verifying request was sent, and in which epoch. The zero
// Mark verifies nothing.
type Mark struct {
	At    time.Time
	Epoch uint64
}

// newer reports whether m was sent after n; readings of a coarse clock that are
// the same are told apart by the epoch.
func (m Mark) newer(n Mark) bool {
	return m.At.After(n.At) || m.At.Equal(n.At) && m.Epoch > n.Epoch
}

// Anchor is a cursor of the origin that was received before a read was sent:
// the raft index applied by then, and the active node's active_time, which
// changes with every leader. FirstSeen is when this index was first seen here.
type Anchor struct {
	Applied    uint64
	ActiveTime string
	FirstSeen  time.Time
}

// Zero reports whether there is no cursor.
func (a Anchor) Zero() bool { return a.Applied == 0 || a.ActiveTime == "" }

// Same reports whether both are the same cursor.
func (a Anchor) Same(b Anchor) bool {
	return a.Applied == b.Applied && a.ActiveTime == b.ActiveTime
}

// Entry is one answer of the origin. It never changes once stored.
type Entry struct {
	Key       Key
	Kind      Kind
	Status    int
	Header    http.Header // end-to-end headers, without Date, Age and Content-Length
	Date      string      // the answer's Date, as sent
	Body      []byte
	Version   int       // KV v2 version of data; 0 where there is none
	FetchedAt time.Time // when the request was sent
	Expires   time.Time // deletion_time, lease or TTL; zero: not by itself
	Anchor    Anchor
	ReadAt    string // the state that the read required, as Consistency names it; empty: none

	// Ready-made header values, so that a hit allocates nothing for them.
	DateValue   []string
	LengthValue []string
}

// slot is an entry's place: what changes about it.
type slot struct {
	entry      *Entry
	mark       Mark      // newest verification by a read of its own
	proof      Mark      // newest by a cursor that has moved on since
	true       time.Time // when the answer was known to be true, before it was said that it changed
	failed     Mark      // newest verification of this entry that the origin failed
	failedErr  error
	changed    time.Time // when a stream told that it changed
	since      time.Time // no verification by an older request counts, and the answer may be older than this
	certain    bool      // mark's read was answered by a node that had that change
	shared     bool      // came from the shared tier
	size       int64
	next, prev *slot

	printed *Entry   // of which print is the Fingerprint; nil: of none
	print   [32]byte // made when it is first asked for
}

// fingerprintLocked returns the Fingerprint of the slot's answer.
func (s *slot) fingerprintLocked() [32]byte {
	if s.printed != s.entry {
		s.printed, s.print = s.entry, Fingerprint(s.entry.Status, s.entry.Body)
	}
	return s.print
}

// overhead is the estimated memory of an entry besides its strings and body.
const overhead = 688

func (e *Entry) size() int64 {
	n := overhead + len(e.Body) + len(e.ReadAt) + 2*(len(e.Key.Path)+len(e.Key.Namespace)+len(e.Key.Query))
	for k, vs := range e.Header {
		n += len(k) + 64
		for _, v := range vs {
			n += len(v)
		}
	}
	return int64(n)
}

// SameAnswer reports whether two bodies are the same answer: equal, or equal
// but for the request_id with which Vault begins every answer
// (https://developer.hashicorp.com/vault/api-docs#api-operations).
func SameAnswer(a, b []byte) bool {
	return bytes.Equal(a, b) || bytes.Equal(cutRequestID(a), cutRequestID(b))
}

var requestID = []byte(`{"request_id":"`)

// cutRequestID returns what follows a leading request_id, or b.
func cutRequestID(b []byte) []byte {
	rest, ok := bytes.CutPrefix(b, requestID)
	if !ok {
		return b
	}
	i := bytes.IndexByte(rest, '"')
	if i < 0 || bytes.IndexByte(rest[:i], '\\') >= 0 {
		return b
	}
	return rest[i:]
}

func (c *Cache) removeLocked(s *slot) {
	if c.slots[s.entry.Key] != s {
		return
	}
	delete(c.slots, s.entry.Key)
	c.size -= s.size
	s.prev.next, s.next.prev = s.next, s.prev
	s.next, s.prev = nil, nil
	for _, seg := range segmentsOf(s.entry.Key) {
		if c.segments[seg]--; c.segments[seg] <= 0 {
			delete(c.segments, seg)
		}
	}
}

func (c *Cache) insertLocked(s *slot) {
	if old := c.slots[s.entry.Key]; old != nil {
		c.removeLocked(old)
	}
	s.size = s.entry.size()
	if s.size > c.o.Bytes {
		return
	}
	s.entry.Header = c.heads.share(s.entry.Header) // not yet seen by anyone else
	c.slots[s.entry.Key] = s
	c.size += s.size
	c.frontLocked(s)
	for _, seg := range segmentsOf(s.entry.Key) {
		c.segments[seg]++
	}
	c.counters.Stored++
	c.trimLocked(s)
}

// trimLocked makes room: the least recently used entries go first, then, if
// the grants alone are too many, the callers' grants.
func (c *Cache) trimLocked(keep *slot) {
	for c.size > c.o.Bytes {
		last := c.lru.prev
		if last == &c.lru || last == keep {
			break
		}
		c.removeLocked(last)
		c.counters.Evicted++
	}
	if c.size > c.o.Bytes {
		for _, id := range c.callers {
			c.forgetLocked(id)
		}
		if c.size > c.o.Bytes {
			c.own.dropLocked(c)
		}
	}
}

func (c *Cache) frontLocked(s *slot) {
	if s.next != nil {
		if c.lru.next == s {
			return
		}
		s.prev.next, s.next.prev = s.next, s.prev
	}
	s.next, s.prev = c.lru.next, &c.lru
	s.next.prev, s.prev.next = s, s
}
