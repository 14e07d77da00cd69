// Package app is the process that serves secrets: every part, wired as the
// settings say. Programs add what their platform knows: when an invocation
// begins, and when the process ends.
package app

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/consistency"
	"github.com/thaw-project/thaw/extension/events"
	"github.com/thaw-project/thaw/extension/files"
	"github.com/thaw-project/thaw/extension/meter"
	"github.com/thaw-project/thaw/extension/origin"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/proxy"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/extension/vault"
)

// App is the process: every part, wired.
type App struct {
	cfg    config.Config
	log    *slog.Logger
	stdout io.Writer
	now    func() time.Time

	client  *vault.Client
	events  *events.Listener    // nil where polls are all there is
	keeper  *consistency.Keeper // nil where reads need not wait for writes
	tokens  *auth.Manager
	cursor  *poll.Cursor
	session *origin.Session
	tier    *tier.Tier // nil without a shared tier
	cache   *cache.Cache
	poller  *poll.Poller
	proxy   *proxy.Server
	files   *files.Keeper // nil without file mode
	emf     *meter.EMF    // nil without
	status  *coalesce.Group[struct{}, vault.Status]

	mu       sync.Mutex
	deadline time.Time // guarded by mu; of the running invocation
}

// Hooks are what the platform adds.
type Hooks struct {
	Gate   func(r *http.Request) error // before each request to /v1/; nil: none
	Frozen bool                        // the host freezes between invocations
	Unwrap tier.Unwrap                 // decrypts the shared tier's key; nil: it is in the settings

	Login auth.Platform // by what only the platform has; nil: none

	// Clock and network are the machine's, unless a simulation has its own.
	Now    func() time.Time                                                  // wall clock, with a monotonic reading; nil: time.Now
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error) // to the origin and to memcached; nil: net.Dialer
	Listen proxy.Listen                                                      // nil: the system's
}

// Build wires everything. It does no I/O but to read TLS files that are named
// in the configuration.
func Build(cfg config.Config, log *slog.Logger, stdout io.Writer, h Hooks) (*App, error) {
	if h.Now == nil {
		h.Now = time.Now
	}
	a := &App{cfg: cfg, log: log, stdout: stdout, now: h.Now}
	a.status = a.statuses()
	var err error
	outside := vault.OptionsOf(cfg, log)
	outside.Now, outside.Dial = h.Now, h.Dial
	a.client, err = vault.New(outside)
	if err != nil {
		return nil, err
	}
	if t := cfg.TLS; t.CACert != "" || t.CACertPEM != "" || t.CAPath != "" || t.ClientCert != "" {
		if err := a.client.Check(); err != nil {
			return nil, err
		}
	}
	if a.tier, err = tier.New(cfg, h.Unwrap, tier.Host{Now: h.Now, Dial: h.Dial}, log); err != nil {
		return nil, err
	}
	a.keeper = keeper(cfg, a.client, outside.StandbyReads, a.tier, log, h.Now)
	login := auth.OptionsOf(cfg, log)
	login.Origin, login.Now, login.Platform = a.client, h.Now, h.Login
	if a.keeper != nil {
		login.Origin = a.keeper.Logins(a.client)
	}
	a.tokens, err = auth.New(login)
	if err != nil {
		return nil, err
	}
	mode := poll.OnInvoke
	switch cfg.Poll {
	case config.PollRead:
		mode = poll.OnRead
	case config.PollOff:
		mode = poll.Off
	}
	a.cursor = poll.NewCursor(a.client, cfg.PollTimeout+cfg.ConnTimeout, log, h.Now)
	// A stream takes one of the requests that may be in flight.
	listens := !h.Frozen && mode != poll.Off && cfg.Events && a.tokens.Enabled() && cfg.MaxInFlight > 1
	a.session = a.sessionFor(mode, listens)
	cacheOptions := cache.Options{
		Origin: a.session, Bytes: cfg.CacheBytes, MaxAge: cfg.MaxAge, Recheck: cfg.Recheck, TTL: cfg.DefaultTTL,
		NegativeTTL: cfg.NegativeTTL, StaleIfError: cfg.StaleIfError, RefreshInterval: cfg.RefreshInterval,
		Pessimistic: cfg.Pessimistic, TTLOnly: mode == poll.Off, FetchTimeout: cfg.ClientTimeout,
		Mounts: mounts(cfg), NoCache: cfg.NoCachePaths, Skew: cfg.ClockSkew, Log: log, Now: h.Now,
	}
	if a.tier != nil {
		a.cursor.Hear(a.tier)
	}
	if a.tier != nil && a.tokens.Enabled() {
		cacheOptions.Shared = a.tier
	}
	if a.keeper != nil {
		cacheOptions.Consistency = a.keeper
	}
	if listens {
		cacheOptions.Lag, cacheOptions.Reconcile = cfg.WALWait, reconcile
	}
	a.cache = cache.New(cacheOptions)
	if listens {
		a.events = a.listener()
	}
	var directory poll.Directory
	if a.tier != nil {
		directory = a.tier
	}
	permissions := poll.NewPermissions(a.cache, a.session, directory, log, h.Now)
	pollOptions := poll.Options{
		Cache: a.cache, Cursor: a.cursor, Permissions: permissions, Mode: mode, Timeout: cfg.PollTimeout,
		Connect: cfg.ConnTimeout, Recheck: cfg.Recheck, Ahead: (cfg.MaxAge + cfg.Recheck) / 4, Concurrency: cfg.PollConcurrency, Log: log, Now: h.Now,
	}
	if cfg.RunMode != config.RunProxy && len(cfg.Files) > 0 {
		pollOptions.After = a.refreshFiles
	}
	if a.tokens.Enabled() {
		pollOptions.Maintainer = a.session
		pollOptions.LoggedIn = func() bool { return a.tokens.Peek() != "" }
	}
	if a.tier != nil && cfg.MaxAge > cfg.ClockSkew {
		pollOptions.Stamps = stamps{a.tier}
	}
	a.poller = poll.New(pollOptions)
	if cfg.RunMode != config.RunProxy && len(cfg.Files) > 0 {
		secrets := make([]files.Secret, len(cfg.Files))
		for i, f := range cfg.Files {
			secrets[i] = files.Secret{Path: f.Path, File: f.File, Var: f.Var}
		}
		if a.files, err = files.New(a.cache, cfg.Namespace, secrets, h.Now); err != nil {
			return nil, err
		}
	}
	if cfg.EMF {
		// CloudWatch takes no dimension without a value
		// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html).
		a.emf = meter.NewEMF(cmp.Or(cfg.Platform.FunctionName, "proxy"))
	}
	if cfg.RunMode != config.RunFile {
		a.proxy = a.buildProxy(permissions, h)
	}
	return a, nil
}

