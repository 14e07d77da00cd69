package attack

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// gullible is a server between thaw and Vault that agrees to every change of
// protocol, and keeps what it was sent.
type gullible struct {
	addr string

	mu   sync.Mutex
	seen []*http.Request // guarded by mu
	raw  strings.Builder // guarded by mu; what came after a change of protocol
}

func newGullible(t *testing.T) *gullible {
	g := &gullible{}
	var work sync.WaitGroup
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.seen = append(g.seen, r)
		g.mu.Unlock()
		proto := r.Header.Get("Upgrade")
		if proto == "" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[]}`)
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+proto+"\r\n\r\n")
		work.Go(func() {
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(patience))
			line, _ := buf.ReadString('\n')
			g.mu.Lock()
			g.raw.WriteString(line)
			g.mu.Unlock()
		})
	}))
	t.Cleanup(func() { s.Close(); work.Wait() })
	g.addr = s.URL
	return g
}

func (g *gullible) tunnelled() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.raw.String()
}

func (g *gullible) requests() []*http.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*http.Request(nil), g.seen...)
}

// A change to HTTP/2 would be a tunnel past the guard, the limits and the
// evictions of writes, if anything between here and Vault agrees to it
// (RFC 7540 section 3.2; RFC 9113 dropped it). Websockets alone are let through:
// Vault's events speak them.
func TestH2CUpgradeOpensNoTunnel(t *testing.T) {
	t.Parallel()
	g := newGullible(t)
	p := launch(t, "VLE_VAULT_ADDR="+g.addr, "VAULT_TOKEN=hvs.own", "THAW_POLL=off")
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for name, head := range map[string]string{
		"as RFC 7540 has it":       "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
		"settings not named":       "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
		"capitals":                 "Connection: upgrade\r\nUpgrade: H2C\r\n",
		"beside a websocket":       "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
		"a websocket in two":       "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
		"TLS":                      "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
		"something never heard of": "Connection: Upgrade\r\nUpgrade: tunnel\r\n",
	} {
		c := p.dial()
		io.WriteString(c, "GET /v1/sys/x HTTP/1.1\r\nHost: localhost\r\n"+head+"\r\n")
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			io.WriteString(c, preface)
			harness.Eventually(t, patience, "the tunnel's first line", func() bool { return g.tunnelled() != "" })
			t.Errorf("%s: switched to %q; the server behind got %q", name, res.Header.Get("Upgrade"), g.tunnelled())
		}
		c.Close()
	}
	for _, r := range g.requests() {
		for _, name := range []string{"Upgrade", "Http2-Settings"} {
			if v := r.Header.Values(name); len(v) > 0 {
				t.Errorf("%s was passed on: %q", name, v)
			}
		}
	}
	if len(g.requests()) == 0 {
		t.Error("no request arrived: this test shows nothing")
	}
}

// What Connection names is for this hop alone (RFC 9110 section 7.6.1). Naming
// what this proxy adds, or goes by, must not take it away.
func TestConnectionHeaderRemovesNothingThatGuards(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "mine")
	p := o.start("THAW_LOCAL_TOKEN=local", "THAW_RECHECK=10m")
	const local = "X-Thaw-Token: local"
	p.get(o.data("a"), local)
	for _, named := range []string{"X-Vault-Token", "X-Thaw-Token", "X-Vault-Namespace", "X-Vault-Request", "Host", "Authorization", "Content-Length", "Transfer-Encoding"} {
		// Without a right to it, nothing is served.
		if a := p.get(o.data("a"), local, "Connection: "+named, "X-Vault-Token: hvs.stranger"); a.status != http.StatusForbidden {
			t.Errorf("Connection: %s with a stranger's token: %d %s", named, a.status, a.body)
		}
		if a := p.get("/v1/"+o.kv+"/config", local, "Connection: "+named, "X-Vault-Token: hvs.stranger"); a.status != http.StatusForbidden {
			t.Errorf("Connection: %s past the cache with a stranger's token: %d %s", named, a.status, a.body)
		}
		if a := p.get(o.data("a"), "Connection: "+named); a.status != http.StatusForbidden {
			t.Errorf("Connection: %s without the local token: %d", named, a.status)
		}
		// With one, it is what it is without the header.
		if a := p.get(o.data("a"), local, "Connection: "+named); a.value() != "mine" {
			t.Errorf("Connection: %s: %d %s", named, a.status, a.body)
		}
	}
	for _, r := range o.count.Requests() {
		if r.Header.Get("X-Thaw-Token") != "" {
			t.Errorf("%s %s: the local token reached Vault", r.Method, r.Path)
		}
	}
}

// Something between thaw and Vault may answer TRACE with the request as it came
// (RFC 9110 section 9.3.8): the token that thaw adds is not for the caller.
func TestEchoingMethodsTellNoToken(t *testing.T) {
	t.Parallel()
	const own = "hvs.own-token-of-thaw"
	var arrived sync.Map // of methods
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Store(r.Method, true)
		w.Header().Set("Content-Type", "message/http")
		r.Write(w)
	}))
	t.Cleanup(echo.Close)
	p := launch(t, "VLE_VAULT_ADDR="+echo.URL, "VAULT_TOKEN="+own, "THAW_POLL=off", "VAULT_MAX_RETRIES=0")
	for _, method := range []string{"TRACE", "TRACK", "CONNECT"} {
		a := ask(t, p.addr, request(method, "/v1/sys/x", ""))
		if a.status != http.StatusMethodNotAllowed || strings.Contains(a.body, own) {
			t.Errorf("%s: %d %s", method, a.status, a.body)
		}
		if _, ok := arrived.Load(method); ok {
			t.Errorf("%s was passed on", method)
		}
	}
}

// Two requests in one segment are two requests, and the second is guarded as
// the first.
func TestPipelinedRequestsAreEachGuarded(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "mine")
	p := o.start()
	good := "GET " + o.data("a") + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, bad := range map[string]string{
		"a foreign host": strings.Replace(good, "localhost", "evil.example", 1),
		"forwarded":      strings.Replace(good, "\r\n\r\n", "\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", 1),
		"a web page":     strings.Replace(good, "\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n", 1),
		"a stranger":     strings.Replace(good, "\r\n\r\n", "\r\nX-Vault-Token: hvs.stranger\r\n\r\n", 1),
	} {
		c := p.dial()
		io.WriteString(c, good+bad+good)
		r := bufio.NewReader(c)
		for i, want := range []int{200, 403, 200} {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Errorf("%s, answer %d: %v", name, i, err)
				break
			}
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != want || want == 403 && strings.Contains(string(body), "mine") {
				t.Errorf("%s, answer %d: %d %s", name, i, res.StatusCode, body)
			}
		}
		c.Close()
	}
}

// A target that names a host, and CONNECT, would make an open proxy of this one
// (RFC 9112 section 3.2).
func TestTargetsWithAHostMakeNoOpenProxy(t *testing.T) {
	t.Parallel()
	reached := make(chan string, 16)
	victim, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := victim.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			reached <- line
			c.Close()
		}
	})
	t.Cleanup(func() { victim.Close(); work.Wait() })
	o := newSite(t)
	p := o.start()
	host := victim.Addr().String()
	for _, line := range []string{
		"GET http://" + host + "/latest/meta-data/iam HTTP/1.1", "GET http://" + host + "/v1/sys/health HTTP/1.1", "GET //" + host + "/v1/sys/health HTTP/1.1",
		"GET http://localhost:80@" + host + "/v1/sys/health HTTP/1.1", "CONNECT " + host + " HTTP/1.1", "CONNECT /v1/sys/health HTTP/1.1",
		"GET http://169.254.169.254/latest/meta-data/iam HTTP/1.1", "GET /v1/@" + host + "/ HTTP/1.1", "GET /v1/http://" + host + "/ HTTP/1.1",
		"GET /v1/sys/health?url=http://" + host + " HTTP/1.1", "OPTIONS * HTTP/1.1", "GET " + host + " HTTP/1.1",
	} {
		got := p.raw(line + "\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if strings.Contains(line, "169.254") && !strings.HasPrefix(got, "HTTP/1.1 403") {
			t.Errorf("%s: %.80q", line, got)
		}
	}
	select {
	case line := <-reached:
		t.Errorf("the victim was asked %q", line)
	default:
	}
	for _, r := range o.count.Requests() {
		if !strings.HasPrefix(r.Path, "/v1/") {
			t.Errorf("Vault was asked %s %s", r.Method, r.Path)
		}
	}
}

// What a caller writes into a path, a query or a header never begins a line of
// its own: neither at Vault, nor in the answer, nor in the log.
func TestNoInputBeginsALineOfItsOwn(t *testing.T) {
	t.Parallel()
	g := newGullible(t)
	p := launch(t, "VLE_VAULT_ADDR="+g.addr, "VAULT_TOKEN=hvs.own", "THAW_POLL=off")
	const forged = "X-Forged: yes"
	for _, target := range []string{
		"/v1/a%0d%0a" + "X-Forged:%20yes", "/v1/a%0aX-Forged:%20yes", "/v1/a?q=%0d%0aX-Forged:%20yes", "/v1/a%00%0d%0aX-Forged:%20yes", "/v1/%e5%98%8a%e5%98%8dX-Forged:%20yes",
		"/v1//a%0d%0aX-Forged:%20yes", `/v1/a","level":"ERROR","msg":"forged`, "/v1/a%22%7d%0a%7b%22msg%22:%22forged%22%7d",
	} {
		for _, method := range []string{"GET", "POST", "LIST"} {
			got := p.raw(method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			if head, _, _ := strings.Cut(got, "\r\n\r\n"); strings.Contains(head, "\r\nX-Forged") {
				t.Errorf("%s %s: answered %q", method, target, head)
			}
		}
	}
	for _, head := range []string{
		"X-A: b\rX-Forged: yes", "X-A: b\nX-Forged: yes\x00", "X-Vault-Namespace: a\rX-Forged: yes", "X-Vault-Token: a\rX-Forged: yes", "X-Vault-Namespace: a\x0b\r X-Forged: yes",
		"Authorization: Bearer a\x00\rX-Forged: yes", "X A: b", "X\x7fA: b",
	} {
		p.raw("GET /v1/sys/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + head + "\r\n\r\n")
	}
	for _, r := range g.requests() {
		if strings.Contains(head(r), forged) {
			t.Errorf("%s %s arrived with %v", r.Method, r.RequestURI, r.Header)
		}
	}
	p.proc.Stop(patience)
	for line := range strings.Lines(p.proc.Output()) {
		if !strings.HasPrefix(line, `{"time":`) || strings.Contains(line, `"msg":"forged"`) {
			t.Errorf("a forged line in the log: %q", line)
		}
	}
}

// head is a request's header lines as its server read them. A bare line feed
// ends a line for net/http (RFC 9112 section 2.2 lets it), so a forged one that
// was sent in the open does not count.
func head(r *http.Request) string {
	var b strings.Builder
	for name, values := range r.Header {
		for _, v := range values {
			b.WriteString(name + ": " + v + "\n")
		}
	}
	return b.String()
}
