package compat

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

func TestGuardForeignHostIsRefused(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.cached(o.data("a"))
	status := func(path, host string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.base+path, nil)
		harness.Must(t, err)
		req.Host = host
		res, err := p.client.Do(req)
		harness.Must(t, err)
		defer res.Body.Close()
		io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	port := p.addrs[0][strings.LastIndex(p.addrs[0], ":"):]
	for _, host := range []string{"127.0.0.1", "127.0.0.1" + port, "localhost", "LOCALHOST:1", "[::1]" + port, "127.8.8.8"} {
		if got := status("/v1/"+o.data("a"), host); got != http.StatusOK {
			t.Errorf("Host %s: %d", host, got)
		}
	}
	for _, host := range []string{"evil.example.com", "evil.example.com" + port, "localhost.evil.example.com", "127.0.0.1.evil.example.com",
		"169.254.169.254", "0.0.0.0", "10.0.0.1", "127.0.0.1@evil.example.com", "[fe80::1]", "vault.example.com", "localhost.", "0x7f.1", "2130706433"} {
		for _, path := range []string{"/v1/" + o.data("a"), "/v1/sys/health", "/proxy/v1/metrics", "/"} {
			if got := status(path, host); got != http.StatusForbidden && got != http.StatusBadRequest {
				t.Errorf("Host %s %s: %d", host, path, got)
			}
		}
	}
	q := o.start("THAW_ALLOWED_HOSTS=sidecar.internal, Other.internal")
	p = q
	for host, want := range map[string]int{"sidecar.internal": 200, "SIDECAR.internal:8200": 200, "other.internal": 200, "third.internal": 403, "x.sidecar.internal": 403} {
		if got := status("/v1/"+o.data("a"), host); got != want {
			t.Errorf("allowed hosts: Host %s: %d", host, got)
		}
	}
}

func TestGuardForwardedRequestsAreRefused(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.cached(o.data("a"))
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "x-forwarded-anything", "Forwarded"} {
		p.get(o.data("a"), http.CanonicalHeaderKey(name), "10.0.0.1").status(http.StatusForbidden).says("thaw: ")
		p.local(http.MethodGet, "metrics", "", http.CanonicalHeaderKey(name), "x").status(http.StatusForbidden)
	}
}

// A page in a browser of whoever runs the proxy by hand must not use its token.
func TestGuardRequestsOfWebPagesAreRefused(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.cached(o.data("a"))
	for _, head := range [][]string{
		{"Origin", "https://evil.example.com"}, {"Origin", "null"}, {"Origin", "http://127.0.0.1.evil.example.com"}, {"Sec-Fetch-Site", "cross-site"},
	} {
		p.get(o.data("a"), head...).status(http.StatusForbidden).says("thaw: ")
		p.do(http.MethodPost, o.data("a"), "", secret("2"), head...).status(http.StatusForbidden)
		p.do(http.MethodOptions, o.data("a"), "", nil, head...).status(http.StatusForbidden)
		p.local(http.MethodPost, "cache-clear", `{"type":"all"}`, head...).status(http.StatusForbidden)
	}
	p.get(o.data("a")).is("1").hit()
}

func TestTHAW_LOCAL_TOKEN_IsRequiredEverywhere(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start("THAW_LOCAL_TOKEN=local-s3cret")
	const name = "X-Thaw-Token"
	p.get(o.data("a"), name, "local-s3cret").is("1")
	p.get(o.data("a"), name, "local-s3cret").is("1").hit()
	p.local(http.MethodGet, "metrics", "", name, "local-s3cret").ok()
	for _, head := range [][]string{nil, {name, ""}, {name, "local-s3cre"}, {name, "local-s3cret "}, {name, "LOCAL-S3CRET"}, {name, "local-s3crets"}, {name, "local-s3cret", name, "local-s3cret"}} {
		if len(head) == 2 && head[1] == "local-s3cret " {
			continue // blanks around a value are not part of it (RFC 9110 section 5.5)
		}
		p.get(o.data("a"), head...).status(http.StatusForbidden).says("X-Thaw-Token")
		p.get("sys/health", head...).status(http.StatusForbidden)
		p.local(http.MethodGet, "metrics", "", head...).status(http.StatusForbidden)
		p.local(http.MethodPost, "cache-clear", `{"type":"all"}`, head...).status(http.StatusForbidden)
	}
	p.get(o.data("a"), name, "local-s3cret").is("1").hit() // nothing was cleared
	for _, r := range o.count.Requests() {
		if len(r.Header[name]) != 0 {
			t.Errorf("%s %s: it was sent to Vault", r.Method, r.Path)
		}
	}
	lacks(t, p.proc.Output(), "local-s3cret")
}

