package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// fault makes the stand-in answer with f for every request.
func (w *world) fault(f http.HandlerFunc) {
	w.origin.SetFault(func(rw http.ResponseWriter, r *http.Request) bool { f(rw, r); return true })
}

// silence makes the stand-in answer nothing until whoever asks is gone, which
// net/http sees once the body is read.
func (w *world) silence() {
	w.fault(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
}

// dial opens a connection to the proxy and sends text on it.
func (w *world) dial(text string) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(w.t.Context(), "tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		w.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func (w *world) response(r *bufio.Reader, method string) answer {
	w.t.Helper()
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{res, string(text)}
}

func TestARequestPassesAsItCame(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ request, line, body string }{
		{"POST /v1/auth/approle/role/r HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\nContent-Length: 3\r\n\r\n{1}", "POST /v1/auth/approle/role/r", "{1}"},
		{"PUT /v1/x%2Fy/%61?q=%20;z&&a HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\nLambda-Runtime-Aws-Request-Id: 1\r\nContent-Length: 0\r\n\r\n", "PUT /v1/x%2Fy/%61?q=%20;z&&a", ""},
		{"PATCH /v1/secret/data/a//b/ HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "PATCH /v1/secret/data/a//b/", "abc"},
		{"LIST /v1/sys/policies/acl HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\n\r\n", "LIST /v1/sys/policies/acl", ""},
		{"SCAN /v1/secret/metadata/ HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\n\r\n", "SCAN /v1/secret/metadata/", ""},
		{"DELETE /v1/secret/data/a HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\n\r\n", "DELETE /v1/secret/data/a", ""},
		{"HEAD /v1/secret/data/a HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\n\r\n", "HEAD /v1/secret/data/a", ""},
		{"GET /v1/secret/data/a HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\nContent-Length: 3\r\n\r\nabc", "GET /v1/secret/data/a", "abc"},
		{"POST http://localhost/v1/sys/x HTTP/1.1\r\nHost: localhost\r\nX-Custom: a\r\nX-Custom: b\r\n\r\n", "POST /v1/sys/x", ""},
	} {
		w := newWorld(t)
		var line, body, host, agent string
		var custom []string
		w.fault(func(rw http.ResponseWriter, r *http.Request) {
			text, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if id := r.Header[requestIDHeader]; id != nil {
				t.Errorf("%q: the name of the invocation arrived: %q", c.request, id)
			}
			line, body, custom, host, agent = r.Method+" "+r.RequestURI, string(text), r.Header["X-Custom"], r.Host, r.UserAgent()
			rw.Header()["X-From"] = []string{"1", "2"}
			rw.WriteHeader(418)
			io.WriteString(rw, "the answer")
		})
		_, r := w.dial(c.request)
		method, _, _ := strings.Cut(c.request, " ")
		a := w.response(r, method)
		if line != c.line || body != c.body || len(custom) != 2 || agent != "" {
			t.Errorf("%q arrived as %q with body %q, X-Custom %q, User-Agent %q", c.line, line, body, custom, agent)
		}
		if host != w.sender.host {
			t.Errorf("%q: Host %q", c.line, host)
		}
		want := "the answer"
		if method == "HEAD" {
			want = ""
		}
		if a.StatusCode != 418 || a.body != want || len(a.Header["X-From"]) != 2 || a.Header.Get("Cache-Status") != bypassed || a.Header.Get("X-Cache") != "MISS" {
			t.Errorf("%q: answered %d %q %v", c.line, a.StatusCode, a.body, a.Header)
		}
	}
}

// TestAWriteIsAnsweredAfterItsEvictions: what a write can change is gone when
// its answer is here, whether it succeeded or not, and what is read meanwhile
// is not kept.
func TestAWriteIsAnsweredAfterItsEvictions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, path string
		fails        func(w *world)
		status       int
		left         cache.State // of what was cached
	}{
		"write":             {method: "POST", path: app, status: 200},
		"delete":            {method: "DELETE", path: app, status: 204},
		"metadata delete":   {method: "DELETE", path: "/v1/secret/metadata/app", status: 204},
		"spelled otherwise": {method: "POST", path: "/v1/secret/data/%61pp", status: 200},
		"an unknown method": {method: "FROB", path: app, status: 405, left: cache.Unverified},
		"refused":           {method: "POST", path: app, status: 503, fails: func(w *world) { w.origin.Seal() }},
		"no answer":         {method: "POST", path: app, status: 502, fails: func(w *world) { w.sender.fail(errors.New("cut")) }, left: cache.Fresh}, // before it was sent
		"too long":          {method: "POST", path: app, status: 413, fails: func(w *world) { w.Server.o.MaxBody = 1 }, left: cache.Fresh},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
			w.put("app", "one")
			w.expect(w.get(app), 200, missStored, "one")
			w.expect(w.get(app), 200, hitRead, "one")
			if c.fails != nil {
				c.fails(w)
			}
			if a := w.do(c.method, c.path, `{"data":{"v":"two"}}`); a.StatusCode != c.status {
				t.Fatalf("answered %d %s, want %d", a.StatusCode, a.body, c.status)
			}
			if hit := w.cache.Lookup(cache.Key{Path: "secret/data/app"}, w.cache.Own(), false, w.clock.Now()); hit.State != c.left {
				t.Errorf("cached in state %d, want %d", hit.State, c.left)
			}
		})
	}
}

