package compat

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/sts"
	"github.com/thaw-project/thaw/tests/harness"
)

// aws is an account at a strict stand-in for STS, with a function's execution
// role, and an aws auth mount that asks it.
type aws struct {
	*sts.Server
	o       *origin
	addr    string // of the stand-in
	mount   string
	keys    sts.Keys // of the function
	roleARN string

	mu    sync.Mutex
	hosts []string // guarded by mu; whom the requests were addressed to
	forms []string // guarded by mu; bodies
}

// awsOn sets up an account. config is added to the mount's client
// configuration.
func awsOn(o *origin, opts sts.Options, config map[string]any) *aws {
	o.t.Helper()
	a := &aws{Server: sts.New(opts), o: o, mount: unique("aws")}
	server := httptest.NewServer(http.HandlerFunc(a.record))
	o.t.Cleanup(server.Close)
	a.addr = server.URL
	a.roleARN = a.Role("/", "fn-role")
	a.keys = a.Session("fn-role", "fn", time.Hour)
	vault := a.User("/", "vault")
	harness.Must(o.t, o.EnableAuth(o.t.Context(), a.mount, "aws"))
	body := map[string]any{
		"access_key": vault.AccessKeyID, "secret_key": vault.SecretAccessKey,
		"sts_endpoint": a.addr, "iam_endpoint": a.addr, "sts_region": "us-east-1",
	}
	for k, v := range config {
		body[k] = v
	}
	_, err := o.Root(o.t.Context(), http.MethodPost, "auth/"+a.mount+"/config/client", body)
	harness.Must(o.t, err)
	a.vaultRole("fn", a.roleARN)
	return a
}

func (a *aws) record(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	a.hosts, a.forms = append(a.hosts, r.Host), append(a.forms, string(body))
	a.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	a.ServeHTTP(w, r)
}

// vaultRole makes a role of the mount for one principal.
func (a *aws) vaultRole(name, arn string) {
	a.o.t.Helper()
	harness.Must(a.o.t, a.o.AWSRole(a.o.t.Context(), a.mount, name, []string{arn}, harness.RoleSpec{
		Policies: []string{a.o.policy("aws", a.o.all())}, TTL: time.Hour, Batch: true,
	}))
}

// env is a function's environment with its credentials.
func (a *aws) env(more ...string) []string {
	return append([]string{
		"VLE_VAULT_ADDR=" + a.o.count.Addr(), "THAW_AUTH_METHOD=aws", "VAULT_AUTH_PROVIDER=" + a.mount, "VAULT_AUTH_ROLE=fn",
		"AWS_ACCESS_KEY_ID=" + a.keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + a.keys.SecretAccessKey, "AWS_SESSION_TOKEN=" + a.keys.SessionToken,
		"AWS_REGION=eu-central-1",
	}, more...)
}

// asked is the last host that a form with this action was addressed to.
func (a *aws) asked() (host string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.hosts) == 0 {
		a.o.t.Fatal("nobody asked STS")
	}
	return a.hosts[len(a.hosts)-1]
}

// whoami is what Vault knows of the token that thaw logged in for.
func (p *thaw) whoami() *answer { p.t.Helper(); return p.get("auth/token/lookup-self").ok() }

func TestVAULT_AUTH_ROLE_LogsInWithAWS(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	a := awsOn(o, sts.Options{}, nil)
	p := start(t, nil, a.env()...)
	p.get(o.data("a")).is("1")
	if n := o.count.Count(http.MethodPost, "/v1/auth/"+a.mount+"/login"); n != 1 {
		t.Errorf("%d logins at auth/%s/login", n, a.mount)
	}
	if n := a.Served("GetCallerIdentity"); n != 1 {
		t.Errorf("STS was asked %d times", n)
	}
	if role := p.whoami().field("data", "meta", "role_id"); role == nil {
		t.Errorf("no role in %s", p.whoami().Body)
	}
}

