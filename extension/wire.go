package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/files"
	"github.com/thaw-project/thaw/extension/meter"
	"github.com/thaw-project/thaw/extension/origin"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/proxy"
	"github.com/thaw-project/thaw/extension/vault"
)

// app is the process: every part, wired.
type app struct {
	cfg    config.Config
	log    *slog.Logger
	stdout io.Writer

	client  *vault.Client
	tokens  *auth.Manager
	cursor  *poll.Cursor
	session *origin.Session
	tier    *tier // nil without a shared tier
	cache   *cache.Cache
	poller  *poll.Poller
	proxy   *proxy.Server
	files   *files.Keeper // nil without file mode
	emf     *meter.EMF    // nil without

	mu       sync.Mutex
	deadline time.Time // guarded by mu; of the running invocation
}

// hooks are what the platform adds.
type hooks struct {
	gate   func(ctx context.Context) error // before each request to /v1/
	frozen bool                            // the host freezes between invocations
}

// build wires everything. It does no I/O but to read TLS files that are named
// in the configuration.
func build(cfg config.Config, log *slog.Logger, stdout io.Writer, h hooks) (*app, error) {
	a := &app{cfg: cfg, log: log, stdout: stdout}
	var err error
	a.client, err = vault.New(vault.Options{
		Addrs: cfg.Addrs, TLS: cfg.TLS, Headers: cfg.Headers, MaxRetries: cfg.MaxRetries,
		RateLimit: cfg.RateLimit, RateBurst: cfg.RateBurst, ProxyURL: cfg.ProxyURL, ClientTimeout: cfg.ClientTimeout,
		ConnTimeout: cfg.ConnTimeout, IdleConn: cfg.IdleConn, MaxInFlight: cfg.MaxInFlight, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	if t := cfg.TLS; t.CACert != "" || t.CACertPEM != "" || t.CAPath != "" || t.ClientCert != "" {
		if err := a.client.Check(); err != nil {
			return nil, err
		}
	}
	// For AWS's APIs.
	outside := &http.Client{Transport: &http.Transport{
		Proxy: cfg.EnvProxy, TLSHandshakeTimeout: 2 * cfg.ConnTimeout, DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: 2 * cfg.ConnTimeout}).DialContext,
	}}
	a.tokens, err = auth.New(auth.Options{
		Method: cfg.Auth, AWS: cfg.Platform.AWS, Region: cfg.Platform.Region, Namespace: cfg.Namespace,
		Origin: a.client, Timeout: min(cfg.ClientTimeout, 10*time.Second), Log: log,
		HTTP: outside,
	})
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
	var anchor origin.Anchorer
	a.cursor = poll.NewCursor(a.client, cfg.PollTimeout+cfg.ConnTimeout, log, time.Now)
	if mode != poll.Off {
		anchor = a.cursor
	}
	a.session = origin.New(a.client, a.tokens, anchor)
	if a.tier, err = newTier(cfg, outside, log); err != nil {
		return nil, err
	}
	cacheOptions := cache.Options{
		Origin: a.session, Bytes: cfg.CacheBytes, MaxAge: cfg.MaxAge, Recheck: cfg.Recheck, TTL: cfg.DefaultTTL,
		NegativeTTL: cfg.NegativeTTL, StaleIfError: cfg.StaleIfError, RefreshInterval: cfg.RefreshInterval,
		Pessimistic: cfg.Pessimistic, TTLOnly: mode == poll.Off, FetchTimeout: cfg.ClientTimeout,
		Mounts: mounts(cfg), NoCache: cfg.NoCachePaths, Skew: cfg.ClockSkew, Log: log,
	}
	if a.tier != nil {
		a.cursor.Hear(a.tier)
	}
	if a.tier != nil && a.tokens.Enabled() {
		cacheOptions.Shared = a.tier
	}
	a.cache = cache.New(cacheOptions)
	a.session.Attach(a.cache)
	var directory poll.Directory
	if a.tier != nil {
		directory = a.tier
	}
	permissions := poll.NewPermissions(a.cache, a.session, directory, log, time.Now)
	pollOptions := poll.Options{
		Cache: a.cache, Cursor: a.cursor, Permissions: permissions, Mode: mode, Timeout: cfg.PollTimeout,
		Connect: cfg.ConnTimeout, Recheck: cfg.Recheck, Ahead: (cfg.MaxAge + cfg.Recheck) / 4, Concurrency: cfg.PollConcurrency, After: a.refreshFiles,
		Log: log, Now: time.Now,
	}
	if a.tokens.Enabled() {
		pollOptions.Maintainer = a.session
	}
	if a.tier != nil && cfg.MaxAge > cfg.ClockSkew {
		pollOptions.Stamps = stamps{a.tier.late}
	}
	a.poller = poll.New(pollOptions)
	if cfg.RunMode != config.RunProxy && len(cfg.Files) > 0 {
		secrets := make([]files.Secret, len(cfg.Files))
		for i, f := range cfg.Files {
			secrets[i] = files.Secret{Path: f.Path, File: f.File, Var: f.Var}
		}
		if a.files, err = files.New(a.cache, cfg.Namespace, secrets, time.Now); err != nil {
			return nil, err
		}
	}
	if cfg.EMF {
		a.emf = meter.NewEMF(cfg.Platform.FunctionName)
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

func (a *app) buildProxy(permissions *poll.Permissions, h hooks) *proxy.Server {
	cfg := a.cfg
	o := proxy.Options{
		LocalToken: string(cfg.LocalToken), AllowedHosts: cfg.AllowedHosts, MaxBody: cfg.MaxBody,
		MaxHeader: cfg.MaxHeader, MaxConns: cfg.MaxConns, HeaderTimeout: cfg.HeaderTimeout, BodyTimeout: cfg.BodyTimeout,
		Namespace: cfg.Namespace, PrependNamespace: cfg.PrependNamespace, HasToken: a.tokens.Enabled(),
		CacheKV: cfg.StaticCache, CacheAll: cfg.CacheDefault == config.CacheAll, CacheNone: cfg.CacheDefault == config.CacheNone,
		Ahead: !h.frozen, Allowance: cfg.MaxAge + cfg.Recheck, StaleWait: cfg.PollTimeout + cfg.ConnTimeout,
		Cache: a.cache, Sender: a.session, Verifier: a.poller, Permissions: permissions, Gate: h.gate,
		Relogin: a.session.Relogin, Revoked: a.tokens.Forget, Status: status, Metrics: a.writeMetrics, Log: a.log, Now: time.Now,
		Deadline: a.invocationDeadline,
	}
	if a.tier != nil {
		o.Acquire = permissions.Acquire
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

func (a *app) invocationDeadline() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.deadline
}

// listen binds the proxy's addresses and serves them.
func (a *app) listen() error {
	if a.proxy == nil {
		return nil
	}
	if err := a.proxy.Listen(); err != nil {
		return err
	}
	a.proxy.Serve()
	return nil
}

// writeFiles writes file mode's files, within its budget.
func (a *app) writeFiles(ctx context.Context) error {
	if a.files == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.cfg.FileTimeout, errors.New("THAW_FILE_TIMEOUT ("+a.cfg.FileTimeout.String()+") is over"))
	defer cancel()
	return a.files.Write(ctx)
}

// refreshFiles runs at the end of each poll.
func (a *app) refreshFiles(ctx context.Context) {
	if a.files == nil {
		return
	}
	if err := a.files.Refresh(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("rewrite secret files", "error", err)
	}
}

// prefetch reads THAW_PREFETCH's paths into the cache.
func (a *app) prefetch(ctx context.Context) {
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
	u, err := parsePath("/v1/" + strings.Trim(path, "/"))
	if err != nil {
		return cache.Key{}, false
	}
	req := cache.Classify(http.MethodGet, u, namespace)
	return req.Key, req.Cacheable
}

// shutdown ends everything within ctx: what is in flight first, the login last.
func (a *app) shutdown(ctx context.Context) {
	if a.proxy != nil {
		drain, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		a.proxy.Shutdown(drain)
		cancel()
	}
	a.poller.Close()
	a.cursor.Close()
	a.cache.Close()
	a.session.Close()
	revoke, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	a.tokens.Shutdown(revoke)
	cancel()
	a.client.Close()
	a.tier.close()
}
