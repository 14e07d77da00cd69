// Package poll learns, at each INVOKE, whether what is cached is still what
// the origin would answer.
//
// A poll takes the cheapest step that proves it:
//
//  1. The cursor: one GET of sys/leader. Entries carry the cursor that was
//     received before they were read (their anchor); if a request sent now
//     finds the last appended raft index where the anchor found the last
//     applied one, on the same active node, nothing was written in between,
//     and every entry with that anchor is proven at once. See Cursor.
//  2. Versions: what is not proven is read again, in parallel, most recently
//     used first, until the budget ends.
//
// Reads wait for the cursor only (Wait); an entry that it does not prove is
// then checked by the read itself, which shares the request of the poll if
// that is on its way. What the budget leaves unreached stays unverified, and
// its next read makes its own check. Only an origin that fails or is silent
// makes reads fall back to what is cached (Cache.Fail).
//
// Where instances share verifications (Stamps), a poll first takes over what
// others verified, asks for the cursor only if nobody just does, and leaves the
// re-reads to a poll that somebody waits for: mostly another instance is quicker,
// and a verifier that was frozen in the midst would keep all others waiting.
//
// A poll verifies only for invocations that began before it started. A poll
// of an older epoch, one that a freeze interrupted, say, is cancelled when the
// next INVOKE comes.
package poll

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
)

// Mode says when polls run.
type Mode uint8

// Modes.
const (
	OnInvoke Mode = iota // at each INVOKE
	OnRead               // at an invocation's first read
	Off                  // never: the TTL decides
)

// Maintainer keeps a login alive.
type Maintainer interface {
	// Maintain renews what is about to end. It is called after the cursor was
	// asked, since a renewal moves it.
	Maintain(ctx context.Context) error
}

// Options configures a Poller.
type Options struct {
	Cache       *cache.Cache
	Cursor      *Cursor
	Permissions *Permissions
	Maintainer  Maintainer                // nil: nothing to maintain
	Stamps      Stamps                    // nil: none, or too short-lived to be of use
	LoggedIn    func() bool               // whether a read needs no login first; nil: it never does
	Mode        Mode                      //
	Timeout     time.Duration             // budget of a poll, connecting apart
	Connect     time.Duration             // what connecting may take besides
	Recheck     time.Duration             // how long a failed poll is not repeated
	Ahead       time.Duration             // what is verified for less than that longer, Ahead verifies again; 0: a quarter of Recheck
	Concurrency int                       // re-reads at a time
	After       func(ctx context.Context) // called at the end of each poll; nil: nothing hangs on one
	Log         *slog.Logger
	Now         func() time.Time
}

// Poller runs polls, one at a time.
type Poller struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	running *run // guarded by mu
	last    *run // guarded by mu; the last that ended by itself

	looking atomic.Pointer[run] // looks at the stamps; nil: none does

	counts counts
}

type counts struct {
	polls, proven, moved, reread, failed, unreached, stamps atomic.Uint64
	stampAge                                                atomic.Int64
}

// Counts are totals since the start.
type Counts struct {
	Polls     uint64 // polls begun
	Proven    uint64 // polls that the cursor answered alone
	Moved     uint64 // polls whose cursor had moved
	Reread    uint64 // secrets read again by polls
	Failed    uint64 // polls that the origin failed
	Unreached uint64 // secrets that a budget left unverified
	Stamps    uint64 // verifications of other instances that polls found
	// StampAge is the age of the oldest of them at the last poll that found any.
	StampAge time.Duration
}

// run is one poll.
type run struct {
	epoch   uint64
	started time.Time
	cancel  context.CancelFunc
	look    sync.Once     // closes looked
	looked  chan struct{} // closed when the stamps were looked at
	cursor  chan struct{} // closed when the cursor step is over
	done    chan struct{} // closed when the poll is over
	err     error         // written before done is closed: how the origin failed it
	budget  *budget
	// cancelAfter ends what hangs on the poll; guarded by Poller.mu.
	cancelAfter context.CancelFunc
	horizon     time.Duration   // what will want verification within it is verified too
	glanced     atomic.Int64    // when the stamps were last looked at while waiting, Unix nanoseconds
	patience    context.Context // ends when no other instance is waited for any more
	goesOn      bool            // another poll of this epoch has asked for the cursor just now
	wanted      bool            // guarded by Poller.mu; somebody waits for all of it
	rest        bool            // guarded by Poller.mu; it left the re-reads to a poll that somebody waits for
}

