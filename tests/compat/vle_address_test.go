package compat

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// nowhere refuses connections: nothing listens on port 1.
const nowhere = "http://127.0.0.1:1"

func TestVLE_VAULT_ADDR_WinsOverVAULT_ADDR(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start("VAULT_ADDR=" + nowhere)
	p.get(o.data("a")).is("1")
}

func TestVAULT_ADDR_AloneIsTheOrigin(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := start(t, nil, "VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token)
	p.get(o.data("a")).is("1")
}

func TestTHAW_VAULT_ADDRS_WinsOverBoth(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start("VLE_VAULT_ADDR="+nowhere, "VAULT_ADDR="+nowhere, "THAW_VAULT_ADDRS="+o.count.Addr())
	p.get(o.data("a")).is("1")
}

// The function's own client is pointed at thaw by VAULT_ADDR, and thaw at Vault
// by VLE_VAULT_ADDR, in the one environment that both have.
func TestVAULT_ADDR_AtTheProxyBesideVLE_VAULT_ADDR_IsANormalSetup(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	listen := harness.FreeAddr(t)
	p := o.start("THAW_LISTEN="+listen, "VAULT_ADDR=http://"+listen)
	p.get(o.data("a")).is("1")
	lacks(t, p.logs.String(), `"level":"WARN"`)
}

func TestVLE_VAULT_ADDR_AtOurOwnListenerIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, variable, addr, listen string }{
		{"the address", "VLE_VAULT_ADDR", "http://127.0.0.1:7001", "127.0.0.1:7001"},
		{"localhost", "VLE_VAULT_ADDR", "http://localhost:7001", "127.0.0.1:7001"},
		{"another case", "VLE_VAULT_ADDR", "HTTP://LocalHost:7001/", "127.0.0.1:7001"},
		{"the other family", "VLE_VAULT_ADDR", "http://[::1]:7001", "127.0.0.1:7001"},
		{"a mapped address", "VLE_VAULT_ADDR", "http://[::ffff:127.0.0.1]:7001", "127.0.0.1:7001"},
		{"any address", "VLE_VAULT_ADDR", "http://127.0.0.1:7001", "0.0.0.0:7001"},
		{"the default listener", "VLE_VAULT_ADDR", "http://127.0.0.1:8200", ""},
		{"VAULT_ADDR in use", "VAULT_ADDR", "http://127.0.0.1:7001", "127.0.0.1:7001"},
		{"one of several", "THAW_VAULT_ADDRS", "https://vault.example.com:8200,http://127.0.0.1:7001", "127.0.0.1:7001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			said := refused(t, nil, c.variable+"="+c.addr, "THAW_LISTEN="+c.listen)
			contains(t, said, c.variable, "thaw")
			if !strings.Contains(said, "listen") {
				t.Errorf("it doesn't say that the address is its own listener:\n%s", said)
			}
		})
	}
}

func TestVAULT_ADDR_MissingIsNamed(t *testing.T) {
	t.Parallel()
	contains(t, refused(t, nil), "VAULT_ADDR")
}

// A gateway that routes by prefix: vault-lambda-extension lost the prefix.
func TestVLE_VAULT_ADDR_BasePathIsKept(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	var mu sync.Mutex
	var strays []string // guarded by mu
	backend, err := url.Parse(o.count.Addr())
	harness.Must(t, err)
	forward := httputil.NewSingleHostReverseProxy(backend)
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/corp/vault/v1/") {
			mu.Lock()
			strays = append(strays, r.Method+" "+r.URL.Path)
			mu.Unlock()
			http.NotFound(w, r)
			return
		}
		http.StripPrefix("/corp/vault", forward).ServeHTTP(w, r)
	}))
	t.Cleanup(gateway.Close)
	for _, base := range []string{"/corp/vault", "/corp/vault/", "/corp/vault/v1"} {
		t.Run(base, func(t *testing.T) {
			file := t.TempDir() + "/secret.json"
			p := start(t, nil, append(o.approleEnv(harness.RoleSpec{}), "VLE_VAULT_ADDR="+gateway.URL+base,
				"VAULT_SECRET_PATH="+o.data("a"), "VAULT_SECRET_FILE="+file)...) // login and file mode too
			p.get(o.data("a")).is("1")
			p.do(http.MethodPost, o.data("b"), "", map[string]any{"data": map[string]string{"v": "2"}}).ok()
			p.get(o.data("b")).is("2")
			p.do("LIST", o.kv+"/metadata/", "", nil).ok()
			p.get("sys/health").ok()
		})
	}
	mu.Lock()
	defer mu.Unlock()
	if len(strays) != 0 {
		t.Errorf("requests beside the base path: %q", strays)
	}
}
