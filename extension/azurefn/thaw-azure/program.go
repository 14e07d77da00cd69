package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/azurefn"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/idle"
	"github.com/thaw-project/thaw/extension/process"
)

// program is the process's life.
type program struct {
	src            config.Source
	cfg            config.Config
	log            *slog.Logger
	environ        []string
	command        []string // the user's handler; empty: none
	stdout, stderr io.Writer

	work sync.WaitGroup // what the start and an invocation started
}

// run serves until ctx ends or the user's handler does.
func (p *program) run(ctx context.Context) error {
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	outside, err := newPlatform(p.cfg, p.log)
	if err != nil {
		return err
	}
	times, err := readHostJSON(p.cfg.Platform.Azure.AppRoot, p.cfg.Platform.Azure.FunctionTimeout)
	if err != nil {
		p.log.Warn("read host.json for its times; the host's defaults are taken", "error", err)
	}
	o := azurefn.Options{
		Port: p.cfg.Platform.Azure.Port, Command: p.command, Environ: p.environ, StartTimeout: times.start,
		Functions: map[string]azurefn.Function{}, Stdout: p.stdout, Stderr: p.stderr, Log: p.log,
	}
	w := &warmer{cfg: p.cfg, outside: outside, limit: times.function, log: p.log, stdout: p.stdout}
	defer w.close()
	o.Functions[p.cfg.Warm.Function] = w.fire
	idle.Release(serving, p.log)
	if len(p.command) > 0 {
		s, err := p.serve(serving, outside)
		if err != nil {
			return err
		}
		defer func() {
			cancel()
			p.work.Wait()
			s.close()
		}()
		o.Invoked = s.invoked
	}
	p.log.Info("thaw-azure", "version", version, "plan", string(p.cfg.Platform.Azure.Plan), "command", p.command, "warm_up", p.cfg.Warm.Enable)
	return azurefn.Run(ctx, o)
}

// secrets is the part that serves secrets.
type secrets struct {
	app    *app.App
	rounds *azurefn.Rounds
	first  func() // prepares, beside the handler's start and at the first invocation

	mu   sync.Mutex
	last time.Time // guarded by mu; when a round began
	once sync.Once
}

// quiet is how long without an invocation the process may have slept.
const quiet = time.Second

// serve builds what serves secrets and begins to. It is up before the user's
// handler starts, which may read secrets as it does.
func (p *program) serve(ctx context.Context, outside *platform) (*secrets, error) {
	s := new(secrets)
	gate := func(r *http.Request) error {
		s.rounds.Gate(r.Context())
		s.app.Looked(r.Context())
		return nil
	}
	var err error
	s.app, err = app.Build(p.cfg, p.log, p.stdout, app.Hooks{Gate: gate, Frozen: p.cfg.Platform.Azure.Plan.Freezes(), Unwrap: outside.unwrap, Login: outside.login(), Version: version})
	if err != nil {
		return nil, err
	}
	process.OnHangup(ctx, p.src, p.log, s.app.Reload)
	s.rounds = azurefn.NewRounds(s, p.cfg.PollTimeout+p.cfg.ConnTimeout, time.Now)
	s.first = func() { p.work.Go(func() { s.app.Prepare(ctx) }) }
	if err := s.app.Start(ctx, &p.work); err != nil {
		s.close()
		return nil, err
	}
	if !p.cfg.NoInit {
		s.first()
	}
	return s, nil
}

// invoked is called before each invocation is handed on.
func (s *secrets) invoked(at time.Time) {
	s.rounds.Invoked(at)
	s.once.Do(s.first)
}

var _ azurefn.Poller = (*secrets)(nil)

// Begin implements azurefn.Poller.
func (s *secrets) Begin(at time.Time) {
	s.mu.Lock()
	awake := clock.Within(s.last, at, quiet)
	s.last = at
	s.mu.Unlock()
	if awake {
		s.app.Overlap(at)
		return
	}
	s.app.Invoke(at, time.Time{})
}

// Verified implements azurefn.Poller.
func (s *secrets) Verified(ctx context.Context) { s.app.Verified(ctx) }

// close ends it, the login last.
func (s *secrets) close() {
	s.rounds.Close()
	end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s.app.Shutdown(end)
}

// errNoIdentity says that something asks for the managed identity and there is
// none.
var errNoIdentity = errors.New("this app has no managed identity")
