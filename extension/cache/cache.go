// Package cache holds the answers of the origin in memory, and knows for each
// of them who may see it and how long ago it was known to be true.
//
// # The algorithm
//
// An Entry is one immutable answer under a Key: namespace, path, operation and
// the part of the query that the origin looks at. Beside it the cache keeps a
// Mark: when the request that last verified the entry was sent, and in which
// epoch (an epoch begins with each INVOKE). An entry may be served when three
// things hold:
//
//   - its mark is fresh: of this epoch (or at most MaxAge older than the
//     epoch's begin) and no older now than MaxAge + Recheck;
//   - it has not expired by itself (a KV v2 deletion_time, a lease, a TTL);
//   - the identity that asks holds a grant for the path: it has read it
//     successfully, and that was confirmed within the refresh interval.
//
// Whatever fails one of these is asked of the origin by Load: one request at a
// time for a key and an identity; those who ask meanwhile share it.
//
// A poll verifies all entries at once by Prove: entries carry the Anchor (a
// cursor of the origin, received before they were read), and a later request
// that finds the cursor where it was proves every entry with that anchor. That
// costs the same however many entries there are.
//
// # Writes
//
// A write through the proxy brackets itself with BeginWrite and EndWrite. Each
// evicts what the write can change, and each spoils the fills in flight for
// it. Both are needed: between the two, a read may see the old value or the
// new one,
//
//	reader: send read ──────────────► answer (old) ── store
//	writer:      begin ── send write ── applied ── end ── answer
//
// and a fill that began before the end may carry the old value although it is
// stored after it.
package cache

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Origin is how the cache asks the origin.
type Origin interface {
	// Ready makes sure that a request for id can be sent: it logs in when the
	// extension's own token is needed and there is none.
	Ready(ctx context.Context, id *Identity) error
	// Anchor returns the cursor of the origin as it was answered some time
	// before the call returned, or the zero Anchor where there is none.
	Anchor(ctx context.Context) Anchor
	// Read sends one read for key with id's token. The caller closes the body.
	Read(ctx context.Context, key Key, id *Identity, retry bool) (*http.Response, error)
}

// Consistency knows which state of the origin an identity's reads must have
// seen. Both methods are called under a lock of the cache's and do no I/O.
type Consistency interface {
	// Required names the state that a read for id requires now; empty: none.
	Required(id *Identity) string
	// Covers reports whether an answer to a read that required readAt serves
	// whoever requires required.
	Covers(readAt, required string) bool
}

// Options configures a Cache. Zero values mean what the fields say.
type Options struct {
	Origin          Origin
	Bytes           int64         // bound on the memory of entries and grants; 0: nothing is cached
	MaxAge          time.Duration // how much older than the epoch a verification may be
	Recheck         time.Duration // how long a verification lasts within an epoch
	TTL             time.Duration // upper bound on an entry's age; 0: none
	NegativeTTL     time.Duration // how long a 404 may be kept; 0: not at all
	StaleIfError    time.Duration // how long after its last verification an entry may be served while the origin fails; 0: never
	RefreshInterval time.Duration // how long a grant counts without being confirmed
	Pessimistic     bool          // a failing origin ends what is cached
	TTLOnly         bool          // nothing polls: TTL (or MaxAge + Recheck, if that is longer) decides
	FetchTimeout    time.Duration // bound on one read of the origin with its retries; 0: 60s
	MaxBody         int64         // larger answers are passed through and not kept; 0: 4 MiB
	Mounts          []Mount       // KV mounts known beforehand
	NoCache         []string      // paths that are never cached; "*" at the end, "+" for a segment
	Shared          Shared        // the tier below; nil: none
	Lag             time.Duration // how far a node may lag behind a change that a stream tells of
	Reconcile       time.Duration // how long a read is taken for verified by a stream; 0: not at all
	Consistency     Consistency   // what reads must have seen; nil: nothing in particular
	Skew            time.Duration // how much another instance's clock may be ahead of ours
	Log             *slog.Logger
	Now             func() time.Time
}

// Cache is the memory tier. It is safe for concurrent use.
type Cache struct {
	o   Options
	own *Identity

	ctx    context.Context // ends with Close; bounds every fill
	cancel context.CancelFunc
	fills  sync.WaitGroup

	// mu guards everything below, and the grants of every Identity.
	mu       sync.Mutex
	slots    map[Key]*slot
	heads    heads
	lru      slot // list head: lru.next is the most recently used
	size     int64
	segments map[string]int // first path segment -> entries, to dismiss unrelated writes

	epoch      uint64
	epochBegan time.Time
	looked     time.Time // when the clocks were last compared; see watchClockLocked

	proven       Mark   // entries whose anchor is provenAnchor were verified then
	provenAnchor Anchor //
	failed       Mark   // the last verification of everything that the origin failed
	failedErr    error

	stream listening // to events

	callers  map[string]*Identity // by token
	lastID   uint64
	mounts   map[mountKey]int      // version of known KV mounts, 0: known not to be KV
	mounted  int64                 // estimated memory of those that were learned
	refusals map[refusal]time.Time // when an identity was refused the mount of a path
	flights  map[flightKey]*flight
	running  map[*flight]struct{}
	writes   map[*Write]struct{}
	// writeCount counts the writes begun and ended.
	writeCount uint64
	written    writings // with a shared tier
	counters   Counters
}

