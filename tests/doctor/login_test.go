package doctor

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/sts"
	"github.com/thaw-project/thaw/tests/harness"
)

// aws is an account at the stand-in for STS, with a function's execution role,
// and an aws auth mount that asks it.
type aws struct {
	*sts.Server
	s     *site
	mount string
	keys  sts.Keys
}

// newAWS sets an account up whose STS is of a region. config is added to the
// mount's client configuration.
func newAWS(s *site, region string, config map[string]any) *aws {
	s.t.Helper()
	a := &aws{Server: sts.New(sts.Options{Region: region}), s: s, mount: "aws-" + s.name}
	server := httptest.NewServer(a.Server)
	s.t.Cleanup(server.Close)
	arn := a.Role("/", "fn-role")
	a.keys = a.Session("fn-role", "fn", time.Hour)
	s.hide = append(s.hide, a.keys.SecretAccessKey, a.keys.SessionToken)
	vault := a.User("/", "vault")
	harness.Must(s.t, s.vault.EnableAuth(s.t.Context(), a.mount, "aws"))
	body := map[string]any{
		"access_key": vault.AccessKeyID, "secret_key": vault.SecretAccessKey,
		"sts_endpoint": server.URL, "iam_endpoint": server.URL, "sts_region": region,
	}
	for k, v := range config {
		body[k] = v
	}
	s.root("auth/"+a.mount+"/config/client", body)
	a.role("fn", arn)
	return a
}

func (a *aws) role(name, arn string) {
	a.s.t.Helper()
	harness.Must(a.s.t, a.s.vault.AWSRole(a.s.t.Context(), a.mount, name, []string{arn}, harness.RoleSpec{Policies: []string{a.s.name}, TTL: time.Hour, Batch: true}))
}

// env is the function's environment.
func (a *aws) env(more ...string) []string {
	return append([]string{
		"VAULT_ADDR=" + a.s.vault.Addr(), "THAW_AUTH_METHOD=aws", "VAULT_AUTH_PROVIDER=" + a.mount, "VAULT_AUTH_ROLE=fn",
		"AWS_ACCESS_KEY_ID=" + a.keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + a.keys.SecretAccessKey, "AWS_SESSION_TOKEN=" + a.keys.SessionToken,
		"AWS_REGION=eu-central-1",
	}, more...)
}

func awsFaults() []fault {
	return []fault{
		{name: "STS of another region", plant: func(s *site) ([]string, []string) {
			return newAWS(s, "eu-west-1", nil).env(), nil
		}, check: "auth", what: "auth/aws-", fix: "VAULT_STS_ENDPOINT_REGION", exit: 1},
		{name: "no server id", plant: func(s *site) ([]string, []string) {
			return newAWS(s, "us-east-1", map[string]any{"iam_server_id_header_value": "vault.example.com"}).env(), nil
		}, check: "auth", what: "auth/aws-", fix: "VAULT_IAM_SERVER_ID", exit: 1},
		{name: "a role bound to another principal", plant: func(s *site) ([]string, []string) {
			a := newAWS(s, "us-east-1", nil)
			a.role("other", a.Role("/", "somebody-else"))
			return a.env("VAULT_AUTH_ROLE=other"), nil
		}, check: "auth", what: `role "other"`, fix: "bound_iam_principal_arn", exit: 1},
		{name: "a role that does not exist", plant: func(s *site) ([]string, []string) {
			return newAWS(s, "us-east-1", nil).env("VAULT_AUTH_ROLE=none"), nil
		}, check: "auth", what: `role "none"`, fix: "VAULT_AUTH_ROLE", exit: 1},
		{name: "no AWS credentials", plant: func(s *site) ([]string, []string) {
			return []string{"VAULT_ADDR=" + s.vault.Addr(), "THAW_AUTH_METHOD=aws", "VAULT_AUTH_ROLE=fn"}, nil
		}, check: "auth", what: "AWS_ACCESS_KEY_ID", fix: "login's settings", exit: 1},
	}
}

