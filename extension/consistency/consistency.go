// Package consistency makes an identity's reads see what it wrote, where the
// origin answers from nodes that may lag behind the active one.
//
// # The algorithm
//
// Vault Enterprise returns the header X-Vault-Index with every answer to a
// request that changed its storage: where the cluster's log stood then. A
// request that carries it is answered only by a node that has come as far;
// others answer 412, or forward it, as the header X-Vault-Inconsistent says
// (https://developer.hashicorp.com/vault/docs/enterprise/consistency). The
// Keeper remembers for each identity what it has seen, merged to the newest
// (state.go), and requires it of each of its requests (send.go). What one
// caller wrote is not required of another.
//
// The cache takes part: a read remembers what it required (Entry.ReadAt), and an
// entry answers an identity only if that covers what the identity wrote, and a
// request that requires a state itself only if it covers that, too. So an entry
// that another identity read from a node that lags never answers who wrote since.
//
// A login is a write, too. Its state is required of what is sent with its
// token, but of no entry: it changed no secret, and what others read before it is
// as good as ever. And a node that does not know a token yet that was issued just now is
// treated as one that lags, not as one that refuses.
//
// # Without headers
//
// OpenBao's standbys serve reads and know no such header. There the state of a
// write is the active node's raft_applied_index, asked for before the write's
// answer is returned (raft.go). For Wait the identity's reads go to the active
// node; afterwards to nodes that have applied that index. Caches there are
// invalidated after the index has moved: hence the wait.
//
// # Across instances
//
// With Shared, a state is kept in the shared tier before the write's answer is
// returned, and looked up before each request (shared.go).
package consistency

import (
	"cmp"
	"context"
	"crypto/sha256"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
)

// Options configures a Keeper. Zero values mean what the fields say.
type Options struct {
	Headers bool          // require states by header; false: only what raft.go does
	When    string        // under Headers: config.Config.WhenInconsistent
	Wait    time.Duration // how long InconsistentRetry waits before it asks the active node

	// Active makes requests go to the active node, where that is known; required.
	Active func(ctx context.Context) context.Context
	// AtLeast makes reads go to nodes that have applied a raft index, or to the
	// active one. nil: they go there anyhow, and raft.go has nothing to do.
	AtLeast func(ctx context.Context, index uint64) context.Context
	// Applied asks the active node for its raft_applied_index; 0 where storage is
	// not integrated. Needed with AtLeast.
	Applied func(ctx context.Context) (uint64, error)

	Shared Shared // states of the whole audience; nil: of this instance
	Log    *slog.Logger
	Now    func() time.Time
}

// Keeper knows what each identity requires. It is safe for concurrent use.
type Keeper struct {
	o          Options
	noForward  atomic.Bool // the origin refuses to forward by header
	sequence   atomic.Uint64
	behind     atomic.Uint64
	waits      atomic.Uint64
	activeSent atomic.Uint64

	mu      sync.Mutex
	records map[who]record // guarded by mu
	floor   record         // guarded by mu; of callers that were dropped
}

// record is what an identity requires.
type record struct {
	required string    // states, as the origin sent them
	at       time.Time // when the last was recorded
	issued   time.Time // when the identity's token was; zero: not through us
	wrote    bool      // holds more than the state at which its token was issued
	until    time.Time // reads go to the active node until then; see raft.go
}

// Bounds of what is remembered.
const (
	maxCallers = 1024
	// lifetime is how long a state is required. No node lags that long and
	// serves; a state of a cluster that is no more must not be required for ever.
	lifetime = time.Hour
)

// New returns a Keeper that requires nothing yet.
func New(o Options) *Keeper {
	o.Now = clock.Of(o.Now)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return &Keeper{o: o, records: make(map[who]record)}
}

// Counts are totals since the start.
type Counts struct {
	Behind uint64 // answers of nodes that lacked a required state
	Waits  uint64 // waits before such a node was asked again
	Active uint64 // requests that were sent to the active node for that reason
}

// Counts returns the totals.
func (k *Keeper) Counts() Counts {
	return Counts{k.behind.Load(), k.waits.Load(), k.activeSent.Load()}
}

// Written tells at which state an entry for id must have been read: that of what id
// wrote. The state of its login is required of nodes alone, since they have to know
// the token: it concerns no secret. The empty text is none.
func (k *Keeper) Written(id *cache.Identity) string {
	if r := k.find(whoIs(id)); r.wrote {
		return r.required
	}
	return ""
}

// who is an identity: a caller's token, hashed, since the Keeper holds none; the
// extension's own; or nobody, who has no token.
type who struct {
	own   bool
	token [sha256.Size]byte
}

func whoIs(id *cache.Identity) who {
	if id.Own() {
		return who{own: true}
	}
	return holder(id.Token)
}

// holder is who has a token.
func holder(token string) who {
	if token == "" {
		return who{}
	}
	return who{token: sha256.Sum256([]byte(token))}
}

func (w who) nobody() bool { return w == who{} }

// find returns what counts for w; the zero record is nothing.
func (k *Keeper) find(w who) record {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.findLocked(w); clock.Within(r.at, k.o.Now(), lifetime) {
		return r
	}
	return record{}
}

func (k *Keeper) findLocked(w who) record {
	if r, known := k.records[w]; known || w.own || w.nobody() {
		return r
	}
	return k.floor
}

// update replaces the record of w by what change makes of it.
func (k *Keeper) update(w who, change func(r *record)) {
	if w.nobody() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.findLocked(w)
	change(&r)
	k.records[w] = r
	k.thinLocked()
}

// thinLocked bounds the callers. What the longest unchanged required is from
// then on required of everyone who is not known: too much, never too little.
func (k *Keeper) thinLocked() {
	for len(k.records) > maxCallers {
		var oldest who
		for w, r := range k.records {
			if !w.own && (oldest.nobody() || r.at.Before(k.records[oldest].at)) {
				oldest = w
			}
		}
		last := k.records[oldest]
		delete(k.records, oldest)
		k.floor.take(strings.Split(last.required, separator), last.at, last.until)
		k.floor.wrote = true
	}
}

// take merges states that were seen at a time, and until when reads go to the active node.
func (r *record) take(states []string, at, until time.Time) {
	r.required = strings.Join(union(strings.Split(r.required, separator), states), separator)
	r.at, r.until = later(r.at, at), later(r.until, until)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
