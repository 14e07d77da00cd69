package cache

import (
	"context"
	"crypto/sha256"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Record is an entry as the shared tier holds it.
type Record struct {
	Key       Key
	Kind      Kind
	Status    int
	Header    http.Header
	Date      string
	Body      []byte
	Version   int
	FetchedAt time.Time
	Expires   time.Time
	Anchor    Anchor
	SentAt    time.Time // when the request that last verified it was sent
	ReadAt    string    // the state that the read required; empty: none
}

// Shared is the tier that the instances of one audience share. Its calls are
// bounded to milliseconds, and what it cannot give is a miss. It holds nothing
// but what was read under the extension's own identity.
type Shared interface {
	// Fetch returns the records there are for keys, and when the identity's
	// rights to them were last confirmed.
	Fetch(ctx context.Context, keys []Key) ([]Record, map[Right]time.Time)
	// Keep stores records and grants; a record verified later stays.
	Keep(ctx context.Context, records []Record, grants map[Right]time.Time)
	// Drop says that what was stored for keys before at is no more, and that
	// the identity lost rights.
	Drop(ctx context.Context, keys []Key, rights []Right, at time.Time)
}

// sharedEpoch marks a verification by another instance: it belongs to none of
// our epochs, and counts within MaxAge only.
const sharedEpoch = math.MaxUint64

// Fingerprint identifies an answer: two are the same if they differ in nothing
// but the request_id.
func Fingerprint(status int, body []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(strconv.Itoa(status) + "\x00"))
	h.Write(cutRequestID(body))
	return [32]byte(h.Sum(nil))
}

func (s *slot) record() Record {
	e := s.entry
	return Record{
		Key: e.Key, Kind: e.Kind, Status: e.Status, Header: e.Header, Date: e.Date, Body: e.Body, Version: e.Version,
		FetchedAt: e.FetchedAt, Expires: e.Expires, Anchor: e.Anchor, SentAt: s.mark.At, ReadAt: e.ReadAt,
	}
}

// Adoption says what became of an attempt to adopt.
type Adoption uint8

// Adoptions.
const (
	NotShared Adoption = iota // the shared tier has nothing for the key
	NoRight                   // it has, and it is not known whether we may read it
	Adopted                   // it is in memory now
)

// Adopt takes what the shared tier holds for key into memory, if the
// extension's own identity is known to be allowed to read it. An adopted entry
// is verified as of the record, no more: unless that lies within MaxAge a poll
// has to verify it before it is served.
func (c *Cache) Adopt(ctx context.Context, key Key) Adoption {
	if c.o.Shared == nil || key.Personal != 0 {
		return NotShared
	}
	keys := []Key{key}
	if versionOf(key.Query) > 0 {
		latest := key
		latest.Query = ""
		keys = append(keys, latest)
	}
	return c.adopt(ctx, keys, key)
}

// AdoptNewer takes over what other instances read of keys, which are held here,
// since they were verified here: for an anchor that the cursor proves. It is one
// call of the shared tier.
func (c *Cache) AdoptNewer(ctx context.Context, keys []Key) {
	if c.o.Shared == nil {
		return
	}
	shared := make([]Key, 0, len(keys))
	for _, k := range keys {
		if k.Personal == 0 {
			shared = append(shared, k)
		}
	}
	if len(shared) > 0 {
		c.adopt(ctx, shared, Key{})
	}
}

// adopt takes what there is for keys into memory, until there is an answer for
// want; the zero Key stands for all.
func (c *Cache) adopt(ctx context.Context, keys []Key, want Key) Adoption {
	c.mu.Lock()
	began := c.writeCount
	c.mu.Unlock()
	records, grants := c.o.Shared.Fetch(ctx, keys)
	c.mu.Lock()
	defer c.mu.Unlock()
	result := NotShared
	for _, r := range records {
		right := r.Key.right()
		if held, ok := c.own.grants[right]; ok && held.After(grants[right]) {
			if grants == nil {
				grants = make(map[Right]time.Time)
			}
			grants[right] = held
		}
		if confirmed, ok := grants[right]; !ok || !c.confirmedLocked(confirmed, c.o.Now()) {
			if _, preflight := preflightPath(right.Path); !preflight {
				result = NoRight
			}
			continue
		}
		_, known := c.own.grants[right]
		adopted := c.adoptLocked(r, grants[right], began)
		if adopted {
			c.counters.Adopted++
			if !known {
				c.counters.Borrowed++
			}
		}
		if adopted && want != (Key{}) && c.findLocked(want, c.own) != nil {
			return Adopted
		}
	}
	return result
}