func mounts(cfg config.Config) []cache.Mount {
	var out []cache.Mount
	for _, m := range cfg.KVMounts {
		out = append(out, cache.Mount{Namespace: cfg.Namespace, Path: m.Path, Version: m.Version})
	}
	return out
}

// sessionFor makes the extension's side of the origin, for a cache that is made
// after it.
func (a *App) sessionFor(mode poll.Mode, listens bool) *origin.Session {
	o := origin.Options{Client: a.client, Tokens: a.tokens, Cache: func() *cache.Cache { return a.cache }, Harmless: vault.Repeatable}
	if mode != poll.Off {
		o.Cursor = a.cursor
	}
	if a.keeper != nil {
		o.Guard = a.keeper
	}
	if listens {
		o.Active = vault.ToActive
	}
	return origin.New(o)
}

func (a *App) buildProxy(permissions *poll.Permissions, h Hooks) *proxy.Server {
	cfg := a.cfg
	o := proxy.Options{
		LocalToken: string(cfg.LocalToken), AllowedHosts: cfg.AllowedHosts, MaxBody: cfg.MaxBody,
		MaxHeader: cfg.MaxHeader, MaxConns: cfg.MaxConns, HeaderTimeout: cfg.HeaderTimeout, BodyTimeout: cfg.BodyTimeout,
		Namespace: cfg.Namespace, PrependNamespace: cfg.PrependNamespace, HasToken: a.tokens.Enabled(),
		CacheKV: cfg.StaticCache, CacheAll: cfg.CacheDefault == config.CacheAll, CacheNone: cfg.CacheDefault == config.CacheNone,
		Ahead: !h.Frozen, Copies: cfg.StandbyReads, Allowance: cfg.MaxAge + cfg.Recheck, StaleWait: cfg.PollTimeout + cfg.ConnTimeout,
		Cache: a.cache, Sender: a.session, Verifier: a.poller, Permissions: permissions, Gate: h.Gate,
		Relogin: a.session.Relogin, Revoked: a.tokens.Forget, Status: status, Metrics: a.writeMetrics, State: a.writeStatus, Log: a.log, Now: h.Now,
		Deadline: a.invocationDeadline, Listen: h.Listen,
	}
	if cfg.AccessLog {
		o.Access = slog.New(slog.NewJSONHandler(a.stdout, nil))
	}
	if a.tier != nil {
		o.Acquire = permissions.Acquire
	}
	if a.keeper != nil && cfg.ConsistencyScope == config.ScopeAudience {
		o.Require = a.keeper.Refresh
	}
	switch cfg.OwnToken {
	case config.OwnTokenFill:
		o.OwnToken = proxy.Fill
	case config.OwnTokenForce:
		o.OwnToken = proxy.Force
	}
	for _, l := range cfg.Listeners {
		o.Listeners = append(o.Listeners, proxy.Listener(l))
	}
	return proxy.New(o)
}

