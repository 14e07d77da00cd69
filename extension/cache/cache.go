// Package cache holds the answers of the origin in memory, and answers four
// questions about each of them.
//
// # The algorithm
//
// An Entry is one immutable answer under a Key: namespace, path, operation and
// the part of the query that the origin looks at. It may be served when three
// things hold:
//
//   - the identity that asks holds a capability for the path: it has read it
//     successfully, and that was confirmed within the refresh interval;
//   - it was verified in this epoch, which began with the INVOKE (or at most
//     MaxAge before that), and no longer ago than MaxAge + Recheck;
//   - its time is not over: a KV v2 deletion_time, a lease, a TTL.
//
// Whatever fails one of these is asked of the origin by Load.
//
// # Who answers what
//
//   - Who may see it? Access: identities, their capabilities, and an index of the
//     holders of each.
//   - Is it still true? judge, a pure function of an entry's record, the settings,
//     the epoch and the time. Ledger writes the records down: what reads, index
//     checks, other instances and a Stream of events verify or cast doubt on.
//   - How is it fetched, and what does a write undo? fill: one request at a time
//     for a key and an identity, which those who ask meanwhile share; BeginWrite and
//     EndWrite.
//   - What is this path? Mounts, and the kinds of kind.go.
//
// The store of entries knows none of that. Cache puts them together.
//
// # One index check
//
// Entries that were read at the same recorded Index (a cursor of the origin,
// received before they were read) are one group. A later request that finds the
// cursor where it was verifies the group by one note, however many entries it has.
//
// # Writes
//
// A write through the proxy brackets itself with BeginWrite and EndWrite. The first
// sets aside what the write can change, the second drops it, and each has the fills
// on their way for it forgotten. A write that changed nothing for certain gives back
// what it set aside. Both are needed: between the two, a read may see the old value or the
// new one,
//
//	reader: send read ──────────────► answer (old) ── store
//	writer:      begin ── send write ── applied ── end ── answer
//
// and a fill that began before the end may carry the old value although it is
// stored after it.
package cache

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
)

// Origin is how the cache asks the origin.
type Origin interface {
	// Ready makes sure that a request for id can be sent: it logs in when the
	// extension's own token is needed and there is none.
	Ready(ctx context.Context, id *Identity) error
	// Index returns the origin's index as it was answered some time before the
	// call returned, in an epoch; zero: there is none.
	Index(ctx context.Context, epoch uint64) Index
	// Read sends one read. The caller closes the body.
	Read(ctx context.Context, q Question) (*http.Response, error)
}

// Question is one read of the origin.
type Question struct {
	Key      Key
	ID       *Identity // whose token goes along
	Retry    bool
	Harmless bool    // it is known to change nothing, so it may be sent a second time
	After    *Change // the change that it follows; nil: none
	State    string  // the state of the origin that the request itself requires; empty: none
}

// Options configures a Cache. Zero values mean what the fields say.
type Options struct {
	Origin          Origin
	Own             *Identity     // the extension's own; nil: one of the cache's own
	Bytes           int64         // bound on the memory of entries and capabilities; 0: nothing is cached
	MaxAge          time.Duration // how much older than the epoch a verification may be
	Recheck         time.Duration // how long a verification lasts within an epoch
	TTL             time.Duration // upper bound on an entry's age; 0: none
	NegativeTTL     time.Duration // how long a 404 may be kept; 0: not at all
	StaleIfError    time.Duration // how long after its last verification an entry may be served while the origin fails; 0: never
	RefreshInterval time.Duration // how long a capability counts without being confirmed
	Pessimistic     bool          // a failing origin ends what is cached
	TTLOnly         bool          // nothing polls: TTL (or MaxAge + Recheck, if that is longer) decides
	FetchTimeout    time.Duration // bound on one read of the origin with its retries; 0: 60s
	FetchEnded      error         // why a read ends then, a context.DeadlineExceeded; nil: that itself
	Mounts          []Mount       // KV mounts known beforehand
	NoCache         []string      // paths that are never cached; "*" at the end, "+" for a segment
	Shared          Shared        // the tier below; nil: none
	Lag             time.Duration // how far a node may lag behind a change that a stream notifies of
	Reconcile       time.Duration // how long a read is taken for verified by a stream; 0: not at all
	Skew            time.Duration // how much another instance's clock may be ahead of ours
	Now             func() time.Time

	// Required names the state of the origin that a read for an identity must have
	// seen now; empty: none. Covers reports whether an answer to a read that required
	// readAt serves whoever requires required. Both are called under a lock of the
	// cache's and do no I/O. nil: nothing is required, and a state covers just itself.
	Required func(*Identity) string
	Covers   func(readAt, required string) bool
}

// Cache is the memory tier: it puts the owners of the four questions together. It
// is safe for concurrent use.
type Cache struct {
	o      Options
	access *Access
	mounts *Mounts
	ledger *Ledger

	ctx    context.Context // ends with Close; bounds every stream
	cancel context.CancelFunc
	fills  *coalesce.Group[fillKey, *fill]

	// mu guards everything below, and what the ledger holds. It is taken before
	// the mutexes of access and mounts.
	mu       sync.Mutex
	store    *store
	current  map[fillKey]*fill // those that may be joined
	running  map[*fill]struct{}
	writes   map[*Write]struct{}
	written  changes // with a shared tier
	counters Counters
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
	FromShared  uint64 // entries filled from the shared tier
	Borrowed    uint64 // of those, the ones whose capability another instance had confirmed
}