// Granted records rights of the extension's own identity that were confirmed
// by a request sent at sentAt, although nothing was read with them yet.
func (c *Cache) Granted(rights []Right, sentAt time.Time) {
	grants := make(map[Right]time.Time, len(rights))
	c.mu.Lock()
	for _, r := range rights {
		op := Read
		if r.List {
			op = List
		}
		c.grantToLocked(c.own, Key{Namespace: r.Namespace, Path: r.Path, Op: op, Query: r.Query}, sentAt)
		grants[r] = sentAt
	}
	c.mu.Unlock()
	if c.o.Shared != nil && len(grants) > 0 {
		c.o.Shared.Keep(context.Background(), nil, grants)
	}
}

// Right returns the right that reading a key needs.
func (k Key) Right() Right { return k.right() }

func (c *Cache) adoptLocked(r Record, confirmed time.Time, began uint64) bool {
	now := c.o.Now()
	switch {
	case ended(r.FetchedAt, r.Expires, now):
	case r.Kind == Other || r.Key.Personal != 0 || MatchPath(c.o.NoCache, r.Key.Path):
	case c.writeCount != began || len(c.writes) > 0:
		// A write through this proxy ran meanwhile: the record may be older.
	case !c.written.since(r.Key, r.SentAt.Add(c.o.Skew)).IsZero(): // from before an own write
	case c.slots[r.Key] != nil && !r.SentAt.After(c.slots[r.Key].mark.At):
	default:
		e := &Entry{
			Key: r.Key, Kind: r.Kind, Status: r.Status, Header: r.Header, Date: r.Date, Body: r.Body, Version: r.Version,
			FetchedAt: r.FetchedAt, Expires: r.Expires, Anchor: r.Anchor, ReadAt: r.ReadAt,
			LengthValue: []string{strconv.Itoa(len(r.Body))},
		}
		if r.Date != "" {
			e.DateValue = []string{r.Date}
		}
		c.grantToLocked(c.own, r.Key, confirmed)
		mark := Mark{r.SentAt.Add(-c.o.Skew), sharedEpoch}
		since := c.written.since(r.Key, mark.At)
		if !since.IsZero() {
			mark = Mark{} // as the clocks may be, it is from before an own write, and so may be what proves it
		}
		c.insertLocked(&slot{entry: e, mark: mark, since: since, shared: true})
		return true
	}
	return false
}

// clockStep is more than the wall clock falls back between two looks by running
// slower for a while.
const clockStep = 50 * time.Millisecond

// watchClockLocked sees that the wall clock was set back since the last look.
// The times that other instances told are on the wall clock alone, which would
// make them younger than they are: they count no more, until told again. Our
// own have a monotonic reading.
func (c *Cache) watchClockLocked(now time.Time) {
	last := c.looked
	c.looked = now
	if last.IsZero() || now.Sub(last)-now.Round(0).Sub(last.Round(0)) < clockStep {
		return
	}
	if c.proven.Epoch == sharedEpoch {
		c.proven, c.provenAnchor = Mark{}, Anchor{}
	}
	for _, s := range c.slots {
		if s.mark.Epoch == sharedEpoch {
			s.mark = Mark{}
		}
		if s.proof.Epoch == sharedEpoch {
			s.proof = Mark{}
		}
		if s.true == s.true.Round(0) { // told by another
			s.true = time.Time{}
		}
	}
	for right, confirmed := range c.own.grants {
		if confirmed == confirmed.Round(0) { // told by another
			c.own.grants[right] = time.Time{}
		}
	}
}

