// Package poll learns, at each INVOKE, whether what is cached is still what
// the origin would answer, and makes sure of an entry for each read (Reads).
//
// A poll takes the cheapest step that verifies it:
//
//  1. The index check: one GET of sys/leader. Entries carry the index that was
//     recorded before they were read; if a request sent now finds the last
//     appended raft index where the last applied one was then, on the same active
//     node, nothing was written in between, and every entry with that index is
//     verified at once. See the package cursor.
//  2. Versions: what is not verified is read again, in parallel, most recently
//     used first, until the budget ends. Where the index had moved at the last two
//     polls, it most likely has again: then they don't wait for the check.
//
// Reads wait for the index check only (Wait); an entry that it does not verify is
// then checked by the read itself, which shares the request of the poll if
// that is on its way. What the budget leaves unreached stays unverified, and
// its next read makes its own check. Only an origin that fails or is silent
// makes reads fall back to what is cached (cache.Ledger.Fail).
//
// Where instances share verifications (Stamps), a poll first takes over what
// others verified, asks for the index only if nobody just does, and leaves the
// re-reads to a poll that somebody waits for: mostly another instance is quicker,
// and a verifier that was frozen in the midst would keep all others waiting.
//
// A poll verifies only for invocations that began before it started. A poll
// of an older epoch, one that a freeze interrupted, say, is cancelled when the
// next INVOKE comes.
package poll

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wire"
)

// lately says in how many of the last invocations a read counts for PollAuto, a bit each.
const lately = 1<<4 - 1

// Options configures a Poller.
type Options struct {
	Cache       *cache.Cache
	Cursor      *cursor.Cursor
	Permissions *Permissions
	Stamps      Stamps                    // nil: none, or too short-lived to be of use
	Shared      bool                      // another instance may have read again what an index check leaves
	LoggedIn    func() bool               // whether a read needs no login first; nil: it never does
	Mode        config.PollMode           // when polls run; empty: at each INVOKE
	Timeout     time.Duration             // budget of a poll, connecting apart
	Connect     time.Duration             // what connecting may take besides
	Recheck     time.Duration             // how long a failed poll is not repeated
	Ahead       time.Duration             // what is verified for less than that longer, Ahead verifies again; 0: a quarter of Recheck
	Concurrency int                       // re-reads at a time
	After       func(ctx context.Context) // called at the end of each poll; nil: nothing hangs on one
	Log         *slog.Logger
	Now         func() time.Time

	// Maintain renews a login that is about to end; nil: there is nothing to. It is
	// called after the cursor was asked, since a renewal moves it.
	Maintain func(ctx context.Context) error

	// Folder lists a folder under id with the metadata of its secrets, in place of
	// reading each of them: OpenBao's detailed-metadata of KV version 2. An answer that
	// something in between gave from a cache has another status than 200. nil: secrets
	// are read one by one.
	Folder func(ctx context.Context, id *cache.Identity, namespace, path string) (wire.Answer, error)
}

// Poller runs polls, one at a time.
type Poller struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	read atomic.Bool // somebody has read in the running epoch

	mu       sync.Mutex
	running  *run                 // guarded by mu
	unlisted map[folder]time.Time // guarded by mu; when their lists turned out to be of no use
	last     *run                 // guarded by mu; the last that ended by itself
	invoked  bool                 // guarded by mu; what is read is some invocation's, and not the init's
	readers  uint16               // guarded by mu; in which of the last invocations something was read, a bit each

	counts counts
}

type counts struct {
	polls, atRead, proven, moved, reread, failed, unreached, stamps atomic.Uint64
	stampAge                                                        atomic.Int64
}

// Counts are totals since the start.
type Counts struct {
	Polls     uint64 // polls begun
	AtRead    uint64 // of those, the ones that a read began, and not an INVOKE
	Proven    uint64 // polls for which the index check was enough
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
	purpose
	epoch   uint64
	started time.Time
	life    context.Context    // ends when the poll is given up: by a new epoch, or Close
	giveUp  context.CancelFunc // ends life
	budget  *budget            // within life
	looked  chan struct{}      // closed when the stamps were looked at
	indexed chan struct{}      // closed when the index check is over
	listed  chan struct{}      // closed when the lists are over
	done    chan struct{}      // closed when the poll is over, and with it all steps
	err     error              // written before done is closed: how the origin failed it

	glanced  atomic.Int64    // when the stamps were last looked at while waiting, Unix nanoseconds
	patience context.Context // ends when no other instance is waited for any more

	folders map[folder][]cache.Key // to list; written before the index check is over, as listing is
	listing map[cache.Key]bool     // what the lists are to verify

	wanted bool // guarded by Poller.mu; somebody waits for the re-reads, too
	left   bool // guarded by Poller.mu; it left them to a poll that somebody waits for
}

