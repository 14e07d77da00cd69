// Package warmup fills the shared tier ahead of reads: the scheduled function
// that peers of thaw call a proactive cache.
//
// # One run
//
//  1. For each audience a lock in memcached makes one instance the leader; an
//     audience that another instance leads is left alone.
//  2. What is due follows from sealed state in memcached. Nothing recorded, or
//     older than CACHE_TTL: a full pass. PROACTIVE_CACHE_MINIMUM_FETCHING_TIME
//     over: a modified pass. A pass that was cut off: the rest of it. Otherwise
//     nothing.
//  3. A modified pass first asks where the origin's cursor is. Stands it where
//     it stood before the last complete pass began, nothing changed, and that
//     one request was all.
//  4. A pass lists everything below the audience's prefixes, then reads every
//     secret: a few workers, each with a small batch in its hands, so memory
//     doesn't grow with the secrets but for their paths. A batch is compared
//     with what the tier holds, put there, and stamped as verified.
//  5. What was in the inventory of the pass before and is no more is removed,
//     below prefixes that could be listed completely and nowhere else.
//
// # What ends a pass early
//
// The deadline of the function less ten seconds, the loss of the lock, or a
// rate limit that refuses too often (see the package backoff): the pass stops, the
// state says how far it came, and the next run goes on there. While the origin
// is away the pass waits for it, and deletes nothing; an empty tier gets the
// backup first, if there is one.
//
// # Why two of them do no harm
//
// Records carry the time at which the request that verified them was sent, and
// the tier keeps the later one. A leader that was frozen and thaws after its
// lease writes what others already know better, and loses. It also looks at
// its own lease before it writes, which spares the work, no more.
//
// It writes entries and stamps, and never a grant: what a function may read it
// asks of the origin itself.
package warmup

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

// Tier is the shared tier of one audience: its entries, what tells its functions that they
// are verified, the capabilities of its identities, and the warm-up's own sealed state.
type Tier interface {
	// Entries returns what there is for keys.
	Entries(ctx context.Context, keys []cache.Key) map[cache.Key]cache.Record
	// Put stores records; one that was verified later stays.
	Put(ctx context.Context, records []cache.Record)
	// Remove says that what was stored for keys before at is no more.
	Remove(ctx context.Context, keys []cache.Key, at time.Time) (lost int)

	// PutStamps tells functions what was verified, where stamps are in use.
	PutStamps(ctx context.Context, cursor cache.CursorStamp, entries map[cache.Key]cache.Stamp)
	// Learned tells whether reads are answered by the active node, while that
	// one's active_time is this, as sys/health said at that time: a cold function need
	// not ask.
	Learned(ctx context.Context, activeTime string, forwards bool, at time.Time)

	// Used returns the capabilities that some function of the audience holds.
	Used(ctx context.Context) map[cache.Capability]bool
	// Held gives, for each identity, what is known of its capabilities. The warm-up
	// makes none.
	Held(ctx context.Context) []Held
	// PutHeld merges such with what is there.
	PutHeld(ctx context.Context, held Held)
	// EndRole ends what the identities of a role hold, and reports whether that was
	// written.
	EndRole(ctx context.Context, role string, at time.Time) bool

	// State reads what was stored under name and reports whether it could.
	State(ctx context.Context, name string, into any) bool
	PutState(ctx context.Context, name string, v any, ttl time.Duration)
	// Lock takes a lock that nobody holds, for ttl. taken: another holds it; where
	// memcached does not say, it is neither held nor taken.
	Lock(ctx context.Context, name string, ttl time.Duration) (l Lease, held, taken bool)
}

// Lease is a lock that is held.
type Lease interface {
	Renew(ctx context.Context) bool
	Release(ctx context.Context)
}

// Held is what an identity holds, or held.
type Held struct {
	Identity     string // as the tier names it; of a role's end: none
	Role         string
	Capabilities []Known
}

// Known is what is known of one capability; the empty one stands for all.
type Known struct {
	cache.Capability
	cache.Confirmation
}

// Origin sends requests under the warm-up's own identity.
type Origin interface {
	// Ready logs in if there is no token.
	Ready(ctx context.Context) error
	// Ask sends one request to a path below /v1/ and returns the answer,
	// whose body the caller closes.
	Ask(ctx context.Context, method, namespace, path string) (*http.Response, error)
}

// Asker asks the origin about itself, without a token.
type Asker = cursor.Asker

// Audience is one group of functions that share a key, and what is warmed for
// it.
type Audience struct {
	Name      string
	Namespace string
	Prefixes  []string // mounts and folders: "secret/", "kv/app/"
	Sealer    Sealer   // of its backups; nil: there are none
	Tier
}

