package vault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

func TestNewRefusesBadAddressesWithoutRepeatingSecrets(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{
		"", "vault:8200", "ftp://vault", "https://", "https://:8200", "https:vault", "https://user:hunter2@vault:8200",
		"https://vault:8200/?token=hunter2", "https://vault:8200/#x", "https://vault:99999", "https://vault:0",
		"unix://relative", "unix://", "https://user:hunter2@vault:x", "http://[::1", "https://vault\x00",
	} {
		_, err := New(Options{Config: config.Config{Addrs: []string{addr}}})
		if err == nil {
			t.Errorf("New(%q) took it", addr)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("New(%q) repeats the secret: %v", addr, err)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("New without an address took it")
	}
}

func TestNewTouchesNeitherDiskNorNetwork(t *testing.T) {
	t.Parallel()
	o := Options{Config: config.Config{Addrs: []string{"https://vault.invalid:8200"}}, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, errors.New("no")
	}}
	o.TLS.CACert = filepath.Join(t.TempDir(), "absent.pem")
	c := newClient(t, o)
	if c.transports.Peek() != nil {
		t.Error("New built the transport")
	}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "VAULT_CACERT") {
		t.Errorf("Check: got %v, want the missing file", err)
	}
	_, err := c.Do(request(t, "GET", "/v1/secret/data/app", ""))
	wantKind(t, err, TLS)
	if !Unavailable(err) || StatusFor(err) != http.StatusBadGateway {
		t.Error("a missing CA file is not an outage with 502")
	}
}

func TestDoPlacesTheRequestAndLeavesItAsItWas(t *testing.T) {
	t.Parallel()
	tests := []struct{ base, method, target, want string }{
		{"", "GET", "/v1/secret/data/app", "/v1/secret/data/app"},
		{"/", "GET", "/v1/secret/data/app", "/v1/secret/data/app"},
		{"/vault", "GET", "/v1/secret/data/app?version=3", "/vault/v1/secret/data/app?version=3"},
		{"/a/b/", "LIST", "/v1/secret/metadata/", "/a/b/v1/secret/metadata/"},
		{"/a%2Fb", "GET", "/v1/x", "/a%2Fb/v1/x"},
		{"", "GET", "/v1/secret/data/a%2Fb", "/v1/secret/data/a%2Fb"},
		{"/v", "GET", "/v1/secret/data/a%2fb/%2e%2e/x", "/v/v1/secret/data/a%2fb/%2e%2e/x"},
		{"", "GET", "/v1/secret//data/../x", "/v1/secret//data/../x"},
		{"", "GET", "//other.example/v1/x", "//other.example/v1/x"},
		{"", "SCAN", "/v1/x?", "/v1/x?"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.base+tt.target, func(t *testing.T) {
			t.Parallel()
			var uri, method string
			addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				uri, method = r.RequestURI, r.Method
				if _, sent := r.Header["X-Idempotency-Key"]; sent {
					t.Error("the key without a value was sent")
				}
			}))
			c := newClient(t, Options{Config: config.Config{Addrs: []string{addr + tt.base}, Headers: http.Header{"X-Gateway": {"yes"}, "X-Own": {"no"}}}})
			req := request(t, tt.method, tt.target, "")
			req.Header.Set("X-Own", "kept")
			before, where := req.Header.Clone(), *req.URL
			do(t, c.Do, req)
			if uri != tt.want || method != tt.method {
				t.Errorf("got %s %s, want %s %s", method, uri, tt.method, tt.want)
			}
			if !reflect.DeepEqual(req.Header, before) || *req.URL != where || req.Host != "" {
				t.Error("the caller's request was changed")
			}
		})
	}
}

func TestDoAddsOnlyTheHeadersThatLack(t *testing.T) {
	t.Parallel()
	f := newNode(t)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{f.addr}, Headers: http.Header{"X-Gateway": {"a", "b"}, "X-Own": {"configured"}}}})
	req := request(t, "POST", "/v1/secret/data/app", `{"data":{}}`)
	req.Header.Set("X-Own", "caller's")
	req.Host = "evil.example"
	status, body := do(t, c.Do, req)
	got := f.last(t)
	if status != 200 || !strings.Contains(body, `{\"data\":{}}`) {
		t.Errorf("got %d %s", status, body)
	}
	if h := got.Header; h.Get("X-Own") != "caller's" || len(h["X-Gateway"]) != 2 || h.Get("X-Vault-Namespace") != "" ||
		h.Get("Accept-Encoding") != "" || h.Get("User-Agent") != "thaw" {
		t.Errorf("headers: %v", h)
	}
	if got.Host == "evil.example" {
		t.Error("the caller's Host reached the origin")
	}
	if c.Requests() != 1 {
		t.Errorf("%d requests counted", c.Requests())
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortTemp(t), "v.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := newNode(t)
	s := &http.Server{Handler: f}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })
	c := newClient(t, Options{Config: config.Config{Addrs: []string{"unix://" + path}}})
	if status, _ := do(t, c.Do, request(t, "GET", "/v1/secret/data/app", "")); status != 200 {
		t.Errorf("got %d", status)
	}
	if got := f.last(t).Host; got != "localhost" {
		t.Errorf("Host %q", got)
	}
	absent := newClient(t, Options{Config: config.Config{Addrs: []string{"unix://" + path + ".absent"}}})
	_, err = absent.Do(request(t, "GET", "/v1/secret/data/app", ""))
	e := wantKind(t, err, Refused)
	if !strings.Contains(e.Error(), "socket does not exist") {
		t.Errorf("message: %v", e)
	}
}

