package doctor

import (
	"crypto/tls"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// well is the environment of a site with everything that thaw can use.
func (s *site) well() []string {
	return s.shared(memcachedOf(s.t), s.approle("THAW_AUDIENCE=team", "THAW_PREFETCH=secret/data/"+s.name+"/app,kv/"+s.name+"/app",
		"VAULT_SECRET_PATH=secret/data/"+s.name+"/app", "THAW_WARM_PATHS=secret/"+s.name+"/,kv/"+s.name+"/", "THAW_LOCAL_TOKEN="+secret(), "THAW_KV_MOUNTS=secret=2,kv=1")...)
}

func TestAHealthySetupAlarmsNobody(t *testing.T) {
	t.Parallel()
	// A Vault of its own: nobody else's writes move its index.
	s := siteAt(t, harness.Raft(t))
	harness.Must(s.t, s.vault.EnableAuth(t.Context(), "approle", "approle"))
	ca, err := harness.NewCA()
	harness.Must(s.t, err)
	nodes := harness.Memcache(t, harness.MemcachedConfig{CA: ca})
	addr, vaultCA := s.front(&tls.Config{}, "127.0.0.1")
	for name, env := range map[string][]string{
		"approle": s.well(),
		"tls": append(s.shared("tls://"+nodes.Addr(), s.approle("THAW_AUDIENCE=team")...),
			"THAW_MEMCACHED_CACERT="+nodes.CAFile(), "VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+vaultCA),
		"aws": newAWS(s, "us-east-1", nil).env("THAW_PREFETCH=secret/data/" + s.name + "/app"),
		"lambda": newAWS(siteAt(t, s.vault), "us-east-1", nil).env("AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "AWS_LAMBDA_FUNCTION_NAME=fn",
			"VLE_VAULT_ADDR="+s.vault.Addr(), "VAULT_ADDR=http://127.0.0.1:8200"),
		"no login": {"VAULT_ADDR=" + s.vault.Addr()},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.examine(env)
			for _, f := range r.Findings {
				if f.Level != "ok" {
					t.Errorf("alarms: %+v", f)
				}
				if f.Why != "" || f.Fix != "" {
					t.Errorf("remedies without a fault: %+v", f)
				}
			}
			if !r.Healthy || r.exit != 0 || r.Problems != 0 || r.Advice != 0 {
				t.Errorf("exit status %d\n%s", r.exit, r.text)
			}
			text, code := s.run(env)
			if code != 0 || !strings.Contains(text, "\nHealthy.\n") {
				t.Errorf("exit status %d\n%s", code, text)
			}
			for _, word := range []string{"problem", "advice", "fix:", "error", "fail"} {
				for line := range strings.Lines(text) {
					if strings.Contains(strings.ToLower(line), word) {
						t.Errorf("a healthy report says %q: %s", word, line)
					}
				}
			}
		})
	}
}

// TestNothingIsWrittenToVaultButALogin: by the requests that arrive, and by
// the index of Vault's storage, which moves with every write.
func TestNothingIsWrittenToVaultButALogin(t *testing.T) {
	t.Parallel()
	v := harness.Raft(t)
	s := siteAt(t, v)
	harness.Must(s.t, v.EnableAuth(t.Context(), "approle", "approle"))
	s.well() // makes the role
	c := s.count()
	env := append(s.well(), "VLE_VAULT_ADDR="+c.Addr())
	first := s.examine(env) // the first login of a role writes its entity
	before := s.index()
	second := s.examine(env)
	if after := s.index(); after != before {
		t.Errorf("the index moved from %s to %s", before, after)
	}
	if !first.Healthy || !second.Healthy {
		t.Errorf("not healthy:\n%s", second.text)
	}
	for _, r := range c.Requests() {
		reads := r.Method == http.MethodGet || r.Method == "LIST"
		asks := r.Method == http.MethodPost && slices.Contains([]string{"/v1/auth/approle/login", "/v1/sys/capabilities-self"}, r.Path)
		if !reads && !asks {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
}

func (s *site) index() string {
	s.t.Helper()
	r, err := s.vault.Do(s.t.Context(), harness.Call{Method: http.MethodGet, Path: "sys/leader"})
	harness.Must(s.t, err)
	var l struct {
		Committed int64  `json:"raft_committed_index"`
		Active    string `json:"active_time"`
	}
	harness.Must(s.t, r.JSON(&l))
	if l.Committed == 0 {
		s.t.Fatal("no index")
	}
	return l.Active + " " + strconv.FormatInt(l.Committed, 10)
}

// TestAServiceTokenOfItsOwnIsRevoked: the login leaves nothing behind.
func TestAServiceTokenOfItsOwnIsRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	env := s.approle()
	s.root("auth/approle/role/"+s.name, map[string]any{"token_policies": []string{s.name}, "token_type": "service"})
	c := s.count()
	s.examine(append(env, "VLE_VAULT_ADDR="+c.Addr()))
	if n := c.Count(http.MethodPost, "/v1/auth/token/revoke-self"); n != 1 {
		t.Errorf("revoke-self was asked %d times", n)
	}
}

// TestTheSecretIdsFileIsLeftForTheExtension: which removes it after its own
// login, where the file of Vault Proxy says so.
func TestTheSecretIdsFileIsLeftForTheExtension(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	env := map[string]string{}
	for _, entry := range s.approle() {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	role, id := file(t, "role", []byte(env["THAW_ROLE_ID"])), file(t, "id", []byte(env["THAW_SECRET_ID"]))
	cfg := file(t, "proxy.hcl", []byte(`vault { address = "`+s.vault.Addr()+`" }
auto_auth { method "approle" { config = { role_id_file_path = "`+role+`" secret_id_file_path = "`+id+`" } } }
api_proxy { use_auto_auth_token = true }
listener "tcp" { address = "127.0.0.1:8200" tls_disable = true }
`))
	if r := s.examine(nil, "-config", cfg); !r.Healthy {
		t.Errorf("%s", r.text)
	}
	if _, err := os.Stat(id); err != nil {
		t.Error(err)
	}
}

// TestAPolicyForEachSecretIsEnoughForTheWarmUp: what is listed may be read.
func TestAPolicyForEachSecretIsEnoughForTheWarmUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.policy(`path "secret/metadata/` + s.name + `/*" { capabilities = ["list"] }
path "secret/data/` + s.name + `/app" { capabilities = ["read"] }`)
	r := s.examine(s.approle("THAW_WARM_PATHS=secret/" + s.name + "/"))
	if !slices.ContainsFunc(r.Findings, func(f finding) bool {
		return f.Check == "policy" && f.Level == "ok" && strings.Contains(f.What, "read what is in it")
	}) {
		t.Errorf("%s", r.text)
	}
}

// TestAGivenTokenIsNotRevoked: it is not ours.
func TestAGivenTokenIsNotRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	env := s.token(harness.TokenSpec{})
	s.examine(env)
	if r := s.examine(env); !r.Healthy {
		t.Errorf("the second time:\n%s", r.text)
	}
}

func TestWrongUsageHasAStatusOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, code := s.run(nil, "-nonsense"); code != 2 {
		t.Errorf("exit status %d", code)
	}
	if _, code := s.run(nil, "-timeout", "0s"); code != 2 {
		t.Errorf("exit status %d", code)
	}
	if _, code := s.run(nil, "-h"); code != 0 {
		t.Errorf("exit status %d", code)
	}
}
