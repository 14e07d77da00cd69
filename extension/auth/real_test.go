package auth

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wire"
	"github.com/thaw-project/thaw/tests/fakes/sts"
	"github.com/thaw-project/thaw/tests/harness"
)

// realOrigin is a Vault as an Origin.
type realOrigin struct{ base *url.URL }

func (r realOrigin) Do(req *http.Request) (*http.Response, error) {
	clone := req.Clone(req.Context())
	clone.URL.Scheme, clone.URL.Host = r.base.Scheme, r.base.Host
	return http.DefaultClient.Do(clone)
}

// realVault is a Vault with an aws mount whose STS and IAM are ours, and keys
// of a function that may log in.
type realVault struct {
	*harness.Vault
	origin realOrigin
	aws    config.AWS
	sts    string // URL
}

func startReal(t *testing.T) realVault {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Vault")
	}
	v := realVault{Vault: harness.Dev(t)}
	base, err := url.Parse(v.Addr())
	if err != nil {
		t.Fatal(err)
	}
	v.origin = realOrigin{base}
	fake := sts.New(sts.Options{})
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	v.sts = server.URL
	own := fake.User("/", "vault")
	fn := fake.Role("/service-role/", "fn")
	target := fake.Role("/", "target")
	fake.Trust("target", fn)
	k := fake.Session("fn", "app", time.Hour)
	v.aws = config.AWS{AccessKeyID: k.AccessKeyID, SecretAccessKey: config.Secret(k.SecretAccessKey), SessionToken: config.Secret(k.SessionToken)}

	ask := func(path string, body map[string]any) {
		t.Helper()
		if _, err := v.Root(t.Context(), http.MethodPost, path, body); err != nil {
			t.Fatal(err)
		}
	}
	ask("sys/auth/aws", map[string]any{"type": "aws"})
	ask("sys/policies/acl/app", map[string]any{"policy": `path "secret/*" { capabilities = ["read"] }`})
	ask("auth/aws/config/client", map[string]any{"access_key": own.AccessKeyID, "secret_key": own.SecretAccessKey,
		"sts_endpoint": server.URL, "iam_endpoint": server.URL, "sts_region": "us-east-1", "iam_server_id_header_value": "vault.example", "max_retries": 0})
	for name, bound := range map[string]string{
		"exact": "arn:aws:iam::123456789012:role/fn", "ids": fn, "glob": "arn:aws:iam::123456789012:role/service-role/*",
		"batch": "arn:aws:iam::123456789012:role/fn", "assumed": target, "other": "arn:aws:iam::123456789012:role/other",
	} {
		kind := "service"
		if name == "batch" {
			kind = "batch"
		}
		ask("auth/aws/role/"+name, map[string]any{"auth_type": "iam", "bound_iam_principal_arn": bound, "resolve_aws_unique_ids": name == "ids",
			"token_policies": "app", "token_ttl": "1m", "token_type": kind})
	}
	return v
}

