package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/idle"
	"github.com/thaw-project/thaw/extension/lambda"
	"github.com/thaw-project/thaw/extension/process"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/tier"
)

// Types of init and exit errors that Lambda shows the user.
const (
	errorConfig   = "Extension.ConfigInvalid"
	errorListen   = "Extension.ListenFailed"
	errorFiles    = "Extension.SecretFileFailed"
	errorRegister = "Extension.RegisterFailed"
	errorEvents   = "Extension.EventLoopFailed"
)

// runExtension is the process's life in Lambda. The listener is up before
// Register, since the runtime may start as soon as that is answered; files are
// written before it for the same reason. Nothing else needs the network.
func runExtension(ctx context.Context, src config.Source, cfg config.Config, configErr error, name string, log *slog.Logger, stdout io.Writer) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	api := lambda.New(lambda.Options{API: cfg.Platform.RuntimeAPI, Name: name, Log: log, Now: time.Now})
	frozen := cfg.Platform.InitType != config.InitManaged
	events := []lambda.EventType{lambda.Shutdown}
	if frozen {
		events = append(events, lambda.Invoke)
	}
	// refuse tells Lambda why the environment cannot start: only a registered
	// extension may.
	refuse := func(typ string, err error) int {
		if typ == errorConfig {
			process.Problems(log, err)
		}
		log.Error("init failed", "type", typ, "error", strings.SplitN(err.Error(), "\n", 2)[0])
		if e := api.Register(ctx, events...); e != nil {
			log.Error("register", "error", e)
		} else if e := api.InitError(ctx, typ, err); e != nil {
			log.Error("report the init error", "error", e)
		}
		return exitFailed
	}
	if configErr != nil {
		return refuse(errorConfig, configErr)
	}
	x := &extension{api: api, log: log, ctx: ctx, snapStart: cfg.Platform.InitType == config.InitSnapStart, started: time.Now()}
	a, _, err := build(ctx, src, cfg, log, stdout, app.Hooks{Gate: x.gate, Frozen: frozen})
	if err != nil {
		return refuse(errorConfig, err)
	}
	var reporting context.Context
	reporting, x.endReports = context.WithCancel(ctx)
	defer x.endReports()
	x.app = a
	idle.Release(ctx, log)
	if err := a.Listen(); err != nil {
		return refuse(errorListen, err)
	}
	if x.snapStart && len(cfg.Files) > 0 {
		log.Warn("SnapStart: secret files are written at the first INVOKE after restore; function code may run first")
	} else if err := a.WriteFiles(ctx); err != nil {
		return refuse(errorFiles, err)
	}
	if err := api.Register(ctx, events...); err != nil {
		log.Error("register; Lambda knows an extension by the name of its file in /opt/extensions, so a script there that starts thaw hands its own name on: exec -a \"$0\" /opt/thaw",
			"type", errorRegister, "name", name, "error", err)
		return exitFailed
	}
	a.Started()
	if !frozen || !x.snapStart && !cfg.NoInit {
		x.prepare()
	}
	if !frozen { // no INVOKE will come
		x.work.Go(func() { a.Watch(ctx) })
		x.reports.Go(func() { a.Reports(reporting) })
	}
	err = api.Run(ctx, x)
	cancel()
	x.work.Wait()
	x.reports.Wait()
	if err != nil {
		log.Error("event loop", "error", err)
		report, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer done()
		if e := api.ExitError(report, errorEvents, err); e != nil {
			log.Error("report the exit error", "error", e)
		}
		return exitFailed
	}
	return exitOK
}

// build makes every part as the settings say, within the process's share of the host; a
// hangup has the parts reload. unwrap decrypts the shared cache's key; nil: it is in the
// settings.
func build(ctx context.Context, src config.Source, cfg config.Config, log *slog.Logger, stdout io.Writer, h app.Hooks) (a *app.App, unwrap tier.Unwrap, err error) {
	if unwrap, err = tier.KMS(cfg, log); err != nil {
		return nil, nil, err
	}
	process.Procs(cfg.MaxProcs, h.Frozen)
	process.Memory(&cfg)
	h.Unwrap, h.Version = unwrap, version
	if a, err = app.Build(cfg, log, stdout, h); err == nil {
		process.OnHangup(ctx, src, log, a.Reload)
	}
	return a, unwrap, err
}

