package azurefn

import (
	"context"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Poller is what Rounds polls with.
type Poller interface {
	// Begin starts an epoch at the time at, and its poll, without waiting: what
	// was verified before counts no more. No two calls overlap.
	Begin(at time.Time)
	// Verified waits until the poll of the running epoch is over.
	Verified(ctx context.Context)
}

// Rounds starts polls for invocations that overlap. A poll for each of them
// would be cancelled by the next one before it ends, and every read would have
// to ask the origin itself. So at most one poll runs and one more is wanted:
//
//   - An invocation that comes while none runs starts one at once, as in Lambda.
//   - One that comes while a poll runs wants the next. That poll may have asked
//     the origin before the invocation began, and so proves nothing for it.
//   - A read waits at Gate until no poll is wanted any more that has not begun:
//     it may belong to the latest invocation. Then it waits, as always, for
//     what that poll says.
//
// A poll that a freeze interrupted keeps nobody waiting: after Longest on the
// wall clock the next invocation starts another.
type Rounds struct {
	poller  Poller
	longest time.Duration
	now     func() time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	began  time.Time     // guarded by mu; when the running round did; zero: none runs
	wanted chan struct{} // guarded by mu; closed when the wanted round has begun; nil: none is wanted
}

// NewRounds returns Rounds whose polls take longest at most. Close ends them.
func NewRounds(p Poller, longest time.Duration, now func() time.Time) *Rounds {
	r := &Rounds{poller: p, longest: longest, now: now}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Invoked is called before an invocation is handed on. It does not wait.
func (r *Rounds) Invoked(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return
	}
	if clock.Within(r.began, at, r.longest) {
		if r.wanted == nil {
			r.wanted = make(chan struct{})
		}
		return
	}
	r.beginLocked(at)
}

// beginLocked starts a round. The caller holds mu, so that no read sees the
// epoch before while it believes that this round has begun.
func (r *Rounds) beginLocked(at time.Time) {
	r.began = at
	r.poller.Begin(at)
	if r.wanted != nil {
		close(r.wanted)
		r.wanted = nil
	}
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, r.longest)
		r.poller.Verified(ctx)
		cancel()
		r.over(at)
	})
}

// over ends the round that began then, and begins the wanted one.
func (r *Rounds) over(began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !began.Equal(r.began) {
		return // another took its place after a freeze
	}
	r.began = time.Time{}
	if r.wanted != nil && r.ctx.Err() == nil {
		r.beginLocked(r.now())
	}
}

// Gate waits until the round has begun that the latest invocation wants.
func (r *Rounds) Gate(ctx context.Context) {
	r.mu.Lock()
	wanted := r.wanted
	r.mu.Unlock()
	if wanted == nil {
		return
	}
	select {
	case <-wanted:
	case <-ctx.Done():
	case <-r.ctx.Done():
	case <-time.After(r.longest):
		// The running round sleeps or hangs: begin the wanted one.
		r.mu.Lock()
		if r.wanted == wanted && r.ctx.Err() == nil {
			r.beginLocked(r.now())
		}
		r.mu.Unlock()
	}
}

// Close ends the rounds and waits.
func (r *Rounds) Close() {
	r.mu.Lock()
	r.cancel()
	r.mu.Unlock()
	r.wg.Wait()
}