// Counters are totals since the start.
type Counters struct {
	Entries     int
	Bytes       int64
	Identities  int
	Evicted     uint64 // for room
	Invalidated uint64 // by writes, 403, 404
	Stored      uint64
	Fills       uint64 // reads sent to the origin
	Shared      uint64 // callers who shared another's read
	Adopted     uint64 // entries taken over from the shared tier
	Borrowed    uint64 // of those, the ones whose right another instance had confirmed
}

// ErrClosed is returned by Load after Close.
var ErrClosed = errors.New("the cache is closed")

// New returns an empty cache. Close ends what it runs.
func New(o Options) *Cache {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FetchTimeout <= 0 {
		o.FetchTimeout = time.Minute
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 4 << 20
	}
	c := &Cache{
		o:        o,
		slots:    make(map[Key]*slot),
		segments: make(map[string]int),
		callers:  make(map[string]*Identity),
		mounts:   make(map[mountKey]int),
		flights:  make(map[flightKey]*flight),
		running:  make(map[*flight]struct{}),
		writes:   make(map[*Write]struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.lru.next, c.lru.prev = &c.lru, &c.lru
	c.own = c.newIdentityLocked("")
	c.own.own = true
	c.resetMountsLocked()
	return c
}

// Close ends every fill and waits for them.
func (c *Cache) Close() {
	c.mu.Lock() // no fill begins between the two
	c.cancel()
	c.mu.Unlock()
	c.fills.Wait()
}

// Counters returns the totals.
func (c *Cache) Counters() Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counters
	n.Entries, n.Bytes, n.Identities = len(c.slots), c.size, len(c.callers)
	return n
}

// Begin starts a new epoch: verifications sent before now count only within
// MaxAge from here on. It returns the epoch's number.
func (c *Cache) Begin(now time.Time) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.Shared != nil {
		c.watchClockLocked(now)
	}
	c.epoch++
	c.epochBegan = now
	return c.epoch
}

// Epoch returns the number of the running epoch.
func (c *Cache) Epoch() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// Empty reports whether nothing is cached.
func (c *Cache) Empty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.slots) == 0
}

// Fresh reports whether a verification with this mark counts at now.
func (c *Cache) Fresh(m Mark, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.freshLocked(m, now)
}

func (c *Cache) freshLocked(m Mark, now time.Time) bool {
	if m.At.IsZero() {
		return false
	}
	allowed := c.o.MaxAge + c.o.Recheck
	if c.o.TTLOnly {
		return Within(m.At, now, max(allowed, c.o.TTL))
	}
	if !Within(m.At, now, allowed) {
		return false
	}
	if m.Epoch == sharedEpoch && c.o.MaxAge > 0 && !m.At.Before(c.epochBegan) {
		return true // another instance verified it since this epoch began
	}
	return m.Epoch == c.epoch || c.o.MaxAge > 0 && Within(m.At, c.epochBegan, c.o.MaxAge)
}

// Prove records that a request sent at m.At found the origin's cursor where
// anchor says: every entry with that anchor is verified as of m.
func (c *Cache) Prove(anchor Anchor, m Mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if anchor.Zero() || m.At.Before(c.proven.At) {
		return
	}
	if !anchor.Same(c.provenAnchor) {
		for _, s := range c.slots {
			s.proof = c.proofLocked(s)
		}
	}
	c.proven, c.provenAnchor = m, anchor
}

// proofLocked returns the newest verification of s by a cursor.
func (c *Cache) proofLocked(s *slot) Mark {
	if !s.entry.Anchor.Zero() && s.entry.Anchor.Same(c.provenAnchor) && c.proven.newer(s.proof) && c.proven.At.After(s.since) {
		return c.proven
	}
	return s.proof
}

// Fail records that a verification of everything was tried at m.At and that
// the origin failed it. Under the pessimistic behaviour that ends everything
// that is cached.
func (c *Cache) Fail(m Mark, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed, c.failedErr = m, err
	if c.o.Pessimistic {
		c.clearLocked()
	}
}

// markLocked returns the newest verification of s.
func (c *Cache) markLocked(s *slot) Mark {
	m := c.askedLocked(s)
	if !c.stream.since.IsZero() {
		return c.streamedLocked(s, m)
	}
	return m
}

// trueLocked returns when s was last known to be true: when it was verified last,
// or read.
func (c *Cache) trueLocked(s *slot) time.Time {
	at := c.markLocked(s).At
	if s.true.After(at) {
		at = s.true
	}
	if at.IsZero() {
		at = s.entry.FetchedAt
	}
	return at
}

// askedLocked returns the newest verification of s by a request.
func (c *Cache) askedLocked(s *slot) Mark {
	if p := c.proofLocked(s); p.newer(s.mark) {
		return p
	}
	return s.mark
}

// Clear drops every entry and every grant.
func (c *Cache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clearLocked()
}

func (c *Cache) clearLocked() {
	for _, s := range c.slots {
		c.removeLocked(s)
	}
	c.own.dropLocked(c)
	for _, id := range c.callers {
		id.dropLocked(c)
	}
	c.spoilWhereLocked(func(*flight) bool { return true })
}
