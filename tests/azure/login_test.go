package azure

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/azure"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/fakes/azureidentity"
	"github.com/thaw-project/thaw/tests/harness"
)

const (
	tenant       = "99999999-0000-1111-2222-333333333333"
	subscription = "11111111-2222-3333-4444-555555555555"
	audience     = "api://thaw"
)

// cloud is Azure with one app that has a system-assigned identity and a
// user-assigned one.
func cloud(t *testing.T) *azureidentity.Azure {
	t.Helper()
	a, err := azureidentity.New(azureidentity.Options{Tenant: tenant, Resources: []string{audience, "api://other"}, App: azureidentity.App{
		Subscription: subscription, Group: "rg-thaw", Name: "thaw-app",
		System: &azureidentity.Identity{ClientID: "aaaaaaaa-0000-0000-0000-000000000001", PrincipalID: "aaaaaaaa-0000-0000-0000-00000000000a"},
		Users:  []azureidentity.Identity{{ClientID: "bbbbbbbb-0000-0000-0000-000000000001", PrincipalID: "bbbbbbbb-0000-0000-0000-00000000000b"}},
	}})
	harness.Must(t, err)
	t.Cleanup(a.Close)
	return a
}

// trust is what makes a process meet the cloud instead of Azure.
func trust(t *testing.T, a *azureidentity.Azure) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	harness.Must(t, os.WriteFile(file, a.CA().PEM(), 0o600))
	return []string{"HTTPS_PROXY=" + a.Proxy(), "SSL_CERT_FILE=" + file}
}

