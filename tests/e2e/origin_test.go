package e2e

import (
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// origin is a real Vault with integrated storage behind a counting proxy. The
// proxy's address is not the leader's own, as with a load balancer, so the
// extension must learn what it talks to before the cursor proves anything.
type origin struct {
	t       testing.TB
	vault   *harness.Vault
	counter *harness.Counter
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	v := harness.Raft(t)
	plant(v.RootToken(), v.UnsealKey())
	ctx := t.Context()
	must(t, v.PutPolicy(ctx, "app", `
path "secret/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "kv/*"     { capabilities = ["create", "read", "update", "delete", "list"] }
`))
	must(t, v.EnableAuth(ctx, "approle", "approle"))
	return &origin{t: t, vault: v, counter: counterFor(t, v)}
}

// counterFor puts a proxy of its own in front of the Vault.
func counterFor(t testing.TB, v *harness.Vault) *harness.Counter {
	t.Helper()
	return harness.Count(t, harness.CounterConfig{Origin: v.Addr()})
}

// at returns the settings for the origin's address without a login.
func (o *origin) at() settings { return settings{"VAULT_ADDR": o.counter.Addr()} }

// login returns the settings for a login of the extension's own.
func (o *origin) login(batch bool) settings {
	o.t.Helper()
	role := "service"
	if batch {
		role = "batch"
	}
	id, secretID, err := o.vault.AppRole(o.t.Context(), "approle", role, harness.RoleSpec{Policies: []string{"app"}, TTL: time.Hour, Batch: batch})
	must(o.t, err)
	plant(secretID)
	return o.at().with(settings{"THAW_AUTH_METHOD": "approle", "THAW_ROLE_ID": id, "THAW_SECRET_ID": secretID})
}

// token makes a caller's token.
func (o *origin) token(spec harness.TokenSpec) string {
	o.t.Helper()
	token, err := o.vault.CreateToken(o.t.Context(), spec)
	must(o.t, err)
	plant(token)
	return token
}

// put writes a new secret value at Vault and returns it.
func (o *origin) put(path string) string {
	o.t.Helper()
	v := secret()
	_, err := o.vault.Put(o.t.Context(), "secret", path, map[string]any{"password": v})
	must(o.t, err)
	return v
}

// putKV1 is put for the KV v1 mount.
func (o *origin) putKV1(path string) string {
	o.t.Helper()
	v := secret()
	must(o.t, o.vault.PutKV1(o.t.Context(), "kv", path, map[string]any{"password": v}))
	return v
}