// Held returns the keys of all entries that a stamp could verify, and for each
// its fingerprint.
func (c *Cache) Held() map[Key][32]byte {
	var fresh []*Entry // reads must not wait while these are hashed
	c.mu.Lock()
	out := make(map[Key][32]byte, len(c.slots))
	for _, s := range c.slots {
		switch {
		case s.entry.Kind == Other:
		case s.printed == s.entry:
			out[s.entry.Key] = s.print
		default:
			fresh = append(fresh, s.entry)
		}
	}
	c.mu.Unlock()
	for _, e := range fresh {
		out[e.Key] = Fingerprint(e.Status, e.Body)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range fresh {
		if s := c.slots[e.Key]; s != nil && s.entry == e {
			s.printed, s.print = e, out[e.Key]
		}
	}
	return out
}

// Stamped records that another instance verified key's answer with this
// fingerprint by a request sent at sentAt. It reports false when the answer
// held here is another one; that one is not verified any more, unless it was
// by a request that was certainly sent later.
func (c *Cache) Stamped(key Key, fingerprint [32]byte, sentAt time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[key]
	if s == nil {
		return true
	}
	if s.fingerprintLocked() != fingerprint {
		if sentAt.Add(c.o.Skew).After(c.markLocked(s).At) {
			e := *s.entry
			e.Anchor = Anchor{} // the cursor has moved since then
			s.true = c.trueLocked(s)
			s.entry, s.mark, s.proof = &e, Mark{}, Mark{}
		}
		return false
	}
	if m := (Mark{sentAt.Add(-c.o.Skew), sharedEpoch}); m.newer(s.mark) && m.At.After(s.since) {
		s.mark = m
	}
	return true
}

// ProveShared is Prove for a cursor that another instance asked for at sentAt.
func (c *Cache) ProveShared(anchor Anchor, sentAt time.Time) {
	c.Prove(anchor, Mark{sentAt.Add(-c.o.Skew), sharedEpoch})
}

// share stores in the shared tier what a read of the origin brought.
func (c *Cache) share(key Key) {
	c.mu.Lock()
	s := c.slots[key]
	if s == nil || s.entry.Key.Personal != 0 || s.mark.At.IsZero() || s.mark.Epoch == sharedEpoch {
		c.mu.Unlock()
		return
	}
	record := s.record()
	confirmed, ok := c.own.grants[key.right()]
	c.mu.Unlock()
	if !ok {
		return
	}
	c.o.Shared.Keep(context.Background(), []Record{record}, map[Right]time.Time{key.right(): confirmed})
}

// drop tells the shared tier that keys changed, or that rights were lost.
func (c *Cache) drop(keys []Key, rights []Right, at time.Time) {
	if c.o.Shared != nil && len(keys)+len(rights) > 0 {
		c.o.Shared.Drop(context.Background(), keys, rights, at)
	}
}

// sharedKeys are the keys whose answers w can change, as far as its path tells
// them: a version's own answer is verified by other means.
func (w *Write) sharedKeys(entries map[Key]*slot) []Key {
	seen := make(map[Key]bool)
	add := func(k Key) {
		if k.Path != "" {
			seen[k] = true
		}
	}
	for k := range entries {
		if k.Personal == 0 && w.affects(k) {
			add(k)
		}
	}
	for _, t := range w.paths {
		if t.prefix == "" {
			add(Key{Namespace: w.namespace, Path: t.rest})
			for p := parent(t.rest); p != ""; p = parent(p) {
				add(Key{Namespace: w.namespace, Path: p, Op: List})
			}
			continue
		}
		for _, kind := range [...]string{"data", "metadata", "subkeys"} {
			add(Key{Namespace: w.namespace, Path: t.prefix + "/" + kind + "/" + t.rest})
		}
		for p := parent(t.rest); p != ""; p = parent(p) {
			add(Key{Namespace: w.namespace, Path: t.prefix + "/metadata/" + p, Op: List})
		}
		add(Key{Namespace: w.namespace, Path: t.prefix + "/metadata", Op: List})
	}
	out := make([]Key, 0, len(seen))
	for k := range seen {
		out = append(out, k)
	}
	return out
}

func parent(p string) string {
	for i := len(p) - 1; i > 0; i-- {
		if p[i] == '/' {
			return p[:i]
		}
	}
	return ""
}
