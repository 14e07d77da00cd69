package standin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// client asks an origin without a network.
type client struct {
	t     *testing.T
	o     *Origin
	token string
}

func (c client) do(method, path, body string, headers ...string) (int, map[string]any, http.Header) {
	c.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, in)
	if c.token != "" {
		r.Header.Set("X-Vault-Token", c.token)
	}
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.o.ServeHTTP(w, r)
	var out map[string]any
	if w.Body.Len() > 0 && strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			c.t.Fatalf("%s %s: body is not JSON: %v: %q", method, path, err, w.Body.String())
		}
	}
	return w.Code, out, w.Header()
}

// must is do, with the status it must have.
func (c client) must(status int, method, path, body string, headers ...string) map[string]any {
	c.t.Helper()
	got, out, _ := c.do(method, path, body, headers...)
	if got != status {
		c.t.Fatalf("%s %s %s: status %d, want %d: %v", method, path, body, got, status, out)
	}
	return out
}

// at walks into a decoded body: at(out, "data", "metadata", "version").
func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

func root(t *testing.T, o *Origin) client { return client{t: t, o: o, token: "root"} }

func TestTheCursorMovesWithWritesAndNeverWithReads(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	c := root(t, o)
	roleID, secretID := o.AddAppRole("batch", AppRole{Batch: true})
	index := func() (committed, applied float64) {
		out := client{t: t, o: o}.must(200, "GET", "/v1/sys/leader", "")
		if out["is_self"] != true || out["active_time"] == "" {
			t.Fatalf("leader = %v", out)
		}
		return out["raft_committed_index"].(float64), out["raft_applied_index"].(float64)
	}
	c.must(200, "POST", "/v1/secret/data/app", `{"data":{"k":1}}`)
	before, applied := index()
	if before != applied {
		t.Fatalf("committed %v, applied %v: nothing is under way", before, applied)
	}
	c.must(200, "GET", "/v1/secret/data/app", "")
	c.must(200, "POST", "/v1/sys/capabilities-self", `{"paths":["secret/data/app"]}`)
	c.must(400, "POST", "/v1/secret/data/app", `{"options":{"cas":9},"data":{"k":1}}`)
	c.must(404, "GET", "/v1/secret/data/none", "")
	c.must(200, "POST", "/v1/auth/approle/login", fmt.Sprintf(`{"role_id":%q,"secret_id":%q}`, roleID, secretID))
	if after, _ := index(); after != before {
		t.Errorf("reads, refused writes and batch logins moved the cursor from %v to %v", before, after)
	}
	c.must(200, "POST", "/v1/secret/data/app", `{"data":{"k":1}}`)
	if after, _ := index(); after <= before {
		t.Errorf("a write left the cursor at %v", after)
	}
}

// TestReadsBetweenAppendAndApplySeeTheOldValue is the interleaving that makes
// comparing committed indexes unsafe: the stand-in must be able to show it.
func TestReadsBetweenAppendAndApplySeeTheOldValue(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	c := root(t, o)
	c.must(200, "POST", "/v1/secret/data/app", `{"data":{"k":"old"}}`)
	start := c.must(200, "GET", "/v1/sys/leader", "")["raft_committed_index"].(float64)
	ran := false
	o.BetweenAppendAndApply(func() {
		ran = true
		out := c.must(200, "GET", "/v1/sys/leader", "")
		if out["raft_committed_index"].(float64) <= start || out["raft_applied_index"] != start {
			t.Errorf("between: %v, started at %v", out, start)
		}
		if got := at(c.must(200, "GET", "/v1/secret/data/app", ""), "data", "data", "k"); got != "old" {
			t.Errorf("between append and apply a read sees %v", got)
		}
	})
	c.must(200, "POST", "/v1/secret/data/app", `{"data":{"k":"new"}}`)
	if !ran {
		t.Fatal("the hook did not run")
	}
	o.BetweenAppendAndApply(nil)
	out := c.must(200, "GET", "/v1/sys/leader", "")
	if out["raft_committed_index"] != out["raft_applied_index"] {
		t.Errorf("after: %v", out)
	}
}