// New returns a Poller. Close ends what it runs.
func New(o Options) *Poller {
	if o.Ahead <= 0 {
		o.Ahead = o.Recheck / 4
	}
	p := &Poller{o: o}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close cancels the running poll and waits for it.
func (p *Poller) Close() {
	p.mu.Lock() // no poll begins between the two
	p.cancel()
	p.mu.Unlock()
	p.wg.Wait()
}

// Counts returns the totals.
func (p *Poller) Counts() Counts {
	c := &p.counts
	return Counts{c.polls.Load(), c.proven.Load(), c.moved.Load(), c.reread.Load(), c.failed.Load(), c.unreached.Load(), c.stamps.Load(), time.Duration(c.stampAge.Load())}
}

// Invoke begins an epoch: a new invocation was taken at now. It returns at
// once; the poll, if there is anything to verify, runs by itself.
func (p *Poller) Invoke(now time.Time) {
	epoch := p.o.Cache.Ledger().Begin(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		p.running.cancel()
		if p.running.cancelAfter != nil {
			p.running.cancelAfter()
		}
		p.running = nil
	}
	if p.o.Mode == OnInvoke && !p.o.Cache.Empty() {
		p.startLocked(epoch, 0)
	}
}

// Wait makes sure that a poll of the running epoch has done its cursor step,
// starting one if there is none. It returns early when ctx ends.
func (p *Poller) Wait(ctx context.Context) {
	if p.o.Mode == Off {
		return
	}
	if p.o.Stamps != nil {
		p.waitAll(ctx) // what others verify is worth waiting for
		return
	}
	select {
	case <-p.current(0, false).cursor:
	case <-ctx.Done():
	}
}

// waitAll waits for a poll with its re-reads: the running one, or where that
// left them to those who want them, one more.
func (p *Poller) waitAll(ctx context.Context) *run {
	for {
		r := p.current(0, true)
		select {
		case <-r.done:
		case <-ctx.Done():
			return r
		}
		p.mu.Lock()
		rest := r.rest
		p.mu.Unlock()
		if !rest {
			return r
		}
	}
}

// Run makes sure that a poll of the running epoch is over.
func (p *Poller) Run(ctx context.Context) error {
	r := p.waitAll(ctx)
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Ahead starts a poll without waiting for it, where none runs: hosts that do
// not freeze verify shortly before it is needed.
func (p *Poller) Ahead() {
	if p.o.Mode != Off {
		p.current(p.o.Ahead, false)
	}
}

// current returns a poll that verifies for the running epoch. wanted says that
// the caller waits for its re-reads, too.
func (p *Poller) current(horizon time.Duration, wanted bool) *run {
	epoch := p.o.Cache.Ledger().Epoch()
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.running; r != nil {
		// A poll that outlived its budget was interrupted by a freeze.
		if r.epoch == epoch && clock.Within(r.started, p.o.Now(), 2*(p.o.Timeout+p.o.Connect)) {
			r.wanted = r.wanted || wanted
			return r
		}
		r.cancel()
	}
	goesOn := false
	if r := p.last; r != nil && r.epoch == epoch && r.err != nil && clock.Within(r.started, p.o.Now(), p.o.Recheck) {
		return r // failed just now: not again for each read
	} else if r != nil && r.epoch == epoch && horizon > 0 && r.horizon > 0 && clock.Within(r.started, p.o.Now(), p.o.Ahead) {
		return r // what it left over is not tried again for each read either
	} else if r != nil && r.epoch == epoch && r.rest {
		goesOn = clock.Within(r.started, p.o.Now(), p.o.Recheck)
	}
	r := p.startLocked(epoch, horizon)
	r.wanted, r.goesOn = wanted, goesOn
	return r
}

func (p *Poller) startLocked(epoch uint64, horizon time.Duration) *run {
	b := newBudget(p.ctx, p.o.Timeout, p.o.Connect)
	r := &run{epoch: epoch, started: p.o.Now(), cancel: b.cancel, budget: b, looked: make(chan struct{}), cursor: make(chan struct{}), done: make(chan struct{}), horizon: horizon}
	if p.ctx.Err() != nil {
		b.cancel()
		r.err = errClosed
		close(r.cursor)
		close(r.done)
		return r
	}
	p.running = r
	if p.o.Stamps != nil {
		p.looking.Store(r)
		var impatient context.CancelFunc
		r.patience, impatient = context.WithTimeout(b.ctx, turns*p.courtesy())
		context.AfterFunc(b.ctx, impatient)
	}
	p.counts.polls.Add(1)
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer b.cancel()
		p.mu.Lock() // whoever began it says for what
		goesOn := r.goesOn
		p.mu.Unlock()
		r.err = p.poll(r, goesOn)
		p.endLook(r)
		p.mu.Lock()
		if p.running == r {
			p.running, p.last = nil, r
		}
		p.mu.Unlock()
		close(r.done)
	}()
	return r
}

// poll runs the steps. Its error is the origin's failure, not a cancellation.
func (p *Poller) poll(r *run, goesOn bool) error {
	ctx := r.budget.ctx
	var cursorOver sync.Once
	endCursor := func() { cursorOver.Do(func() { close(r.cursor) }) }
	defer endCursor()

	// Grants are confirmed beside the cursor: they are independent.
	var confirm sync.WaitGroup
	confirm.Go(func() { p.o.Permissions.ConfirmAll(ctx, p.o.Cache.Own()) })
	defer confirm.Wait()

	answered := false
	var outcome outcome
	var err error
	switch {
	case p.o.Stamps == nil:
		outcome, err = p.o.Cursor.verify(ctx, p.o.Cache.Ledger(), r.epoch)
	case p.look(r):
		outcome = useless // no need to ask
	case goesOn:
	case len(p.o.Cache.Ledger().Unverified(p.o.Now().Add(r.horizon))) > 0:
		outcome, err = p.shareCursor(r)
	}
	switch {
	case err != nil && p.cancelled(r):
		return nil
	case err != nil:
		return p.fail(r, err)
	case outcome == moved:
		p.counts.moved.Add(1)
		answered = true
	case outcome != nothing:
		answered = true
	}
	if outcome == proved || outcome == moved {
		// What another instance read since then may have an anchor where the
		// cursor is now.
		if checks := p.o.Cache.Ledger().Unverified(p.o.Now().Add(r.horizon)); len(checks) > 0 {
			p.o.Cache.FillNewer(ctx, checks)
		}
	}
	endCursor()
	if p.o.Maintainer != nil {
		if err := p.o.Maintainer.Maintain(ctx); err != nil && ctx.Err() == nil {
			p.o.Log.Warn("keep the login alive", "error", err)
		}
	}
	checks := p.o.Cache.Ledger().Unverified(p.o.Now().Add(r.horizon))
	if len(checks) == 0 {
		if outcome == proved {
			p.counts.proven.Add(1)
		}
		p.after(ctx, r)
		return nil
	}
	if p.leave(r) {
		return nil
	}
	err = p.versions(r, checks, answered)
	p.after(ctx, r)
	return err
}

// leave leaves the re-reads to a poll that somebody waits for. Where verifications
// are shared an entry that this invocation does not want is mostly verified by
// another instance before a later one does. Reading it now for nobody costs the
// origin a request, often in vain: the process is frozen when its function is
// done, and others wait for the verifier.
func (p *Poller) leave(r *run) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.rest = p.o.Stamps != nil && p.o.After == nil && r.horizon == 0 && !r.wanted
	return r.rest
}

