package config_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// loadAzure is load for thaw-azure.
func loadAzure(file string, environ ...string) (config.Config, []config.Warning, error) {
	src := config.Source{Environ: environ, Azure: config.ForAzure(), ReadFile: func(string) ([]byte, error) { return []byte(file), nil }}
	if file != "" {
		src.ConfigFile = "/thaw.hcl"
	}
	return config.Load(src)
}

// identity is what the platform gives an app that has a managed identity.
func identity(more ...string) []string {
	return append([]string{addr, "IDENTITY_ENDPOINT=http://127.0.0.1:1/msi/token", "IDENTITY_HEADER=h"}, more...)
}

const resourceID = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-1/providers/Microsoft.Web/sites/app"

// azureVariables are the settings of thaw-azure.
func azureVariables() map[string]variable {
	type cfg = config.Config
	wrapped := "https://v.vault.azure.net/keys/thaw/0123abcd#AQID"
	line := []string{"a\x01b", "a\nb", strings.Repeat("x", 5000), "\xff"}
	all := map[string]variable{
		"THAW_AZURE_RESOURCE":    {good: "api://thaw", got: func(c cfg) any { return c.Auth.AzureResource }, want: "api://thaw", bad: line},
		"THAW_AZURE_CLIENT_ID":   {good: "1-2", got: func(c cfg) any { return c.Auth.AzureClientID }, want: "1-2", bad: line},
		"THAW_AZURE_RESOURCE_ID": {good: resourceID, got: func(c cfg) any { return c.Auth.AzureSubscription + " " + c.Auth.AzureGroup }, want: "11111111-2222-3333-4444-555555555555 rg-1", bad: []string{"app", "/subscriptions/a/resourceGroups/b", strings.Replace(resourceID, "app", "..", 1), strings.Replace(resourceID, "rg-1", "", 1), "x" + resourceID, strings.Replace(resourceID, "providers", "provider", 1)}},
		"THAW_CACHE_KEY_KEYVAULT": {good: wrapped + ", https://V2.Vault.Azure.net/keys/k/v#BAUG", also: identity("CACHE_ENABLE=true", "THAW_MEMCACHED=m")[1:], got: func(c cfg) any { return c.CacheKeyVault },
			want: []config.WrappedKey{{Key: "https://v.vault.azure.net/keys/thaw/0123abcd", Wrapped: []byte{1, 2, 3}}, {Key: "https://V2.Vault.Azure.net/keys/k/v", Wrapped: []byte{4, 5, 6}}},
			bad: []string{"AQID", "https://v.vault.azure.net/keys/thaw/1", "https://v.vault.azure.net/keys/thaw/1#", "https://v.vault.azure.net/keys/thaw#AQID", "https://v.vault.azure.net/secrets/thaw/1#AQID", "http://v.vault.azure.net/keys/k/1#AQID", "https://vault.azure.net/keys/k/1#AQID",
				"https://evil.example/keys/k/1#AQID", "https://v.vault.azure.net.evil.example/keys/k/1#AQID", "https://a.v.vault.azure.net/keys/k/1#AQID", "https://u@v.vault.azure.net/keys/k/1#AQID", "https://v.vault.azure.net:1/keys/k/1#AQID", wrapped + "," + wrapped, wrapped + ",", strings.Replace(wrapped, "AQID", strings.Repeat("AQID", 300), 1), "https://v.vault.azure.net/keys/../k/1#AQID"}},
		"THAW_AZURE_PLAN":    {good: "Premium", got: func(c cfg) any { return c.Platform.Azure.Plan }, want: config.PlanPremium, bad: []string{"x", "premiun"}},
		"THAW_WARM_FUNCTION": {good: "warm-2_x", got: func(c cfg) any { return c.Warm.Function }, want: "warm-2_x", bad: []string{"1x", "a/b", "a b", "-a", "é", strings.Repeat("x", 200)}},

		"FUNCTIONS_CUSTOMHANDLER_PORT": {good: "4711", got: func(c cfg) any { return c.Platform.Azure.Port }, want: 4711, bad: []string{"x", "65536", "-1"}},
		"FUNCTIONS_HTTPWORKER_PORT":    {good: "4711", got: func(c cfg) any { return c.Platform.Azure.Port }, want: 4711, bad: []string{"x", "65536", "-1"}},
		"FUNCTIONS_APP_ROOT_PATH":      {good: "/home", got: func(c cfg) any { return c.Platform.Azure.AppRoot }, want: "/home", bad: line},
		"IDENTITY_ENDPOINT":            {good: "http://h/x", got: func(c cfg) any { return c.Platform.Azure.IdentityEndpoint }, want: "http://h/x", bad: line},
		"IDENTITY_HEADER":              {good: "k", got: func(c cfg) any { return c.Platform.Azure.IdentityHeader }, want: config.Secret("k"), bad: []string{"a\nb"}},
		"WEBSITE_OWNER_NAME":           {good: "s+g", got: func(c cfg) any { return c.Platform.Azure.Owner }, want: "s+g", bad: line},
		"WEBSITE_RESOURCE_GROUP":       {good: "g", got: func(c cfg) any { return c.Platform.Azure.Group }, want: "g", bad: line},
		"WEBSITE_SITE_NAME":            {good: "app", got: func(c cfg) any { return c.Platform.FunctionName }, want: "app", bad: line},
		"WEBSITE_SKU":                  {good: "FlexConsumption", got: func(c cfg) any { return c.Platform.Azure.Plan }, want: config.PlanFlex, bad: line},
		"MANAGED_ENVIRONMENT":          {good: "true", got: func(c cfg) any { return c.Platform.Azure.Plan }, want: config.PlanContainer, bad: line},

		"AzureFunctionsJobHost__functionTimeout": {good: "00:05:00", got: func(c cfg) any { return c.Platform.Azure.FunctionTimeout }, want: "00:05:00", bad: line},
	}
	for name, v := range all {
		v.azure = true
		all[name] = v
	}
	return all
}

