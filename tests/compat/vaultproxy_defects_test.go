package compat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// secret is the body of a KV v2 write.
func secret(v string) map[string]any { return map[string]any{"data": map[string]string{"v": v}} }

var mergePatch = []string{"Content-Type", "application/merge-patch+json"}

// Each row writes through the proxy and says what it must not leave cached.
// THAW_RECHECK is long: nothing but the write itself can make these fresh.
func TestVaultProxyDefect_WritesLeaveNothingStale(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		method string
		path   string // below the mount
		body   any
		head   []string
	}{
		{"a metadata delete", "DELETE", "metadata/app/x", nil, nil},
		{"a metadata patch", "PATCH", "metadata/app/x", map[string]any{"custom_metadata": map[string]string{"owner": "new"}}, mergePatch},
		{"a metadata write", "POST", "metadata/app/x", map[string]any{"custom_metadata": map[string]string{"owner": "new"}}, nil},
		{"a data write", "POST", "data/app/x", secret("3"), nil},
		{"a data write by PUT", "PUT", "data/app/x", secret("3"), nil},
		{"a data patch", "PATCH", "data/app/x", secret("3"), mergePatch},
		{"a data delete", "DELETE", "data/app/x", nil, nil},
		{"a delete of versions", "POST", "delete/app/x", map[string]any{"versions": []int{1}}, nil},
		{"a destroy", "PUT", "destroy/app/x", map[string]any{"versions": []int{1, 2}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("app/x", "1")
			o.put("app/x", "2")
			harness.Must(t, o.PutMetadata(t.Context(), o.kv, "app/x", map[string]any{"custom_metadata": map[string]string{"owner": "old"}}))
			p := o.start()
			reads := []string{"data/app/x", "data/app/x?version=1", "data/app/x?version=2", "metadata/app/x", "subkeys/app/x", "metadata/app?list=true", "metadata?list=true"}
			for _, path := range reads {
				p.get(o.kv + "/" + path).ok()
				p.get(o.kv + "/" + path).ok().hit()
			}
			if r := p.do(c.method, o.kv+"/"+c.path, "", c.body, c.head...); r.Status >= 300 {
				t.Fatalf("status %d: %s", r.Status, r.Body)
			}
			for _, path := range reads {
				direct, err := o.Do(t.Context(), harness.Call{Method: http.MethodGet, Path: o.kv + "/" + path, Token: o.token})
				harness.Must(t, err)
				sameAnswer(t, path, p.get(o.kv+"/"+path).Response, direct)
			}
		})
	}
	t.Run("an undelete", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("x", "1")
		p := o.start("THAW_NEGATIVE_TTL=1h")
		p.do(http.MethodDelete, o.data("x"), "", nil)
		p.get(o.data("x")).status(404)
		p.get(o.data("x")).status(404).hit()
		p.do(http.MethodPost, o.kv+"/undelete/x", "", map[string]any{"versions": []int{1}})
		p.get(o.data("x")).is("1")
		p.get(o.data("none")).status(404).miss()
		p.get(o.data("none")).status(404).hit()
	})
	t.Run("KV v1", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		harness.Must(t, o.PutKV1(t.Context(), o.kv1, "app/x", map[string]any{"v": "1"}))
		p := o.start()
		p.cached(o.kv1 + "/app/x")
		p.cached(o.kv1 + "/app?list=true")
		p.do(http.MethodPut, o.kv1+"/app/x", "", map[string]any{"v": "2"})
		p.get(o.kv1 + "/app/x").ok().says(`"v":"2"`)
		p.do(http.MethodPut, o.kv1+"/app/y", "", map[string]any{"v": "2"})
		p.get(o.kv1 + "/app?list=true").ok().says(`"y"`)
		p.do(http.MethodDelete, o.kv1+"/app/x", "", nil)
		p.get(o.kv1 + "/app/x").status(404)
	})
}

// sameAnswer compares what thaw and Vault answered: status and body, but for
// the request_id.
func sameAnswer(t testing.TB, what string, got, want *harness.Response) {
	t.Helper()
	if got.Status != want.Status || normal(got.Body) != normal(want.Body) {
		t.Errorf("%s:\nthrough thaw %d %s\ndirectly     %d %s", what, got.Status, got.Body, want.Status, want.Body)
	}
}

