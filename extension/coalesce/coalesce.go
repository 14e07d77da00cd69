// Package coalesce has one ask while the others wait.
//
// A Group runs at most one call per key. Whoever comes meanwhile waits for its
// result:
//
//	caller A ── Do ──► call ════════════════╗ result
//	caller B ───── Do ───┘ waits ···········╝
//	caller C ───────── Do ─┘ waits ··· leaves, and fails nobody
//
// The call is nobody's. It runs in a goroutine of its own, with the values of
// the context of the caller who began it and not with its end: a caller who
// leaves fails nobody else. It ends by the group's Limit, or by Close.
//
// A freeze of the process holds the timer of the Limit, and leaves the call with
// a dead connection. So whoever comes next looks at the wall clock: a call that
// has outlived its Limit is abandoned, those who wait for it go on with its
// successor, and what it still brings is thrown away. A call that fails long
// after its Limit was frozen, too: that is no failure, and those who wait ask
// again.
//
// A panic in a call is a rescue.Error to all who wait, and leaves nothing held.
//
// Only what hands a result in or out is generic. The rest knows keys and results as
// any, so that the binary holds it once, and not once for each type of result.
package coalesce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/rescue"
)

var (
	// ErrAgain says that a call came to no result, most likely because of a
	// freeze: whoever wants one has to ask again. Do does so by itself. Work may
	// return it, too. It is the cause of the context of an abandoned call.
	ErrAgain = errors.New("a freeze interrupted the call")

	// ErrClosed says that the group was closed. It wraps context.Canceled.
	ErrClosed = fmt.Errorf("shutting down: %w", context.Canceled)
)

// Options configure a Group. Each zero value is a default.
type Options[V any] struct {
	// Limit bounds one call, on the wall clock; 0: not at all, then no freeze is
	// noticed either.
	Limit time.Duration

	// Keep says for how long after its end a result is given to those who ask
	// for the same; 0: not at all. An error may be kept as well, so that nobody
	// asks again too soon. It is called under the group's lock. Nil: nothing is
	// kept. What is kept is dropped when the key is asked for again, so the keys
	// of such a group have to be few.
	Keep func(V, error) time.Duration

	// CancelUnwanted ends a call as soon as nobody waits for it, unless it
	// persists. Then whoever starts a call has to Wait for it.
	CancelUnwanted bool

	Now func() time.Time // default time.Now; keeps its monotonic reading
}

// Group coalesces calls by key. It is safe for concurrent use.
type Group[K comparable, V any] struct{ group }

// Call is one call, running or over.
type Call[V any] struct{ call }

// New returns a group in which nothing runs.
func New[K comparable, V any](o Options[V]) *Group[K, V] {
	g := &Group[K, V]{group{limit: o.Limit, cancelUnwanted: o.CancelUnwanted, now: clock.Of(o.Now), calls: make(map[any]*call)}}
	g.root, g.endAll = context.WithCancelCause(context.Background())
	if o.Keep != nil {
		g.keep = func(v any, err error) time.Duration {
			value, _ := v.(V)
			return o.Keep(value, err)
		}
	}
	return g
}

// Do joins the call of key, or has work run as one, and returns its result.
// mine tells that it was this caller's work. When ctx ends first the error is
// its cause. Where the call is abandoned after a freeze, Do begins another.
func (g *Group[K, V]) Do(ctx context.Context, key K, work func(context.Context) (V, error)) (v V, mine bool, err error) {
	for {
		var c *Call[V]
		c, mine = g.Start(ctx, key, work)
		v, err = c.Wait(ctx)
		if !errors.Is(err, ErrAgain) {
			return v, mine, err
		}
		if ctx.Err() != nil {
			return v, mine, context.Cause(ctx)
		}
	}
}

// Start is Do for a caller who does not wait, or waits in its own way. After
// Close the call is over, with ErrClosed.
func (g *Group[K, V]) Start(ctx context.Context, key K, work func(context.Context) (V, error)) (c *Call[V], mine bool) {
	own := new(Call[V])
	own.typed = own
	joined, mine := g.start(ctx, key, &own.call, func(ctx context.Context) (any, error) { return work(ctx) })
	return joined.typed.(*Call[V]), mine
}

// Running returns the call of key that is under way, or nil.
func (g *Group[K, V]) Running(key K) *Call[V] {
	c, _ := g.running(key).(*Call[V])
	return c
}

// Forget makes sure that nobody who comes from now on gets what a call of key
// brings, or brought. Those who wait for it still do.
func (g *Group[K, V]) Forget(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, key)
}

// Wait waits until the call is over, and returns its result, or until ctx ends:
// then the error is its cause. ErrAgain says that the call was abandoned.
func (c *Call[V]) Wait(ctx context.Context) (v V, err error) {
	over, err := c.wait(ctx)
	if over {
		v, _ = c.value.(V)
	}
	return v, err
}

// GivenUp reports whether somebody did. Nobody did for a nil call.
func (c *Call[V]) GivenUp() bool { return c != nil && c.givenUp.Load() }