// TestG4OnlyAWriteThatMayHaveChangedSomethingHasConsequences, for what is cached and
// for capabilities, whoever sent it.
func TestG4OnlyAWriteThatMayHaveChangedSomethingHasConsequences(t *testing.T) {
	t.Parallel()
	const refusal, page = `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, "<html>no</html>"
	for status := 200; status < 600; status++ {
		if !slices.Contains([]int{200, 204, 206, 302, 307, 400, 403, 404, 405, 408, 409, 412, 413, 425, 429, 431, 460, 472, 499, 500, 502, 503, 504, 520, 599}, status) {
			continue
		}
		for kind, body := range map[string]string{"application/json": refusal, "text/html": page, "": "", "application/json; x=y": `{"message":"Forbidden"}`} {
			t.Run(fmt.Sprint(status, " ", kind), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.put("app", "one")
				w.origin.SetPolicy("p", map[string][]string{"secret/data/app": {"read"}})
				token := w.origin.AddToken(0, "p")
				w.get(app)
				w.get(app, "X-Vault-Token", token)
				inVain := status >= 400 && status < 500 && body == refusal
				answered := func(rw http.ResponseWriter, _ *http.Request) {
					if rw.Header().Set("Content-Type", kind); kind == "" {
						rw.Header()["Content-Type"] = nil
					}
					rw.WriteHeader(status)
					if status != 204 {
						io.WriteString(rw, body)
					}
				}
				w.fault(answered)
				if a := w.do("PUT", "/v1/auth/token/revoke", `{"token":"garbage"}`, "X-Vault-Token", "garbage"); a.StatusCode != status || status != 204 && a.body != body {
					t.Errorf("passed as %d %q", a.StatusCode, a.body)
				}
				w.do("POST", app, `{"data":{}}`, "X-Vault-Token", "garbage")
				w.sender.fail(errors.New("connection refused"))
				w.cache.Ledger().Begin(w.clock.add(2 * time.Second))
				for _, header := range [][]string{nil, {"X-Vault-Token", token}} {
					if a := w.get(app, header...); (a.StatusCode == 200) != inVain {
						t.Errorf("the outage after it: %d %s", a.StatusCode, a.body)
					}
				}
			})
		}
	}
	t.Run("not sent", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.put("app", "one")
		w.get(app)
		w.sender.fail(errors.New("connection refused"))
		for _, write := range [][]string{{"PUT", "/v1/auth/token/revoke"}, {"POST", app}, {"DELETE", "/v1/sys/mounts/secret"}, {"PATCH", app}, {"POST", "/v1/sys/policies/acl/p"}, {"PUT", "/v1/auth/token/revoke-self"}} {
			w.do(write[0], write[1], `{}`, "X-Vault-Token", "garbage")
		}
		w.cache.Ledger().Begin(w.clock.add(2 * time.Second))
		w.expect(w.get(app), 200, staleStatus, "one")
	})
}

// stuck finds no connection for a write.
type stuck struct {
	*sender
	waits, goOn chan struct{}
}

func (s stuck) Send(r *http.Request, id *cache.Identity, retry bool) (*http.Response, error) {
	if r.Method != http.MethodGet {
		close(s.waits)
		<-s.goOn
		return nil, errors.New("no connection in time")
	}
	return s.sender.Send(r, id, retry)
}

// TestG4AWriteThatIsNotSentYetSetsNothingAside: anybody can send one, and have it wait for
// its own body, or in an outage for a connection.
func TestG4AWriteThatIsNotSentYetSetsNothingAside(t *testing.T) {
	t.Parallel()
	t.Run("its body", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
		w.put("app", "one")
		w.get(app)
		_, r := w.dial("PUT /v1/sys/mounts/x HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: garbage\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") { // it waits for the body
			t.Fatal(line, err)
		}
		w.expect(w.get(app), 200, hitRead, "one")
	})
	t.Run("a connection", func(t *testing.T) {
		t.Parallel()
		waits, goOn := make(chan struct{}), make(chan struct{})
		w := newWorld(t, func(o *options, _ *cache.Options) { o.Sender = stuck{o.Sender.(*sender), waits, goOn} })
		w.put("app", "one")
		w.get(app)
		written := make(chan answer)
		go func() { written <- w.do("PUT", "/v1/sys/mounts/x", `{}`, "X-Vault-Token", "garbage") }()
		<-waits
		w.sender.fail(errors.New("no route to host"))
		w.cache.Ledger().Begin(w.clock.add(2 * time.Second))
		w.expect(w.get(app), 200, staleStatus, "one")
		close(goOn)
		<-written
		w.expect(w.get(app), 200, staleStatus, "one")
	})
}

func TestAReadDuringAWriteIsNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
	w.put("app", "one")
	w.get(app)
	during, goOn := make(chan struct{}), make(chan struct{})
	w.origin.BetweenAppendAndApply(func() { close(during); <-goOn })
	written := make(chan answer)
	go func() { written <- w.do("POST", app, `{"data":{"v":"two"}}`) }()
	<-during
	// The old value is still what Vault answers, and thaw may say so, but not
	// keep it.
	w.expect(w.get(app), 200, missOnly, "one")
	close(goOn)
	if a := <-written; a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	w.expect(w.get(app), 200, missStored, "two")
}

func TestAWriteThatChangesRightsCountsAtOnce(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (*world, string) {
		w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
		w.origin.SetPolicy("p", map[string][]string{"secret/data/app": {"read"}})
		token := w.origin.AddToken(0, "p")
		w.put("app", "one")
		w.get(app, "X-Vault-Token", token)
		w.expect(w.get(app, "X-Vault-Token", token), 200, hitRead, "one")
		return w, token
	}
	t.Run("revoke-self", func(t *testing.T) {
		t.Parallel()
		w, token := setup(t)
		w.do("POST", "/v1/auth/token/revoke-self", "", "X-Vault-Token", token)
		w.expect(w.get(app, "X-Vault-Token", token), 403, missOnly, "")
		if w.revoked != 0 {
			t.Error("thaw's own token was forgotten, too")
		}
	})
	t.Run("revoke-self that is refused", func(t *testing.T) {
		t.Parallel()
		w, token := setup(t)
		w.origin.Seal()
		w.do("POST", "/v1/auth/token/revoke-self", "", "X-Vault-Token", token)
		w.expect(w.get(app, "X-Vault-Token", token), 200, hitRead, "one")
	})
	t.Run("revoke", func(t *testing.T) {
		t.Parallel()
		w, token := setup(t)
		w.do("POST", "/v1/auth/token/revoke", `{"token":"`+token+`"}`)
		w.expect(w.get(app, "X-Vault-Token", token), 403, missOnly, "")
	})
	t.Run("own revoke-self", func(t *testing.T) {
		t.Parallel()
		w, _ := setup(t)
		w.fault(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(204) })
		w.do("POST", "/v1/auth/token/revoke-self", "")
		if w.revoked != 1 {
			t.Errorf("%d calls of Revoked, want 1", w.revoked)
		}
	})
	t.Run("policy", func(t *testing.T) {
		t.Parallel()
		w, token := setup(t)
		w.fault(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(204) })
		w.do("POST", "/v1/sys/policies/acl/p", `{}`)
		w.origin.SetFault(nil)
		w.origin.SetPolicy("p", nil)
		w.expect(w.get(app, "X-Vault-Token", token), 403, missOnly, "")
	})
}

// TestACallerThatClosesItsSideForWritingIsTold: net/http takes that for a
// caller who left, and would answer 200 with nothing in it.
func TestACallerThatClosesItsSideForWritingIsTold(t *testing.T) {
	t.Parallel()
	for _, request := range []string{
		"GET /v1/secret/data/app HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /v1/sys/mounts HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /v1/secret/data/app HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
	} {
		w := newWorld(t)
		w.silence()
		conn, r := w.dial(request)
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		w.refused(w.response(r, "GET"), http.StatusServiceUnavailable, "closed on the caller's side")
	}
}

func TestAnAnswerEndsBeforeTheInvocationDoes(t *testing.T) {
	t.Parallel()
	for _, request := range []string{"GET " + app, "GET /v1/sys/mounts", "POST " + app} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.silence()
			w.waiting.Invoke(w.clock.Now(), w.clock.Now().Add(20*time.Millisecond))
			method, path, _ := strings.Cut(request, " ")
			w.refused(w.do(method, path, ""), http.StatusGatewayTimeout, "before the invocation's deadline")
			// A deadline that has passed is another invocation's.
			w.clock.add(time.Second)
			w.origin.SetFault(nil)
			w.put("app", "one")
			w.expect(w.get(app), 200, missStored, "one")
		})
	}
}

func TestG4AnOriginThatIsSilentDoesNotHoldUpWhatIsCached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) { o.reads.StaleWait = 20 * time.Millisecond })
	w.put("app", "one")
	w.get(app)
	w.silence()
	w.cache.Ledger().Begin(w.clock.add(time.Minute))
	w.expect(w.get(app), 200, staleStatus, "one")
}

func TestG5ErrorsAndLogsHoldNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "PLANTED-VALUE")
	token := w.origin.AddToken(0, "root")
	w.get(app, "X-Vault-Token", token)
	w.get(app, "X-Vault-Token", token, "X-Thaw-Token", "PLANTED-LOCAL")
	w.do("POST", app, `{"data":{"v":"PLANTED-BODY"}}`)
	w.do("POST", "/v1/sys/x?token=PLANTED-QUERY", "PLANTED-BODY", "Cookie", "PLANTED-COOKIE")
	w.sender.fail(errors.New("connection refused"))
	w.get("/v1/secret/data/other?token=PLANTED-QUERY", "X-Vault-Token", token)
	w.do("PUT", "/v1/sys/x", "PLANTED-BODY", "X-Vault-Token", token)
	w.get(app, "Host", "evil", "X-Vault-Token", token)
	log := w.log.String()
	for _, secret := range []string{"PLANTED", token, ownToken} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log:\n%s", secret, log)
		}
	}
	for _, want := range []string{"result=hit", "result=miss", "result=write", "result=error", "path=/v1/secret/data/app", "connection refused"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

func TestACallerWhoLeavesEndsWhatItAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	arrived, ended := make(chan struct{}), make(chan struct{})
	w.fault(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.addr+"/v1/sys/mounts", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-arrived; cancel() }()
	if res, err := w.client.Do(req); err == nil {
		res.Body.Close()
		t.Error("answered")
	}
	<-ended
}
