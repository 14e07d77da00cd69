package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// site is a real Vault with integrated storage behind a counting proxy. The
// proxy's address is not the leader's own, as with a load balancer, so the
// extension must learn what it talks to before the cursor proves anything.
type site struct {
	t       testing.TB
	vault   *harness.Vault
	counter *harness.Counter
}

func newSite(t testing.TB) *site {
	t.Helper()
	return siteOf(t, harness.Raft(t))
}

// uncachedSite is a Vault with disable_cache: reads take no lock that a write
// of the same key holds, and meet what raft has applied by then
// (https://developer.hashicorp.com/vault/docs/configuration#disable_cache).
func uncachedSite(t testing.TB, extra string) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v, err := harness.StartRaft(ctx, harness.VaultConfig{Binary: harness.VaultBin(t), Extra: "disable_cache = true\n" + extra})
	harness.Must(t, err)
	t.Cleanup(v.Close)
	harness.Must(t, v.EnableKV(ctx, "secret", 2))
	harness.Must(t, v.EnableKV(ctx, "kv", 1))
	return siteOf(t, v)
}

func siteOf(t testing.TB, v *harness.Vault) *site {
	t.Helper()
	plant(v.RootToken(), v.UnsealKey())
	ctx := t.Context()
	harness.Must(t, v.PutPolicy(ctx, "app", `
path "secret/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "kv/*"     { capabilities = ["create", "read", "update", "delete", "list"] }
`))
	harness.Must(t, v.EnableAuth(ctx, "approle", "approle"))
	return &site{t: t, vault: v, counter: counterFor(t, v)}
}

// counterFor puts a proxy of its own in front of the Vault.
func counterFor(t testing.TB, v *harness.Vault) *harness.Counter {
	t.Helper()
	return harness.Count(t, harness.CounterConfig{Origin: v.Addr()})
}

// at returns the settings for the origin's address without a login.
func (o *site) at() harness.Settings { return harness.Settings{"VAULT_ADDR": o.counter.Addr()} }

// login returns the settings for a login of the extension's own.
func (o *site) login(batch bool) harness.Settings {
	o.t.Helper()
	role := "service"
	if batch {
		role = "batch"
	}
	id, secretID, err := o.vault.AppRole(o.t.Context(), "approle", role, harness.RoleSpec{Policies: []string{"app"}, TTL: time.Hour, Batch: batch})
	harness.Must(o.t, err)
	plant(secretID)
	return o.at().With(harness.Settings{"THAW_AUTH_METHOD": "approle", "THAW_ROLE_ID": id, "THAW_SECRET_ID": secretID})
}

// token makes a caller's token.
func (o *site) token(spec harness.TokenSpec) string {
	o.t.Helper()
	token, err := o.vault.CreateToken(o.t.Context(), spec)
	harness.Must(o.t, err)
	plant(token)
	return token
}

// put writes a new secret value at Vault and returns it.
func (o *site) put(path string) string {
	o.t.Helper()
	v := secret()
	_, err := o.vault.Put(o.t.Context(), "secret", path, map[string]any{"password": v})
	harness.Must(o.t, err)
	return v
}

// putKV1 is put for the KV v1 mount.
func (o *site) putKV1(path string) string {
	o.t.Helper()
	v := secret()
	harness.Must(o.t, o.vault.PutKV1(o.t.Context(), "kv", path, map[string]any{"password": v}))
	return v
}
