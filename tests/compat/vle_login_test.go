package compat

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/fakes/sts"
	"github.com/thaw-project/thaw/tests/harness"
)

// file writes a file of the test's own and returns its name.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	harness.Must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestVAULT_AUTH_PROVIDER_IsTheMountOfTheLogin(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	ctx := t.Context()
	mount := unique("corp") + "/" + unique("approle") // a mount may lie in a folder
	harness.Must(t, o.EnableAuth(ctx, mount, "approle"))
	role, secret, err := o.AppRole(ctx, mount, "r", harness.RoleSpec{Policies: []string{o.policy("p", o.all())}})
	harness.Must(t, err)
	for _, written := range []string{mount, "auth/" + mount, "/" + mount + "/"} {
		o.count.Reset()
		o.startWith("THAW_AUTH_METHOD=approle", "THAW_ROLE_ID="+role, "THAW_SECRET_ID="+secret, "VAULT_AUTH_PROVIDER="+written).
			get(o.data("a")).is("1")
		if n := o.count.Count(http.MethodPost, "/v1/auth/"+mount+"/login"); n != 1 {
			t.Errorf("%q: %d logins at auth/%s/login", written, n, mount)
		}
	}
	r := o.startWith("THAW_AUTH_METHOD=approle", "THAW_ROLE_ID="+role, "THAW_SECRET_ID="+secret, "VAULT_AUTH_PROVIDER=nothing-here").
		get(o.data("a"))
	r.status(http.StatusForbidden).says("auth/nothing-here", "VAULT_AUTH_PROVIDER")
}

func TestTHAW_AUTH_METHOD_EachMethodLogsIn(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	ctx := t.Context()
	mount, roleID, secretID := o.approle(harness.RoleSpec{})
	jwtMount := unique("jwt")
	harness.Must(t, o.EnableAuth(ctx, jwtMount, "jwt"))
	issuer, err := harness.NewIssuer()
	harness.Must(t, err)
	harness.Must(t, o.JWTRole(ctx, jwtMount, "r", "fn", "vault", issuer, harness.RoleSpec{Policies: []string{o.policy("jwt", o.all())}, TTL: time.Hour}))
	jwt, err := issuer.Sign(map[string]any{"sub": "fn", "aud": "vault", "iat": time.Now().Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix()})
	harness.Must(t, err)
	for name, env := range map[string][]string{
		"approle":            {"THAW_AUTH_METHOD=approle", "VAULT_AUTH_PROVIDER=" + mount, "THAW_ROLE_ID=" + roleID, "THAW_SECRET_ID=" + secretID},
		"approle from files": {"THAW_AUTH_METHOD=approle", "VAULT_AUTH_PROVIDER=" + mount, "THAW_ROLE_ID_FILE=" + file(t, "role", roleID+"\n"), "THAW_SECRET_ID_FILE=" + file(t, "secret", secretID+"\n")},
		"jwt":                {"THAW_AUTH_METHOD=jwt", "VAULT_AUTH_PROVIDER=" + jwtMount, "VAULT_AUTH_ROLE=r", "THAW_JWT_FILE=" + file(t, "jwt", jwt)},
		"token":              {"THAW_AUTH_METHOD=token", "VAULT_TOKEN=" + o.token},
		"token_file":         {"THAW_AUTH_METHOD=token_file", "THAW_TOKEN_FILE=" + file(t, "token", o.token)},
		"unset, VAULT_TOKEN": {"VAULT_TOKEN=" + o.token},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, nil, append(env, "VLE_VAULT_ADDR="+o.count.Addr())...)
			p.get(o.data("a")).is("1")
			p.get(o.data("a")).is("1").hit()
		})
	}
}

func TestTHAW_AUTH_METHOD_NoneLeavesTokensToCallers(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	for _, env := range [][]string{{"THAW_AUTH_METHOD=none", "VAULT_TOKEN=" + o.token}, {}} {
		p := o.startWith(env...)
		p.get(o.data("a")).status(http.StatusForbidden)
		p.as(o.token, o.data("a")).is("1")
		p.as(o.token, o.data("a")).is("1").hit()
		p.get(o.data("a")).status(http.StatusForbidden) // a hit of somebody's is nobody's
		if n := o.logins(); n != 0 {
			t.Errorf("%d logins", n)
		}
	}
}

