package doctor

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

func (r report) has(check, level, part string) bool {
	return slices.ContainsFunc(r.Findings, func(f finding) bool {
		return f.Check == check && f.Level == level && strings.Contains(f.What, part)
	})
}

// TestHealthyIsNotSaidOfWhatWasNotLookedAt: a role logs in only in Lambda, so
// outside neither login, policy nor secret are looked at.
func TestHealthyIsNotSaidOfWhatWasNotLookedAt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	env := []string{"VAULT_ADDR=" + s.vault.Addr(), "VAULT_AUTH_ROLE=my-function"}
	for _, c := range []struct {
		name string
		args []string
		exit int
	}{
		{"a path that was not read", []string{"secret/data/does-not-exist"}, 1},
		{"a path that was not read, and leave", []string{"--allow-unchecked", "secret/data/does-not-exist"}, 1},
		{"no path", nil, 3},
		{"no path, and leave", []string{"--allow-unchecked"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.examine(env, c.args...)
			if r.exit != c.exit || r.Healthy || !r.has("auth", "not checked", "my-function") {
				t.Errorf("exit status %d, want %d\n%s", r.exit, c.exit, r.text)
			}
			for _, f := range r.Findings {
				if f.Level == "not checked" && (f.What == "" || f.Fix == "") {
					t.Errorf("does not say how to check it: %+v", f)
				}
			}
			text, _ := s.run(env, c.args...)
			last := text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:]
			if strings.Contains(text, "Healthy") || !strings.Contains(last, "not checked: ") || !strings.Contains(last, "auth") {
				t.Errorf("the last line is %q", last)
			}
		})
	}
}

// TestALoginWithOtherCredentialsIsLabelled: it is tried, and what it sees is
// another's view.
func TestALoginWithOtherCredentialsIsLabelled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	env := slices.DeleteFunc(newAWS(s, "us-east-1", nil).env(), func(v string) bool { return strings.HasPrefix(v, "THAW_AUTH_METHOD=") })
	r := s.examine(env, "secret/data/"+s.name+"/app")
	if r.exit != 3 || r.Healthy || !r.has("auth", "not checked", "of AWS account") || !r.has("kv", "not checked", "is there") {
		t.Errorf("exit status %d\n%s", r.exit, r.text)
	}
}

// TestFreshnessIsAlwaysSaid, whatever the settings.
func TestFreshnessIsAlwaysSaid(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for part, settings := range map[string][]string{
		"at the next invocation":          nil,
		"10s":                             {"THAW_MAX_AGE=10s"},
		"at an invocation's first read":   {"THAW_POLL=read"},
		"VAULT_DEFAULT_CACHE_TTL of 5m0s": {"THAW_POLL=off", "VAULT_DEFAULT_CACHE_TTL=5m"},
		"never":                           {"THAW_POLL=off"},
	} {
		if r := s.examine(s.approle(settings...)); !r.has("freshness", "ok", part) && !r.has("freshness", "advice", part) {
			t.Errorf("%v: no %q in %s", settings, part, r.text)
		}
	}
	c := s.count()
	c.Inject(harness.Fault{Path: "/v1/sys/leader", Status: 404})
	r := s.examine(s.approle("VLE_VAULT_ADDR="+c.Addr(), "THAW_MAX_AGE=5m"))
	for _, f := range r.Findings {
		if strings.Contains(f.Fix, "THAW_MAX_AGE=10s") {
			t.Errorf("advises to lower THAW_MAX_AGE: %+v", f)
		}
	}
}

// TestAHungVaultCostsFiveSeconds in all, and each line comes as it is known.
func TestAHungVaultCostsFiveSeconds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var addrs []string
	for range 3 {
		c := s.count()
		c.Stall()
		addrs = append(addrs, c.Addr())
	}
	began := time.Now()
	r := s.examine(s.approle("THAW_VAULT_ADDRS=" + strings.Join(addrs, ",")))
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("took %s\n%s", took, r.text)
	}
	if r.exit != 1 {
		t.Errorf("exit status %d", r.exit)
	}
}