func (v realVault) manager(t *testing.T, clock func() time.Time, change func(*Options)) *Manager {
	t.Helper()
	o := Options{Config: config.Config{
		Auth:     config.Auth{Method: config.AuthAWS, Role: "exact", ServerID: "vault.example", ExpiryGrace: 10 * time.Second},
		Platform: config.Platform{AWS: v.aws, Region: "eu-west-1"},
	}, Origin: v.origin, Now: clock}
	if change != nil {
		change(&o)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// refusal asks Vault about a token, and returns what it says if it refuses it.
func (v realVault) refusal(t *testing.T, token, path string) (status int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Path = path
	req.Header.Set("X-Vault-Token", token)
	res, err := v.origin.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body = make([]byte, 1<<16)
	n, _ := res.Body.Read(body)
	return res.StatusCode, body[:n]
}

func TestRealVaultTakesTheSignedLogin(t *testing.T) {
	v := startReal(t)
	for name, c := range map[string]struct {
		change func(*Options)
		want   string // of the error; empty: it logs in
	}{
		"exact": {},
		"ids":   {change: func(o *Options) { o.Auth.Role = "ids" }},
		"glob":  {change: func(o *Options) { o.Auth.Role = "glob" }},
		"batch": {change: func(o *Options) { o.Auth.Role = "batch" }},
		"assumed": {change: func(o *Options) {
			o.Auth.Role, o.Auth.AssumeRole = "assumed", "arn:aws:iam::123456789012:role/target"
			o.Platform.AWS.EndpointSTS, o.Platform.Region = v.sts, "us-east-1"
		}},
		"other":           {func(o *Options) { o.Auth.Role = "other" }, "bound_iam_principal_arn"},
		"no such role":    {func(o *Options) { o.Auth.Role = "nope" }, "check VAULT_AUTH_ROLE"},
		"no server id":    {func(o *Options) { o.Auth.ServerID = "" }, "VAULT_IAM_SERVER_ID"},
		"wrong server id": {func(o *Options) { o.Auth.ServerID = "x" }, "VAULT_IAM_SERVER_ID"},
		"wrong region":    {func(o *Options) { o.Auth.STSRegion = "eu-west-1" }, "VAULT_STS_ENDPOINT_REGION"},
		"wrong secret":    {func(o *Options) { o.Platform.AWS.SecretAccessKey = "planted-planted" }, "not a pair"},
		"unknown key":     {func(o *Options) { o.Platform.AWS.AccessKeyID = "AKIAX" }, "does not accept the AWS credentials"},
		"clock ahead": {func(o *Options) {
			o.Now = func() time.Time { return time.Now().Add(time.Hour) }
		}, "clock of this host"},
		"no such mount": {func(o *Options) { o.Auth.Mount = "aws2" }, "VAULT_AUTH_PROVIDER"},
	} {
		t.Run(name, func(t *testing.T) {
			m := v.manager(t, time.Now, c.change)
			token, err := m.Token(t.Context())
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "planted") {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if status, body := v.refusal(t, token, "/v1/auth/token/lookup-self"); status != 200 {
				t.Errorf("the token is refused: %s", body)
			}
			m.Shutdown(t.Context())
			status, body := v.refusal(t, token, "/v1/auth/token/lookup-self")
			if batch := name == "batch"; wire.TokenRefused(status, body) == batch {
				t.Errorf("after the shutdown: %d %s", status, body)
			}
		})
	}
}

func TestRealVaultRenewsRefusesAndReplacesTokens(t *testing.T) {
	v := startReal(t)
	var ahead atomic.Int64 // of the real clock, in ns
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	own := new(owner)
	m := v.manager(t, now, func(o *Options) { o.Own = own })
	first, err := m.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(50 * time.Second)) // of a minute
	if err := m.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rest, _ := m.current.Load().rest(now()); m.Peek() != first || rest < 55*time.Second {
		t.Errorf("after the renewal %v are left", rest)
	}
	if status, body := v.refusal(t, first, "/v1/sys/policies/acl/app"); status != 403 || wire.TokenRefused(status, body) {
		t.Errorf("a missing right reads as an invalid token: %d %s", status, body)
	}
	if err := v.RevokeToken(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	status, body := v.refusal(t, first, "/v1/secret/data/x")
	if !wire.TokenRefused(status, body) {
		t.Errorf("a revoked token does not read as invalid: %d %s", status, body)
	}
	before := own.Generation()
	second, err := m.Rejected(t.Context(), first)
	if err != nil || second == first || own.Generation() != before {
		t.Errorf("got %v; generation %d, before %d", err, own.Generation(), before)
	}
}

func TestRealVaultTellsWhatAGivenTokenIs(t *testing.T) {
	v := startReal(t)
	for name, c := range map[string]struct {
		spec     harness.TokenSpec
		limited  bool
		identity string
	}{
		"service":  {harness.TokenSpec{Policies: []string{"app"}, TTL: time.Minute}, true, "\x01app\x01default"},
		"batch":    {harness.TokenSpec{Policies: []string{"app"}, TTL: time.Minute, Batch: true}, true, "\x01app\x01default"},
		"no right": {harness.TokenSpec{Policies: []string{"app"}, TTL: time.Minute, NoDefault: true}, false, ""},
	} {
		value, err := v.CreateToken(t.Context(), c.spec)
		if err != nil {
			t.Fatal(err)
		}
		m := v.manager(t, time.Now, func(o *Options) {
			o.Auth = config.Auth{Method: config.AuthToken, Token: config.Secret(value)}
		})
		if _, err := m.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if tok := m.current.Load(); !tok.known || (tok.life > 0) != c.limited || tok.identity != c.identity {
			t.Errorf("%s: %s", name, fmt.Sprintf("known %v, life %v, identity %q", tok.known, tok.life, tok.identity))
		}
	}
}
