package proxy

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/poll"
)

// arrivals is an origin that has nothing and keeps what reaches it.
type arrivals struct {
	mu   sync.Mutex
	seen []*http.Request // guarded by mu
}

// take returns what reached it since the last call.
func (a *arrivals) take() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := a.seen
	a.seen = nil
	return seen
}

// Send implements Sender.
func (a *arrivals) Send(req *http.Request, _ *cache.Identity, _ bool) (*http.Response, error) {
	a.mu.Lock()
	a.seen = append(a.seen, req)
	a.mu.Unlock()
	if req.Body != nil {
		io.Copy(io.Discard, req.Body)
	}
	return &http.Response{StatusCode: http.StatusNotFound, Request: req, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"errors":[]}`))}, nil
}

// Ready, Read and Anchor implement cache.Origin.
func (a *arrivals) Ready(context.Context, *cache.Identity) error { return nil }
func (a *arrivals) Read(_ context.Context, q cache.Question) (*http.Response, error) {
	key := q.Key
	req, err := http.NewRequest(key.Method(), "/v1/"+strings.ReplaceAll(key.Path, " ", "%20"), nil)
	if err != nil {
		req = &http.Request{Method: key.Method(), Header: http.Header{}}
	}
	return a.Send(req, nil, false)
}
func (a *arrivals) Index(context.Context, uint64) cache.Index { return cache.Index{} }

// nobodyWaits is a poll.Waiter and a poll.Confirmer with nothing to do.
type nobodyWaits struct{}

// Wait, Ahead and Confirm implement poll.Waiter and poll.Confirmer.
func (nobodyWaits) Wait(context.Context, cache.Key)                            {}
func (nobodyWaits) Reading()                                                   {}
func (nobodyWaits) Ahead()                                                     {}
func (nobodyWaits) Confirm(context.Context, *cache.Identity, cache.Capability) {}

// FuzzGuard: whatever a caller sends, the origin is reached only by what passes
// every guard, and never with what is not for it. The rules are written here
// anew, from the README, and not taken from the guard.
func FuzzGuard(f *testing.F) {
	const good = "X-Thaw-Token: t0ken\r\nX-Vault-Request: true"
	for _, target := range []string{"/v1/secret/data/a", "/v1/sys/health", "/v1/../x", "/v1/a/%2e%2e/b", "/v1/./a", "//v1/a", "/v1", "/proxy/v1/metrics", "http://evil.example/v1/a", "*", "/v1/a?..", "/v1/..a/b..", "/V1/a"} {
		f.Add("GET", target, "localhost", good)
	}
	for _, host := range []string{"127.0.0.1:8200", "[::1]:8200", "LOCALHOST:1", "evil.example", "localhost.evil", "127.0.0.1.evil", "127.1", "[::ffff:127.0.0.1]", "", "localhost:x:y", "[localhost]", "::1", "[::1%25lo]", "2130706433"} {
		f.Add("GET", "/v1/a", host, good)
	}
	for _, more := range []string{"X-Forwarded-For: 1", "Forwarded: for=1", "x-forwarded-x: y", "Origin: null", "Origin: http://localhost:3", "Sec-Fetch-Site: cross-site", "X-Thaw-Token: t0ken", "X-Vault-Request: true",
		"X-Vault-Request: false", "Upgrade: h2c\r\nConnection: Upgrade", "Upgrade: websocket\r\nConnection: upgrade", "Connection: X-Thaw-Token, X-Vault-Request", "Transfer-Encoding: chunked", "X-Vault-Namespace: ../x", "Content-Length: 0"} {
		f.Add("POST", "/v1/a", "localhost", good+"\r\n"+more)
	}
	for _, method := range []string{"LIST", "TRACE", "TRACK", "CONNECT", "PUT", "get", "SCAN"} {
		f.Add(method, "/v1/a", "localhost", good)
	}
	f.Add("GET", "/v1/a", "localhost", "X-Thaw-Token: T0ken\r\nX-Vault-Request: true")
	f.Add("GET", "/v1/a", "localhost", "X-Vault-Request: true")
	log := slog.New(slog.DiscardHandler)
	origin := &arrivals{}
	c := cache.New(cache.Options{Origin: origin, Bytes: 1 << 20, Recheck: time.Second, RefreshInterval: time.Minute, Now: time.Now})
	f.Cleanup(c.Close)
	s := New(Options{
		Config: config.Config{
			LocalToken: "t0ken", MaxBody: 1 << 20, MaxHeader: 16 << 10, HeaderTimeout: time.Second, BodyTimeout: time.Second, OwnToken: config.OwnTokenFill, StaticCache: true,
		},
		HasToken: true,
		Cache:    c, Sender: origin,
		Reads: poll.NewReads(poll.ReadOptions{Cache: c, Poll: nobodyWaits{}, Permissions: nobodyWaits{}, StaleWait: time.Second, Now: time.Now}), Status: statusOf, Log: log, Now: time.Now,
		Metrics: func(io.Writer) {},
	})
	handler := s.handler(&config.Listener{Network: "tcp", RequireRequestHeader: true})
	f.Fuzz(func(t *testing.T, method, target, host, headers string) {
		raw := method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + headers + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		sent := r.Header.Clone()
		origin.take()
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		if answer.Code < 200 || answer.Code > 599 {
			t.Fatalf("%q: status %d", raw, answer.Code)
		}
		for _, got := range origin.take() {
			if !fromHere(r.Host) {
				t.Errorf("%q: from a foreign host %q", raw, r.Host)
			}
			if v := sent.Values("X-Thaw-Token"); len(v) != 1 || v[0] != "t0ken" {
				t.Errorf("%q: without the local token", raw)
			}
			if v := sent.Values("X-Vault-Request"); len(v) != 1 || v[0] != "true" {
				t.Errorf("%q: without the required header", raw)
			}
			for name := range sent {
				if lower := strings.ToLower(name); lower == "forwarded" || strings.HasPrefix(lower, "x-forwarded-") {
					t.Errorf("%q: a forwarded request", raw)
				}
			}
			if !strings.HasPrefix(r.URL.Path, "/v1/") || strings.Contains(r.URL.Path+"/", "/../") || strings.Contains(r.URL.Path+"/", "/./") {
				t.Errorf("%q: path %q", raw, r.URL.Path)
			}
			switch got.Method {
			case "TRACE", "TRACK", "CONNECT":
				t.Errorf("%q: was passed on", raw)
			}
			if got.URL != nil && got.URL.Host != "" {
				t.Errorf("%q: the caller chose the host %q", raw, got.URL.Host)
			}
			if got.Header.Get("X-Thaw-Token") != "" {
				t.Errorf("%q: the local token is passed on", raw)
			}
			if v := got.Header.Get("Upgrade"); v != "" && !strings.EqualFold(strings.TrimSpace(v), "websocket") {
				t.Errorf("%q: an upgrade to %q is passed on", raw, v)
			}
		}
	})
}

// fromHere tells whether a Host header names a loopback address.
func fromHere(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if strings.EqualFold(name, "localhost") || strings.EqualFold(name, "[localhost]") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && (addr.IsLoopback() || addr.Is4In6() && addr.Unmap().IsLoopback())
}