// extension handles Lambda's events.
type extension struct {
	app       *app.App
	api       *lambda.Client
	ctx       context.Context
	work      sync.WaitGroup // what an INVOKE started, or the start where none comes
	log       *slog.Logger
	snapStart bool
	started   time.Time

	reports    sync.WaitGroup     // reports by the minute
	endReports context.CancelFunc // ends them

	mu      sync.Mutex
	current lambda.Event // guarded by mu; of no time before the first
	before  app.Tally    // guarded by mu; when current began
}

var _ lambda.Handler = (*extension)(nil)

// errSnapshot refuses what would put a secret into the snapshot.
var errSnapshot = errors.New("SnapStart: no secret is read before the snapshot is taken; read it in the handler or in an afterRestore hook")

// gate holds a read that comes with its INVOKE, or even before it, until that
// has begun its epoch: a read that the thawed function sends at once must not
// see the epoch before. A read that names an invocation of which no INVOKE came
// begins an epoch of its own. Under SnapStart it refuses what comes before the
// restore.
func (x *extension) gate(r *http.Request) error {
	ctx := r.Context()
	if !x.api.Await(ctx, r.Header) {
		x.app.Overlap(time.Now())
	}
	x.app.Looked(ctx)
	if x.snapStart && !x.restored() {
		return errSnapshot
	}
	return nil
}

// restoreGap is the least time between a snapshot and its restore that can be
// told from scheduling: the wall clock went on, the monotonic clock did not.
const restoreGap = 2 * time.Second

func (x *extension) restored() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	return !x.current.ReceivedAt.IsZero() || clock.Step(x.started, now) > restoreGap
}

// Invoke begins an epoch. Everything it starts runs beside the function.
func (x *extension) Invoke(ev lambda.Event) {
	rescue.Do(x.log, "take an invocation", func() { x.invoke(ev) })
}

func (x *extension) invoke(ev lambda.Event) {
	a := x.app
	now := a.Tally() // before anything is asked for this invocation
	a.Invoke(ev.ReceivedAt, ev.Deadline)
	x.mu.Lock()
	last, before := x.current, x.before
	x.current, x.before = ev, now
	x.mu.Unlock()
	if !last.ReceivedAt.IsZero() {
		a.Report(last.RequestID, before, now, ev.ReceivedAt.Sub(last.ReceivedAt))
		a.SumUp(now)
		return
	}
	a.ReportInit(now, ev.ReceivedAt.Sub(x.started))
	a.SumUp(now)
	x.prepare()
	if x.snapStart {
		x.work.Go(func() {
			if err := rescue.Try(func() error { return a.WriteFiles(x.ctx) }); err != nil {
				x.log.Warn("write secret files", "error", err)
			}
		})
	}
}

// prepare does what a first read would wait for, beside everything else: after
// Register, and once more at the first INVOKE, since a freeze may have interrupted it, or
// the snapshot was to hold nothing of it.
func (x *extension) prepare() { x.work.Go(func() { x.app.Prepare(x.ctx) }) }

// Shutdown ends the process's work: revokes the login, stops serving.
func (x *extension) Shutdown(ctx context.Context, reason string) {
	x.mu.Lock()
	last, before := x.current, x.before
	x.mu.Unlock()
	if !last.ReceivedAt.IsZero() {
		x.app.Report(last.RequestID, before, x.app.Tally(), time.Since(last.ReceivedAt))
	}
	x.endReports()
	x.reports.Wait()
	x.log.Info("shutdown", append([]any{"reason", reason}, x.app.Rest()...)...)
	x.app.Shutdown(ctx)
}

// warmUp is what thaw proxy needs of the warm-up.
type warmUp interface {
	Loop(context.Context) // until the context ends
	Close()
}

// runProxy serves until ctx ends.
func runProxy(ctx context.Context, src config.Source, cfg config.Config, log *slog.Logger, stdout io.Writer) int {
	a, unwrap, err := build(ctx, src, cfg, log, stdout, app.Hooks{})
	if err != nil {
		process.Problems(log, err)
		return exitUsage
	}
	var warm warmUp // nil: none
	if cfg.Warm.Enable {
		if warm, err = newWarmUp(cfg, log, stdout, unwrap); err != nil {
			log.Error("configuration of the warm-up", "error", err)
			return exitUsage
		}
		defer warm.Close()
	}
	idle.Release(ctx, log)
	var work sync.WaitGroup
	if err := a.Start(ctx, &work); err != nil {
		log.Error("start", "error", err)
		return exitFailed
	}
	work.Go(func() { a.Prepare(ctx) })
	if warm != nil {
		work.Go(func() { warm.Loop(ctx) })
	}
	work.Wait()
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	log.Info("shutting down")
	a.Shutdown(end)
	return exitOK
}
