package lambdaapi

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Invoke is one Invoke phase: thaw, write INVOKE to the extension's socket, run
// the function's body in this process, wait until the extension has asked for
// its next event. ctx of the body ends at the function's timeout. An extension
// that is not registered for INVOKE (all, under Managed) gets nothing and is not
// waited for. The error is the body's, or a *Failure where the extension ended
// the phase. A body that returns ErrFunctionTimeout or ErrFunctionCrash is
// followed by a Shutdown phase and a new Init phase before Invoke returns.
func (e *Environment) Invoke(ctx context.Context, body func(context.Context, Invocation) error) error {
	function, _, err := e.invoke(ctx, body)
	if err == nil {
		return function
	}
	return errors.Join(function, err)
}

// invoke is Invoke with the body's error apart from the phase's, and the Exit of
// the old process where a new one was started.
func (e *Environment) invoke(ctx context.Context, body func(context.Context, Invocation) error) (function error, exit Exit, err error) {
	p, x, err := e.begin()
	if err != nil {
		return nil, Exit{}, err
	}
	now := time.Now()
	inv := Invocation{
		RequestID: newID(),
		Deadline:  now.Add(e.cfg.Timeout),
		ARN:       e.cfg.Function.arn(),
		TraceID:   fmt.Sprintf("Root=1-%08x-%024x;Parent=%016x;Sampled=0", now.Unix(), now.UnixNano(), now.UnixNano()),
	}
	ctx, cancel := context.WithDeadlineCause(ctx, inv.Deadline,
		fmt.Errorf("the invocation took longer than the function's timeout of %v", e.cfg.Timeout))
	defer cancel()
	invoked := x.Subscribed(eventInvoke)
	if invoked {
		if err := x.Invoke(ctx, inv); err != nil {
			e.finish()
			return nil, Exit{}, e.fail("invoke", p, fmt.Errorf("deliver INVOKE: %w", err))
		}
		e.mark(&e.invoked)
	}
	function = body(ctx, inv)
	e.mark(&e.body)
	if reason := resetReason(function); reason != "" {
		e.finish()
		exit, err := e.Shutdown(reason)
		return function, exit, errors.Join(err, e.init(context.WithoutCancel(ctx)))
	}
	if invoked {
		// The phase ends when the runtime and all extensions have asked for
		// their next event (the docs, "Invoke phase").
		err = x.AwaitReady(ctx)
	} else if !p.running() {
		err = errEnded
	}
	e.finish()
	if err != nil {
		err = e.fail("invoke", p, err)
	}
	return function, Exit{}, err
}

// mark notes the time in one of e's fields.
func (e *Environment) mark(t *time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*t = time.Now()
}

// resetReason maps a body's error to a SHUTDOWN reason (the docs: SPINDOWN,
// TIMEOUT, FAILURE, which arrive in lower case).
func resetReason(err error) string {
	switch {
	case errors.Is(err, ErrFunctionTimeout):
		return "timeout"
	case errors.Is(err, ErrFunctionCrash):
		return "failure"
	}
	return ""
}

// begin claims the environment for an invocation and thaws it.
func (e *Environment) begin() (*process, *Extension, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !e.ready:
		return nil, nil, fmt.Errorf("invoke: there is no initialised extension, Reinit first: %w", ErrIllegal)
	case e.busy > 0 && e.cfg.Function.InitType != Managed:
		return nil, nil, fmt.Errorf("invoke: an invocation is under way: %w", ErrIllegal)
	}
	if e.frozen {
		if err := e.proc.cont(); err != nil {
			return nil, nil, err
		}
		e.frozen = false
	}
	e.busy++
	return e.proc, e.ext, nil
}

func (e *Environment) finish() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy--
}

// Freeze stops the process between phases, as Lambda does when the runtime and
// all extensions wait for their next event, after the Init phase too. Managed
// Instances never freeze.
func (e *Environment) Freeze() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.cfg.Function.InitType == Managed:
		return fmt.Errorf("freeze under %s: %w", Managed, ErrIllegal)
	case !e.ready || e.busy > 0 || e.ext.State() != Ready:
		return fmt.Errorf("freeze while the extension is %s, with %d invocations under way: %w", e.ext.State(), e.busy, ErrIllegal)
	}
	return e.stopLocked()
}

// FreezeNow stops the process wherever it is. Lambda does that to work that goes
// on after the phase has ended; within a phase it is a test's way to aim.
func (e *Environment) FreezeNow() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stopLocked()
}

func (e *Environment) stopLocked() error {
	if err := e.proc.stop(); err != nil {
		return err
	}
	e.frozen = true
	return nil
}

// Thaw lets a frozen process run on. Invoke and Shutdown do it by themselves.
func (e *Environment) Thaw() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frozen = false
	return e.proc.cont()
}

// Shutdown is the Shutdown phase: thaw, SHUTDOWN to an extension registered for
// it, 2s in all until SIGKILL; the others get SIGKILL at once. Exit.InTime says
// whether the process ended by itself. The environment keeps its API; Reinit may
// follow, as after a timeout.
func (e *Environment) Shutdown(reason string) (Exit, error) {
	if err := e.Thaw(); err != nil {
		return Exit{}, err
	}
	e.mu.Lock()
	p, x := e.proc, e.ext
	e.ready = false
	e.mu.Unlock()
	if !p.running() {
		return p.exit, fmt.Errorf("shutdown: the extension has ended before: %v", p.exit)
	}
	begun := time.Now()
	ctx, cancel := context.WithDeadlineCause(context.Background(), begun.Add(shutdownTime),
		fmt.Errorf("the Shutdown phase took longer than %v", shutdownTime))
	defer cancel()
	var err error
	if x.Subscribed(eventShutdown) {
		err = x.Shutdown(ctx, reason, begun.Add(shutdownTime))
		if err == nil {
			select {
			case <-p.done:
			case <-ctx.Done():
			}
		} else if errors.Is(err, context.Cause(ctx)) {
			err = nil // it never asked for the event: a case of not in time
		}
	}
	inTime := !p.running()
	if err := p.kill(); err != nil {
		return Exit{}, err
	}
	exit := p.exit
	exit.InTime, exit.Took = inTime, p.exitedAt.Sub(begun)
	return exit, err
}

// Kill ends the process at once, in any phase, and waits for its end.
func (e *Environment) Kill() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ready = false
	if e.proc == nil {
		return nil
	}
	return e.proc.kill()
}

// Timeout is an invocation in which the function runs into its timeout: INVOKE,
// then SHUTDOWN with the reason "timeout", then a new Init phase with a new
// process. The Exit is the old one's.
func (e *Environment) Timeout(ctx context.Context) (Exit, error) {
	return e.broken(ctx, ErrFunctionTimeout)
}

// Crash is an invocation in which the runtime exits; see Timeout.
func (e *Environment) Crash(ctx context.Context) (Exit, error) {
	return e.broken(ctx, ErrFunctionCrash)
}

func (e *Environment) broken(ctx context.Context, how error) (Exit, error) {
	_, exit, err := e.invoke(ctx, func(context.Context, Invocation) error { return how })
	return exit, err
}

// Reinit starts a new process in the same environment: a new Init phase. What is
// left of the old process is killed.
func (e *Environment) Reinit(ctx context.Context) error {
	if err := e.Kill(); err != nil {
		return err
	}
	return e.init(ctx)
}