func loginFaults() []fault {
	return []fault{
		{name: "an auth mount that is not there", plant: func(s *site) ([]string, []string) {
			return s.approle("VAULT_AUTH_PROVIDER=nowhere"), nil
		}, check: "auth", what: "auth/nowhere", fix: "VAULT_AUTH_PROVIDER", exit: 1},
		{name: "a wrong secret id", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_SECRET_ID=" + secret()), nil // the last one counts
		}, check: "auth", what: "invalid role or secret ID", fix: "secret id has not expired", exit: 1},
		{name: "a token that was revoked", plant: func(s *site) ([]string, []string) {
			env := s.token(harness.TokenSpec{TTL: time.Hour})
			harness.Must(s.t, s.vault.RevokeToken(s.t.Context(), s.hide[len(s.hide)-1]))
			return env, nil
		}, check: "auth", what: "refuses the token", fix: "VAULT_TOKEN", exit: 1},
		{name: "a token for a few uses", plant: func(s *site) ([]string, []string) {
			return s.token(harness.TokenSpec{TTL: time.Hour, NumUses: 50}), nil
		}, check: "token", what: "times only", fix: "token_num_uses=0", exit: 1},
		{name: "a wrapping token", plant: func(s *site) ([]string, []string) {
			r, err := s.vault.Do(s.t.Context(), harness.Call{Method: "POST", Path: "sys/wrapping/wrap", Token: s.vault.RootToken(),
				Header: http.Header{"X-Vault-Wrap-Ttl": {"10m"}}, Body: map[string]any{"token": secret()}})
			harness.Must(s.t, err)
			var made struct {
				Info struct{ Token string } `json:"wrap_info"`
			}
			harness.Must(s.t, r.JSON(&made))
			s.hide = append(s.hide, made.Info.Token)
			return []string{"VAULT_ADDR=" + s.vault.Addr(), "VAULT_TOKEN=" + made.Info.Token}, nil
		}, check: "auth", what: "refuses the token", fix: "what vault unwrap prints", exit: 1},
		{name: "a given token with a longest life", plant: func(s *site) ([]string, []string) {
			return s.token(harness.TokenSpec{TTL: time.Hour, MaxTTL: 2 * time.Hour}), nil
		}, check: "token", level: "advice", what: "cannot be renewed beyond that", fix: "THAW_TOKEN_FILE", exit: 0},
		{name: "a batch token that is given", plant: func(s *site) ([]string, []string) {
			return s.token(harness.TokenSpec{TTL: 2 * time.Hour, Batch: true}), nil
		}, check: "token", level: "advice", what: "cannot be renewed beyond that", fix: "THAW_AUTH_METHOD", exit: 0},
		{name: "service tokens", plant: func(s *site) ([]string, []string) {
			env := s.approle()
			s.root("auth/approle/role/"+s.name, map[string]any{"token_policies": []string{s.name}, "token_type": "service"})
			return env, nil
		}, check: "token", level: "advice", what: "service tokens", fix: "token_type=batch", exit: 0},
		{name: "a root token", plant: func(s *site) ([]string, []string) {
			s.hide = append(s.hide, s.vault.RootToken())
			return []string{"VAULT_ADDR=" + s.vault.Addr(), "VAULT_TOKEN=" + s.vault.RootToken()}, nil
		}, check: "token", level: "advice", what: "root token", fix: "only what the function needs", exit: 0},
	}
}

// hearsWritesOnly lacks what the listener asks for besides data/.
func hearsWritesOnly(s *site) string {
	return `path "sys/events/subscribe/kv*" { capabilities = ["read"] }
path "secret/data/` + s.name + `/*" {
  capabilities          = ["read", "subscribe"]
  subscribe_event_types = ["kv*"]
}
`
}

