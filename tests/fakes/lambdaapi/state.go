package lambdaapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// State of an extension, named as the RIE names them.
type State string

// The states; see the package comment.
const (
	Started    State = "Started"
	Registered State = "Registered"
	Ready      State = "Ready"     // a Next is outstanding
	Running    State = "Running"   // an event was taken
	InitError  State = "InitError" // reported by the extension
	ExitError  State = "ExitError" // reported by the extension
)

// ErrHungUp is returned where an event is due to an extension whose outstanding
// Next has lost its connection. Lambda waits on in that case, and the phase
// times out.
var ErrHungUp = errors.New("the extension hung up while its Next was outstanding")

// errEnded is returned to waiters when the process has ended.
var errEnded = errors.New("the extension's process has ended")

// Report is what an extension sent to init/error or exit/error.
type Report struct {
	Type    string // Lambda-Extension-Function-Error-Type
	Message string // errorMessage of the body
}

// Extension is the API's view of one process.
type Extension struct {
	name string
	id   string

	offers chan offer    // to the outstanding Next; unbuffered
	ended  chan struct{} // closed by End

	mu           sync.Mutex
	state        State         // guarded by mu
	events       []string      // guarded by mu; registered for
	report       *Report       // guarded by mu
	shutdown     bool          // guarded by mu; SHUTDOWN was handed over
	waiting      bool          // guarded by mu; a handler waits for an offer
	registeredAt time.Time     // guarded by mu
	firstNextAt  time.Time     // guarded by mu
	lastNextAt   time.Time     // guarded by mu
	changed      chan struct{} // guarded by mu; closed and replaced at each change
	endOnce      sync.Once
}

// offer is an answer to the outstanding Next.
type offer struct {
	serve     func(w http.ResponseWriter, r *http.Request) error
	last      bool       // it is SHUTDOWN
	abandoned error      // what done gets where serve panics to cut the connection
	done      chan error // buffered
}

// State of the extension now.
func (x *Extension) State() State {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.state
}

// Report returns what the extension reported, or nil.
func (x *Extension) Report() *Report {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.report
}

// Subscribed says whether the extension registered for an event.
func (x *Extension) Subscribed(event string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Contains(x.events, event)
}

// End tells the API that the process is no more. Its identifier is unknown from
// now on and its outstanding Next is cut.
func (x *Extension) End() {
	x.endOnce.Do(func() { close(x.ended) })
}

// changeLocked makes waiters look again.
func (x *Extension) changeLocked() {
	close(x.changed)
	x.changed = make(chan struct{})
}

// await waits until the state is one of those, and returns which.
func (x *Extension) await(ctx context.Context, states ...State) (State, error) {
	for {
		x.mu.Lock()
		state, changed := x.state, x.changed
		x.mu.Unlock()
		if slices.Contains(states, state) {
			return state, nil
		}
		select {
		case <-changed:
		case <-x.ended:
			return state, errEnded
		case <-ctx.Done():
			return state, fmt.Errorf("extension %s is %s, not %v: %w", x.name, state, states, context.Cause(ctx))
		}
	}
}

// AwaitRegistered waits for the registration.
func (x *Extension) AwaitRegistered(ctx context.Context) error {
	state, err := x.await(ctx, Registered, Ready, Running, InitError, ExitError)
	return x.failed(state, err)
}

// AwaitReady waits until a Next is outstanding. An init or exit error that is
// reported meanwhile is returned as a *Reported.
func (x *Extension) AwaitReady(ctx context.Context) error {
	state, err := x.await(ctx, Ready, InitError, ExitError)
	return x.failed(state, err)
}

func (x *Extension) failed(state State, err error) error {
	if err == nil && (state == InitError || state == ExitError) {
		return &Reported{State: state, Report: *x.Report()}
	}
	return err
}

// Reported is the error of a phase that an extension failed by init/error or
// exit/error.
type Reported struct {
	State  State // InitError or ExitError
	Report Report
}

func (r *Reported) Error() string {
	return fmt.Sprintf("the extension reported %s %s: %s", r.State, r.Report.Type, r.Report.Message)
}

// Invoke delivers INVOKE to the outstanding Next. When it returns, the answer's
// bytes are in the extension's socket.
func (x *Extension) Invoke(ctx context.Context, inv Invocation) error {
	if !x.Subscribed(eventInvoke) {
		return fmt.Errorf("extension %s is not registered for %s", x.name, eventInvoke)
	}
	return x.deliver(ctx, map[string]any{
		"eventType":          eventInvoke,
		"deadlineMs":         inv.Deadline.UnixMilli(),
		"requestId":          inv.RequestID,
		"invokedFunctionArn": inv.ARN,
		"tracing":            map[string]string{"type": "X-Amzn-Trace-Id", "value": inv.TraceID},
	})
}

// Shutdown delivers SHUTDOWN to the outstanding Next.
func (x *Extension) Shutdown(ctx context.Context, reason string, deadline time.Time) error {
	if !x.Subscribed(eventShutdown) {
		return fmt.Errorf("extension %s is not registered for %s", x.name, eventShutdown)
	}
	return x.deliver(ctx, map[string]any{
		"eventType":      eventShutdown,
		"deadlineMs":     deadline.UnixMilli(),
		"shutdownReason": reason,
	})
}

// Spoil answers the outstanding Next by serve, in place of an event: garbage, an
// error status, a cut connection. It is a fault that no document describes; the
// extension is Running afterwards, so that it may ask again.
func (x *Extension) Spoil(ctx context.Context, serve http.HandlerFunc) error {
	return x.offer(ctx, offer{serve: func(w http.ResponseWriter, r *http.Request) error {
		serve(w, r)
		return nil
	}})
}

func (x *Extension) deliver(ctx context.Context, event map[string]any) error {
	return x.offer(ctx, offer{
		serve:     eventAnswer(event),
		last:      event["eventType"] == eventShutdown,
		abandoned: errors.New("the event was not written"),
	})
}

func (x *Extension) offer(ctx context.Context, o offer) error {
	if err := x.AwaitReady(ctx); err != nil {
		return err
	}
	x.mu.Lock()
	waiting := x.waiting
	x.mu.Unlock()
	if !waiting {
		return ErrHungUp
	}
	o.done = make(chan error, 1)
	select {
	case x.offers <- o:
	case <-x.ended:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return <-o.done
}