// purpose is what a poll is for.
type purpose struct {
	horizon time.Duration // what will want verification within it is verified too
	read    bool          // a read began it; the poll that it found running may have verified all by now
	checked bool          // another poll of this epoch has asked for the index just now
}

// await waits until a step is over, or ctx ends.
func (r *run) await(ctx context.Context, step <-chan struct{}) {
	select {
	case <-step:
	case <-r.done:
	case <-ctx.Done():
	}
}

// New returns a Poller. Close ends what it runs.
func New(o Options) *Poller {
	o.Mode = cmp.Or(o.Mode, config.PollInvoke)
	o.Ahead = cmp.Or(o.Ahead, o.Recheck/4)
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
	return Counts{c.polls.Load(), c.atRead.Load(), c.proven.Load(), c.moved.Load(), c.reread.Load(), c.failed.Load(), c.unreached.Load(), c.stamps.Load(), time.Duration(c.stampAge.Load())}
}

// Running reports whether a poll runs.
func (p *Poller) Running() bool { return p.runs() != nil }

// runs is the poll that runs; nil: none does.
func (p *Poller) runs() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}

// Invoke begins an epoch: a new invocation was taken at now. It returns at
// once; the poll, if there is anything to verify, runs by itself.
func (p *Poller) Invoke(now time.Time) {
	epoch := p.o.Cache.Ledger().Begin(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		p.running.giveUp()
		p.running = nil
	}
	if p.readers <<= 1; p.read.Swap(false) && p.invoked {
		p.readers |= 1
	}
	p.invoked = true
	if p.atInvokeLocked() && (p.o.After != nil || !p.o.Cache.Empty()) {
		p.startLocked(epoch, purpose{})
	}
}

// atInvokeLocked reports whether an INVOKE begins a poll, or leaves that to the first
// read. Files are rewritten by polls, and nobody reads them here.
func (p *Poller) atInvokeLocked() bool {
	return p.o.Mode == config.PollInvoke || p.o.Mode == config.PollAuto && (p.o.After != nil || p.readers&lately != 0)
}

// Reading notes that the function reads in the running epoch.
func (p *Poller) Reading() {
	if !p.read.Load() {
		p.read.Store(true)
	}
}

// Wait makes sure that a poll of the running epoch has done its index check,
// starting one if there is none, and the list that is to verify key. Where
// verifications are shared, it waits for the re-reads, too: what others verify is
// worth it. It returns early when ctx ends.
func (p *Poller) Wait(ctx context.Context, key cache.Key) {
	if p.o.Mode == config.PollOff {
		return
	}
	if p.o.Stamps == nil {
		r := p.current(0, false)
		if r.await(ctx, r.indexed); ctx.Err() == nil && r.listing[key] && !p.o.Cache.Ledger().Verified(key, p.o.Now()) {
			r.await(ctx, r.listed)
		}
		return
	}
	for ctx.Err() == nil {
		r := p.current(0, true)
		r.await(ctx, r.done)
		p.mu.Lock()
		left := r.left
		p.mu.Unlock()
		if !left {
			return
		} // else one more poll, for those who want them
	}
}

// Over waits until the poll that runs, if there is one, is over.
func (p *Poller) Over(ctx context.Context) {
	if r := p.runs(); r != nil {
		r.await(ctx, r.done)
	}
}

// Ahead starts a poll without waiting for it, where none runs: hosts that do
// not freeze verify shortly before it is needed.
func (p *Poller) Ahead() {
	if p.o.Mode != config.PollOff {
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
		r.giveUp()
	}
	next := purpose{horizon: horizon, read: true}
	if r := p.last; r != nil && r.epoch == epoch {
		recently := clock.Within(r.started, p.o.Now(), p.o.Recheck)
		switch {
		case r.err != nil && recently:
			return r // failed just now: not again for each read
		case horizon > 0 && r.horizon > 0 && clock.Within(r.started, p.o.Now(), p.o.Ahead):
			return r // what it left over is not tried again for each read either
		}
		next.checked = r.left && recently
	}
	r := p.startLocked(epoch, next)
	r.wanted = wanted
	p.counts.atRead.Add(1)
	return r
}

