package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/wire"
	"github.com/thaw-project/thaw/tests/standin"
)

// world is a proxy before a stand-in for Vault, with a clock that tests set.
type world struct {
	*Server
	t      *testing.T
	origin *standin.Origin
	sender *sender
	poll   *waiter
	grants *grants
	clock  *fakeClock
	cache  *cache.Cache
	addr   string // host:port of the proxy
	client *http.Client
	log    *transcript

	mu      sync.Mutex
	revoked int // guarded by mu; Revoked was called
	logins  int // guarded by mu; Relogin was called
	waiting *poll.Waiting
	loginIs error // guarded by mu; what Relogin answers
}

const ownToken = "own.token.value"

// options are those of a proxy and of its reads.
type options struct {
	Options
	reads poll.ReadOptions
}

// newWorld starts a proxy. change may alter the options of proxy and cache.
func newWorld(t *testing.T, change ...func(*options, *cache.Options)) *world {
	t.Helper()
	w := &world{t: t, clock: &fakeClock{now: time.Now()}, log: &transcript{}}
	w.origin = standin.New(standin.Options{Now: w.clock.Now, RootToken: ownToken})
	server := httptest.NewServer(w.origin)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.sender = &sender{host: u.Host, own: ownToken, transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(w.sender.transport.CloseIdleConnections)
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	co := cache.Options{
		Origin: w.sender, Bytes: 1 << 20, Recheck: time.Second, StaleIfError: time.Hour, RefreshInterval: 5 * time.Minute, Now: w.clock.Now,
	}
	w.waiting = poll.NewWaiting(poll.WaitingOptions{Log: log, Now: w.clock.Now})
	w.poll, w.grants = &waiter{w: w}, &grants{w: w}
	o := options{Options: Options{
		Config: config.Config{
			Listeners: []config.Listener{{Network: "tcp", Address: "127.0.0.1:0"}}, MaxBody: 1 << 20, MaxHeader: 16 << 10, MaxConns: 64,
			HeaderTimeout: 5 * time.Second, BodyTimeout: 10 * time.Second, OwnToken: config.OwnTokenFill, StaticCache: true,
		},
		HasToken: true,
		Sender:   w.sender, Status: statusOf,
		Metrics: func(out io.Writer) { io.WriteString(out, "thaw_up 1\n") }, Log: log, Now: w.clock.Now,
		Relogin: func(context.Context) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.logins++
			return w.loginIs
		},
		Revoked: func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.revoked++
		},
		Waiting: w.waiting,
	}}
	o.reads = poll.ReadOptions{Poll: w.poll, Permissions: w.grants, StaleWait: 10 * time.Second, Now: w.clock.Now}
	for _, f := range change {
		f(&o, &co)
	}
	w.cache = cache.New(co)
	t.Cleanup(w.cache.Close)
	o.reads.Cache, o.reads.Waiting = w.cache, o.Waiting
	o.Cache, o.Reads = w.cache, poll.NewReads(o.reads)
	w.Server = New(o.Options)
	if err := w.Listen(); err != nil {
		t.Fatal(err)
	}
	w.Serve()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		cancel()
		w.Shutdown(ctx)
	})
	w.addr = w.Addrs()[0]
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	w.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return w
}

// statusOf is a Status that tells a deadline from the rest.
func statusOf(err error) int {
	if errors.Is(err, context.DeadlineExceeded) {
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// answer is what a caller got.
type answer struct {
	*http.Response
	body string
}

// do sends one request. Headers are pairs of name and value.
func (w *world) do(method, path, body string, headers ...string) answer {
	w.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.addr+path, reader)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := w.client.Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{res, string(text)}
}

func (w *world) get(path string, headers ...string) answer {
	w.t.Helper()
	return w.do(http.MethodGet, path, "", headers...)
}

// put writes a KV v2 secret past the proxy, as somebody else would.
func (w *world) put(path, value string) {
	w.origin.Root(http.MethodPost, "secret/data/"+path, fmt.Sprintf(`{"data":{"v":%q}}`, value))
}

// expect checks status and cache headers; empty: not looked at. value is what
// the body must hold.
func (w *world) expect(a answer, status int, cacheStatus, value string) {
	w.t.Helper()
	said, verified, timed := strings.Cut(a.Header.Get("Cache-Status"), "; verified-age=")
	if seconds, err := strconv.Atoi(verified); timed != strings.Contains(said, "; hit") || timed && (err != nil || seconds < 0) {
		w.t.Errorf("Cache-Status %q: a hit, and no other, says how long ago it was verified", a.Header.Get("Cache-Status"))
	}
	if a.StatusCode != status || cacheStatus != "" && said != cacheStatus || !strings.Contains(a.body, value) {
		w.t.Errorf("got %d, Cache-Status %q, %s\nwant %d, %q, %q", a.StatusCode, a.Header.Get("Cache-Status"), a.body, status, cacheStatus, value)
	}
	if stale := cacheStatus == staleStatus; cacheStatus != "" && (a.Header.Get("Warning") != "") != stale {
		w.t.Errorf("Warning %q beside Cache-Status %q", a.Header.Get("Warning"), cacheStatus)
	}
}

// The values of Cache-Status as users see them.
const (
	hitRead       = "thaw; hit; detail=memory; verified=read"
	hitCursor     = "thaw; hit; detail=memory; verified=cursor"
	hitEvents     = "thaw; hit; detail=memory; verified=events"
	staleStatus   = "thaw; hit; detail=stale"
	missStored    = "thaw; fwd=miss; stored"
	missOnly      = "thaw; fwd=miss"
	rechecked     = "thaw; fwd=stale; stored"
	bypassed      = "thaw; fwd=bypass"
	requested     = "thaw; fwd=request"
	forced        = "thaw; fwd=request; stored"
	onlyCachedGot = "thaw; fwd=miss; detail=only-if-cached"
)

// refused checks that a is an error of thaw's own, in Vault's shape.
func (w *world) refused(a answer, status int, says string) {
	w.t.Helper()
	var body struct{ Errors []string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || len(body.Errors) != 1 {
		w.t.Errorf("the error is not in Vault's shape: %q", a.body)
		return
	}
	if a.StatusCode != status || !strings.HasPrefix(body.Errors[0], "thaw: ") || !strings.Contains(body.Errors[0], says) {
		w.t.Errorf("got %d %q, want %d and %q", a.StatusCode, body.Errors[0], status, says)
	}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		w.t.Errorf("Content-Type %q", got)
	}
	if !strings.HasSuffix(a.body, "\n") {
		w.t.Errorf("no newline at the end, which Vault's errors have: %q", a.body)
	}
}

// asked returns how often the origin was asked since the last call.
func (w *world) asked() int {
	n := w.origin.Requests()
	w.origin.ResetCounts()
	return n
}

// sender sends to the stand-in, and is the cache's origin. A broken one fails
// as a network does.
type sender struct {
	host, own string
	transport *http.Transport

	mu     sync.Mutex
	broken error // guarded by mu
	cursor bool  // guarded by mu; reads are anchored
}

func (s *sender) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

func (s *sender) Ready(context.Context, *cache.Identity) error { return nil }

func (s *sender) Index(context.Context, uint64) cache.Index {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cursor {
		return cache.Index{Applied: 7, ActiveTime: "t"}
	}
	return cache.Index{}
}

func (s *sender) Read(ctx context.Context, q cache.Question) (*http.Response, error) {
	key, id := q.Key, q.ID
	req := &http.Request{Method: key.Method(), URL: &url.URL{Path: "/v1/" + key.Path, RawQuery: key.Query}, Header: http.Header{}}
	if key.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", key.Namespace)
	}
	return s.Send(req.WithContext(ctx), id, q.Retry)
}