func TestPoliciesDecide(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	o.SetPolicy("app", map[string][]string{
		"secret/data/app/*":        {"read"},
		"secret/data/app/private":  {"deny"},
		"secret/data/+/shared":     {"read", "update"},
		"secret/metadata/app":      {"list"},
		"secret/data/app/create":   {"create"},
		"secret/data/app/readable": {"read", "create", "update", "delete", "patch"},
	})
	admin := root(t, o)
	admin.must(200, "POST", "/v1/secret/data/app/one", `{"data":{"k":1}}`)
	admin.must(200, "POST", "/v1/secret/data/app/private", `{"data":{"k":1}}`)
	admin.must(200, "POST", "/v1/secret/data/other/shared", `{"data":{"k":1}}`)
	c := client{t: t, o: o, token: o.AddToken(time.Hour, "app")}
	c.must(200, "GET", "/v1/secret/data/app/one", "")
	out := c.must(403, "GET", "/v1/secret/data/app/private", "")
	if got := out["errors"].([]any)[0]; got != "1 error occurred:\n\t* permission denied\n\n" {
		t.Errorf("denied = %q", got)
	}
	c.must(200, "GET", "/v1/secret/data/other/shared", "")
	c.must(403, "GET", "/v1/secret/data/other/one", "")
	c.must(200, "LIST", "/v1/secret/metadata/app", "")
	c.must(403, "LIST", "/v1/secret/metadata", "")
	c.must(403, "POST", "/v1/secret/data/app/one", `{"data":{"k":2}}`)
	c.must(200, "POST", "/v1/secret/data/app/create", `{"data":{"k":2}}`)
	c.must(403, "POST", "/v1/secret/data/app/create", `{"data":{"k":2}}`) // it would update now
	out = c.must(200, "POST", "/v1/sys/capabilities-self", `{"paths":["secret/data/app/one","secret/data/no","secret/data/app/readable"]}`)
	for path, want := range map[string]string{
		"secret/data/app/one": `["read"]`, "secret/data/no": `["deny"]`, "secret/data/app/readable": `["create","delete","patch","read","update"]`,
	} {
		if got, _ := json.Marshal(at(out, "data", path)); string(got) != want {
			t.Errorf("capabilities of %s = %s, want %s", path, got, want)
		}
		if got, _ := json.Marshal(out[path]); string(got) != want {
			t.Errorf("capabilities of %s at the top = %s, want %s", path, got, want)
		}
	}
	c.must(200, "GET", "/v1/sys/internal/ui/mounts/secret/data/app/private", "")
	c.must(403, "GET", "/v1/sys/internal/ui/mounts/kv/app", "")
}

func TestPolicyPatterns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"secret/*", "secret/a/b", true},
		{"secret/*", "secret/", true},
		{"secret/*", "secret", false},
		{"secret/a*", "secret/ab/c", true},
		{"+/b", "a/b", true},
		{"+/b", "a/b/c", false},
		{"+/b/*", "a/b/c/d", true},
		{"a/+", "a/b/c", false},
		{"a/+/c*", "a/x/cd", true},
		{"*", "anything/at/all", true},
	} {
		if got := patternMatches(tt.pattern, tt.path); got != tt.want {
			t.Errorf("patternMatches(%q, %q) = %v", tt.pattern, tt.path, got)
		}
	}
	for _, tt := range []struct{ higher, lower string }{
		{"secret/data/*", "secret/*"}, {"secret/data/+", "secret/data/*"}, {"secret/a/+", "secret/+/a"},
		{"secret/+/a/b", "secret/+/+/b"}, {"secret/abc*", "secret/ab*"},
	} {
		if !outranks(tt.higher, tt.lower) || outranks(tt.lower, tt.higher) {
			t.Errorf("%q must go before %q", tt.higher, tt.lower)
		}
	}
}

func TestTokensLiveAndEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := New(Options{})
		c := root(t, o)
		out := c.must(200, "POST", "/v1/auth/token/create", `{"policies":["app"],"ttl":"60s"}`)
		c.token = at(out, "auth", "client_token").(string)
		time.Sleep(20 * time.Second)
		out = c.must(200, "GET", "/v1/auth/token/lookup-self", "")
		if at(out, "data", "ttl") != 40.0 || at(out, "data", "creation_ttl") != 60.0 {
			t.Errorf("lookup = %v", out)
		}
		c.must(200, "POST", "/v1/auth/token/renew-self", `{}`)
		time.Sleep(59 * time.Second)
		c.must(200, "GET", "/v1/auth/token/lookup-self", "")
		time.Sleep(2 * time.Second)
		out = c.must(403, "GET", "/v1/auth/token/lookup-self", "")
		if got := out["errors"].([]any)[0]; got != "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n" {
			t.Errorf("expired = %q", got)
		}
		c.token = o.AddToken(0, "app")
		c.must(204, "POST", "/v1/auth/token/revoke-self", "")
		c.must(403, "GET", "/v1/auth/token/lookup-self", "")
		c.token = ""
		c.must(403, "GET", "/v1/secret/data/app", "")
	})
}

func TestAppRoleLogsIn(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	roleID, secretID := o.AddAppRole("fn", AppRole{Policies: []string{"app"}, TTL: time.Minute})
	c := client{t: t, o: o}
	out := c.must(200, "POST", "/v1/auth/approle/login", fmt.Sprintf(`{"role_id":%q,"secret_id":%q}`, roleID, secretID))
	if at(out, "auth", "lease_duration") != 60.0 || at(out, "auth", "metadata", "role_name") != "fn" {
		t.Errorf("login = %v", out)
	}
	out = c.must(400, "POST", "/v1/auth/approle/login", fmt.Sprintf(`{"role_id":%q,"secret_id":"no"}`, roleID))
	if got := out["errors"].([]any)[0]; got != "invalid role or secret ID" {
		t.Errorf("refused = %q", got)
	}
}

