package lambdaapi

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Errors of the driver. A function's body returns the first two to say what
// becomes of its invocation.
var (
	// ErrFunctionTimeout: the function ran into its timeout. Lambda shuts the
	// environment's processes down and starts them anew.
	ErrFunctionTimeout = errors.New("the function timed out")
	// ErrFunctionCrash: the runtime exited. What follows is the same.
	ErrFunctionCrash = errors.New("the function's runtime exited")
	// ErrIllegal is returned for steps that Lambda never takes in that phase.
	ErrIllegal = errors.New("not legal in this phase")
)

// Failure is the error of an Init or Invoke phase that the extension failed:
// by a report, by ending, or by not asking for the next event in time. Its
// process is gone; Reinit starts a new one.
type Failure struct {
	Phase string // "init" or "invoke"
	Cause error  // a *Reported where the extension said why
	Exit  Exit   // of its process
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s phase failed: %v (extension: %v)", f.Phase, f.Cause, f.Exit)
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// Times are moments of the last phase that ended, on this machine's clock.
type Times struct {
	Exec       time.Time // of the running process
	Registered time.Time // register was answered
	FirstNext  time.Time // the first Next came in: the extension is ready
	Invoked    time.Time // the last INVOKE had been written to the extension's socket
	Body       time.Time // the last function body returned
	Next       time.Time // the last Next came in
}

// RegisterAt is the time from exec to registration.
func (t Times) RegisterAt() time.Duration { return t.Registered.Sub(t.Exec) }

// ReadyAt is the time from exec to the first Next.
func (t Times) ReadyAt() time.Duration { return t.FirstNext.Sub(t.Exec) }

// Environment is one execution environment with one extension. One goroutine
// drives it, except that FreezeNow, Thaw and Kill may also be called from within
// a function's body, and that Invoke may run concurrently under Managed.
type Environment struct {
	cfg Config
	api *API

	// mu is held across signals, so that frozen tells the truth.
	mu      sync.Mutex
	proc    *process   // guarded by mu; nil: none was started
	ext     *Extension // guarded by mu; of proc
	busy    int        // guarded by mu; invocations under way
	frozen  bool       // guarded by mu
	ready   bool       // guarded by mu; the Init phase succeeded and nothing ended it since
	invoked time.Time  // guarded by mu
	body    time.Time  // guarded by mu
}

// Start makes an environment and runs its Init phase, which ctx bounds too. With
// a *Failure the environment is returned as well: Lambda would try another init
// in it (Reinit). Whoever gets an environment must Close it.
func Start(ctx context.Context, cfg Config) (*Environment, error) {
	cfg.Function = cfg.Function.filled()
	if cfg.InitTimeout == 0 {
		cfg.InitTimeout = 10 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	binary, err := filepath.Abs(cfg.Binary)
	if err != nil {
		return nil, fmt.Errorf("start extension: %w", err)
	}
	cfg.Binary = binary
	api, err := NewAPI(cfg.Function)
	if err != nil {
		return nil, err
	}
	e := &Environment{cfg: cfg, api: api}
	err = e.init(ctx)
	var failed *Failure
	if err != nil && !errors.As(err, &failed) {
		e.Close()
		return nil, err
	}
	return e, err
}

// env is what Lambda sets for an extension (configuration-envvars.html). It does
// not see _HANDLER or LAMBDA_TASK_ROOT. Where a name is set twice the last wins.
func (e *Environment) env() []string {
	f := e.cfg.Function
	return slices.Concat([]string{
		"PATH=/usr/local/bin:/usr/bin/:/bin:/opt/bin",
		"LANG=en_US.UTF-8",
		"TZ=:UTC",
		"AWS_REGION=" + f.Region,
		"AWS_DEFAULT_REGION=" + f.Region,
		"AWS_LAMBDA_RUNTIME_API=" + e.api.Addr(),
		"AWS_LAMBDA_FUNCTION_NAME=" + f.Name,
		"AWS_LAMBDA_FUNCTION_VERSION=" + f.Version,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128",
		"AWS_LAMBDA_INITIALIZATION_TYPE=" + f.InitType,
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + f.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME=fake",
	}, e.cfg.Env)
}

// init is the Init phase: start the extension, wait for its registration, run
// the function's init, wait for the first Next.
func (e *Environment) init(ctx context.Context) error {
	x := e.api.Launch(filepath.Base(e.cfg.Binary))
	p, err := launch(e.cfg, e.env(), x.End)
	if err != nil {
		x.End()
		return err
	}
	e.mu.Lock()
	e.proc, e.ext, e.frozen, e.ready = p, x, false, false
	e.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, e.cfg.InitTimeout,
		fmt.Errorf("the Init phase took longer than %v", e.cfg.InitTimeout))
	defer cancel()
	err = x.AwaitRegistered(ctx)
	if err == nil && e.cfg.Init != nil {
		if err = e.cfg.Init(ctx); err != nil {
			err = fmt.Errorf("function init: %w", err)
		}
	}
	if err == nil {
		err = x.AwaitReady(ctx)
	}
	e.api.CloseRegistration()
	if err != nil {
		return e.fail("init", p, err)
	}
	e.mu.Lock()
	e.ready = true
	e.mu.Unlock()
	return nil
}

// fail ends what is left of the process. One that has reported an error gets the
// time of a Shutdown phase to exit by itself.
func (e *Environment) fail(phase string, p *process, cause error) error {
	e.mu.Lock()
	e.ready = false
	e.mu.Unlock()
	var reported *Reported
	if errors.As(cause, &reported) {
		t := time.NewTimer(shutdownTime)
		defer t.Stop()
		select {
		case <-p.done:
		case <-t.C:
			e.api.violate("the process did not exit within %v after it reported an error", shutdownTime)
		}
	}
	inTime := !p.running()
	if err := p.kill(); err != nil {
		return errors.Join(cause, err)
	}
	exit := p.exit
	exit.InTime = inTime
	return &Failure{Phase: phase, Cause: cause, Exit: exit}
}

// API of the environment, for faults (Extension.Spoil) and counts.
func (e *Environment) API() *API { return e.api }

// Extension is the API's view of the running process.
func (e *Environment) Extension() *Extension {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ext
}

// PID of the extension, as long as it runs.
func (e *Environment) PID() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.proc.cmd.Process.Pid
}

// Times of the running process and its last invocation.
func (e *Environment) Times() Times {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.ext
	x.mu.Lock()
	defer x.mu.Unlock()
	return Times{
		Exec:       e.proc.started,
		Registered: x.registeredAt,
		FirstNext:  x.firstNextAt,
		Invoked:    e.invoked,
		Body:       e.body,
		Next:       x.lastNextAt,
	}
}

// Violations lists what the extension did against the protocol so far.
func (e *Environment) Violations() []string { return e.api.Violations() }

// Close ends the process, if any, and the API. It may be called twice.
func (e *Environment) Close() {
	_ = e.Kill() // nothing to do about a process that cannot be killed
	e.api.Close()
}