func (s *sender) Send(req *http.Request, id *cache.Identity, _ bool) (*http.Response, error) {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	if broken != nil {
		return nil, broken
	}
	if req.URL.Scheme != "" || req.URL.Host != "" || req.Host != "" {
		return nil, fmt.Errorf("the request names a host: %q %q", req.URL.Host, req.Host)
	}
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host = "http", s.host
	out.RequestURI = ""
	switch {
	case id.Own():
		out.Header.Set("X-Vault-Token", s.own)
	case id.Token != "":
		out.Header.Set("X-Vault-Token", id.Token)
	}
	return s.transport.RoundTrip(out)
}

// waiter is a poll.Waiter: what a wait for it brings is what the test says.
type waiter struct {
	w *world

	mu     sync.Mutex
	waits  int    // guarded by mu
	ahead  int    // guarded by mu
	brings string // guarded by mu; proof, failure or nothing
}

func (p *waiter) set(brings string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.brings = brings
}

func (p *waiter) Wait(context.Context, cache.Key) {
	p.mu.Lock()
	p.waits++
	brings := p.brings
	p.mu.Unlock()
	m := cache.Revalidation{At: p.w.clock.Now(), Epoch: p.w.cache.Ledger().Epoch()}
	switch brings {
	case "proof":
		p.w.cache.Ledger().Revalidate(cache.Index{Applied: 7, ActiveTime: "t"}, m)
	case "failure":
		p.w.cache.Ledger().Fail(m, errors.New("the origin is away"))
	}
}

func (*waiter) Reading() {}
func (p *waiter) Ahead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ahead++
}

func (p *waiter) count() (waits, ahead int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waits, p.ahead
}

// grants is a poll.Confirmer that asks the stand-in's policies.
type grants struct {
	w *world

	mu     sync.Mutex
	asked  int  // guarded by mu
	silent bool // guarded by mu; the origin fails the question
}

func (g *grants) Confirm(ctx context.Context, id *cache.Identity, right cache.Capability) {
	g.mu.Lock()
	g.asked++
	silent := g.silent
	g.mu.Unlock()
	now := g.w.clock.Now()
	if silent {
		g.w.cache.Access().ConfirmFailed(id, now.Add(time.Second), 0)
		return
	}
	due, lifetime := g.w.cache.Access().Due(id, now)
	if lifetime {
		g.w.cache.Access().Learned(id, cache.Token{})
	}
	for _, r := range due[right.Namespace] {
		if !right.HangsOn(r) {
			continue // a call may be too short for others
		}
		switch may, err := g.may(ctx, id, r); {
		case err != nil:
			g.w.cache.Access().ConfirmFailed(id, now.Add(time.Second), 0)
			return
		case may:
			g.w.cache.Access().Confirm(id, now, []cache.Capability{r}, nil)
		default:
			g.w.cache.Access().Confirm(id, now, nil, []cache.Capability{r})
		}
	}
}

func (g *grants) may(ctx context.Context, id *cache.Identity, r cache.Capability) (bool, error) {
	body, err := json.Marshal(map[string]any{"paths": []string{r.Path}})
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/v1/sys/capabilities-self", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	res, err := g.w.sender.Send(req, id, false)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	var got struct{ Data map[string][]string }
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		return false, err
	}
	if wire.Failed(res.StatusCode) {
		return false, errors.New(res.Status)
	}
	return slices.Contains(got.Data[r.Path], "read") || slices.Contains(got.Data[r.Path], "root"), nil
}

// clock is a wall clock that tests set.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) add(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return c.now
}

// transcript keeps what was logged.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