// status maps an error of the origin or the login to an HTTP status.
func status(err error) int {
	if login := new(auth.LoginError); errors.As(err, &login) {
		if login.Status >= 400 && login.Status < 500 && login.Status != http.StatusTooManyRequests {
			return http.StatusForbidden
		}
		if login.Status != 0 {
			return http.StatusServiceUnavailable
		}
	}
	if errors.Is(err, auth.ErrRecently) || errors.Is(err, cache.ErrClosed) {
		return http.StatusServiceUnavailable
	}
	return vault.StatusFor(err)
}

func (a *App) invocationDeadline() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.deadline
}

// Listen binds the proxy's addresses and serves them.
func (a *App) Listen() error {
	if a.proxy == nil {
		return nil
	}
	if err := a.proxy.Listen(); err != nil {
		return err
	}
	a.proxy.Serve()
	return nil
}

// WriteFiles writes file mode's files, within its budget.
func (a *App) WriteFiles(ctx context.Context) error {
	if a.files == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.cfg.FileTimeout, errors.New("THAW_FILE_TIMEOUT ("+a.cfg.FileTimeout.String()+") is over"))
	defer cancel()
	return a.files.Write(ctx)
}

// refreshFiles runs at the end of each poll.
func (a *App) refreshFiles(ctx context.Context) {
	if a.files == nil {
		return
	}
	if err := a.files.Refresh(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("rewrite secret files", "error", err)
	}
}

// Prefetch reads THAW_PREFETCH's paths into the cache.
func (a *App) Prefetch(ctx context.Context) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(1, a.cfg.PollConcurrency))
	for _, p := range a.cfg.Prefetch {
		key, ok := prefetchKey(a.cfg.Namespace, p)
		if !ok {
			a.log.Warn("prefetch: not a plain API path such as secret/data/app", "path", p)
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answer, err := a.cache.Load(ctx, cache.Want{Key: key, ID: a.cache.OwnIdentity()})
			if answer.Stream != nil {
				answer.Stream.Close()
			}
			if err != nil || answer.Status != http.StatusOK {
				a.log.Warn("prefetch", "path", p, "status", answer.Status, "error", err)
			}
		})
	}
	wg.Wait()
}

func prefetchKey(namespace, path string) (cache.Key, bool) {
	u, err := url.ParseRequestURI("/v1/" + strings.Trim(path, "/"))
	if err != nil {
		return cache.Key{}, false
	}
	req := cache.Classify(http.MethodGet, u, namespace)
	return req.Key, req.Cacheable
}

// Invoke begins an epoch: an invocation, until deadline (zero: unknown), of
// which was heard at the time at. Nothing here waits.
func (a *App) Invoke(at, deadline time.Time) {
	a.client.Thawed(at)
	a.tier.Thawed()
	a.tokens.Thawed()
	a.poller.Invoke(at)
	a.mu.Lock()
	a.deadline = deadline
	a.mu.Unlock()
}

// Overlap begins an epoch as Invoke does, of an invocation that comes while
// others run or right after them: nothing can have slept meanwhile.
func (a *App) Overlap(at time.Time) { a.poller.Invoke(at) }

// Verified waits until the poll that runs, if there is one, is over.
func (a *App) Verified(ctx context.Context) { a.poller.Over(ctx) }

// Looked waits until the poll of this epoch has looked at what others verified.
func (a *App) Looked(ctx context.Context) { a.poller.Looked(ctx) }

// HasFiles reports whether there are secret files to write.
func (a *App) HasFiles() bool { return a.files != nil }

// Addrs are where the proxy listens.
func (a *App) Addrs() []string {
	if a.proxy == nil {
		return nil
	}
	return a.proxy.Addrs()
}

// Watch does, until ctx ends, what no INVOKE does on hosts that don't freeze:
// it gets the shared tier's key, renews the token, listens to the origin's
// events, and polls for file mode, since no read comes through the proxy that
// would.
func (a *App) Watch(ctx context.Context) {
	var key sync.WaitGroup
	defer key.Wait()
	key.Go(func() { a.tier.AwaitKey(ctx) })
	key.Go(func() { a.tokens.Watch(ctx) })
	if a.events != nil {
		key.Go(func() { a.events.Run(ctx) })
	}
	if a.files == nil || a.cfg.Poll == config.PollOff {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(a.cfg.Recheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.poller.Ahead()
		case <-ctx.Done():
			return
		}
	}
}

// tierTime is how long a shutdown waits at most for what is on its way to the
// shared tier: calls of memcached that hang would take their own time, each.
const tierTime = 600 * time.Millisecond

// Shutdown ends everything within ctx: what is in flight first, the login last.
func (a *App) Shutdown(ctx context.Context) {
	shared, done := context.WithTimeout(ctx, tierTime)
	defer done()
	defer context.AfterFunc(shared, a.tier.Close)()
	if a.proxy != nil {
		drain, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		a.proxy.Shutdown(drain)
		cancel()
	}
	_ = a.status.Close(ctx)
	a.poller.Close()
	a.cursor.Close()
	a.cache.Close()
	a.session.Close()
	revoke, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	a.tokens.Shutdown(revoke)
	cancel()
	a.client.Close()
	a.tier.Close()
}
