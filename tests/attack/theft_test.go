package attack

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// standby stands before a Vault as a standby of it that redirects: to another
// address, which it also names as the leader.
func standby(t *testing.T, of *harness.Vault, to string) string {
	backend, err := url.Parse(of.Addr())
	harness.Must(t, err)
	proxy := httputil.NewSingleHostReverseProxy(backend)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/sys/leader":
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{"ha_enabled": true, "is_self": false, "leader_address": to})
		case "/v1/sys/health":
			proxy.ServeHTTP(w, r)
		default:
			w.Header().Set("Location", to+r.URL.RequestURI())
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// A node of another cluster that gets itself named as the leader gets no token:
// not in a redirect of a read, nor of a write, nor of a login, nor from the
// cache's own questions. The same redirect to a node of the same cluster is
// followed, so that what is refused here is the cluster.
func TestNodeOfAnotherClusterGetsNoToken(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "mine")
	other := harness.Dev(t) // a cluster of its own
	thief := harness.Count(t, harness.CounterConfig{Origin: other.Addr()})
	const gateway = "gateway-credential"
	vars := []string{"VAULT_TOKEN=" + o.token, "VAULT_MAX_RETRIES=0", `VAULT_HEADERS={"X-Gateway":"` + gateway + `"}`}
	p := launch(t, append(vars, "VLE_VAULT_ADDR="+standby(t, o.Vault, thief.Addr()))...)
	for _, r := range []string{
		request("GET", o.data("a"), ""), request("GET", "/v1/auth/token/lookup-self", ""), request("POST", o.data("b"), `{"data":{"v":"planted"}}`),
		request("LIST", "/v1/"+o.kv+"/metadata", ""), request("GET", o.data("a"), "", "X-Vault-Token: "+o.token), request("GET", "/v1/sys/internal/ui/mounts/"+o.kv, ""),
		request("POST", "/v1/auth/approle/login", `{"secret_id":"planted"}`),
	} {
		if a := ask(t, p.addr, r); a.status != http.StatusBadGateway || !strings.Contains(a.body, "cluster") {
			t.Errorf("%.40q: %d %s", r, a.status, a.body)
		}
	}
	asked := thief.Requests()
	for _, r := range asked {
		if r.Path != "/v1/sys/health" || r.Header.Get("X-Vault-Token") != "" || r.Header.Get("Authorization") != "" || r.Header.Get("X-Gateway") != "" {
			t.Errorf("the other cluster was sent %s %s %v", r.Method, r.Path, r.Header)
		}
	}
	if len(asked) == 0 {
		t.Error("the other cluster was never asked whose it is: this test shows nothing")
	}
	good := launch(t, append(vars, "VLE_VAULT_ADDR="+standby(t, o.Vault, o.count.Addr()))...)
	if a := good.get(o.data("a")); a.value() != "mine" {
		t.Errorf("a redirect within the cluster: %d %s", a.status, a.body)
	}
}

// Whatever an origin redirects to, nothing but Vault is asked: no instance
// metadata, no other port of this host, no file.
func TestRedirectsReachNothingInside(t *testing.T) {
	t.Parallel()
	inside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("reached from inside: %s %s %v", r.Method, r.RequestURI, r.Header)
	}))
	t.Cleanup(inside.Close)
	host := strings.TrimPrefix(inside.URL, "http://")
	var where string
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", where)
		w.WriteHeader(http.StatusTemporaryRedirect)
		io.WriteString(w, "<a href=x>moved</a>")
	}))
	t.Cleanup(origin.Close)
	p := launch(t, "VLE_VAULT_ADDR="+origin.URL, "VAULT_TOKEN=hvs.own", "VAULT_MAX_RETRIES=0", "THAW_POLL=off")
	for _, where = range []string{
		inside.URL, inside.URL + "/v1/secret/data/a", "http://localhost:" + host[strings.LastIndex(host, ":")+1:] + "/v1/secret/data/a", "http://" + host + "/v1/secret/data/a#x",
		"http://169.254.169.254/latest/meta-data/", "http://[::ffff:127.0.0.1]:1/", "file:///etc/passwd", "gopher://" + host, "unix:///run/docker.sock", "//" + host,
		"http://x@" + host + "/", "http:" + host, "\\\\" + host,
	} {
		for _, r := range []string{request("GET", "/v1/secret/data/a", ""), request("GET", "/v1/sys/x", ""), request("PUT", "/v1/sys/x", "{}")} {
			a := ask(t, p.addr, r)
			if a.status != http.StatusBadGateway && a.status != http.StatusTemporaryRedirect {
				t.Errorf("%s: %d %s", where, a.status, a.body)
			}
		}
	}
}

// An address of another cluster among the configured ones, once the name of a
// node and now somebody else's, say, is asked what it is, without a token, and
// nothing once it is known: not when all is well, and not when every other node
// is away, where its word could pass for the leader's.
func TestForeignAddressGetsNoToken(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]func(home []string, foreign string) []string{
		"last":  func(home []string, foreign string) []string { return append(home[:1], foreign) },
		"first": func(home []string, foreign string) []string { return append([]string{foreign}, home...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			o.put("a", "mine")
			second := harness.Count(t, harness.CounterConfig{Origin: o.Addr()})
			thief := harness.Count(t, harness.CounterConfig{Origin: harness.Dev(t).Addr()})
			addrs := order([]string{o.count.Addr(), second.Addr()}, thief.Addr())
			p := launch(t, "THAW_VAULT_ADDRS="+strings.Join(addrs, ","), "VAULT_TOKEN="+o.token, "VAULT_MAX_RETRIES=1", "THAW_RECHECK=100ms")
			requests := func() {
				for _, r := range []string{
					request("GET", o.data("a"), ""), request("GET", "/v1/auth/token/lookup-self", ""), request("POST", o.data("b"), `{"data":{"v":"planted"}}`),
					request("GET", o.data("other"), "", "X-Vault-Token: "+o.token), request("LIST", "/v1/"+o.kv+"/metadata", ""),
				} {
					ask(t, p.addr, r)
				}
			}
			harness.Eventually(t, patience, "an answer", func() bool { return p.get(o.data("a")).value() == "mine" })
			requests()
			if thief.Total() == 0 {
				t.Error("the other cluster was never asked what it is: this test shows nothing")
			}
			for _, r := range thief.Requests() {
				if r.Path != "/v1/sys/health" && r.Path != "/v1/sys/leader" || r.Header.Get("X-Vault-Token") != "" {
					t.Errorf("the other cluster was sent %s %s %v", r.Method, r.Path, r.Header)
				}
			}
			thief.Reset()
			o.count.Cut()
			second.Cut()
			for range 5 {
				requests()
				harness.Pause(t.Context(), 100*time.Millisecond)
			}
			harness.Must(t, o.count.Mend())
			harness.Must(t, second.Mend())
			harness.Eventually(t, patience, "the origin is back", func() bool { return p.get(o.data("c")).status == http.StatusNotFound })
			for _, r := range thief.Requests() {
				if r.Path != "/v1/sys/health" || r.Header.Get("X-Vault-Token") != "" {
					t.Errorf("with the origin away, the other cluster was sent %s %s %v", r.Method, r.Path, r.Header)
				}
			}
		})
	}
}
