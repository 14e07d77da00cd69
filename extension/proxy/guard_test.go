package proxy

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
)

func TestOnlyLoopbackHostsAreServed(t *testing.T) {
	t.Parallel()
	s := &Server{o: Options{Config: config.Config{AllowedHosts: []string{"vault.internal", "proxy.test:8200"}}}}
	for host, want := range map[string]bool{
		"127.0.0.1:8200": true, "127.0.0.1": true, "127.8.7.6:1": true, "localhost:8200": true, "LOCALHOST": true,
		"[::1]:8200": true, "[::1]": true, "[::ffff:127.0.0.1]:80": true,
		"vault.internal": true, "Vault.Internal:9": true, "proxy.test:8200": true,

		"": false, ":8200": false, "evil.example": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false,
		"evil.example:8200": false, "localhost:80:80": false, "proxy.test:8201": false, "proxy.test": false,
		"0.0.0.0:8200": false, "[::]:8200": false, "169.254.169.254": false, "10.0.0.1": false, "128.0.0.1": false,
		"[::1%lo]:8200": false, "127.1": false, "2130706433": false, "0x7f.0.0.1": false, "017700000001": false,
		"127.0.0.1@evil.example": false, "localhost\x00": false, "localhost.": false,
	} {
		if got := s.mayServe(host); got != want {
			t.Errorf("Host %q: %v, want %v", host, got, want)
		}
	}
	// What was found for one host is not taken for another.
	for _, host := range []string{"localhost", "evil.example", "localhost", "evil.example"} {
		if s.hostAllowed(host) != (host == "localhost") {
			t.Errorf("Host %q after another", host)
		}
	}
}

func TestTheGuardRefusesWhatNoLocalClientSends(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "one")
	w.get("/v1/secret/data/app")
	for _, path := range []string{"/v1/secret/data/app", "/v1/sys/health", "/proxy/v1/metrics", "/proxy/v1/cache-clear", "/", "/ui/"} {
		w.refused(w.get(path, "Host", "evil.example"), http.StatusForbidden, "THAW_ALLOWED_HOSTS")
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "x-forwarded-anything", "Forwarded"} {
			w.refused(w.get(path, name, "1.2.3.4"), http.StatusForbidden, "local callers only")
		}
	}
	if got := w.Counts().Refused; got != 6*6 {
		t.Errorf("%d counted as refused, want 36", got)
	}
	w.expect(w.get("/v1/secret/data/app"), 200, hitRead, "one")
}

func TestTheLocalTokenIsAskedForEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) { o.LocalToken = "a-local-token-of-ours" })
	w.put("app", "one")
	for _, path := range []string{"/v1/secret/data/app", "/v1/sys/health", "/proxy/v1/metrics", "/proxy/v1/cache-clear", "/nothing"} {
		w.refused(w.get(path), http.StatusForbidden, "THAW_LOCAL_TOKEN")
		for _, wrong := range []string{"", "a-local-token-of-our", "a-local-token-of-ours2", "A-LOCAL-TOKEN-OF-OURS"} {
			w.refused(w.get(path, "X-Thaw-Token", wrong), http.StatusForbidden, "THAW_LOCAL_TOKEN")
		}
		w.refused(w.get(path, "X-Thaw-Token", "a-local-token-of-ours", "X-Thaw-Token", "x"), http.StatusForbidden, "THAW_LOCAL_TOKEN")
	}
	if n := w.asked(); n != 1 {
		t.Errorf("%d requests reached the origin, want the one that wrote the secret", n)
	}
	w.expect(w.get("/v1/secret/data/app", "X-Thaw-Token", "a-local-token-of-ours"), 200, missStored, "one")
	w.expect(w.get("/v1/secret/data/app", "x-thaw-token", "a-local-token-of-ours"), 200, hitRead, "one")
	if a := w.get("/proxy/v1/metrics", "X-Thaw-Token", "a-local-token-of-ours"); a.StatusCode != 200 {
		t.Errorf("metrics: %d", a.StatusCode)
	}
}

func TestTheRequestHeaderIsRequiredExactlyOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) { o.Listeners[0].RequireRequestHeader = true })
	w.put("app", "one")
	for _, headers := range [][]string{
		nil, {"X-Vault-Request", "false"}, {"X-Vault-Request", ""}, {"X-Vault-Request", "TRUE"}, {"X-Vault-Request", "true, true"},
		{"X-Vault-Request", "true", "X-Vault-Request", "true"},
	} {
		w.refused(w.get("/v1/secret/data/app", headers...), http.StatusPreconditionFailed, "X-Vault-Request: true")
		w.refused(w.get("/proxy/v1/metrics", headers...), http.StatusPreconditionFailed, "X-Vault-Request: true")
	}
	w.expect(w.get("/v1/secret/data/app", "X-Vault-Request", "true"), 200, missStored, "one")
}

