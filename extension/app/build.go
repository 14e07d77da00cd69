package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/thaw-project/thaw/extension/answers"
	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/consistency"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/files"
	"github.com/thaw-project/thaw/extension/meter"
	"github.com/thaw-project/thaw/extension/origin"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/proxy"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/extension/vault"
)

// Build wires everything, from the outside to what callers see: each step uses
// what those before it made, and nothing is set afterwards. It does no I/O but to
// read TLS files that are named in the configuration.
func Build(cfg config.Config, log *slog.Logger, stdout io.Writer, h Hooks) (*App, error) {
	h.Now = clock.Of(h.Now)
	a := &App{cfg: cfg, log: log, stdout: stdout, hooks: h, now: h.Now, started: h.Now()}
	a.told, a.credentials = a.started, credentials(cfg.Auth)
	a.answers = answers.New(answers.Options{
		Log: log, Now: a.now, Role: cfg.Auth.Role, Login: cfg.Auth.Method != config.AuthToken && cfg.Auth.Method != config.AuthTokenFile,
		Path: proxy.Loggable, Named: cfg.Named,
		Own: func() string { return a.tokens.Peek() },
	})
	a.status = coalesce.New[struct{}](coalesce.Options[vault.Status]{
		Limit: cfg.ClientTimeout, Now: a.now,
		Keep: func(vault.Status, error) time.Duration { return statusEvery },
	})
	for _, step := range []func() error{a.reach, a.authenticate, a.remember, a.verify, a.serve} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// reach makes what talks to the origin and to memcached.
func (a *App) reach() error {
	var err error
	if a.client, err = vault.New(vault.Options{Config: a.cfg, Logger: a.log, Now: a.now, Dial: a.hooks.Dial, Observer: a.answers}); err != nil {
		return err
	}
	if t := a.cfg.TLS; t.CACert != "" || t.CACertPEM != "" || t.CAPath != "" || t.ClientCert != "" {
		if err := a.client.Check(); err != nil {
			return err
		}
	}
	if a.tier, err = tier.New(a.cfg, a.hooks.Unwrap, tier.Host{Now: a.now, Dial: a.hooks.Dial, Frozen: a.hooks.Frozen}, a.log); err != nil {
		return err
	}
	a.keeper = keeper(a.cfg, a.client, a.cfg.StandbyReads, a.tier, a.log, a.now)
	return nil
}

// authenticate makes what logs in.
func (a *App) authenticate() error {
	a.own = cache.NewOwn()
	o := auth.Options{Config: a.cfg, Log: a.log, Origin: a.client, Own: a.own, Now: a.now, Login: a.hooks.Login}
	if a.keeper != nil {
		o.Origin = a.keeper.Logins(a.client)
	}
	if a.tier != nil {
		o.Shared = a.tier
	}
	var err error
	a.tokens, err = auth.New(o)
	return err
}

// polls reports whether anything is verified at all, and not only aged.
func (a *App) polls() bool { return a.cfg.Poll != config.PollOff }

// listens reports whether a subscription to events stands in for polls where the
// origin offers one. It takes one of the requests that may be in flight.
func (a *App) listens() bool {
	return !a.hooks.Frozen && a.polls() && a.cfg.Events && a.tokens.Enabled() && a.cfg.MaxInFlight > 1
}

// remember makes the cache, with the origin as the extension's own identity sees
// it, and what keeps secrets in files.
func (a *App) remember() error {
	cfg, own := a.cfg, a.own
	var others cursor.Hearsay
	if a.tier != nil {
		others = a.tier
	}
	a.cursor = cursor.New(a.client, others, cfg.PollTimeout+cfg.ConnTimeout, a.log, a.now)
	session := origin.Options{Client: a.client, Tokens: a.tokens, Own: own, Harmless: vault.Repeatable, Interval: a.cfg.RefreshInterval, Now: a.now}
	o := cache.Options{
		Own: own, Bytes: cfg.CacheBytes, MaxAge: cfg.MaxAge, Recheck: cfg.Recheck, TTL: cfg.DefaultTTL,
		NegativeTTL: cfg.NegativeTTL, StaleIfError: cfg.StaleIfError, RefreshInterval: cfg.RefreshInterval,
		Pessimistic: cfg.Pessimistic, TTLOnly: !a.polls(), FetchTimeout: cfg.ClientTimeout,
		FetchEnded: fmt.Errorf("VAULT_CLIENT_TIMEOUT of %s is over: %w", cfg.ClientTimeout, context.DeadlineExceeded),
		NoCache:    cfg.NoCachePaths, Skew: cfg.ClockSkew, Now: a.now, Covers: consistency.Covers,
	}
	for _, m := range cfg.KVMounts {
		o.Mounts = append(o.Mounts, cache.Mount{Namespace: cfg.Namespace, Path: m.Path, Version: m.Version})
	}
	if a.polls() {
		session.Cursor = a.cursor
	}
	if a.keeper != nil {
		session.Guard, o.Required = a.keeper, a.keeper.Written
	}
	if a.listens() {
		session.Active = vault.ToActive
		o.Lag, o.Reconcile = cfg.WALWait, reconcile
	}
	if a.tier != nil && a.tokens.Enabled() {
		o.Shared, session.Shared = a.tier, true
	}
	a.session = origin.New(session)
	o.Origin = a.session
	a.cache = cache.New(o)
	if len(cfg.Files) == 0 { // so it is under VAULT_RUN_MODE=proxy
		return nil
	}
	var err error
	a.files, err = files.New(a.cache, cfg.Namespace, cfg.Files, a.now)
	return err
}

// verify makes what keeps the cache true: confirmations, polls and events.
func (a *App) verify() error {
	cfg := a.cfg
	var others poll.Directory
	if a.tier != nil {
		others = directory{a.tier, a.tokens}
	}
	a.permissions = poll.NewPermissions(a.cache, a.session, others, a.log, a.now)
	o := poll.Options{
		Cache: a.cache, Cursor: a.cursor, Permissions: a.permissions, Folder: a.session.Folder, Mode: cfg.Poll, Shared: a.tier != nil, Timeout: cfg.PollTimeout,
		Connect: cfg.ConnTimeout, Recheck: cfg.Recheck, Ahead: (cfg.MaxAge + cfg.Recheck) / 4, Concurrency: cfg.PollConcurrency, Log: a.log, Now: a.now,
	}
	if a.files != nil {
		o.After = func(ctx context.Context) {
			if err := a.files.Refresh(ctx); err != nil && ctx.Err() == nil {
				a.log.Warn("rewrite secret files", "error", err)
			}
		}
	}
	if a.tokens.Enabled() {
		o.Maintain = a.tokens.Maintain
		o.LoggedIn = func() bool { return a.tokens.Peek() != "" }
	}
	if a.tier != nil && cfg.MaxAge > cfg.ClockSkew {
		o.Stamps = stamps{a.tier}
	}
	a.poller = poll.New(o)
	waiting := poll.WaitingOptions{Left: !a.hooks.Frozen, LoggedIn: o.LoggedIn, Log: a.log, Now: a.now}
	if cfg.Platform.Lambda && cfg.Platform.InitType == config.InitOnDemand {
		waiting.Init = initLimit
	}
	a.waiting = poll.NewWaiting(waiting)
	a.reads = a.readers()
	if a.listens() {
		a.events = a.listener()
	}
	return nil
}

// initLimit is how old the process is when requests of the function's init end. Lambda
// ends the init itself after 10s
// (https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib).
const initLimit = 8 * time.Second

// readers makes what makes sure of an entry for a read.
func (a *App) readers() *poll.Reads {
	cfg := a.cfg
	o := poll.ReadOptions{
		Cache: a.cache, Poll: a.poller, Permissions: a.permissions, Waiting: a.waiting,
		StaleWait: cfg.PollTimeout + cfg.ConnTimeout, Now: a.now,
	}
	if !a.hooks.Frozen {
		o.Ahead = (cfg.MaxAge + cfg.Recheck) * 3 / 4
	}
	if a.keeper != nil && cfg.ConsistencyScope == config.ScopeAudience {
		o.Require = a.keeper.Refresh
	}
	return poll.NewReads(o)
}

// serve makes what callers and operators see.
func (a *App) serve() error {
	cfg := a.cfg
	if cfg.EMF {
		// CloudWatch takes no dimension without a value
		// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html).
		a.emf = meter.NewEMF(cmp.Or(cfg.Platform.FunctionName, "proxy"), cfg.EMFAll)
	}
	o := proxy.Options{
		Config: cfg, HasToken: a.tokens.Enabled(), Cache: a.cache, Sender: a.session, Reads: a.reads, Gate: a.hooks.Gate,
		Relogin: a.session.Relogin, Revoked: a.tokens.Forget, Status: statusFor, State: a.writeStatus, Requested: consistency.Requested, Log: a.log, Now: a.now,
		Waiting: a.waiting, Listen: a.hooks.Listen,
	}
	o.Metrics = func(w io.Writer) {
		if err := meter.WriteText(w, a.metrics()); err != nil {
			a.log.Debug("write metrics", "error", err)
		}
	}
	if cfg.AccessLog {
		o.Access = slog.New(slog.NewJSONHandler(a.stdout, nil))
	}
	a.proxy = proxy.New(o)
	return nil
}