// normal is a body without its request_id.
func normal(body []byte) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil || m["request_id"] == nil {
		return string(body)
	}
	return strings.Replace(string(body), string(m["request_id"]), `""`, 1)
}

func TestVaultProxyDefect_ListAndReadOfOnePathDoNotCollide(t *testing.T) {
	t.Parallel()
	o := shared(t)
	ctx := t.Context()
	harness.Must(t, o.PutKV1(ctx, o.kv1, "app", map[string]any{"v": "leaf"}))
	harness.Must(t, o.PutKV1(ctx, o.kv1, "app/x", map[string]any{"v": "below"}))
	p := o.start()
	for range 2 {
		p.get(o.kv1 + "/app").ok().says(`"leaf"`)
		p.get(o.kv1 + "/app?list=true").ok().says(`"keys":["x"]`)
		p.do("LIST", o.kv1+"/app", "", nil).ok().says(`"keys":["x"]`)
		p.do("LIST", o.kv1+"/app/", "", nil).ok().says(`"keys":["x"]`)
	}
	// A grant to read is none to list.
	reader := o.newToken(o.policy("r", reads(o.kv1+"/app")))
	p.as(reader, o.kv1+"/app").ok()
	p.as(reader, o.kv1+"/app?list=true").status(403)
	p.do("LIST", o.kv1+"/app", reader, nil).status(403)
}

func TestVaultProxyDefect_WrappedRequestNeverGetsAnUnwrappedHit(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.cached(o.data("a"))
	r := p.get(o.data("a"), "X-Vault-Wrap-TTL", "60s").ok().miss()
	token, ok := r.field("wrap_info", "token").(string)
	if !ok || r.field("data") != nil {
		t.Fatalf("not wrapped: %s", r.Body)
	}
	p.get(o.data("a")).is("1").hit() // nor an unwrapped one a wrapped answer
	p.do(http.MethodPost, "sys/wrapping/unwrap", token, nil).ok().says(`"v":"1"`)
	p.do(http.MethodPost, "sys/wrapping/unwrap", token, nil).status(400)
}

func TestVaultProxyDefect_SecondTokensReadReplacesTheOldAnswer(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	one, two := o.newToken(o.policy("p", o.all())), o.newToken(o.policy("p", o.all()))
	p.as(one, o.data("a")).is("1")
	o.put("a", "2") // at Vault itself
	p.as(two, o.data("a")).is("2").miss()
	p.as(one, o.data("a")).is("2") // not the old one for as long as it may
	p.as(two, o.data("a")).is("2").hit()
	if n := p.metric("thaw_entries"); n != 1 {
		t.Errorf("%v entries", n)
	}
}

func TestVaultProxyDefect_WriteDuringAFillDoesNotStoreTheOldValue(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "old")
	h := holderOn(o)
	p := o.start("VLE_VAULT_ADDR="+h.addr, "THAW_KV_MOUNTS="+o.kv+"=2")
	w := h.hold(http.MethodGet, o.data("a"))
	got := make(chan string, 1)
	go func() {
		r, err := p.try(t.Context(), http.MethodGet, o.data("a"), "", nil)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(r.Body)
	}()
	<-w.arrived // Vault has answered "old"
	p.do(http.MethodPost, o.data("a"), "", secret("new")).ok()
	close(w.release)
	if body := <-got; !strings.Contains(body, `"v":"old"`) {
		t.Errorf("the read that began before: %s", body)
	}
	p.get(o.data("a")).is("new")
	p.get(o.data("a")).is("new").hit()

	// The write's answer is held back: Vault has the new value already.
	w = h.hold(http.MethodPost, o.data("a"))
	wrote := make(chan error, 1)
	go func() {
		_, err := p.try(t.Context(), http.MethodPost, o.data("a"), "", secret("newer"))
		wrote <- err
	}()
	<-w.arrived
	p.get(o.data("a")).is("newer")
	close(w.release)
	harness.Must(t, <-wrote)
	p.get(o.data("a")).is("newer")
}