func TestVAULT_AUTH_ROLE_IsRequiredForAWSAndNamed(t *testing.T) {
	t.Parallel()
	contains(t, refused(t, nil, "VLE_VAULT_ADDR="+nowhere, "THAW_AUTH_METHOD=aws", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"), "VAULT_AUTH_ROLE")
}

func TestVAULT_AUTH_ROLE_ThatIsNotTheFunctionsExplainsItself(t *testing.T) {
	t.Parallel()
	o := shared(t)
	a := awsOn(o, sts.Options{}, nil)
	a.vaultRole("other", a.Role("/", "somebody-else"))
	p := start(t, nil, a.env("VAULT_AUTH_ROLE=other")...)
	p.get(o.data("a")).status(http.StatusForbidden).says("thaw: ", "other", "bound_iam_principal_arn")
	lacks(t, p.proc.Output(), a.keys.SecretAccessKey, a.keys.SessionToken)
}

func TestVAULT_IAM_SERVER_ID_IsSignedIntoTheLogin(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	a := awsOn(o, sts.Options{}, map[string]any{"iam_server_id_header_value": "vault.example.com"})
	start(t, nil, a.env("VAULT_IAM_SERVER_ID=vault.example.com")...).get(o.data("a")).is("1")
	for _, wrong := range []string{"other.example.com", ""} {
		start(t, nil, a.env("VAULT_IAM_SERVER_ID="+wrong)...).get(o.data("a")).
			status(http.StatusForbidden).says("VAULT_IAM_SERVER_ID")
	}
}

// #18, #30, #194: which STS the login is signed for. The stand-in demands the
// region in the signature, and what it was addressed to is looked at.
func TestVLEIssue18And30And194_VAULT_STS_ENDPOINT_REGION(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		env          []string
		region, host string
	}{
		{"unset: the global endpoint", nil, "us-east-1", "sts.amazonaws.com"},
		{"set", []string{"VAULT_STS_ENDPOINT_REGION=eu-west-1"}, "eu-west-1", "sts.eu-west-1.amazonaws.com"},
		{"regional endpoints", []string{"AWS_STS_REGIONAL_ENDPOINTS=regional"}, "eu-central-1", "sts.eu-central-1.amazonaws.com"},
		{"set wins over regional", []string{"VAULT_STS_ENDPOINT_REGION=eu-west-1", "AWS_STS_REGIONAL_ENDPOINTS=regional"}, "eu-west-1", "sts.eu-west-1.amazonaws.com"},
		{"GovCloud", []string{"AWS_REGION=us-gov-west-1"}, "us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"},
		{"China", []string{"AWS_REGION=cn-north-1"}, "cn-north-1", "sts.cn-north-1.amazonaws.com.cn"},
		{"FIPS", []string{"VAULT_STS_ENDPOINT_REGION=us-east-2", "AWS_USE_FIPS_ENDPOINT=true"}, "us-east-2", "sts-fips.us-east-2.amazonaws.com"},
		{"AWS_ENDPOINT_URL_STS", []string{"AWS_ENDPOINT_URL_STS=https://vpce-1.sts.eu-west-3.vpce.amazonaws.com", "VAULT_STS_ENDPOINT_REGION=eu-west-3"}, "eu-west-3", "vpce-1.sts.eu-west-3.vpce.amazonaws.com"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			a := awsOn(o, sts.Options{Region: c.region, Host: c.host}, map[string]any{"sts_region": c.region})
			start(t, nil, a.env(c.env...)...).get(o.data("a")).is("1")
			if host := a.asked(); host != c.host {
				t.Errorf("signed for %s, not %s", host, c.host)
			}
		})
	}
}

func TestVAULT_STS_ENDPOINT_REGION_ThatIsNotTheMountsExplainsItself(t *testing.T) {
	t.Parallel()
	o := shared(t)
	a := awsOn(o, sts.Options{Region: "eu-west-1"}, map[string]any{"sts_region": "eu-west-1"})
	start(t, nil, a.env()...).get(o.data("a")).status(http.StatusForbidden).says("VAULT_STS_ENDPOINT_REGION", "us-east-1")
}

