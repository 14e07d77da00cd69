package compat

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// origin is a Vault as one test sees it.
type origin struct {
	*harness.Vault
	t     *testing.T
	count *harness.Counter // in front of it, this test's own
	kv    string           // a KV v2 mount of this test's own
	kv1   string           // a KV v1 mount of this test's own
	token string           // may do everything below both, and what the default policy allows
}

// unique is a name that nothing else on the shared server has.
func unique(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:10]) }

// shared is the shared server for one test.
func shared(t *testing.T) *origin {
	t.Helper()
	return originOn(t, suite.vault.Get(t), harness.CounterConfig{})
}

// alone is a dev server that only this test uses, to kill or reconfigure it.
func alone(t *testing.T) *origin {
	t.Helper()
	return originOn(t, harness.Dev(t), harness.CounterConfig{})
}

func originOn(t *testing.T, v *harness.Vault, cfg harness.CounterConfig) *origin {
	t.Helper()
	cfg.Origin = v.Addr()
	o := &origin{Vault: v, t: t, count: harness.Count(t, cfg), kv: unique("kv2"), kv1: unique("kv1")}
	harness.Must(t, v.EnableKV(t.Context(), o.kv, 2))
	harness.Must(t, v.EnableKV(t.Context(), o.kv1, 1))
	o.token = o.newToken(o.policy("all", o.all()))
	return o
}

// in is o for a subtest.
func (o *origin) in(t *testing.T) *origin {
	sub := *o
	sub.t = t
	return &sub
}

// all is a policy text that allows everything on the test's mounts.
func (o *origin) all() string {
	const any = ` { capabilities = ["create","read","update","patch","delete","list"] }` + "\n"
	return `path "` + o.kv + `/*"` + any + `path "` + o.kv1 + `/*"` + any
}

// reads is a policy text that allows to read one path.
func reads(path string) string { return `path "` + path + `" { capabilities = ["read"] }` + "\n" }

// policy writes a policy and returns its name.
func (o *origin) policy(prefix, hcl string) string {
	o.t.Helper()
	name := unique(prefix)
	harness.Must(o.t, o.PutPolicy(o.t.Context(), name, hcl))
	return name
}

// newToken is a service token with these policies and the default one.
func (o *origin) newToken(policies ...string) string {
	o.t.Helper()
	return o.makeToken(harness.TokenSpec{Policies: policies, TTL: time.Hour})
}

func (o *origin) makeToken(spec harness.TokenSpec) string {
	o.t.Helper()
	token, err := o.CreateToken(o.t.Context(), spec)
	harness.Must(o.t, err)
	return token
}

// put writes a KV v2 secret at Vault itself, with one field "v".
func (o *origin) put(name, value string) {
	o.t.Helper()
	_, err := o.Put(o.t.Context(), o.kv, name, map[string]any{"v": value})
	harness.Must(o.t, err)
}

// data is the API path of a KV v2 secret.
func (o *origin) data(name string) string { return o.kv + "/data/" + name }

// approle makes an approle mount with one role that may do everything on the
// test's mounts.
func (o *origin) approle(spec harness.RoleSpec) (mount, roleID, secretID string) {
	o.t.Helper()
	mount = unique("approle")
	harness.Must(o.t, o.EnableAuth(o.t.Context(), mount, "approle"))
	if spec.Policies == nil {
		spec.Policies = []string{o.policy("role", o.all())}
	}
	if spec.TTL == 0 {
		spec.TTL = time.Hour
	}
	roleID, secretID, err := o.AppRole(o.t.Context(), mount, "r", spec)
	harness.Must(o.t, err)
	return mount, roleID, secretID
}

// approleEnv is the environment of a login by approle.
func (o *origin) approleEnv(spec harness.RoleSpec) []string {
	o.t.Helper()
	mount, roleID, secretID := o.approle(spec)
	return []string{"THAW_AUTH_METHOD=approle", "VAULT_AUTH_PROVIDER=" + mount, "THAW_ROLE_ID=" + roleID, "THAW_SECRET_ID=" + secretID}
}

// logins is how many logins reached the origin.
func (o *origin) logins() int {
	n := 0
	for _, r := range o.count.Requests() {
		if strings.HasPrefix(r.Path, "/v1/auth/") && strings.HasSuffix(r.Path, "/login") {
			n++
		}
	}
	return n
}

// seen is how many reads of an API path reached the origin.
func (o *origin) seen(path string) int { return o.count.Count("GET", "/v1/"+path) }

// patience bounds waits for something that must come, on a busy machine.
const patience = 30 * time.Second