func TestGuardOnlyTheAPIIsServed(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start("THAW_INIT=off")
	for path, want := range map[string]string{
		"/": "404", "/v1": "404", "/v2/sys/health": "404", "/ui/": "404", "/metrics": "404", "/proxy/v1/": "404", "/proxy/v1/quit": "404", "/V1/sys/health": "404",
		"//v1/sys/health": "404", "/proxy/v1/../../v1/sys/health": "400", "/v1/../proxy/v1/metrics": "400", "/v1/./sys/health": "400", "/v1/..": "400",
		"/v1/sys/%2e%2e/health": "400", "/v1/sys/.%2E/health": "400", "/v1/%2e/sys/health": "400",
	} {
		got := raw(t, p, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%s: %.80q", path, got)
		}
	}
	if n := o.count.Total(); n != 0 {
		t.Errorf("%d requests reached Vault:\n%s", n, o.count)
	}
}

// raw sends bytes and returns all that comes back until the proxy closes.
func raw(t testing.TB, p *thaw, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", p.addrs[0])
	harness.Must(t, err)
	defer c.Close()
	harness.Must(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, request)
	harness.Must(t, err)
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("%.60q: %v", request, err)
	}
	return string(b)
}

func TestTHAW_MAX_HEADER_BoundsARequestsHead(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start("THAW_MAX_HEADER=8KiB")
	head := "GET /v1/sys/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: "
	if got := raw(t, p, head+strings.Repeat("x", 4<<10)+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("4 KiB: %.80q", got)
	}
	if got := raw(t, p, head+strings.Repeat("x", 64<<10)+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 431") {
		t.Errorf("64 KiB: %.80q", got)
	}
}

func TestTHAW_MAX_BODY_BoundsARequestsBody(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start("THAW_MAX_BODY=100KiB")
	body := func(n int) []byte { return []byte(`{"data":{"v":"` + strings.Repeat("x", n) + `"}}`) }
	p.do(http.MethodPost, o.data("a"), "", body(90<<10)).ok()
	p.do(http.MethodPost, o.data("a"), "", body(110<<10)).status(http.StatusRequestEntityTooLarge).says("THAW_MAX_BODY")
	// Chunked: the length is not known beforehand.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.base+"/v1/"+o.data("a"), io.MultiReader(bytes.NewReader(body(200<<10))))
	harness.Must(t, err)
	res, err := p.client.Do(req)
	if err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("chunked: %d", res.StatusCode)
		}
	}
	p.get(o.data("a")).ok().says(strings.Repeat("x", 90<<10))
	if n := strings.Count(string(p.get(o.data("a")).Body), "x"); n != 90<<10 {
		t.Errorf("%d bytes were written", n)
	}
}

func TestBodiesUpToVaultsOwnLimitPassThrough(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start()
	big := strings.Repeat("0123456789abcdef", 1<<14) // 256 KiB: Vault's own bound for one field is 1 MiB
	p.do(http.MethodPost, o.data("big"), "", secret(big)).ok()
	for range 2 {
		p.get(o.data("big")).is(big)
	}
}