// shortTemp is a directory whose name leaves room in a socket's address.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestCloseEndsRequestsAndRefusesNewOnes(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	addr := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}})
	errs := make(chan error)
	req := request(t, "GET", "/v1/x", "")
	go func() {
		_, err := c.Do(req)
		errs <- err
	}()
	<-entered
	c.Close()
	wantKind(t, <-errs, Canceled)
	_, err := c.Do(request(t, "GET", "/v1/x", ""))
	wantKind(t, err, Canceled)
	if Unavailable(err) {
		t.Error("closing is not an outage")
	}
}

func TestFailsOverToTheNextAddressWhenTheFirstCannotBeReached(t *testing.T) {
	t.Parallel()
	dead := newScript(t, reset)
	_ = dead.ln.Close()
	f := newNode(t)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{dead.url(), f.addr}}})
	for range 3 {
		if status, _ := do(t, c.Do, request(t, "POST", "/v1/x", "body")); status != 200 {
			t.Errorf("got %d", status)
		}
	}
	if n := len(f.requests()); n != 4 {
		t.Errorf("%d requests for a question and three answers", n)
	}
	if l, err := c.Leader(t.Context()); err != nil || !l.IsSelf {
		t.Errorf("Leader: %+v, %v", l, err)
	}
}

func TestDoesNotFailOverOnceTheRequestWasSent(t *testing.T) {
	t.Parallel()
	both := newCluster(t, RoleActive, RoleStandby)
	first, second := both.nodes[0], both.nodes[1]
	first.answers(func(w http.ResponseWriter, _ *http.Request) { // it dies, as far as the client sees
		nc, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		reset(nc)
	})
	c := newClient(t, Options{Config: config.Config{Addrs: both.addrs(), MaxRetries: 2}, Sleep: (&pauses{}).sleep})
	_, err := c.Do(request(t, "PUT", "/v1/x", "body"))
	wantKind(t, err, Reset)
	if n, m := len(besides(first)), len(besides(second)); n != 1 || m != 0 {
		t.Errorf("a write went out %d times to the one and %d times to the other", n, m)
	}
}

func TestProxyErrorsDoNotRepeatThePassword(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{Config: config.Config{Addrs: []string{"http://vault.example:8200"}, ProxyURL: badProxy}})
	_, err := c.Do(request(t, "GET", "/v1/x", ""))
	e := wantKind(t, err, Unreachable)
	if strings.Contains(e.Error(), "hunter2") {
		t.Errorf("the password is in %v", e)
	}
}

func TestErrorsNameTheAddressAndNothingOfTheRequest(t *testing.T) {
	t.Parallel()
	dead := newScript(t, reset)
	_ = dead.ln.Close()
	c := newClient(t, Options{Config: config.Config{Addrs: []string{dead.url()}}})
	_, err := c.Do(request(t, "GET", "/v1/secret/data/app?token=hunter2", ""))
	e := wantKind(t, err, Refused)
	text := e.Error()
	for _, secret := range []string{"hunter2", "hvs.", "secret/data"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in %q", secret, text)
		}
	}
	for _, hint := range []string{"GET " + dead.url(), "VAULT_ADDR", "security group"} {
		if !strings.Contains(text, hint) {
			t.Errorf("%q is not in %q", hint, text)
		}
	}
}

func TestStatusForAndUnavailable(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err    error
		status int
		away   bool
	}{
		{&Error{Kind: Refused}, 502, true},
		{&Error{Kind: Unreachable}, 502, true},
		{&Error{Kind: TLS}, 502, true},
		{&Error{Kind: Timeout}, 504, true},
		{&Error{Kind: Reset}, 502, true},
		{&Error{Kind: Redirect}, 502, true},
		{&Error{Kind: Protocol}, 502, true},
		{&Error{Kind: Limited}, 503, true},
		{&Error{Kind: Canceled}, 503, false},
		{context.DeadlineExceeded, 504, true},
		{context.Canceled, 503, false},
		{errors.New("other"), 502, false},
	}
	for _, tt := range tests {
		if got := StatusFor(tt.err); got != tt.status {
			t.Errorf("StatusFor(%v) = %d, want %d", tt.err, got, tt.status)
		}
		if got := Unavailable(tt.err); got != tt.away {
			t.Errorf("Unavailable(%v) = %v, want %v", tt.err, got, tt.away)
		}
	}
	if Unavailable(nil) {
		t.Error("Unavailable(nil)")
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	o := newClient(t, Options{Config: config.Config{Addrs: []string{"http://v"}, RateLimit: 2.5}}).o
	if o.ClientTimeout != 60*time.Second || o.ConnTimeout != time.Second || o.IdleConn != 30*time.Second ||
		o.MaxInFlight != 64 || o.RateBurst != 3 || o.MaxRetries != 0 {
		t.Errorf("%+v", o)
	}
}

func badProxy(*http.Request) (*url.URL, error) {
	return nil, &url.Error{Op: "parse", URL: "http://user:hunter2@proxy", Err: errors.New("bad")}
}