func TestTheAppsResourceIDIsMadeOfWhatThePlatformSays(t *testing.T) {
	t.Parallel()
	platform := []string{"WEBSITE_OWNER_NAME=11111111-2222-3333-4444-555555555555+rg-plan-WestEuropewebspace-Linux", "WEBSITE_RESOURCE_GROUP=rg-1", "WEBSITE_SITE_NAME=app"}
	c, _, err := loadAzure("", identity(append(platform, "VAULT_AUTH_ROLE=r", "THAW_AZURE_RESOURCE=api://thaw")...)...)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Auth{Method: config.AuthAzure, Mount: "azure", Role: "r", KeepSecret: true, ExpiryGrace: c.Auth.ExpiryGrace, AzureResource: "api://thaw",
		AzureResourceID: resourceID, AzureSubscription: "11111111-2222-3333-4444-555555555555", AzureGroup: "rg-1"}
	if !reflect.DeepEqual(c.Auth, want) {
		t.Errorf("got  %+v\nwant %+v", c.Auth, want)
	}
	if c.Platform.Azure.Plan != config.PlanConsumption || !c.Platform.Azure.Plan.Freezes() {
		t.Error("a plan that cannot be told may freeze")
	}
	for i := range platform { // any of them missing: no id, and no error
		c, _, err := loadAzure("", identity(append(append([]string(nil), platform[:i]...), platform[i+1:]...)...)...)
		if err != nil || c.Auth.AzureResourceID != "" {
			t.Error(c.Auth.AzureResourceID, err)
		}
	}
}

func TestPlansByTheirSKU(t *testing.T) {
	t.Parallel()
	for sku, want := range map[string]config.AzurePlan{
		"Dynamic": config.PlanConsumption, "FlexConsumption": config.PlanFlex, "ElasticPremium": config.PlanPremium, "PremiumV2": config.PlanDedicated, "Standard": config.PlanDedicated,
	} {
		c, _, err := loadAzure("", addr, "WEBSITE_SKU="+sku)
		if err != nil || c.Platform.Azure.Plan != want {
			t.Errorf("%s: %s %v", sku, c.Platform.Azure.Plan, err)
		}
	}
}

