package main

import (
	"context"
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

	outside platform
	work    sync.WaitGroup // what the start and an invocation started

	// What serves secrets, where there is a handler.
	app     *app.App
	rounds  *azurefn.Rounds
	prepare func()    // beside the handler's start and at the first invocation
	last    time.Time // when a round began; Rounds begins one after the other
	once    sync.Once
}

// run serves until ctx ends or the user's handler does.
func (p *program) run(ctx context.Context) (err error) {
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.outside, err = newPlatform(p.cfg, p.log); err != nil {
		return err
	}
	times, err := readHostJSON(p.cfg.Platform.Azure.AppRoot, p.cfg.Platform.Azure.FunctionTimeout)
	if err != nil {
		p.log.Warn("read host.json for its times; the host's defaults are taken", "error", err)
	}
	w := &warmer{program: p, limit: times.function}
	defer w.close()
	idle.Release(serving, p.log)
	if len(p.command) > 0 {
		if err := p.serve(serving); err != nil {
			return err
		}
		defer func() {
			cancel()
			p.work.Wait()
			p.shutdown()
		}()
	}
	p.log.Info("thaw-azure", "version", version, "plan", string(p.cfg.Platform.Azure.Plan), "command", p.command, "warm_up", p.cfg.Warm.Enable)
	return azurefn.Run(ctx, azurefn.Options{
		Port: p.cfg.Platform.Azure.Port, Command: p.command, Environ: p.environ, StartTimeout: times.start,
		Functions: map[string]azurefn.Function{p.cfg.Warm.Function: w.fire}, Invoked: p.invoked, Stdout: p.stdout, Stderr: p.stderr, Log: p.log,
	})
}

// quiet is how long without an invocation the process may have slept.
const quiet = time.Second

// serve builds what serves secrets and begins to. It is up before the user's
// handler starts, which may read secrets as it does.
func (p *program) serve(ctx context.Context) (err error) {
	gate := func(r *http.Request) error {
		p.rounds.Gate(r.Context())
		p.app.Looked(r.Context())
		return nil
	}
	p.app, err = app.Build(p.cfg, p.log, p.stdout, app.Hooks{Gate: gate, Frozen: p.cfg.Platform.Azure.Plan.Freezes(), Unwrap: p.outside.unwrap, Login: p.outside.login(), Version: version})
	if err != nil {
		return err
	}
	process.OnHangup(ctx, p.src, p.log, p.app.Reload)
	p.rounds = azurefn.NewRounds(p, p.cfg.PollTimeout+p.cfg.ConnTimeout, time.Now)
	p.prepare = func() { p.work.Go(func() { p.app.Prepare(ctx) }) }
	if err := p.app.Start(ctx, &p.work); err != nil {
		p.shutdown()
		return err
	}
	if !p.cfg.NoInit {
		p.prepare()
	}
	return nil
}

// invoked is called before each invocation is handed on.
func (p *program) invoked(at time.Time) {
	p.rounds.Invoked(at)
	p.once.Do(p.prepare)
}

var _ azurefn.Poller = (*program)(nil)

// Begin implements azurefn.Poller.
func (p *program) Begin(at time.Time) {
	awake := clock.Within(p.last, at, quiet)
	if p.last = at; awake {
		p.app.Overlap(at)
		return
	}
	p.app.Invoke(at, time.Time{})
}

// Verified implements azurefn.Poller.
func (p *program) Verified(ctx context.Context) { p.app.Verified(ctx) }

// shutdown ends what serves secrets, the login last.
func (p *program) shutdown() {
	p.rounds.Close()
	end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	p.app.Shutdown(end)
}
