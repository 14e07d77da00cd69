// Package doctor plants faults, one at a time, in a site that works, and has
// `thaw doctor` find them. The site is a real Vault with integrated storage, a
// real memcached and strict stand-ins for STS and KMS.
package doctor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// suite is what the tests of this package share.
var suite = struct {
	thaw  string               // the binary under test; set before the first test
	vault *harness.SharedVault // for those that do not harm it
}{vault: &harness.SharedVault{Start: startVault}}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	defer suite.vault.Close()
	return harness.Main(m, func(dir string) error {
		suite.thaw = filepath.Join(dir, "thaw")
		return harness.Build(context.Background(), suite.thaw, "./extension")
	})
}

// startVault starts a Vault with what every site needs.
func startVault(ctx context.Context, cfg harness.VaultConfig) (*harness.Vault, error) {
	v, err := harness.StartRaft(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return v, errors.Join(v.EnableKV(ctx, "secret", 2), v.EnableKV(ctx, "kv", 1), v.EnableAuth(ctx, "approle", "approle"))
}

// mark begins every secret of these tests: nothing may ever print one.
const mark = "PlantedSecret-"

func secret() string { return mark + rand.Text() }

// site is a function's surroundings, all well.
type site struct {
	t     *testing.T
	vault *harness.Vault
	name  string // of the role, the policy and the folder of secrets
	spare bool   // the doctor is not told to use up what is counted
	hide  []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	return siteAt(t, suite.vault.Get(t))
}

// siteAt makes a role with a policy of its own, and two secrets.
func siteAt(t *testing.T, v *harness.Vault) *site {
	t.Helper()
	s := &site{t: t, vault: v, name: "fn" + strings.ToLower(rand.Text()[:8])}
	s.policy(`path "secret/data/` + s.name + `/*" { capabilities = ["read"] }
path "secret/metadata/` + s.name + `/*" { capabilities = ["list", "read"] }
path "kv/` + s.name + `/*" { capabilities = ["list", "read"] }`)
	ctx := t.Context()
	value := secret()
	_, err := v.Put(ctx, "secret", s.name+"/app", map[string]any{"password": value})
	harness.Must(s.t, err)
	harness.Must(s.t, v.PutKV1(ctx, "kv", s.name+"/app", map[string]any{"password": value}))
	return s
}

func (s *site) policy(hcl string) {
	s.t.Helper()
	harness.Must(s.t, s.vault.PutPolicy(s.t.Context(), s.name, hcl))
}

// root writes to Vault.
func (s *site) root(path string, body map[string]any) {
	s.t.Helper()
	_, err := s.vault.Root(s.t.Context(), "POST", path, body)
	harness.Must(s.t, err)
}

// approle is the environment of a login by approle.
func (s *site) approle(more ...string) []string {
	s.t.Helper()
	role, id, err := s.vault.AppRole(s.t.Context(), "approle", s.name, harness.RoleSpec{Policies: []string{s.name}, TTL: time.Hour, Batch: true})
	harness.Must(s.t, err)
	s.hide = append(s.hide, id)
	return append([]string{"VAULT_ADDR=" + s.vault.Addr(), "THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=" + role, "THAW_SECRET_ID=" + id}, more...)
}

// token is the environment of a token that is given.
func (s *site) token(spec harness.TokenSpec, more ...string) []string {
	s.t.Helper()
	spec.Policies = append(spec.Policies, s.name)
	token, err := s.vault.CreateToken(s.t.Context(), spec)
	harness.Must(s.t, err)
	s.hide = append(s.hide, token)
	return append([]string{"VAULT_ADDR=" + s.vault.Addr(), "VAULT_TOKEN=" + token}, more...)
}

// finding and report are the command's document.
type finding struct{ Check, Level, What, Why, Fix string }

type report struct {
	Healthy          bool
	Problems, Advice int
	Findings         []finding
	exit             int
	text             string
}

// examine runs the doctor, and looks for secrets in all that it writes.
func (s *site) examine(env []string, args ...string) report {
	s.t.Helper()
	out, code := s.run(env, append([]string{"-json"}, args...)...)
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		s.t.Fatalf("the report is not JSON: %v\n%s", err, out)
	}
	r.exit, r.text = code, out
	for _, f := range r.Findings {
		if f.Level == "problem" || f.Level == "advice" {
			if f.What == "" || f.Why == "" || f.Fix == "" {
				s.t.Errorf("a finding lacks a part: %+v", f)
			}
		}
	}
	return r
}

// run returns standard output and the exit status.
func (s *site) run(env []string, args ...string) (stdout string, code int) {
	s.t.Helper()
	flags := []string{"doctor", "-timeout", "3m"}
	if !s.spare {
		flags = append(flags, "-login")
	}
	p, err := harness.Start(harness.Command{Path: suite.thaw, Args: append(flags, args...), Env: append([]string{"THAW_CONNECT_TIMEOUT=20s"}, env...)})
	harness.Must(s.t, err)
	select {
	case <-p.Done():
	case <-s.t.Context().Done():
		p.Kill()
		s.t.Fatalf("the doctor does not end:\n%s", p.Output())
	}
	for _, no := range append([]string{mark, "hvs.", "hvb."}, s.hide...) {
		if i := strings.Index(p.Output(), no); no != "" && i >= 0 {
			s.t.Errorf("the doctor wrote a secret: %s", p.Output()[max(0, i-100):i])
		}
	}
	if p.Stderr() != "" && code != 2 {
		s.t.Logf("standard error:\n%s", p.Stderr())
	}
	return p.Stdout(), p.ExitCode()
}

// file writes a file of the test's.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