// Options configures a Warmer.
type Options struct {
	Audiences     []Audience
	Origin        Origin
	Asker         Asker
	Backoff       *backoff.Backoff // that Origin and Asker go through; nil: none
	Workers       int
	FullEvery     time.Duration // CACHE_TTL
	ModifiedEvery time.Duration // 0: every run
	Keep          time.Duration // how long state is kept
	ConfirmedOnly bool          // only what some member holds a grant for
	Mounts        []cache.Mount // KV mounts known beforehand
	Skip          []string      // paths that are never stored; "*" at the end, "+" for a segment
	Backup        *Backup       // nil: none
	Progress      func(Summary) // called now and then; nil: nobody looks
	Log           *slog.Logger
	Now           func() time.Time
}

// Limits of a run.
const (
	spare      = 10 * time.Second // before the deadline: time to write down how far the pass came
	leaseTTL   = 15 * time.Second
	cursorTick = time.Second
)

// Warmer runs passes. One Run at a time.
type Warmer struct {
	o      Options
	cursor *cursor.Cursor
	away   *coalesce.Group[struct{}, bool] // the wait for an origin that is away

	mu      sync.Mutex // guards the fields below
	summary Summary
	before  backoff.Stats      // when this run began
	left    map[string]Resume  // by audience: what is not through
	stood   *cache.CursorStamp // where the index was when it was last asked for; nil: not in this run, or unknown
	until   time.Time          // when this run waits for the origin no more

	mounts   map[string]cache.Mount // learned, by namespace and prefix; touched by one goroutine at a time
	costTold bool                   // see sayCost; likewise
	idle     map[string]string      // audiences that were not led in the last run: why; likewise

	getScan atomic.Bool // a recursive list is a GET with a parameter here: the method SCAN is not offered
}

// New returns a Warmer.
func New(o Options) *Warmer {
	o.Now = clock.Of(o.Now)
	w := &Warmer{o: o, mounts: make(map[string]cache.Mount), idle: make(map[string]string)}
	w.cursor = cursor.NewForPasses(o.Asker, o.Log, o.Now)
	w.away = coalesce.New[struct{}](coalesce.Options[bool]{CancelUnwanted: true})
	return w
}

// Order says what a run is to do.
type Order struct {
	Full bool          // a full pass, whatever the state says
	For  time.Duration // how long to go on keeping stamps young; 0: one cycle
}

// Run does what is due, for every audience that nobody else leads. It returns
// when that is done, and with Order.For when that time is over; in any case ten
// seconds before ctx's deadline.
func (w *Warmer) Run(ctx context.Context, order Order) Summary {
	began := w.o.Now()
	stop := stopAt(ctx, began, order)
	w.begin(cmp.Or(stop, began.Add(awayMost)))
	defer w.cursor.Learn(ctx) // what is asked of the origin ends with the run: a freeze may follow
	// What is stored and released at the end has the ten seconds for it.
	last := context.WithoutCancel(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	if !stop.IsZero() {
		timer := time.AfterFunc(stop.Sub(began), func() { cancel(errDeadline) })
		defer timer.Stop()
	}
	leads := w.lead(ctx, last)
	defer func() {
		for _, l := range leads {
			l.release(last)
		}
	}()
	var stamper sync.WaitGroup
	stamper.Go(func() {
		rescue.Keep(ctx, w.o.Log, "tell where the index is", func(ctx context.Context) { w.keepStamps(ctx, leads) })
	})
	defer func() { cancel(nil); stamper.Wait() }()
	w.cycle(ctx, leads, order.Full)
	for order.For > 0 && slices.ContainsFunc(leads, (*leadership).held) && wait.For(ctx, cursorTick) == nil {
		now := w.o.Now()
		if slices.ContainsFunc(leads, func(l *leadership) bool { return l.held() && !now.Before(l.next) }) {
			w.cycle(ctx, leads, false)
		}
	}
	s := w.current()
	s.Seconds = max(0, float64(w.o.Now().Sub(began).Milliseconds())/1000)
	return s
}

// cycle runs each audience's pass once. What is unchanged is told of the last
// cycle, everything else of all of them.
func (w *Warmer) cycle(ctx context.Context, leads []*leadership, full bool) {
	w.note(func(s *Summary) { s.Unchanged = 0 })
	if w.o.Backoff != nil {
		w.o.Backoff.Cycle()
	}
	for i, l := range leads {
		if l.held() && l.ctx.Err() == nil {
			l.cycle(ctx, leads[i+1:], full)
		}
	}
}

// stopAt is when the run has to come to its end; zero: never.
func stopAt(ctx context.Context, began time.Time, order Order) time.Time {
	var ends []time.Time
	if d, ok := ctx.Deadline(); ok {
		ends = append(ends, began.Add(time.Until(d)-spare))
	}
	if order.For > 0 {
		ends = append(ends, began.Add(order.For))
	}
	if len(ends) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(ends, time.Time.Compare)
}