func TestG3PathsThatClimbAreRefused(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/v1/secret/data/app": false, "/v1/secret/data/.hidden": false, "/v1/secret/data/a..b": false, "/v1/secret/data/...": false,
		"/v1/secret/data/app.": false, "/v1/": false, "": false,
		"/v1/secret/..": true, "/v1/../sys": true, "/v1/./x": true, "/v1/secret/.": true, "/..": true, "/v1/a/../../b": true,
	} {
		if got := dotSegments(path); got != want {
			t.Errorf("%q: %v, want %v", path, got, want)
		}
	}
	w := newWorld(t)
	for _, path := range []string{
		"/v1/secret/data/../data/app", "/v1/secret/data/%2e%2e/data/app", "/v1/secret/data/..%2Fdata/app", "/v1/%2e/secret/data/app",
		"/v1/../proxy/v1/metrics", "/proxy/v1/../v1/sys/health",
	} {
		w.refused(w.get(path), http.StatusBadRequest, "segment")
	}
	if n := w.asked(); n != 0 {
		t.Errorf("%d of them reached the origin", n)
	}
}

func TestOtherPathsAreNotServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, path := range []string{"/", "/v1", "/V1/sys/health", "/ui/", "/v2/x", "/proxy", "//v1/sys/health", "/agent/v1/quit"} {
		w.refused(w.get(path), http.StatusNotFound, "only paths below /v1/")
	}
	w.refused(w.get("/proxy/v1/quit"), http.StatusNotFound, "cache-clear")
	if n := w.asked(); n != 0 {
		t.Errorf("%d of them reached the origin", n)
	}
}

// TestExactlyAsAsked: what reaches the origin is what the caller sent, byte for byte
// where that could matter, and a name is cached however it is spelled.
func TestExactlyAsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var got *http.Request
	w.origin.SetFault(func(_ http.ResponseWriter, r *http.Request) bool { got = r; return false })
	for _, name := range []string{"it's!(1)*", "caf\u00e9", "my%20secret%20(1)"} {
		plain, err := url.PathUnescape(name)
		if err != nil {
			t.Fatal(err)
		}
		w.origin.Root(http.MethodPost, "secret/data/"+plain, `{"data":{"v":"one"}}`)
		w.expect(w.get("/v1/secret/data/"+name), 200, missStored, "one")
		w.expect(w.get("/v1/secret/data/"+name), 200, hitRead, "one")
		if got.URL.Path != "/v1/secret/data/"+plain {
			t.Errorf("%s was asked for as %s", name, got.URL.Path)
		}
	}
	w.put("app", "one")
	w.get(app)
	w.expect(w.get(app+"?version=0"), 200, missStored, "one") // a policy may tell the two apart
	if got.URL.RawQuery != "version=0" {
		t.Errorf("asked with %q", got.URL.RawQuery)
	}
	w.expect(w.get(app+"?version=0"), 200, hitRead, "one")
	w.expect(w.do(http.MethodPost, app, `{"data":{"v":"two"}}`), 200, bypassed, "")
	w.expect(w.get(app+"?version=0"), 200, missStored, "two")
	for _, given := range []string{"ns", "ns/", "/ns/", "a/b/", "/"} {
		w.do(http.MethodPost, "/v1/transit/encrypt/a", `{}`, "X-Vault-Namespace", given)
		if sent := got.Header["X-Vault-Namespace"]; len(sent) != 1 || sent[0] != given {
			t.Errorf("the namespace %q was sent as %q", given, sent)
		}
	}
}

// TestASocketsCallersNameAnyHost: no page in a browser reaches a unix socket, and
// many clients name a host of their own for one.
func TestASocketsCallersNameAnyHost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	w := newWorld(t, func(o *options, _ *cache.Options) {
		o.Listeners = append(o.Listeners, config.Listener{Network: "unix", Address: path})
	})
	w.put("app", "one")
	w.refused(w.get(app, "Host", "vault.example"), http.StatusForbidden, "THAW_ALLOWED_HOSTS")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	w.client = &http.Client{Transport: transport}
	for _, host := range []string{"vault.example", "unix", "localhost", "%2Frun%2Fs", "vault.example:8200"} {
		if a := w.get(app, "Host", host); a.StatusCode != 200 {
			t.Errorf("Host %s: %d %s", host, a.StatusCode, a.body)
		}
	}
	w.refused(w.get(app, "Host", "vault.example", "X-Forwarded-For", "10.0.0.1"), http.StatusForbidden, "local callers only")
	w.refused(w.get(app, "Origin", "https://evil.example"), http.StatusForbidden, "web pages")
}