// New returns an empty cache. Close ends what it runs.
func New(o Options) *Cache {
	o.Now = clock.Of(o.Now)
	o.Own = cmp.Or(o.Own, NewOwn())
	o.FetchTimeout = cmp.Or(o.FetchTimeout, time.Minute)
	o.FetchEnded = cmp.Or(o.FetchEnded, context.DeadlineExceeded)
	if o.Required == nil {
		o.Required = func(*Identity) string { return "" }
	}
	c := &Cache{
		o: o, store: newStore(o.Bytes),
		fills:   coalesce.New[fillKey](coalesce.Options[*fill]{Limit: o.FetchTimeout, CancelUnwanted: true, Now: o.Now}),
		current: make(map[fillKey]*fill), running: make(map[*fill]struct{}), writes: make(map[*Write]struct{}),
	}
	c.mounts = newMounts(&c.o)
	c.access = newAccess(&c.o, c.dropUnseen)
	c.ledger = &Ledger{c: c, groups: make(map[Index]*group)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends every fill and waits for them.
func (c *Cache) Close() {
	c.mu.Lock() // no fill begins between the two
	c.cancel()
	c.mu.Unlock()
	_ = c.fills.Close(context.Background()) // waits without a bound
}

// Access says who may see what.
func (c *Cache) Access() *Access { return c.access }

// Mounts says what a path is.
func (c *Cache) Mounts() *Mounts { return c.mounts }

// Ledger says what is still true.
func (c *Cache) Ledger() *Ledger { return c.ledger }

// Stream takes in what a subscription to the origin's events notifies.
func (c *Cache) Stream() Stream { return Stream{c} }

// Own returns the extension's own identity.
func (c *Cache) Own() *Identity { return c.o.Own }

// Counters returns the totals.
func (c *Cache) Counters() Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counters
	n.Identities = c.access.count()
	c.dropUnseenLocked()
	n.Entries, n.Bytes = len(c.store.slots), c.sizeLocked()
	return n
}

// Empty reports whether nothing is cached.
func (c *Cache) Empty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.store.slots) == 0
}

// Clear drops every entry and every capability.
func (c *Cache) Clear() {
	c.access.clear()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropUnseenLocked()
	c.dropWhereLocked(func(Key) bool { return true })
}

// dropUnseen drops the entries that nobody may see any more, and makes room for
// new identities and capabilities.
func (c *Cache) dropUnseen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropUnseenLocked()
	c.trimLocked(nil)
}

func (c *Cache) dropUnseenLocked() {
	if c.access.unseen.Load() {
		c.access.takeUnseen(func(k Key) {
			if s := c.store.slots[k]; s != nil {
				c.removeLocked(s)
			}
		})
	}
}

func (c *Cache) removeLocked(s *slot) {
	c.store.remove(s)
	c.ledger.leaveLocked(s.truth.index)
	s.truth.index = nil
}

// dropWhereLocked drops the entries of which which says so, and has their fills forgotten.
func (c *Cache) dropWhereLocked(which func(Key) bool) {
	for k, s := range c.store.slots {
		if which(k) {
			c.removeLocked(s)
		}
	}
	c.forgetFillsLocked(func(f *fill) bool { return which(f.key) })
}

func (c *Cache) insertLocked(s *slot, index Index) {
	s.truth.asked = cmp.Or(s.truth.asked, c.ledger.moment.asking)
	var after *slot
	if old := c.store.slots[s.entry.Key]; old != nil { // to be read again is no use
		s.truth.asked, after = old.truth.asked, old.prev
		c.removeLocked(old)
	}
	if !c.store.insert(s, after) {
		return
	}
	s.truth.index = c.ledger.joinLocked(index)
	c.counters.Stored++
	c.trimLocked(s)
}

// sizeLocked is the estimated memory of all entries, identities and capabilities.
func (c *Cache) sizeLocked() int64 { return c.store.size + c.access.index.size.Load() }

// trimLocked makes room: callers that hold nothing go first; those that were not used
// for the longest time, as long as all together take more than half of it: who comes no
// more costs nobody what is cached; then the least recently used entries, then, if
// the capabilities alone are too many, the callers' and at last our own.
func (c *Cache) trimLocked(keep *slot) {
	if c.sizeLocked() > c.o.Bytes {
		c.access.thin(c.o.Bytes-c.store.size, c.o.Bytes/2)
		c.dropUnseenLocked()
	}
	for c.sizeLocked() > c.o.Bytes {
		last := c.store.recent.prev
		if last == &c.store.recent || last == keep {
			break
		}
		c.removeLocked(last)
		c.counters.Evicted++
	}
	if c.sizeLocked() > c.o.Bytes {
		c.access.shrink(c.o.Bytes - c.store.size)
		c.dropUnseenLocked()
	}
}
