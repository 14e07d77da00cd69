package poll

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Waiting knows which requests of the function wait for something, for what, and
// how long they may: until shortly before the invocation's deadline, or before the
// platform ends the function's init. So the function gets an error to act on and not its
// own end, and where it ends all the same, the log says what it waited for.
//
// A nil Waiting bounds nothing and tells nobody.
type Waiting struct {
	o     WaitingOptions
	began time.Time

	mu       sync.Mutex // guards the fields below
	invoked  bool       // an invocation has begun
	deadline time.Time  // of the running invocation; zero: unknown
	open     map[*Wait]struct{}
}

// WaitingOptions configures a Waiting.
type WaitingOptions struct {
	Init     time.Duration // how old the process is when requests of the function's init end; 0: the platform sets that no limit
	Left     bool          // tell of callers who leave: nobody says when an invocation is over
	LoggedIn func() bool   // whether a request under the extension's own identity needs no login first; nil: it never does
	Log      *slog.Logger
	Now      func() time.Time
}

// NewWaiting returns a Waiting of a process that begins now.
func NewWaiting(o WaitingOptions) *Waiting {
	return &Waiting{o: o, began: o.Now(), open: make(map[*Wait]struct{})}
}

// Wait is one request that waits.
type Wait struct {
	w      *Waiting
	path   string
	own    bool
	since  time.Time
	caller context.Context
	init   time.Time // when the init's limit ends it; zero: that does not bound it
	cancel context.CancelFunc
	what   atomic.Value // a reason
}

// reason is what a request waits for, to an operator.
type reason string

const (
	forOrigin  reason = "Vault's answer"
	forShared  reason = "the shared cache"
	forConfirm reason = "the confirmation of its capability"
	forPoll    reason = "the poll"
	forFill    reason = "another read of the secret"
	forLogin   reason = "the login"
)

// Why a request ends before the origin has answered.
var (
	errDeadline = fmt.Errorf("the origin did not answer before the invocation's deadline: %w", context.DeadlineExceeded)
	errInit     = fmt.Errorf("the origin did not answer while the function starts, for which Lambda gives it 10s: %w", context.DeadlineExceeded)
)

// spare is what is left of the invocation for the function to react in.
const spare = 500 * time.Millisecond

// Invoke says that an invocation begins at at, until deadline; zero: unknown. What waits since
// before is told of: its invocation is over.
func (w *Waiting) Invoke(at, deadline time.Time) {
	w.tell("the next invocation began", at, just)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.invoked, w.deadline = true, deadline
}

// just is how short a wait is not told of: a read may overtake its own INVOKE.
const just = time.Millisecond

// End says that the environment ends at at: what waits is told of.
func (w *Waiting) End(at time.Time) { w.tell("the environment ends", at, 0) }

func (w *Waiting) tell(when string, at time.Time, least time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.open {
		if took := clock.Elapsed(x.since, at); took >= least {
			w.o.Log.Warn("a request was still waiting when "+when, "path", x.path, "seconds", took.Seconds(), "for", x.reason())
		}
	}
}

// Begin says that a request begins to wait. Its context ends with the limit of the
// moment. The caller ends the Wait.
func (w *Waiting) Begin(ctx context.Context, path string, own bool) (context.Context, *Wait) {
	if w == nil {
		return ctx, nil
	}
	now := w.o.Now()
	x := &Wait{w: w, path: path, own: own, since: now, caller: ctx, cancel: func() {}}
	x.on(forOrigin)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[x] = struct{}{}
	switch age := clock.Elapsed(w.began, now); {
	case !w.invoked && age < w.o.Init:
		x.init = now.Add(w.o.Init - age)
		ctx, x.cancel = context.WithTimeoutCause(ctx, w.o.Init-age, errInit)
	case w.deadline.After(now):
		rest := w.deadline.Sub(now)
		ctx, x.cancel = context.WithTimeoutCause(ctx, max(rest-spare, rest/2), errDeadline)
	}
	return ctx, x
}

// on says what the request waits for from now on.
func (x *Wait) on(what reason) {
	if x != nil {
		x.what.Store(what)
	}
}

// reason is what the request waits for.
func (x *Wait) reason() string {
	what := x.what.Load().(reason)
	if what == forOrigin && x.own && x.w.o.LoggedIn != nil && !x.w.o.LoggedIn() {
		return string(forLogin)
	}
	return string(what)
}

// End ends the wait. It reports whether only the init's limit can have ended it, and that
// counted for nothing: an invocation had begun meanwhile, or a freeze took the time.
func (x *Wait) End() (again bool) {
	if x == nil {
		return false
	}
	x.cancel()
	w, now := x.w, x.w.o.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, x)
	if took := clock.Elapsed(x.since, now); w.o.Left && x.caller.Err() != nil && took >= time.Second {
		w.o.Log.Warn("a request was still waiting when its caller left", "path", x.path, "seconds", took.Seconds(), "for", x.reason())
	}
	return !x.init.IsZero() && clock.Elapsed(x.init, now) >= 0 && (w.invoked || clock.Froze(x.init, now))
}