// group is a Group without the types of its keys and results.
type group struct {
	limit          time.Duration                  // Options.Limit
	keep           func(any, error) time.Duration // nil: nothing is kept
	cancelUnwanted bool
	now            func() time.Time
	root           context.Context // ends at Close
	endAll         context.CancelCauseFunc
	work           sync.WaitGroup // calls, abandoned ones as well

	mu    sync.Mutex
	calls map[any]*call // guarded by mu; those to join, running or kept
}

// call is a Call without its result's type.
type call struct {
	typed   any // the *Call that holds it
	group   *group
	key     any
	began   time.Time
	cancel  context.CancelCauseFunc
	givenUp atomic.Bool

	done  chan struct{}
	value any   // written before done is closed, read after
	err   error // likewise

	// Guarded by the group's mu.
	over    bool // done is closed
	ended   time.Time
	lasts   time.Duration // how long after ended it may still be joined
	callers int           // who started or joined it and has not left
	persist bool          // it goes on without callers
}

// start joins the call of key, or begins c.
func (g *group) start(ctx context.Context, key any, c *call, work func(context.Context) (any, error)) (joined *call, mine bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if c := g.joinLocked(key, now); c != nil {
		c.callers++
		return c, false
	}
	c.group, c.key, c.began, c.done, c.callers = g, key, now, make(chan struct{}), 1
	if g.root.Err() != nil {
		c.endLocked(ErrClosed)
		return c, true
	}
	ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	g.calls[key] = c
	g.work.Go(func() { g.run(ctx, c, work) })
	return c, true
}

func (g *group) running(key any) (typed any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.joinLocked(key, g.now()); c != nil && !c.over {
		return c.typed
	}
	return nil
}

// Close ends all calls and waits until their work has returned, or ctx ends:
// then the error is its cause. No work begins afterwards.
func (g *group) Close(ctx context.Context) error {
	g.mu.Lock() // no call begins between the two
	g.endAll(ErrClosed)
	g.mu.Unlock()
	over := make(chan struct{})
	go func() { // ends with the last work
		g.work.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// joinLocked returns the call of key that may be joined. One that a freeze
// interrupted is abandoned.
func (g *group) joinLocked(key any, now time.Time) *call {
	c := g.calls[key]
	switch {
	case c == nil:
		return nil
	case c.over && !clock.Ended(c.ended, c.ended.Add(c.lasts), now):
		return c
	case c.over:
		delete(g.calls, key)
		return nil
	case g.frozen(c, now):
		delete(g.calls, key)
		c.endLocked(ErrAgain)
		c.cancel(ErrAgain)
		return nil
	}
	return c
}

// frozen reports whether a call that runs should have ended by its Limit. One
// whose timer fires just now is only busy.
func (g *group) frozen(c *call, now time.Time) bool {
	if g.limit <= 0 {
		return false
	}
	end := c.began.Add(g.limit)
	return clock.Froze(end, now) || clock.Elapsed(end, now) > 0 && now.Sub(end) <= 0
}

// run is the goroutine of a call.
func (g *group) run(ctx context.Context, c *call, work func(context.Context) (any, error)) {
	defer c.cancel(nil)
	defer context.AfterFunc(g.root, func() { c.cancel(ErrClosed) })()
	if g.limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, g.limit)
		defer stop()
	}
	var v any
	err := errors.New("the work ended without a result") // by runtime.Goexit
	defer func() {
		if p := recover(); p != nil {
			err = rescue.Recovered(p)
		}
		g.land(c, v, err)
	}()
	v, err = work(ctx)
}

// land records what the work of a call brought.
func (g *group) land(c *call, v any, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.over {
		return // abandoned
	}
	c.value, c.ended = v, g.now()
	if panicked := new(rescue.Error); err != nil && !errors.As(err, &panicked) && g.root.Err() == nil &&
		g.limit > 0 && clock.Froze(c.began.Add(g.limit), c.ended) {
		err = ErrAgain
	}
	if g.keep != nil && !errors.Is(err, ErrAgain) {
		c.lasts = g.keep(v, err)
	}
	if g.calls[c.key] == c && c.lasts <= 0 {
		delete(g.calls, c.key)
	}
	c.endLocked(err)
}

func (c *call) endLocked(err error) {
	c.over, c.err = true, err
	close(c.done)
}

// want changes who wants c, and ends it if nobody does, in a group that does so; false:
// it was over.
func (c *call) want(change func()) bool {
	g := c.group
	if !g.cancelUnwanted {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.over {
		return false
	}
	change()
	if c.callers == 0 && !c.persist {
		if g.calls[c.key] == c {
			delete(g.calls, c.key)
		}
		c.cancel(context.Canceled)
	}
	return true
}

// Began is when the call was started.
func (c *call) Began() time.Time { return c.began }

// Persist has the call go on when nobody waits for it, or no more do so.
func (c *call) Persist(on bool) { c.want(func() { c.persist = on }) }

// GiveUp says that somebody waited for the call in vain, so that others need not.
func (c *call) GiveUp() { c.givenUp.Store(true) }

// Done is closed when the call is over, or abandoned.
func (c *call) Done() <-chan struct{} { return c.done }

// wait waits until the call is over, or ctx ends.
func (c *call) wait(ctx context.Context) (over bool, err error) {
	select {
	case <-c.done:
		return true, c.err
	default:
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.want(func() { c.callers-- }) {
			return false, context.Cause(ctx)
		} // else both at once
	}
	return true, c.err
}