func TestVaultProxyDefect_PUTThenGETGivesTheNewValue(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start()
	for i := range 20 {
		v := fmt.Sprint(i)
		p.do(http.MethodPut, o.data("a"), "", secret(v)).ok()
		p.get(o.data("a")).is(v)
		p.get(o.data("a")).is(v).hit()
	}
}

func TestVaultProxyDefect_RevokeSelfThroughTheProxyLeavesNoHits(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(o *origin, p *thaw, token string) *answer{
		"revoke-self": func(o *origin, p *thaw, token string) *answer {
			return p.do(http.MethodPost, "auth/token/revoke-self", token, nil)
		},
		"revoke-self by PUT": func(o *origin, p *thaw, token string) *answer {
			return p.do(http.MethodPut, "auth/token/revoke-self", token, nil)
		},
		"revoke": func(o *origin, p *thaw, token string) *answer {
			return p.do(http.MethodPost, "auth/token/revoke", o.RootToken(), map[string]string{"token": token})
		},
		"revoke-orphan": func(o *origin, p *thaw, token string) *answer {
			return p.do(http.MethodPost, "auth/token/revoke-orphan", o.RootToken(), map[string]string{"token": token})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			p := o.start()
			p.cached(o.data("a"))
			mine := o.newToken(o.policy("p", o.all()))
			p.as(mine, o.data("a")).is("1")
			p.as(mine, o.data("a")).is("1").hit()
			revoke(o, p, mine).status(http.StatusNoContent)
			p.as(mine, o.data("a")).status(http.StatusForbidden)
			o.count.Cut() // nor while nobody can be asked
			if r := p.as(mine, o.data("a")); r.Status == http.StatusOK {
				t.Errorf("served without Vault: %s", r.Body)
			}
		})
	}
	t.Run("revoke-accessor", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		p := o.start()
		mine := o.newToken(o.policy("p", o.all()))
		p.as(mine, o.data("a")).is("1")
		accessor := p.as(mine, "auth/token/lookup-self").ok().field("data", "accessor")
		p.do(http.MethodPost, "auth/token/revoke-accessor", o.RootToken(), map[string]any{"accessor": accessor}).status(http.StatusNoContent)
		p.as(mine, o.data("a")).status(http.StatusForbidden)
	})
	t.Run("the extension's own", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		p := o.startWith(o.approleEnv(harness.RoleSpec{})...)
		p.cached(o.data("a"))
		p.do(http.MethodPost, "auth/token/revoke-self", "", nil).status(http.StatusNoContent)
		p.get(o.data("a"), "Cache-Control", "no-cache").is("1") // under a new login
		if n := o.logins(); n != 2 {
			t.Errorf("%d logins", n)
		}
	})
}

func TestVaultProxyDefect_VersionDestroyedWhileDisconnectedIsGone(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	o.put("a", "2")
	p := o.start("THAW_RECHECK=100ms")
	p.get(o.data("a") + "?version=1").is("1")
	o.count.Cut()
	harness.Must(t, o.Destroy(t.Context(), o.kv, "a", 1))
	harness.Eventually(t, patience, "the outage", func() bool { return p.get(o.data("a") + "?version=1").isStale() })
	harness.Must(t, o.count.Mend())
	harness.Eventually(t, patience, "the destruction", func() bool { return p.get(o.data("a")+"?version=1").Status == http.StatusNotFound })
}

func TestVaultProxyDefect_OneRefreshErrorEvictsNothing(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 500, 502, 503, 504} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			p := o.start("THAW_RECHECK=50ms", "VAULT_MAX_RETRIES=0")
			p.get(o.data("a")).is("1")
			o.count.Inject(harness.Fault{Status: status})
			harness.Eventually(t, patience, "a failed refresh", func() bool { return p.get(o.data("a")).is("1").isStale() })
			harness.Must(t, o.count.Mend())
			harness.Eventually(t, patience, "the end of the outage", func() bool { return !p.get(o.data("a")).is("1").isStale() })
		})
	}
}

