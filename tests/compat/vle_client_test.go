package compat

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// everything uses every way in which thaw talks to Vault: login, file mode and
// the proxy, with hits left out. What reached the origin is then looked at.
func (o *origin) everything(vars ...string) *thaw {
	o.t.Helper()
	o.put("a", "1")
	path := filepath.Join(o.t.TempDir(), "secret.json")
	p := o.startWith(append(append(o.approleEnv(harness.RoleSpec{}), "VAULT_SECRET_PATH="+o.data("a"), "VAULT_SECRET_FILE="+path), vars...)...)
	holds(o.t, path, "1")
	o.put("b", "1")
	p.get(o.data("b")).is("1")
	p.do(http.MethodPost, o.data("b"), "", map[string]any{"data": map[string]string{"v": "2"}}).ok()
	p.get(o.data("b")).is("2")
	p.as(o.token, o.data("b")).is("2")
	p.do("LIST", o.kv+"/metadata/", "", nil).ok()
	return p
}

func TestVAULT_NAMESPACE_IsSentByLoginFilesAndProxy(t *testing.T) {
	t.Parallel()
	o := shared(t) // community: it ignores the namespace, and so serves
	p := o.everything("VAULT_NAMESPACE=/team/a/")
	for _, r := range o.count.Requests() {
		// The cursor has no namespace: sys/leader is of the cluster.
		if want := "team/a"; strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") != want && r.Path != "/v1/sys/leader" {
			t.Errorf("%s %s: namespace %q", r.Method, r.Path, r.Header["X-Vault-Namespace"])
		}
	}
	// A caller's own wins.
	o.count.Reset()
	p.get(o.data("b"), "X-Vault-Namespace", "other/").miss()
	for _, r := range o.count.Requests() {
		if strings.HasPrefix(r.Path, "/v1/"+o.kv) && strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") != "other" {
			t.Errorf("%s %s: namespace %q", r.Method, r.Path, r.Header["X-Vault-Namespace"])
		}
	}
}

func TestVAULT_HEADERS_AreSentByLoginFilesAndProxy(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.everything(`VAULT_HEADERS={"X-Gateway-Key":"k1","X-Other":"2"}`)
	for _, r := range o.count.Requests() {
		if r.Header.Get("X-Gateway-Key") != "k1" || r.Header.Get("X-Other") != "2" {
			t.Errorf("%s %s: headers %v", r.Method, r.Path, r.Header)
		}
	}
	said := refused(t, nil, "VLE_VAULT_ADDR="+nowhere, `VAULT_HEADERS={"X-Secret": hunter2}`)
	contains(t, said, "VAULT_HEADERS")
	lacks(t, said, "hunter2")
}

func TestVAULT_CLIENT_TIMEOUT_EndsARequest(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"2", "2s", "2000ms"} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.count.Stall()
			p := o.start("VAULT_CLIENT_TIMEOUT=" + value)
			began := time.Now()
			p.get(o.data("a")).status(http.StatusGatewayTimeout).says("thaw: ", "VAULT_CLIENT_TIMEOUT")
			p.do(http.MethodPost, o.data("a"), "", map[string]any{}).status(http.StatusGatewayTimeout)
			if d := time.Since(began); d < 3900*time.Millisecond || d > 8*time.Second {
				t.Errorf("after %v", d)
			}
		})
	}
	t.Run("login and files", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		env := o.approleEnv(harness.RoleSpec{})
		o.count.Stall()
		p := o.startWith(append(env, "VAULT_CLIENT_TIMEOUT=1")...)
		r := p.get(o.data("a"))
		if r.Status != http.StatusGatewayTimeout && r.Status != http.StatusServiceUnavailable {
			t.Errorf("status %d: %s", r.Status, r.Body)
		}
	})
}

func TestVAULT_MAX_RETRIES_CountsFurtherAttempts(t *testing.T) {
	t.Parallel()
	for value, attempts := range map[string]int{"": 3, "0": 1, "1": 2, "4": 5} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			p := o.start("VAULT_MAX_RETRIES=" + value)
			path := "/v1/" + o.data("a")
			o.count.Inject(harness.Fault{Path: path, Status: 503})
			p.get(o.data("a")).status(503)
			if n := o.count.Count(http.MethodGet, path); n != attempts {
				t.Errorf("%d attempts, not %d", n, attempts)
			}
			// A write may have done its work: it is never sent twice.
			p.do(http.MethodPost, o.data("a"), "", map[string]any{}).status(503)
			if n := o.count.Count(http.MethodPost, path); n != 1 {
				t.Errorf("%d attempts to write", n)
			}
		})
	}
}

