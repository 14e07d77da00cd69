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

	// CancelUnwanted ends a call as soon as nobody waits for it, unless its
	// Persist was called. Then whoever starts a call has to Wait for it.
	CancelUnwanted bool

	Now func() time.Time // default time.Now; keeps its monotonic reading
}

// Group coalesces calls by key. It is safe for concurrent use.
type Group[K comparable, V any] struct {
	o     Options[V]
	root  context.Context // ends at Close
	close context.CancelCauseFunc
	work  sync.WaitGroup // calls, abandoned ones as well

	mu    sync.Mutex
	calls map[K]*Call[V] // guarded by mu; those to join, running or kept
}

// Call is one call, running or over.
type Call[V any] struct {
	began  time.Time
	cancel context.CancelCauseFunc
	done   chan struct{}

	// leave lets a caller go who waits no more; ok is false if the call was over
	// before. Nil: that changes nothing.
	leave   func() (ok bool)
	persist atomic.Bool

	// Written before done is closed, read after.
	value V
	err   error

	// Guarded by the group's mu.
	over    bool // done is closed
	ended   time.Time
	lasts   time.Duration // how long after ended it may still be joined
	callers int           // who started or joined it and has not left
}

// New returns a group in which nothing runs.
func New[K comparable, V any](o Options[V]) *Group[K, V] {
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Group[K, V]{o: o, calls: make(map[K]*Call[V])}
	g.root, g.close = context.WithCancelCause(context.Background())
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
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.o.Now()
	if c := g.joinLocked(key, now); c != nil {
		c.callers++
		return c, false
	}
	c = &Call[V]{began: now, done: make(chan struct{}), callers: 1}
	if g.root.Err() != nil {
		c.over, c.err = true, ErrClosed
		close(c.done)
		return c, true
	}
	if g.o.CancelUnwanted {
		c.leave = func() bool { return g.leave(key, c) }
	}
	ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	g.calls[key] = c
	g.work.Go(func() { g.run(ctx, key, c, work) })
	return c, true
}

// Running returns the call of key that is under way, or nil.
func (g *Group[K, V]) Running(key K) *Call[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.joinLocked(key, g.o.Now()); c != nil && !c.over {
		return c
	}
	return nil
}

// Forget makes sure that nobody who comes from now on gets what a call of key
// brings, or brought. Those who wait for it still do.
func (g *Group[K, V]) Forget(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, key)
}

// Close ends all calls and waits until their work has returned, or ctx ends:
// then the error is its cause. No work begins afterwards.
func (g *Group[K, V]) Close(ctx context.Context) error {
	g.mu.Lock() // no call begins between the two
	g.close(ErrClosed)
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
func (g *Group[K, V]) joinLocked(key K, now time.Time) *Call[V] {
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
		g.endLocked(c, ErrAgain)
		c.cancel(ErrAgain)
		return nil
	}
	return c
}

// frozen reports whether a call that runs should have ended by its Limit. One
// whose timer fires just now is only busy.
func (g *Group[K, V]) frozen(c *Call[V], now time.Time) bool {
	if g.o.Limit <= 0 {
		return false
	}
	end := c.began.Add(g.o.Limit)
	return clock.Froze(end, now) || clock.Elapsed(end, now) > 0 && now.Sub(end) <= 0
}

// run is the goroutine of a call.
func (g *Group[K, V]) run(ctx context.Context, key K, c *Call[V], work func(context.Context) (V, error)) {
	defer c.cancel(nil)
	defer context.AfterFunc(g.root, func() { c.cancel(ErrClosed) })()
	if g.o.Limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, g.o.Limit)
		defer stop()
	}
	var v V
	err := errors.New("the work ended without a result") // by runtime.Goexit
	defer func() {
		if p := recover(); p != nil {
			err = rescue.Recovered(p)
		}
		g.land(key, c, v, err)
	}()
	v, err = work(ctx)
}

// land records what the work of a call brought.
func (g *Group[K, V]) land(key K, c *Call[V], v V, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.over {
		return // abandoned
	}
	now := g.o.Now()
	if panicked := new(rescue.Error); err != nil && !errors.As(err, &panicked) && g.root.Err() == nil &&
		g.o.Limit > 0 && clock.Froze(c.began.Add(g.o.Limit), now) {
		err = ErrAgain
	}
	c.value = v
	if g.o.Keep != nil && !errors.Is(err, ErrAgain) {
		c.ended, c.lasts = now, g.o.Keep(v, err)
	}
	if g.calls[key] == c && c.lasts <= 0 {
		delete(g.calls, key)
	}
	g.endLocked(c, err)
}

func (g *Group[K, V]) endLocked(c *Call[V], err error) {
	c.over, c.err = true, err
	close(c.done)
}

// leave lets a caller of c go, and with the last one the call.
func (g *Group[K, V]) leave(key K, c *Call[V]) (ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.over {
		return false
	}
	c.callers--
	if c.callers == 0 && !c.persist.Load() {
		if g.calls[key] == c {
			delete(g.calls, key)
		}
		c.cancel(context.Canceled)
	}
	return true
}

// Persist has the call go on when nobody waits for it any more.
func (c *Call[V]) Persist() { c.persist.Store(true) }

// Done is closed when the call is over, or abandoned.
func (c *Call[V]) Done() <-chan struct{} { return c.done }

// Wait waits until the call is over, and returns its result, or until ctx ends:
// then the error is its cause. ErrAgain says that the call was abandoned.
func (c *Call[V]) Wait(ctx context.Context) (V, error) {
	select {
	case <-c.done:
		return c.value, c.err
	default:
	}
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		if c.leave != nil && !c.leave() {
			return c.value, c.err // both at once
		}
		var none V
		return none, context.Cause(ctx)
	}
}