func TestVAULT_ASSUMED_ROLE_ARN_IsAssumedFirstAndItsKeysAreKept(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	a := awsOn(o, sts.Options{Region: "eu-central-1"}, map[string]any{"sts_region": "eu-central-1"})
	assumed := a.Role("/", "vault-access")
	a.Trust("vault-access", a.roleARN)
	a.vaultRole("assumed", assumed)
	p := start(t, nil, a.env("VAULT_AUTH_ROLE=assumed", "VAULT_ASSUMED_ROLE_ARN="+assumed, "AWS_ENDPOINT_URL_STS="+a.addr)...)
	p.get(o.data("a")).is("1")
	a.mu.Lock()
	first := a.forms[0]
	a.mu.Unlock()
	contains(t, first, "Action=AssumeRole", "RoleSessionName=vault_auth")

	// Another login: the keys have an hour left.
	harness.Eventually(t, patience, "a second login", func() bool {
		p.get(o.data("a"), "X-Vault-Token-Options", "revoke").is("1")
		return o.logins() == 2
	})
	if n := a.Served("AssumeRole"); n != 1 {
		t.Errorf("the role was assumed %d times", n)
	}
}

func TestVAULT_ASSUMED_ROLE_ARN_ThatMayNotBeAssumedExplainsItself(t *testing.T) {
	t.Parallel()
	o := shared(t)
	a := awsOn(o, sts.Options{Region: "eu-central-1"}, nil)
	foreign := a.Role("/", "foreign")
	p := start(t, nil, a.env("VAULT_ASSUMED_ROLE_ARN="+foreign, "AWS_ENDPOINT_URL_STS="+a.addr)...)
	r := p.get(o.data("a")).says("VAULT_ASSUMED_ROLE_ARN", foreign, "AccessDenied")
	if r.Status < 400 {
		t.Errorf("status %d", r.Status)
	}
	if n := o.logins(); n != 0 {
		t.Errorf("%d logins", n)
	}
}

// TestAWSLoginAgainstMoto is the same login with another implementation of STS
// that checks the signatures.
func TestAWSLoginAgainstMoto(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := harness.AWS(t)
	o := shared(t)
	o.put("a", "1")
	fn, err := m.CreateRole(ctx, "fn")
	harness.Must(t, err)
	other, err := m.CreateRole(ctx, "other")
	harness.Must(t, err)
	cred, err := m.AssumeRole(ctx, fn, "fn")
	harness.Must(t, err)
	harness.Must(t, m.EnableSignatureChecks(ctx))
	mount := unique("aws")
	harness.Must(t, o.EnableAuth(ctx, mount, "aws"))
	harness.Must(t, o.AWSConfig(ctx, mount, m, "us-east-1", "vault.example.com"))
	role := harness.RoleSpec{Policies: []string{o.policy("aws", o.all())}, TTL: time.Hour, Batch: true}
	harness.Must(t, o.AWSRole(ctx, mount, "fn", []string{fn}, role))
	harness.Must(t, o.AWSRole(ctx, mount, "other", []string{other}, role))
	env := []string{
		"VLE_VAULT_ADDR=" + o.count.Addr(), "THAW_AUTH_METHOD=aws", "VAULT_AUTH_PROVIDER=" + mount, "VAULT_AUTH_ROLE=fn", "VAULT_IAM_SERVER_ID=vault.example.com",
		"AWS_ACCESS_KEY_ID=" + cred.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + cred.SecretAccessKey, "AWS_SESSION_TOKEN=" + cred.SessionToken,
	}
	start(t, nil, env...).get(o.data("a")).is("1")
	start(t, nil, append(env, "VAULT_AUTH_ROLE=other", "VAULT_ASSUMED_ROLE_ARN="+other, "AWS_ENDPOINT_URL_STS="+m.Addr())...).
		get(o.data("a")).is("1")
	start(t, nil, append(env, "AWS_SECRET_ACCESS_KEY=wrong")...).get(o.data("a")).status(http.StatusForbidden)
}
