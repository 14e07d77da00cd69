package doctor

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// counted is the environment of a login by a secret id that is good for so many
// logins; 0: for any number.
func (s *site) counted(uses int) []string {
	s.t.Helper()
	env := s.approle()
	r, err := s.vault.Root(s.t.Context(), "POST", "auth/approle/role/"+s.name+"/secret-id", map[string]any{"num_uses": uses})
	harness.Must(s.t, err)
	var made struct {
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	harness.Must(s.t, r.JSON(&made))
	s.hide = append(s.hide, made.Data.SecretID)
	return append(env, "THAW_SECRET_ID="+made.Data.SecretID)
}

// jwt is the environment of a login by a JWT in a file, issued now or so much later.
func (s *site) jwt(from ...time.Duration) []string {
	s.t.Helper()
	issuer, err := harness.NewIssuer()
	harness.Must(s.t, err)
	harness.Must(s.t, s.vault.EnableAuth(s.t.Context(), "jwt-"+s.name, "jwt"))
	harness.Must(s.t, s.vault.JWTRole(s.t.Context(), "jwt-"+s.name, "fn", "me", "vault", issuer, harness.RoleSpec{Policies: []string{s.name}, TTL: time.Hour, Batch: true}))
	now := time.Now().Unix()
	for _, d := range from {
		now += int64(d / time.Second)
	}
	signed, err := issuer.Sign(map[string]any{"sub": "me", "aud": "vault", "jti": "once", "iat": now, "nbf": now - 60, "exp": now + 3600})
	harness.Must(s.t, err)
	s.hide = append(s.hide, signed)
	return []string{"VAULT_ADDR=" + s.vault.Addr(), "THAW_AUTH_METHOD=jwt", "VAULT_AUTH_PROVIDER=jwt-" + s.name, "VAULT_AUTH_ROLE=fn",
		"THAW_JWT_FILE=" + file(s.t, "jwt", []byte(signed))}
}

// usesLeft is what a secret id or a token of the site, the one made last, is good for.
func (s *site) usesLeft(path, name string) int {
	s.t.Helper()
	r, err := s.vault.Root(s.t.Context(), "POST", path, map[string]any{name: s.hide[len(s.hide)-1]})
	harness.Must(s.t, err)
	var got struct {
		Data struct {
			OfSecretID *int `json:"secret_id_num_uses"`
			OfToken    *int `json:"num_uses"`
		} `json:"data"`
	}
	harness.Must(s.t, r.JSON(&got))
	for _, n := range []*int{got.Data.OfSecretID, got.Data.OfToken} {
		if n != nil {
			return *n
		}
	}
	s.t.Fatalf("no number of uses in %s", r.Body)
	return 0
}

// TestNothingCountedIsUsedUp: each way to a token, and what examining it takes. Of
// a secret id nobody can tell whether its uses are counted, so by default there is
// no login with one.
func TestNothingCountedIsUsedUp(t *testing.T) {
	t.Parallel()
	const secretID, token = "auth/approle/role/%/secret-id/lookup", "auth/token/lookup"
	for _, c := range []struct {
		name   string
		env    func(s *site) []string
		flags  []string
		left   int    // uses afterwards
		lookup string // where that is told; empty: nothing is counted
		logins int
		exit   int
		level  string // of a finding of auth
		part   string // of it
	}{
		{"a secret id for one login", func(s *site) []string { return s.counted(1) }, nil, 1, secretID, 0, 3, "not checked", "takes one use of the secret id"},
		{"the same in a file", func(s *site) []string {
			env := s.counted(1)
			return append(env, "THAW_SECRET_ID=", "THAW_SECRET_ID_FILE="+file(s.t, "id", []byte(s.hide[len(s.hide)-1])))
		}, nil, 1, secretID, 0, 3, "not checked", "takes one use of the secret id"},
		{"the same, and leave not to check", func(s *site) []string { return s.counted(1) }, []string{"-allow-unchecked"}, 1, secretID, 0, 0, "not checked", "takes one use"},
		{"the same, and a path", func(s *site) []string { return s.counted(1) }, []string{"secret/data/app"}, 1, secretID, 0, 1, "not checked", "takes one use"},
		{"a secret id for three, and leave", func(s *site) []string { return s.counted(3) }, []string{"-login"}, 2, secretID, 1, 0, "ok", "log in by approle"},
		{"a secret id for any number", func(s *site) []string { return s.counted(0) }, nil, 0, secretID, 0, 3, "not checked", "Vault does not tell"},
		{"no login at all", func(s *site) []string { return s.counted(0) }, []string{"-no-login"}, 0, secretID, 0, 3, "not checked", "-no-login"},
		{"a role without secret ids", func(s *site) []string {
			env := s.approle("THAW_SECRET_ID=")
			s.root("auth/approle/role/"+s.name, map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8", "token_policies": []string{s.name}, "token_type": "batch"})
			return env
		}, nil, 0, "", 1, 0, "ok", "log in by approle"},
		{"a signature of AWS", func(s *site) []string { return newAWS(s, "us-east-1", nil).env() }, nil, 0, "", 1, 0, "ok", "log in by aws"},
		{"a JWT", func(s *site) []string { return s.jwt() }, nil, 0, "", 1, 0, "ok", "log in by jwt"},
		{"a token for fifty questions", func(s *site) []string { return s.token(harness.TokenSpec{TTL: time.Hour, NumUses: 50}) }, nil, 49, token, 0, 1, "not checked", "each question takes one"},
		{"a token without an end", func(s *site) []string { return s.token(harness.TokenSpec{TTL: time.Hour}) }, nil, 0, token, 0, 0, "ok", "the token it was given"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.spare = true
			env, counter := c.env(s), s.count()
			r := s.examine(append(env, "VLE_VAULT_ADDR="+counter.Addr()), c.flags...)
			if r.exit != c.exit || r.Healthy != (c.exit == 0 && c.level == "ok") || !r.has("auth", c.level, c.part) {
				t.Errorf("exit status %d, want %d\n%s", r.exit, c.exit, r.text)
			}
			logins := 0
			for _, q := range counter.Requests() {
				if strings.HasSuffix(q.Path, "/login") && q.Method == http.MethodPost {
					logins++
				}
			}
			if logins != c.logins {
				t.Errorf("%d logins, want %d", logins, c.logins)
			}
			if c.lookup != "" {
				name := map[string]string{token: "token"}[c.lookup]
				if name == "" {
					name = "secret_id"
				}
				if n := s.usesLeft(strings.ReplaceAll(c.lookup, "%", s.name), name); n != c.left {
					t.Errorf("%d uses are left, want %d", n, c.left)
				}
			}
			for _, check := range []string{"policy", "kv", "token", "forwarding", "events"} {
				if c.level == "not checked" && !slices.ContainsFunc(r.Findings, func(f finding) bool {
					return f.Check == check && f.Level == "not checked" && f.Fix != ""
				}) {
					t.Errorf("%s is not said to be unchecked\n%s", check, r.text)
				}
			}
		})
	}
}

// TestATokenForOneQuestionIsNamed: thaw would use it up as the doctor does.
func TestATokenForOneQuestionIsNamed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.spare = true
	r := s.examine(s.token(harness.TokenSpec{TTL: time.Hour, NumUses: 1}))
	if r.exit != 1 || !r.has("token", "problem", "can be used 0 times") {
		t.Errorf("exit status %d\n%s", r.exit, r.text)
	}
}