func TestTHAW_AUTH_METHOD_UnsetInLambda(t *testing.T) {
	t.Parallel()
	t.Run("a role means aws", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		a := awsOn(o, sts.Options{}, nil)
		f := lambda(t, lambdaapi.Function{}, nil, a.env("THAW_AUTH_METHOD=")...)
		f.invoke(func() { f.get(o.data("a")).is("1") })
		if n := a.Served("GetCallerIdentity"); n != 1 {
			t.Errorf("STS was asked %d times", n)
		}
	})
	t.Run("nothing means none, with one WARN", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		f := lambda(t, lambdaapi.Function{}, nil, "VLE_VAULT_ADDR="+o.count.Addr())
		f.invoke(func() {
			f.as(o.token, o.data("a")).is("1")
			f.get(o.data("a")).status(http.StatusForbidden)
			f.logs.await(t, `"msg":"Vault refuses `, nil) // before all is frozen
		})
		if n := f.logs.lines(`"level":"WARN","msg":"no login is configured`); n != 1 {
			t.Errorf("%d WARN lines", n)
		}
		if n := f.logs.lines(`"level":"WARN"`); n != 2 { // and one for the read that was refused
			t.Errorf("%d WARN lines in all", n)
		}
		contains(t, f.logs.String(), "VAULT_AUTH_ROLE")
	})
}

// A token with less than the grace period left is replaced while it still
// works: no read is ever refused for it.
func TestVAULT_TOKEN_EXPIRY_GRACE_PERIOD_LogsInBeforeTheTokenEnds(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	const ttl, grace = 8 * time.Second, 4 * time.Second
	p := o.startWith(append(o.approleEnv(harness.RoleSpec{TTL: ttl, MaxTTL: ttl, Batch: true}), "VAULT_TOKEN_EXPIRY_GRACE_PERIOD=4")...)
	harness.Eventually(t, patience, "a second login", func() bool {
		p.get(o.data("a"), "Cache-Control", "no-cache").is("1")
		return o.logins() == 2
	})
	var at []time.Time
	for _, r := range o.count.Requests() {
		if r.Method == http.MethodPost {
			at = append(at, r.At)
		}
		if r.Status == http.StatusForbidden {
			t.Errorf("%s %s was refused", r.Method, r.Path)
		}
	}
	if len(at) != 2 {
		t.Fatalf("%d logins", len(at))
	}
	if d := at[1].Sub(at[0]); d < ttl-grace-time.Second || d > ttl {
		t.Errorf("%v between the logins, with a TTL of %v and %v of grace", d, ttl, grace)
	}
}

func TestVAULT_TOKEN_EXPIRY_GRACE_PERIOD_ServiceTokensAreRenewedFromTwoThirdsOfTheirLife(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	const ttl = 10 * time.Second
	p := o.startWith(append(o.approleEnv(harness.RoleSpec{TTL: ttl, MaxTTL: time.Hour}),
		"VAULT_TOKEN_EXPIRY_GRACE_PERIOD=0", "THAW_RECHECK=100ms")...)
	began := time.Now()
	harness.Eventually(t, patience, "a renewal", func() bool {
		p.get(o.data("a")).is("1")
		return o.count.Count("", "/v1/auth/token/renew-self") > 0
	})
	if d := time.Since(began); d < ttl*6/10 {
		t.Errorf("renewed after %v of %v", d, ttl)
	}
	if n := o.logins(); n != 1 {
		t.Errorf("%d logins", n)
	}
	// It lasts longer than it would have.
	harness.Pause(t.Context(), ttl*3/10)
	p.get(o.data("a"), "Cache-Control", "no-cache").is("1")
	if n := o.logins(); n != 1 {
		t.Errorf("%d logins after the renewal", n)
	}
}

func TestX_Vault_Token_Options_RevokeLogsInAgainBeforeTheRequest(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.startWith(o.approleEnv(harness.RoleSpec{})...)
	p.get(o.data("a")).is("1")
	before := p.whoami().field("data", "creation_time")
	harness.Pause(t.Context(), 1100*time.Millisecond) // Vault counts whole seconds, and logins are a second apart
	p.get(o.data("a"), "X-Vault-Token-Options", " Revoke ").is("1")
	if n := o.logins(); n != 2 {
		t.Errorf("%d logins", n)
	}
	if after := p.whoami().field("data", "creation_time"); after == before {
		t.Errorf("the token is still the one of %v", before)
	}
	// Not for a caller with a token of its own, and never sent to Vault.
	p.as(o.token, o.data("a"), "X-Vault-Token-Options", "revoke").is("1")
	if n := o.logins(); n != 2 {
		t.Errorf("%d logins after a caller's own", n)
	}
	for _, r := range o.count.Requests() {
		if len(r.Header["X-Vault-Token-Options"]) != 0 {
			t.Errorf("%s %s carries X-Vault-Token-Options", r.Method, r.Path)
		}
	}
}