func (p *Poller) startLocked(epoch uint64, what purpose) *run {
	r := &run{
		purpose: what, epoch: epoch, started: p.o.Now(),
		looked: make(chan struct{}), indexed: make(chan struct{}), listed: make(chan struct{}), done: make(chan struct{}),
	}
	r.life, r.giveUp = context.WithCancel(p.ctx)
	r.budget = newBudget(r.life, p.o.Timeout, p.o.Connect)
	if p.ctx.Err() != nil {
		r.budget.cancel()
		r.err = errClosed
		close(r.done)
		return r
	}
	p.running = r
	if p.o.Stamps != nil {
		var impatient context.CancelFunc
		r.patience, impatient = context.WithTimeout(r.budget.ctx, waits*p.lockWait())
		context.AfterFunc(r.budget.ctx, impatient)
	}
	p.counts.polls.Add(1)
	p.wg.Go(func() {
		defer r.giveUp()
		defer r.budget.cancel()
		r.err = errPanicked
		rescue.Do(p.o.Log, "poll", func() { r.err = p.poll(r) })
		p.mu.Lock()
		if p.running == r {
			p.running, p.last = nil, r
		}
		p.mu.Unlock()
		close(r.done)
	})
	return r
}

var errPanicked = errors.New("the poll ended by an internal error; the log has it")

// poll runs the steps. Its error is the origin's failure, not a cancellation.
func (p *Poller) poll(r *run) error {
	ctx, ledger := r.budget.ctx, p.o.Cache.Ledger()
	unverified := func() []cache.Key { return ledger.Unverified(p.o.Now().Add(r.horizon)) }

	// Capabilities are confirmed beside the index check: they are independent.
	var confirm sync.WaitGroup
	confirm.Go(func() {
		rescue.Do(p.o.Log, "confirm permissions", func() {
			p.o.Permissions.ConfirmAll(ctx, p.o.Cache.Own())
			p.renew(ctx)
		})
	})
	defer confirm.Wait()

	endBeside := p.beside(r, unverified)
	found, err := p.check(r, unverified)
	if err != nil && endBeside != nil {
		_ = endBeside(true) // the check's failure is the poll's
	}
	if err != nil && p.cancelled(r) {
		return nil
	} else if err != nil {
		return p.fail(r, err)
	}
	if found == cursor.Moved {
		p.counts.moved.Add(1)
	}
	if p.o.Shared && (found == cursor.Verified || found == cursor.Moved) {
		// What another instance read since then may have the index that was found.
		p.o.Cache.FillNewer(ctx, unverified())
	}
	if endBeside == nil {
		p.plan(r, unverified)
	}
	close(r.indexed)
	if p.o.Maintain != nil {
		if err := p.o.Maintain(ctx); err != nil && ctx.Err() == nil {
			p.o.Log.Warn("keep the login alive", "error", err)
		}
	}
	if endBeside != nil {
		if err := endBeside(false); err != nil {
			return err
		}
	}
	left := unverified()
	switch {
	case len(left) > 0 && p.leave(r):
		return nil
	case len(left) > 0:
		if found == cursor.Moved && p.alone() {
			p.o.Cursor.Again(ctx, r.epoch)
		}
		err = p.versions(ctx, r, left, found != cursor.Nothing)
	case found == cursor.Verified:
		p.counts.proven.Add(1)
	}
	p.after(r)
	return err
}

// check is the index check, or what stands in for it.
func (p *Poller) check(r *run, unverified func() []cache.Key) (cursor.Outcome, error) {
	shared := p.o.Stamps != nil
	if shared && p.look(r) {
		return cursor.Useless, nil // no need to ask
	}
	left := len(unverified())
	switch {
	case left == 0 && (shared || r.read || p.o.Cache.Ledger().AllVerified(p.o.Now())), shared && r.checked, !p.o.Cursor.Wants(r.epoch, left):
		return cursor.Nothing, nil
	case shared:
		return p.shareCursor(r)
	}
	found, _, err := p.o.Cursor.Query(r.budget.ctx, p.o.Cache.Ledger(), r.epoch)
	return found, err
}

// leave leaves the re-reads to a poll that somebody waits for. Where verifications
// are shared an entry that this invocation does not want is mostly verified by
// another instance before a later one does. Reading it now for nobody costs the
// origin a request, often in vain: the process is frozen when its function is
// done, and others wait for the verifier.
func (p *Poller) leave(r *run) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.left = p.o.Stamps != nil && p.o.After == nil && r.horizon == 0 && !r.wanted
	return r.left
}

// after runs what hangs on a poll. It is not bound by the poll's budget, which
// is for reads that wait, but by afterTime; a poll that is given up ends it.
func (p *Poller) after(r *run) {
	if p.o.After == nil || p.cancelled(r) {
		return
	}
	ctx, cancel := context.WithTimeout(r.life, afterTime)
	defer cancel()
	p.o.After(ctx)
}

// afterTime bounds what hangs on a poll.
const afterTime = 5 * time.Second

// cancelled reports whether the poll was given up: a new epoch, Close, or a
// freeze in the midst of it.
func (p *Poller) cancelled(r *run) bool { return r.life.Err() != nil || givenUp(r.budget.ctx) }

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