func TestTHAW_HEADER_TIMEOUT_EndsASlowHead(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start("THAW_HEADER_TIMEOUT=300ms", "THAW_BODY_TIMEOUT=300ms", "THAW_MAX_CONNS=4")
	began := time.Now()
	for _, part := range []string{"", "GET /v1/sys/health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "POST /v1/" + o.data("a") + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"} {
		c, err := net.Dial("tcp", p.addrs[0])
		harness.Must(t, err)
		defer c.Close()
		harness.Must(t, c.SetDeadline(time.Now().Add(patience)))
		io.WriteString(c, part)
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%.30q: %v", part, err)
		}
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("three slow clients took %v", d)
	}
	// Slow clients that hold every connection give way.
	var held []net.Conn
	for range 4 {
		c, err := net.Dial("tcp", p.addrs[0])
		harness.Must(t, err)
		held = append(held, c)
		io.WriteString(c, "GET /v1/sys/health HTTP/1.1\r\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := p.try(ctx, http.MethodGet, "sys/health", "", nil); err != nil {
		t.Errorf("behind slow clients: %v", err)
	}
	for _, c := range held {
		c.Close()
	}
}

// Two servers in a row must not see two different requests in one stream of
// bytes (RFC 9112 section 11.2).
func TestGuardRequestSmugglingIsRejected(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	const hidden = "GET /v1/sys/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
	post := "POST /v1/" + o.data("b") + " HTTP/1.1\r\nHost: localhost\r\n"
	for name, request := range map[string]string{
		"CL and TE":               post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE and CL":               post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + hidden,
		"two lengths":             post + "Content-Length: 0\r\nContent-Length: 51\r\n\r\n" + hidden,
		"two lengths in one line": post + "Content-Length: 0, 51\r\n\r\n" + hidden,
		"a signed length":         post + "Content-Length: +0\r\n\r\n" + hidden,
		"a hexadecimal length":    post + "Content-Length: 0x0\r\n\r\n" + hidden,
		"an unknown coding":       post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
		"two codings":             post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
		"a blank before a colon":  post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
		"a folded line":           post + "X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"a bare line feed":        post + "Content-Length: 0\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"a bad chunk size":        post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + hidden,
		"a NUL in a name":         post + "Transfer-Enc\x00oding: chunked\r\n\r\n" + hidden,
		"no host":                 "POST /v1/" + o.data("b") + " HTTP/1.1\r\n\r\n" + hidden,
		"two hosts":               "POST /v1/" + o.data("b") + " HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n" + hidden,
		"the HTTP/2 preface":      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", p.addrs[0])
			harness.Must(t, err)
			defer c.Close()
			harness.Must(t, c.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(c, request)
			harness.Must(t, err)
			got, _ := io.ReadAll(c) // a reset is an answer too
			for _, answer := range strings.Split(string(got), "HTTP/1.1 ")[1:] {
				if answer[0] != '4' && !strings.HasPrefix(answer, "501") {
					t.Errorf("answered %s", answer)
				}
			}
		})
	}
	t.Cleanup(func() {
		for _, r := range o.count.Requests() {
			if strings.Contains(r.Path, "smuggled") {
				t.Errorf("a hidden request reached Vault: %s %s", r.Method, r.Path)
			}
			if len(r.Header["Transfer-Encoding"]) > 0 && len(r.Header["Content-Length"]) > 0 {
				t.Errorf("%s %s has both lengths", r.Method, r.Path)
			}
		}
	})
}

// G5: whatever the proxy is asked, planted secrets stay out of its log.
func TestG5NoSecretIsLogged(t *testing.T) {
	t.Parallel()
	o := shared(t)
	const planted = "pl4nted-s3cret"
	o.put("a", planted)
	env := o.approleEnv(harness.RoleSpec{})
	p := o.startWith(append(env, "VAULT_LOG_LEVEL=TRACE", "THAW_RECHECK=50ms")...)
	mine := o.newToken(o.policy("p", o.all()))
	p.get(o.data("a")).is(planted)
	p.as(mine, o.data("a"), "Authorization", "Bearer "+planted).is(planted)
	p.do(http.MethodPost, o.data("b"), "", secret(planted)).ok()
	p.do(http.MethodPost, "nowhere/x?token="+planted, mine, secret(planted))
	p.do(http.MethodPost, "auth/approle/login", "", map[string]string{"secret_id": planted})
	o.count.Cut()
	p.get(o.data("a"))
	p.get(o.data("b"), "X-Vault-Token-Options", "revoke")
	p.proc.Stop(patience)
	said := p.proc.Output()
	lacks(t, said, planted, mine)
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "THAW_SECRET_ID="); ok {
			lacks(t, said, v)
		}
	}
}