func TestVaultProxyDefect_deletion_timeIsHeeded(t *testing.T) {
	t.Parallel()
	o := shared(t)
	harness.Must(t, o.PutMetadata(t.Context(), o.kv, "a", map[string]any{"delete_version_after": "3s"}))
	p := o.start()
	o.put("a", "1")
	began := time.Now()
	p.get(o.data("a")).is("1")
	p.get(o.data("a")).is("1").hit()
	p.get(o.kv + "/subkeys/a").ok()
	harness.Eventually(t, patience, "the secret's end", func() bool { return p.get(o.data("a")).Status == http.StatusNotFound })
	if d := time.Since(began); d > 6*time.Second {
		t.Errorf("after %v", d)
	}
	p.get(o.kv + "/subkeys/a").status(http.StatusNotFound)
}

func TestVaultProxyDefect_oldest_versionIsHeeded(t *testing.T) {
	t.Parallel()
	o := shared(t)
	harness.Must(t, o.PutMetadata(t.Context(), o.kv, "a", map[string]any{"max_versions": 2}))
	o.put("a", "1")
	p := o.start()
	p.get(o.data("a") + "?version=1").is("1")
	p.get(o.data("a") + "?version=1").is("1").hit()
	o.put("a", "2")
	o.put("a", "3") // drops version 1
	p.get(o.kv + "/metadata/a").ok().says(`"oldest_version":2`)
	p.get(o.data("a") + "?version=1").status(http.StatusNotFound)
	p.get(o.data("a") + "?version=2").is("2")
}

func TestVaultProxyDefect_WritesUnderAPrependedNamespaceInvalidate(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	text := fmt.Sprintf(`
vault {
  address   = "%s"
  namespace = "org"
}
api_proxy { prepend_configured_namespace = true }
auto_auth { method "token_file" { config = { token_file_path = "%s" } } }
cache { cache_static_secrets = true }
listener "tcp" {
  address = "127.0.0.1:0"
  tls_disable = true
}`, o.count.Addr(), file(t, "token", o.token))
	p := o.hcl(text)
	for _, head := range [][]string{nil, {"X-Vault-Namespace", "team"}} {
		p.as(o.token, o.data("a"), head...).ok()
		p.as(o.token, o.data("a"), head...).hit()
		v := unique("v")
		p.do(http.MethodPost, o.data("a"), o.token, secret(v), head...).ok()
		p.as(o.token, o.data("a"), head...).is(v)
	}
}

func TestVaultProxyDefect_MemoryIsBounded(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start("THAW_CACHE_BYTES=64KiB")
	for i := range 100 {
		o.put(fmt.Sprintf("s%d", i), strings.Repeat("x", 2000))
	}
	for i := range 100 {
		p.get(o.data(fmt.Sprintf("s%d", i))).ok()
		if n := p.metric("thaw_cache_bytes"); n > 64<<10 {
			t.Fatalf("%v bytes after %d", n, i)
		}
	}
	if p.metric("thaw_evicted_total") == 0 || p.metric("thaw_entries") < 10 {
		t.Errorf("%v evicted, %v kept", p.metric("thaw_evicted_total"), p.metric("thaw_entries"))
	}
	p.get(o.data("s99")).ok().hit() // the last used stays
	for i := range 300 {            // nor by callers who guess tokens
		p.as(fmt.Sprintf("guess-%d", i), o.data("s99")).status(http.StatusForbidden)
	}
	if n := p.metric("thaw_cache_bytes"); n > 64<<10 {
		t.Errorf("%v bytes after guesses", n)
	}
}

// Vault Proxy served a rotated secret for as long as one waited.
func TestVaultProxyDefect_StalenessIsBounded(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start("THAW_RECHECK=1s")
	for i := range 3 {
		v := fmt.Sprint(i)
		o.put("a", v)
		rotated := time.Now()
		harness.Eventually(t, patience, "the new value", func() bool { return p.get(o.data("a")).v() == v })
		if d := time.Since(rotated); d > 5*time.Second {
			t.Errorf("after %v", d)
		}
		p.cached(o.data("a"))
	}
}