func TestWrappedAnswersUnwrapOnce(t *testing.T) {
	t.Parallel()
	c := root(t, New(Options{}))
	c.must(200, "POST", "/v1/secret/data/app", `{"data":{"k":"v"}}`)
	out := c.must(200, "GET", "/v1/secret/data/app", "", "X-Vault-Wrap-TTL", "60")
	if out["data"] != nil || at(out, "wrap_info", "ttl") != 60.0 || at(out, "wrap_info", "creation_path") != "secret/data/app" {
		t.Fatalf("wrapped = %v", out)
	}
	once := client{t: t, o: c.o, token: at(out, "wrap_info", "token").(string)}
	if got := at(once.must(200, "POST", "/v1/sys/wrapping/unwrap", ""), "data", "data", "k"); got != "v" {
		t.Errorf("unwrapped = %v", got)
	}
	once.must(400, "POST", "/v1/sys/wrapping/unwrap", "")
}

func TestASealedOriginAnswersOnlyHowItIs(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	c := root(t, o)
	was := c.must(200, "GET", "/v1/sys/leader", "")["active_time"]
	o.Seal()
	out := c.must(503, "GET", "/v1/secret/data/app", "")
	if out["errors"].([]any)[0] != "Vault is sealed" {
		t.Errorf("sealed = %v", out)
	}
	c.must(503, "GET", "/v1/sys/leader", "")
	c.must(503, "GET", "/v1/sys/health", "")
	if c.must(200, "GET", "/v1/sys/seal-status", "")["sealed"] != true {
		t.Error("seal-status does not say so")
	}
	o.Unseal()
	if now := c.must(200, "GET", "/v1/sys/leader", "")["active_time"]; now == was {
		t.Error("active_time is the same after an unseal")
	}
}

func TestWhatIsNotModelledIsRefused(t *testing.T) {
	t.Parallel()
	c := root(t, New(Options{}))
	for _, path := range []string{"/v1/sys/rotate", "/v1/auth/token/roles/x", "/v1/pki/ca", "/ui/"} {
		c.must(404, "GET", path, "")
	}
	c.must(400, "GET", "/v1/secret/data/app", "", "X-Vault-Forward", "active-node")
	c.must(415, "PATCH", "/v1/secret/data/app", `{}`, "Content-Type", "application/json")
	c.must(404, "LIST", "/v1/secret/data/app/x", "")
	status, _, h := c.do("GET", "/v1/secret/../kv/app", "")
	if status != 301 && status != 307 || h.Get("Location") != "/v1/kv/app" {
		t.Errorf("unclean path: %d to %q", status, h.Get("Location"))
	}
	out := c.must(404, "GET", "/v1/secret/app", "")
	if w, _ := out["warnings"].([]any); len(w) != 1 || !strings.Contains(w[0].(string), "vault kv get") {
		t.Errorf("a version 1 path = %v", out)
	}
}

func TestCountsAndFaults(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	c := root(t, o)
	c.do("GET", "/v1/sys/leader", "")
	c.do("GET", "/v1/sys/leader", "")
	o.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusTooManyRequests)
		return strings.HasPrefix(r.URL.Path, "/v1/secret")
	})
	c.must(429, "GET", "/v1/secret/data/app", "")
	o.SetFault(nil)
	c.must(404, "GET", "/v1/secret/data/app", "")
	if got := o.Counts(); got["GET /v1/sys/leader"] != 2 || got["GET /v1/secret/data/app"] != 2 || o.Requests() != 4 {
		t.Errorf("counts = %v, %d in all", got, o.Requests())
	}
	o.ResetCounts()
	if o.Requests() != 0 {
		t.Error("counts survive a reset")
	}
}

func TestReadersAndWritersTogether(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	var wg sync.WaitGroup
	var fresh atomic.Int64
	write := func(i int64) int {
		r := httptest.NewRequest("POST", "/v1/secret/data/app", bytes.NewReader(fmt.Appendf(nil, `{"data":{"n":%d}}`, i)))
		r.Header.Set("X-Vault-Token", "root")
		w := httptest.NewRecorder()
		o.ServeHTTP(w, r)
		return w.Code
	}
	write(0)
	for range 4 {
		wg.Go(func() {
			for range 200 {
				floor := fresh.Load()
				r := httptest.NewRequest("GET", "/v1/secret/data/app", nil)
				r.Header.Set("X-Vault-Token", "root")
				w := httptest.NewRecorder()
				o.ServeHTTP(w, r)
				var out struct {
					Data struct{ Data struct{ N int64 } }
				}
				if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Data.Data.N < floor {
					t.Errorf("read %d after %d was written (%v)", out.Data.Data.N, floor, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := int64(1); i <= 100; i++ {
			if code := write(i); code != 200 {
				t.Errorf("write: %d", code)
			}
			fresh.Store(i)
		}
	})
	wg.Wait()
}