// after runs what hangs on a poll. It is not bound by the poll's budget, which
// is for reads that wait, but by afterTime; a poll that is given up ends it.
func (p *Poller) after(ctx context.Context, r *run) {
	if p.o.After == nil || p.cancelled(r) {
		return
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		if p.cancelled(r) {
			cancel()
		}
	})
	defer stop()
	closed := context.AfterFunc(p.ctx, cancel)
	defer closed()
	// The budget may have ended before: then only a new epoch tells.
	p.mu.Lock()
	r.cancelAfter = cancel
	p.mu.Unlock()
	p.o.After(own)
}

// afterTime bounds what hangs on a poll.
const afterTime = 5 * time.Second

// cancelled reports whether the poll was given up: a new epoch, Close, or a
// freeze in the midst of it.
func (p *Poller) cancelled(r *run) bool { return givenUp(r.budget.ctx) }

func givenUp(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, context.Canceled) || errors.Is(cause, errFroze)
}

// fail records that the origin failed the poll.
func (p *Poller) fail(r *run, err error) error {
	if !clock.Within(r.started, p.o.Now(), 2*(p.o.Timeout+p.o.Connect)) {
		return nil // longer than any budget: a freeze interrupted it, whatever died meanwhile
	}
	p.counts.failed.Add(1)
	p.o.Cache.Ledger().Fail(cache.Revalidation{At: p.o.Now(), Epoch: r.epoch}, err)
	p.o.Log.Warn("poll: the origin did not verify what is cached", "error", err)
	return err
}

var errClosed = errors.New("the poller is closed")