// vaultWithAzure is a real Vault with its azure method at azure/ and the jwt
// method at jwt/, both for the cloud's tenant, and a secret.
func vaultWithAzure(t *testing.T, a *azureidentity.Azure) *harness.Vault {
	t.Helper()
	v, err := harness.StartRaft(t.Context(), harness.VaultConfig{Binary: harness.VaultBin(t), Env: trust(t, a)})
	harness.Must(t, err)
	t.Cleanup(v.Close)
	root := func(method, path string, body any) {
		t.Helper()
		if _, err := v.Root(t.Context(), method, path, body); err != nil {
			t.Fatal(err)
		}
	}
	root(http.MethodPost, "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	harness.Must(t, v.PutPolicy(t.Context(), "app", `path "secret/*" { capabilities = ["read", "list"] }`))
	harness.Must(t, v.EnableAuth(t.Context(), "azure", "azure"))
	root(http.MethodPost, "auth/azure/config", map[string]any{
		"tenant_id": tenant, "resource": audience, "client_id": "vault-app", "client_secret": "vault-secret",
	})
	roles := map[string]map[string]any{
		"app":       {"bound_service_principal_ids": []string{"*"}, "bound_resource_groups": []string{"rg-thaw"}},
		"loose":     {"bound_service_principal_ids": []string{"aaaaaaaa-0000-0000-0000-00000000000a", "bbbbbbbb-0000-0000-0000-00000000000b"}},
		"located":   {"bound_service_principal_ids": []string{"*"}, "bound_resource_groups": []string{"rg-thaw"}, "bound_locations": []string{"westeurope"}},
		"elsewhere": {"bound_service_principal_ids": []string{"*"}, "bound_resource_groups": []string{"rg-other"}},
		"foreign":   {"bound_service_principal_ids": []string{"*"}, "bound_subscription_ids": []string{"00000000-2222-3333-4444-555555555555"}},
		"principal": {"bound_service_principal_ids": []string{"cccccccc-0000-0000-0000-00000000000c"}},
	}
	for name, role := range roles {
		role["token_policies"], role["token_type"], role["token_ttl"] = []string{"app"}, "batch", "1h"
		root(http.MethodPost, "auth/azure/role/"+name, role)
	}
	harness.Must(t, v.EnableAuth(t.Context(), "jwt", "jwt"))
	// Entra's tokens for resources name another issuer than the discovery's
	// address, so the keys are given by their own one.
	root(http.MethodPost, "auth/jwt/config", map[string]any{
		"jwks_url": "https://login.microsoftonline.com/common/discovery/keys", "jwks_ca_pem": string(a.CA().PEM()), "bound_issuer": a.Issuer(),
	})
	root(http.MethodPost, "auth/jwt/role/app", map[string]any{
		"role_type": "jwt", "user_claim": "oid", "bound_audiences": []string{audience}, "token_policies": []string{"app"}, "token_type": "batch",
		"bound_subject": "aaaaaaaa-0000-0000-0000-00000000000a",
	})
	return v
}

// login logs in as thaw-azure does.
func login(ctx context.Context, a *azureidentity.Azure, v *harness.Vault, method config.Auth) (string, error) {
	cred, err := azure.NewCredential(azure.Options{Endpoint: a.Endpoint(), Header: a.Header(), ClientID: method.AzureClientID})
	if err != nil {
		return "", err
	}
	m, err := auth.New(auth.Options{Config: config.Config{Auth: method}, Login: auth.ManagedIdentity(cred), Origin: direct{v}, Timeout: 30 * time.Second})
	if err != nil {
		return "", err
	}
	defer m.Shutdown(ctx)
	return m.Token(ctx)
}

// direct sends to a Vault.
type direct struct{ v *harness.Vault }

func (d direct) Do(req *http.Request) (*http.Response, error) {
	r := req.Clone(req.Context())
	r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(d.v.Addr(), "http://")
	return http.DefaultTransport.RoundTrip(r)
}

func TestARealVaultTakesTheManagedIdentitysToken(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	v := vaultWithAzure(t, a)
	id := "/subscriptions/" + subscription + "/resourceGroups/rg-thaw/providers/Microsoft.Web/sites/thaw-app"
	ok := config.Auth{Method: config.AuthAzure, Mount: "azure", Role: "app", AzureResource: audience, AzureResourceID: id, AzureSubscription: subscription, AzureGroup: "rg-thaw"}
	for _, c := range []struct {
		name   string
		change func(*config.Auth)
		before func()
		want   []string // in the error; nil: accepted
	}{
		{name: "system-assigned, bound to its group"},
		{name: "user-assigned", change: func(c *config.Auth) { c.AzureClientID = "bbbbbbbb-0000-0000-0000-000000000001" }},
		{name: "without a resource id where the role asks for none", change: func(c *config.Auth) {
			c.Role, c.AzureResourceID, c.AzureSubscription, c.AzureGroup = "loose", "", "", ""
		}},
		{name: "jwt", change: func(c *config.Auth) { c.Method, c.Mount = config.AuthJWT, "jwt" }},

		{name: "another audience", change: func(c *config.Auth) { c.AzureResource = "api://other" }, want: []string{"THAW_AZURE_RESOURCE (api://other)", "the mount's resource"}},
		{name: "another audience at jwt", change: func(c *config.Auth) { c.Method, c.Mount, c.AzureResource = config.AuthJWT, "jwt", "api://other" }, want: []string{"THAW_AZURE_RESOURCE (api://other)", "bound_audiences"}},
		{name: "an audience that the tenant does not know", change: func(c *config.Auth) { c.AzureResource = "api://nobody" }, want: []string{"THAW_AZURE_RESOURCE (\"api://nobody\")", "400"}},
		{name: "an identity that the app does not have", change: func(c *config.Auth) { c.AzureClientID = "dddddddd" }, want: []string{"THAW_AZURE_CLIENT_ID (dddddddd)"}},
		{name: "an expired token", before: func() { a.SetLife(time.Hour, 2*time.Hour) }, want: []string{"expired", "clock"}},
		{name: "an expired token at jwt", before: func() { a.SetLife(time.Hour, 2*time.Hour) }, change: func(c *config.Auth) { c.Method, c.Mount = config.AuthJWT, "jwt" }, want: []string{"expired", "clock"}},
		{name: "another role", change: func(c *config.Auth) { c.Role = "nobody" }, want: []string{`VAULT_AUTH_ROLE: the mount has no role "nobody"`}},
		{name: "another role at jwt", change: func(c *config.Auth) { c.Method, c.Mount, c.Role = config.AuthJWT, "jwt", "nobody" }, want: []string{`VAULT_AUTH_ROLE: the mount has no role "nobody"`}},
		{name: "no resource id", change: func(c *config.Auth) { c.AzureResourceID, c.AzureSubscription, c.AzureGroup = "", "", "" }, want: []string{"THAW_AZURE_RESOURCE_ID", "bound_resource_groups"}},
		{name: "bound_locations", change: func(c *config.Auth) { c.Role = "located" }, want: []string{"bound_locations", "Remove"}},
		{name: "another group", change: func(c *config.Auth) { c.Role = "elsewhere" }, want: []string{"bound_resource_groups", "THAW_AZURE_RESOURCE_ID"}},
		{name: "another subscription", change: func(c *config.Auth) { c.Role = "foreign" }, want: []string{"bound_subscription_ids", "THAW_AZURE_RESOURCE_ID"}},
		{name: "another principal", change: func(c *config.Auth) { c.Role = "principal" }, want: []string{"bound_service_principal_ids", "THAW_AZURE_CLIENT_ID"}},
		{name: "another app's resource id", change: func(c *config.Auth) { c.AzureResourceID = strings.Replace(id, "thaw-app", "other-app", 1) }, want: []string{"THAW_AZURE_RESOURCE_ID", "other-app", "Microsoft.Web/sites/read"}},
		{name: "no mount", change: func(c *config.Auth) { c.Mount = "nowhere" }, want: []string{"VAULT_AUTH_PROVIDER", "nowhere"}},
	} {
		t.Run(c.name, func(t *testing.T) { // one after the other: they set the cloud's clock
			a.SetLife(24*time.Hour, 0)
			method := ok
			if c.change != nil {
				c.change(&method)
			}
			if c.before != nil {
				c.before()
			}
			token, err := login(t.Context(), a, v, method)
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				r, err := v.Do(t.Context(), harness.Call{Method: http.MethodGet, Path: "auth/token/lookup-self", Token: token})
				if err != nil || r.Status != http.StatusOK {
					t.Error(r, err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			t.Log(err)
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "eyJ") || strings.Contains(err.Error(), a.Header()) {
				t.Errorf("a token or the header: %v", err)
			}
		})
	}
	if f := a.Faults(); len(f) > 0 {
		t.Error(f)
	}
}