// #27: a read that Vault fails once is asked again.
func TestVLEIssue27_GETsAreRetried(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	path := "/v1/" + o.data("a")
	for _, status := range []int{429, 500, 502, 503, 504} {
		o.count.Reset()
		o.count.Inject(harness.Fault{Method: http.MethodGet, Path: path, Status: status, Times: 1})
		p.get(o.data("a"), "Cache-Control", "no-store").is("1").miss()
		if n := o.seen(o.data("a")); n != 2 {
			t.Errorf("%d: %d attempts", status, n)
		}
	}
	harness.Must(t, o.count.CloseConnections()) // pooled connections are gone
	p.get(o.data("a"), "Cache-Control", "no-store").is("1").miss()

	o.count.Inject(harness.Fault{Method: http.MethodGet, Path: path, Status: 429, Header: http.Header{"Retry-After": {"1"}}, Times: 1})
	o.count.Reset()
	p.get(o.data("a"), "Cache-Control", "no-store").is("1")
	r := o.count.Requests()
	if len(r) != 2 || r[1].At.Sub(r[0].At) < time.Second {
		t.Errorf("Retry-After: 1 was not heeded: %v", r)
	}
}

func TestVAULT_RATE_LIMIT_SpacesRequests(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	const rate, burst, n = 10, 2, 12
	p := o.start("VAULT_RATE_LIMIT=10:2")
	o.count.Reset()
	for range n {
		p.get(o.data("a"), "X-Vault-Cache-Control", "nocache").is("1")
	}
	r := o.count.Requests()
	if d, least := r[len(r)-1].At.Sub(r[0].At), time.Duration(n-burst-1)*time.Second/rate; d < least {
		t.Errorf("%d requests within %v", n, d)
	}
	contains(t, refused(t, nil, "VLE_VAULT_ADDR="+nowhere, "VAULT_RATE_LIMIT=fast"), "VAULT_RATE_LIMIT", "fast")
}

func TestVAULT_LOG_LEVEL(t *testing.T) {
	t.Parallel()
	for level, lines := range map[string]map[string]bool{
		"TRACE": {"DEBUG": true, "INFO": true, "WARN": true}, "debug": {"DEBUG": true, "INFO": true, "WARN": true},
		"Info": {"DEBUG": false, "INFO": true, "WARN": true}, "WARN": {"DEBUG": false, "INFO": false, "WARN": true},
		"error": {"DEBUG": false, "INFO": false, "WARN": false}, "OFF": {"DEBUG": false, "INFO": false, "WARN": false, "ERROR": false},
	} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			listen := harness.FreeAddr(t)
			p := launch(t, nil, "VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token, "THAW_LISTEN="+listen, "VAULT_LOG_LEVEL="+level)
			p.base = "http://" + listen
			harness.Eventually(t, patience, "the listener", func() bool {
				r, err := p.try(t.Context(), http.MethodGet, o.data("a"), "", nil)
				return err == nil && r.Status == http.StatusOK
			})
			o.count.Inject(harness.Fault{Status: 503}) // a WARN line, too
			o.count.Cut()
			p.get(o.data("b"), "Cache-Control", "no-store")
			p.proc.Stop(patience)
			for name, want := range lines {
				if got := p.logs.lines(`"level":"`+name+`"`) > 0; got != want {
					t.Errorf("lines of level %s: %v", name, got)
				}
			}
			if level == "OFF" && p.proc.Output() != "" {
				t.Errorf("it said %q", p.proc.Output())
			}
			lacks(t, p.proc.Output(), o.token)
		})
	}
	contains(t, refused(t, nil, "VLE_VAULT_ADDR="+nowhere, "VAULT_LOG_LEVEL=loud"), "VAULT_LOG_LEVEL", "loud", "OFF")
}

// A caller who leaves fails nobody else, and is answered nothing.
func TestCallersWhoLeaveFailNobodyElse(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.get(o.data("zz")).status(http.StatusNotFound) // warm up: mounts and connections
	o.count.Stall()
	hasty, cancel := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan string, 1)
	go func() {
		_, err := p.try(hasty, http.MethodGet, o.data("a"), "", nil)
		left <- err
	}()
	harness.Eventually(t, patience, "the read at the origin", func() bool { return o.seen(o.data("a")) == 1 })
	go func() {
		r, err := p.try(t.Context(), http.MethodGet, o.data("a"), "", nil)
		if err != nil {
			stayed <- err.Error()
			return
		}
		stayed <- string(r.Body)
	}()
	harness.Eventually(t, patience, "the second caller", func() bool { return p.metric("thaw_collapsed_total") >= 1 })
	cancel()
	if err := <-left; err == nil {
		t.Error("the one who left was answered")
	}
	harness.Must(t, o.count.Mend())
	if body := <-stayed; !strings.Contains(body, `"v":"1"`) {
		t.Error(body)
	}
	if n := o.seen(o.data("a")); n != 1 {
		t.Errorf("%d reads", n)
	}
}