func TestLoginsWithAManagedIdentityNameWhatTheyLack(t *testing.T) {
	t.Parallel()
	none := []string{addr}
	for _, tt := range []struct {
		environ []string
		name    string
		words   []string
	}{
		{identity("VAULT_AUTH_ROLE=r"), "VAULT_AUTH_ROLE", []string{"THAW_AZURE_RESOURCE", "what the managed identity's token is for"}},
		{identity("VAULT_AUTH_ROLE=my-app"), "VAULT_AUTH_ROLE", []string{`VAULT_AUTH_ROLE="my-app": `}},
		{identity("THAW_AUTH_METHOD=azure", "THAW_AZURE_RESOURCE=x"), "THAW_AUTH_METHOD", []string{"VAULT_AUTH_ROLE"}},
		{append(none, "THAW_AUTH_METHOD=jwt", "THAW_AZURE_RESOURCE=x"), "THAW_AUTH_METHOD", []string{"no managed identity", "system-assigned", "THAW_AZURE_CLIENT_ID"}},
		{identity("THAW_AUTH_METHOD=jwt"), "THAW_AUTH_METHOD", []string{"THAW_JWT_FILE"}},
		{append(none, "THAW_CACHE_KEY_KEYVAULT=https://v.vault.azure.net/keys/k/1#AQID"), "THAW_CACHE_KEY_KEYVAULT", []string{"managed identity", "system-assigned"}},
		{append(none, "THAW_DUMP=https://a.blob.core.windows.net/c/b"), "THAW_DUMP", nil},
		{identity("CACHE_ENABLE=true", "THAW_MEMCACHED=m", "THAW_CACHE_KEY_KEYVAULT=https://v.vault.azure.net/keys/k/1#AQID", "THAW_CACHE_KEY="+cacheKey('k')), "THAW_CACHE_KEY_KEYVAULT", []string{"contradicts THAW_CACHE_KEY"}},
	} {
		_, _, err := loadAzure("", tt.environ...)
		t.Run(strings.Join(tt.environ[1:], " "), func(t *testing.T) { wantOne(t, err, tt.name, tt.words...) })
	}
	if c, _, err := loadAzure("", identity("THAW_AUTH_METHOD=jwt", "THAW_AZURE_RESOURCE=x", "THAW_DUMP=https://a.blob.core.windows.net/c/b/d")...); err != nil || c.Warm.Dump == "" {
		t.Error(err)
	}
	for _, dump := range []string{"https://a.blob.core.windows.net/c", "https://a.blob.core.windows.net/c/", "https://evil.example/c/b", "https://a.blob.core.windows.net/c/b?sig=x", "https://a.blob.core.windows.net/c/../b"} {
		_, _, err := loadAzure("", identity("THAW_DUMP="+dump)...)
		wantOne(t, err, "THAW_DUMP", "https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
	}
}

func TestOtherProgramsRefuseWhatIsForAzure(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"THAW_AZURE_RESOURCE=x", "THAW_CACHE_KEY_KEYVAULT=https://v.vault.azure.net/keys/k/1#AQID", "THAW_AZURE_PLAN=flex", "THAW_WARM_FUNCTION=x", "THAW_AZURE_CLIENT_ID=x", "THAW_AZURE_RESOURCE_ID=x"} {
		_, _, err := load("", addr, v)
		name, _, _ := strings.Cut(v, "=")
		wantOne(t, err, name, "thaw-azure")
	}
	// What the platform sets is nobody's mistake, nor is nonsense in it.
	c, _, err := load("", addr, "FUNCTIONS_CUSTOMHANDLER_PORT=x", "WEBSITE_SITE_NAME=app", "IDENTITY_ENDPOINT=\x01")
	if err != nil || c.Platform.Azure != (config.Azure{}) {
		t.Error(c.Platform.Azure, err)
	}
	_, _, err = load("", addr, "THAW_DUMP=https://a.blob.core.windows.net/c/b")
	wantOne(t, err, "THAW_DUMP", "thaw-azure")
}

func TestTheFilesAzureMethodIsReadAsVaultProxys(t *testing.T) {
	t.Parallel()
	file := `vault { address = "https://v" }
auto_auth { method "azure" { mount_path = "auth/az" config = { role = "r" resource = "api://thaw" client_id = "c" authenticate_from_environment = true } } }`
	c, w, err := loadAzure(file, identity()[1:]...)
	if err != nil || c.Auth.Method != config.AuthAzure || c.Auth.Mount != "az" || c.Auth.Role != "r" || c.Auth.AzureResource != "api://thaw" || c.Auth.AzureClientID != "c" || len(w) != 1 {
		t.Error(c.Auth, w, err)
	}
	_, _, err = loadAzure(strings.Replace(file, "client_id", "object_id", 1), identity()[1:]...)
	wantOne(t, err, "auto_auth.method.config.object_id", "client_id")
}

// TestMessagesSpeakOfAzureInThawAzure: of its networks and hosts, and of the
// variable that the user wrote.
func TestMessagesSpeakOfAzureInThawAzure(t *testing.T) {
	t.Parallel()
	app, _, err := loadAzure("", "VLE_VAULT_ADDR=https://v")
	if err != nil {
		t.Fatal(err)
	}
	function, _, err := load("", "VAULT_ADDR=https://v")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"in a VPC, check the security group and the route or NAT to VAULT_ADDR": "in a virtual network, check the network security group and the route or NAT to VLE_VAULT_ADDR",
		"check the security groups":                                           "check the network security groups",
		"the VPC's endpoint for the key service":                              "the virtual network's private endpoint for the key service",
		"synchronise by NTP (Lambda's hosts do)":                              "synchronise by NTP (Azure's hosts do)",
		"correct the file; in Lambda files come with the function or a layer": "correct the file; files come with the app",
	} {
		if got := app.Named(text); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if got := function.Named(text); got != text {
			t.Errorf("elsewhere: %s", got)
		}
	}
}
