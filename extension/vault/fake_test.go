package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeNode is a node of a Vault cluster as far as this package asks one: it
// tells its leader and its health without a token, and reads only with one.
// Shapes as in hashicorp/vault v1.21.0, vault/logical_system.go
// (LeaderResponse) and http/sys_health.go (HealthResponse).
type fakeNode struct {
	cluster string // cluster_id
	token   string // the token it accepts
	standby bool   // answers requests with 307 to leader
	leader  string // leader_address
	index   uint64 // raft index
	extra   http.HandlerFunc

	mu   sync.Mutex // guards seen
	seen []*http.Request
}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, r.Clone(context.Background()))
	f.mu.Unlock()
	path := r.URL.Path
	if i := strings.Index(path, "/v1/"); i > 0 {
		path = path[i:] // below a base path
	}
	switch {
	case path == leaderPath && r.Method == http.MethodGet:
		writeJSON(w, http.StatusOK, map[string]any{
			"ha_enabled": true, "is_self": !f.standby, "active_time": "2026-01-09T00:11:46.439409062Z",
			"leader_address": f.leader, "leader_cluster_address": "https://10.0.0.1:8201",
			"performance_standby": false, "performance_standby_last_remote_wal": 0,
			"raft_committed_index": f.index, "raft_applied_index": f.index,
		})
	case path == healthPath && r.Method == http.MethodGet:
		status := http.StatusOK
		if f.standby {
			status = http.StatusTooManyRequests
		}
		writeJSON(w, status, map[string]any{
			"initialized": true, "sealed": false, "standby": f.standby, "performance_standby": false,
			"replication_performance_mode": "disabled", "replication_dr_mode": "disabled",
			"server_time_utc": 1767917506, "version": "1.21.0", "enterprise": false,
			"cluster_name": "vault-cluster-1", "cluster_id": f.cluster, "echo_duration_ms": 0, "clock_skew_ms": 0,
		})
	case f.extra != nil:
		f.extra(w, r)
	case r.Header.Get("X-Vault-Token") != f.token:
		writeJSON(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}})
	case f.standby:
		// respondStandby in http/handler.go: scheme and host of the leader, path
		// and query of the request.
		w.Header().Set("Location", f.leader+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	default:
		body, _ := io.ReadAll(r.Body)
		writeJSON(w, http.StatusOK, map[string]any{"method": r.Method, "uri": r.RequestURI, "body": string(body)})
	}
}

func (f *fakeNode) requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

// besides is the requests but those for the node's health and leader.
func besides(f *fakeNode) []*http.Request {
	return slices.DeleteFunc(f.requests(), func(r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, healthPath) || strings.HasSuffix(r.URL.Path, leaderPath)
	})
}

func (f *fakeNode) last(t *testing.T) *http.Request {
	t.Helper()
	seen := f.requests()
	if len(seen) == 0 {
		t.Fatal("the origin was not asked")
	}
	return seen[len(seen)-1]
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// serve starts h on loopback.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func request(t *testing.T, method, target, body string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	var r io.Reader
	if body != "" {
		r = struct{ io.Reader }{strings.NewReader(body)} // no GetBody
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "/", r)
	if err != nil {
		t.Fatal(err)
	}
	req.URL = u
	req.Header.Set("X-Vault-Token", "hvs.secret-token")
	return req
}

// do sends and reads everything.
func do(t *testing.T, send func(*http.Request) (*http.Response, error), req *http.Request) (int, string) {
	t.Helper()
	resp, err := send(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return resp.StatusCode, string(body)
}

func wantKind(t *testing.T, err error, kind Kind) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T %v, want an *Error of kind %v", err, err, kind)
	}
	if e.Kind != kind {
		t.Fatalf("got kind %v (%v), want %v", e.Kind, e, kind)
	}
	return e
}

// clock is an injected wall clock.
type fakeClock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func newClock() *fakeClock { return &fakeClock{now: time.Date(2026, 1, 9, 0, 0, 0, 0, time.UTC)} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// pauses is a Sleep that takes no time and remembers.
type pauses struct {
	mu  sync.Mutex // guards all
	all []time.Duration
}

func (p *pauses) sleep(ctx context.Context, d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, d)
	return ctx.Err()
}

func (p *pauses) list() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}

// script is a TCP listener that gives each connection to the next step.
type script struct {
	ln    net.Listener
	conns chan struct{} // one per accepted connection
	done  chan struct{}
}

func newScript(t *testing.T, steps ...func(net.Conn)) *script {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{ln: ln, conns: make(chan struct{}, 100), done: make(chan struct{})}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	go func() {
		defer close(s.done)
		for i := 0; ; i++ {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			s.conns <- struct{}{}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			step := steps[min(i, len(steps)-1)]
			wg.Go(func() { step(c) })
		}
		wg.Wait()
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		<-s.done
	})
	return s
}

func (s *script) url() string { return "http://" + s.ln.Addr().String() }

// readHead reads a request's head from c.
func readHead(c net.Conn) string {
	var b []byte
	one := make([]byte, 1)
	for !strings.HasSuffix(string(b), "\r\n\r\n") {
		if _, err := c.Read(one); err != nil {
			break
		}
		b = append(b, one[0])
	}
	return string(b)
}

// say answers each request on a connection with text.
func say(text string) func(net.Conn) {
	return func(c net.Conn) {
		for readHead(c) != "" {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// reset closes c so that the other end sees a reset.
func reset(c net.Conn) {
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
	_ = c.Close()
}