// TestTheRemedyForEventsIsOne: with the rules that the doctor names beside those
// that are there, the token hears of everything, and reads as before.
func TestTheRemedyForEventsIsOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	lacking := strings.ReplaceAll(hearsWritesOnly(s), `"read", "subscribe"`, `"read"`)
	s.policy(lacking)
	env := s.approle("VLE_VAULT_ADDR="+s.node(200, `"enterprise":false`, `"enterprise":true`), "THAW_PREFETCH=secret/data/"+s.name+"/app")
	of := func(r report, check string) (all []finding) {
		for _, f := range r.Findings {
			if f.Check == check {
				all = append(all, f)
			}
		}
		return all
	}
	before := of(s.examine(env), "events")
	if len(before) != 1 || before[0].Level != "advice" {
		t.Fatalf("%+v", before)
	}
	_, rules, _ := strings.Cut(before[0].Fix, ": ")
	s.policy(lacking + rules)
	r := s.examine(env)
	if after := of(r, "events"); len(after) != 1 || after[0].Level != "ok" || !strings.Contains(after[0].What, "may subscribe") {
		t.Errorf("%+v", after)
	}
	if r.Problems != 0 {
		t.Errorf("the rules took something away:\n%s", r.text)
	}
}

func costFaults() []fault {
	return []fault{
		{name: "forwarding by header is not allowed", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_WHEN_INCONSISTENT=forward"), nil
		}, check: "forwarding", level: "advice", what: "refuses X-Vault-Forward", fix: "allow_forwarding_via_header = true", exit: 0},
		{name: "forwarding by header is needed and not allowed", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR="+s.node(200, `"enterprise":false`, `"enterprise":true`), "THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=forward"), nil
		}, check: "forwarding", what: "refuses X-Vault-Forward", fix: "allow_forwarding_via_header = true", exit: 1},
		{name: "forwarding protects nothing on a secondary", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR="+s.node(200, `"enterprise":false`, `"enterprise":true`, `"replication_performance_mode":"disabled"`, `"replication_performance_mode":"secondary"`),
				"THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=forward"), nil
		}, check: "forwarding", what: "on a performance secondary", fix: "THAW_WHEN_INCONSISTENT=retry", exit: 1},
		{name: "no right to events", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=" + s.node(200, `"enterprise":false`, `"enterprise":true`)), nil
		}, check: "events", level: "advice", what: "may not subscribe", fix: "sys/events/subscribe/kv*", exit: 0},
		{name: "events without the secrets'", plant: func(s *site) ([]string, []string) {
			s.policy(`path "sys/events/subscribe/kv*" { capabilities = ["read"] }
path "secret/data/` + s.name + `/*" { capabilities = ["read"] }`)
			return s.approle("VLE_VAULT_ADDR="+s.node(200, `"enterprise":false`, `"enterprise":true`), "THAW_PREFETCH=secret/data/"+s.name+"/app"), nil
		}, check: "events", level: "advice", what: "may not hear of changes of secret/data/", fix: "subscribe_event_types", exit: 0},
		{name: "events of writes and not of deletes", plant: func(s *site) ([]string, []string) {
			s.policy(hearsWritesOnly(s))
			return s.approle("VLE_VAULT_ADDR="+s.node(200, `"enterprise":false`, `"enterprise":true`), "THAW_PREFETCH=secret/data/"+s.name+"/app"), nil
		}, check: "events", level: "advice", what: "may not hear of changes of secret/metadata/", fix: `subscribe_event_types = ["kv*"]`, exit: 0},
		{name: "events of KV version 1 are not heard", plant: func(s *site) ([]string, []string) {
			s.policy(`path "sys/events/subscribe/kv*" { capabilities = ["read"] }
path "kv/` + s.name + `/*" { capabilities = ["read"] }`)
			return s.approle("VLE_VAULT_ADDR="+s.node(200, `"enterprise":false`, `"enterprise":true`), "THAW_PREFETCH=kv/"+s.name+"/app"), nil
		}, check: "events", level: "advice", what: "may not hear of changes of kv/", fix: `capabilities = ["list", "read", "subscribe"]`, exit: 0},
		{name: "standbys that answer reads themselves", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=" + s.node(200, `"enterprise":false`, `"enterprise":true`)), nil
		}, check: "cursor", level: "advice", what: "may serve reads themselves", fix: "THAW_MAX_AGE", exit: 0},
		{name: "OpenBao, which lists folders with metadata", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=" + s.node(200, `"enterprise":false,`, ``, `"version":"1.21.0"`, `"version":"2.5.1"`)), nil
		}, check: "cursor", level: "advice", what: "may serve reads themselves", fix: "list <mount>/detailed-metadata/<folder>/", exit: 0},
		{name: "storage without a cursor", plant: func(s *site) ([]string, []string) {
			v := harness.Dev(s.t)
			_, err := v.Put(s.t.Context(), "secret", s.name+"/app", map[string]any{"v": secret()})
			harness.Must(s.t, err)
			return []string{"VAULT_ADDR=" + v.Addr(), "VAULT_TOKEN=" + v.RootToken()}, nil
		}, check: "cursor", level: "advice", what: "not integrated", fix: "THAW_MAX_AGE", exit: 0},
		{name: "an address that is a standby's", plant: func(s *site) ([]string, []string) {
			c := s.count()
			c.Inject(harness.Fault{Path: "/v1/sys/leader", Status: 200, Header: http.Header{"Content-Type": {"application/json"}},
				Body: `{"ha_enabled":true,"is_self":false,"active_time":"0001-01-01T00:00:00Z","leader_address":"https://10.0.0.1:8200","raft_committed_index":42,"raft_applied_index":42}`})
			return s.approle("VLE_VAULT_ADDR=" + c.Addr()), nil
		}, check: "cursor", level: "advice", what: "is a standby", fix: "reaches the active node", exit: 0},
		{name: "a cache before sys/leader", plant: func(s *site) ([]string, []string) {
			c := s.count()
			c.Inject(harness.Fault{Path: "/v1/sys/leader", Status: 200, Header: http.Header{"Content-Type": {"application/json"}, "Age": {"3"}},
				Body: `{"ha_enabled":true,"is_self":true,"active_time":"2026-01-01T00:00:00Z","raft_committed_index":42,"raft_applied_index":42}`})
			return s.approle("VLE_VAULT_ADDR=" + c.Addr()), nil
		}, check: "cursor", level: "advice", what: "from a cache", fix: "let sys/leader through", exit: 0},
		{name: "a rate limit on sys/leader", plant: func(s *site) ([]string, []string) {
			v := harness.Raft(s.t)
			own := siteAt(s.t, v)
			harness.Must(s.t, v.EnableAuth(s.t.Context(), "approle", "approle"))
			own.root("sys/quotas/rate-limit/all", map[string]any{"rate": 1e6, "path": ""})
			own.policy(`path "sys/quotas/config" { capabilities = ["read"] }
path "sys/quotas/rate-limit" { capabilities = ["list"] }`)
			return own.approle(), nil
		}, check: "quota", level: "advice", what: "rate_limit_exempt_paths", fix: "rate_limit_exempt_paths=sys/leader", exit: 0},
		{name: "a rate limit that says so in headers", plant: func(s *site) ([]string, []string) {
			v := harness.Raft(s.t)
			own := siteAt(s.t, v)
			harness.Must(s.t, v.EnableAuth(s.t.Context(), "approle", "approle"))
			own.root("sys/quotas/rate-limit/all", map[string]any{"rate": 1e6, "path": ""})
			own.root("sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true})
			return own.approle(), nil
		}, check: "quota", level: "advice", what: "counts sys/leader", fix: "rate_limit_exempt_paths=sys/leader", exit: 0},
		{name: "a rate limit that is used up", plant: func(s *site) ([]string, []string) {
			c := s.count()
			c.Inject(harness.Fault{Path: "/v1/sys/leader", Status: 429})
			return s.approle("VLE_VAULT_ADDR=" + c.Addr()), nil
		}, check: "quota", what: "429", fix: "rate_limit_exempt_paths=sys/leader", exit: 1},
	}
}