// stranger listens where thaw would.
func stranger(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// slowly is the site's Vault with each answer late.
func (s *site) slowly(by time.Duration) string {
	s.t.Helper()
	to, err := url.Parse(s.vault.Addr())
	harness.Must(s.t, err)
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(by)
		proxy.ServeHTTP(w, r)
	}))
	s.t.Cleanup(server.Close)
	return server.URL
}

// deadEnd takes connections and ends them.
func deadEnd(t *testing.T) string {
	t.Helper()
	return accepting(t, func(c net.Conn) {
		_, _ = io.CopyN(io.Discard, c, 1)
		c.Close()
	})
}

func missedFaults() []fault {
	return []fault{
		{name: "another process on the listener", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_LISTEN=" + stranger(s.t)), nil
		}, check: "listen", what: "another process listens", fix: "THAW_LISTEN", exit: 1},
		{name: "something that ends connections on the listener", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_LISTEN=" + deadEnd(s.t)), nil
		}, check: "listen", what: "another process listens", fix: "THAW_LISTEN", exit: 1},
		{name: "a dead VAULT_PROXY_ADDR", plant: func(s *site) ([]string, []string) {
			return s.approle("VAULT_PROXY_ADDR=http://" + harness.FreeAddr(s.t)), nil
		}, check: "tcp", what: "the proxy of VAULT_PROXY_ADDR", fix: "VAULT_PROXY_ADDR", exit: 1},
		{name: "a dead HTTPS_PROXY", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=https://vault.example.com:8200", "HTTPS_PROXY=http://"+harness.FreeAddr(s.t)), nil
		}, check: "tcp", what: "the proxy of HTTPS_PROXY", fix: "HTTPS_PROXY", exit: 1},
		{name: "a Vault slower than the polls wait", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR="+s.slowly(150*time.Millisecond), "THAW_POLL_TIMEOUT=50ms"), nil
		}, check: "latency", what: "THAW_POLL_TIMEOUT is 50ms", fix: "raise THAW_POLL_TIMEOUT", exit: 1},
		{name: "a path without data under a narrow policy", plant: func(s *site) ([]string, []string) {
			return s.approle("VAULT_SECRET_PATH=secret/" + s.name + "/app"), nil
		}, check: "kv", what: "lacks /data/", fix: "write secret/data/", exit: 1},
		{name: "warm-up prefixes in the API's style that may not be read", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_WARM_PATHS=secret/data/elsewhere/"), nil
		}, check: "policy", what: "may not list secret/metadata/elsewhere/", fix: `capabilities = ["list"]`, exit: 1},
	}
}

// TestThePrefixesThatTheWarmUpTakesAreTaken: the API's style, above mounts, and all.
func TestThePrefixesThatTheWarmUpTakesAreTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.root("sys/mounts/"+s.name+"/one", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	s.policy(`path "secret/data/` + s.name + `/*" { capabilities = ["read"] }
path "secret/metadata/` + s.name + `/*" { capabilities = ["list", "read"] }
path "` + s.name + `/one/*" { capabilities = ["list", "read"] }`)
	for prefix, part := range map[string]string{
		"secret/data/" + s.name + "/": "may list and read below secret/" + s.name + "/",
		s.name + "/":                  "may list and read below " + s.name + "/one/",
	} {
		r := s.examine(s.approle("THAW_WARM_PATHS=" + prefix))
		if r.exit != 0 || !r.has("policy", "ok", part) {
			t.Errorf("%s: exit status %d\n%s", prefix, r.exit, r.text)
		}
	}
	if r := s.examine(s.approle("THAW_WARM_PATHS=*")); !r.has("policy", "ok", "below "+s.name+"/one/") {
		t.Errorf("*: %s", r.text)
	}
}

// TestAPathUnderANarrowPolicyIsPredictedRight: Vault says 403, not 404.
func TestAPathUnderANarrowPolicyIsPredictedRight(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.examine(s.approle(), "secret/"+s.name+"/app")
	if !slices.ContainsFunc(r.Findings, func(f finding) bool { return f.Check == "kv" && strings.Contains(f.Why, "403") }) {
		t.Errorf("%s", r.text)
	}
}
