package ship

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// outputs applies a module that needs no provider.
func outputs(t *testing.T, module string, variables map[string]any) map[string]string {
	t.Helper()
	bin, dir := tool(t, "terraform"), t.TempDir()
	copyTree(t, filepath.Join(root(t), "terraform", filepath.FromSlash(module)), dir)
	b, err := json.Marshal(variables)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "terraform.tfvars.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"TF_CLI_CONFIG_FILE=" + os.DevNull, "TF_IN_AUTOMATION=1", "TF_INPUT=0", "NO_COLOR=1", "CHECKPOINT_DISABLE=1"}
	must(t, dir, env, bin, "init", "-backend=false")
	must(t, dir, env, bin, "apply", "-auto-approve")
	var values map[string]struct{ Value json.RawMessage }
	if err := json.Unmarshal([]byte(must(t, dir, env, bin, "output", "-json")), &values); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, v := range values {
		out[name] = string(v.Value)
	}
	return out
}

// text reads an output that is a string.
func text(t *testing.T, v string) (s string) {
	t.Helper()
	if err := json.Unmarshal([]byte(v), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestVaultsPoliciesAllowWhatThawAsksAndNoMore writes the module's policies into a
// real Vault and asks it what tokens with them may do.
func TestVaultsPoliciesAllowWhatThawAsksAndNoMore(t *testing.T) {
	t.Parallel()
	function := text(t, outputs(t, "vault/modules/policies", map[string]any{
		"secrets": []any{map[string]any{"mount": "secret", "paths": []string{"app", "team/"}}, map[string]any{"mount": "kv/", "version": 1, "paths": []string{"one"}}},
	})["policy"])
	warmup := text(t, outputs(t, "vault/modules/policies", map[string]any{
		"secrets": []any{map[string]any{"mount": "secret", "paths": []string{""}}, map[string]any{"mount": "kv", "version": 1, "paths": []string{""}}}, "list": true,
	})["policy"])
	hearing := text(t, outputs(t, "vault/modules/policies", map[string]any{
		"secrets": []any{map[string]any{"mount": "secret", "paths": []string{"app", "team/"}}, map[string]any{"mount": "kv/", "version": 1, "paths": []string{"one"}}}, "events": true,
	})["policy"])
	v := harness.Raft(t)
	for name, want := range map[string]struct {
		policy  string
		allowed []string
		denied  []string
		hears   []string // paths; of which else, nothing
	}{
		"function": {
			function,
			[]string{"GET secret/data/app", "GET secret/data/team/db", "GET secret/subkeys/app", "GET kv/one", "GET auth/token/lookup-self", "POST sys/capabilities-self", "GET sys/internal/ui/mounts/secret/app"},
			[]string{"GET secret/data/other", "GET secret/data/apple", "LIST secret/metadata/team", "GET secret/metadata/app", "POST secret/data/app", "GET kv/other", "GET sys/policies/acl/default", "GET sys/mounts"},
			nil,
		},
		"hearing": {
			hearing,
			[]string{"GET secret/data/app", "GET secret/data/team/db", "GET secret/subkeys/app", "GET kv/one", "POST sys/capabilities-self"},
			[]string{"GET secret/data/other", "GET secret/metadata/app", "POST secret/data/app", "PUT secret/delete/app", "PUT secret/undelete/app", "PUT secret/destroy/app", "DELETE secret/metadata/app", "POST kv/one", "GET kv/other", "LIST secret/metadata", "GET sys/mounts"},
			slices.Concat(cache.Kinds("secret", "app"), cache.Kinds("secret", "team/db"), []string{"kv/one"}),
		},
		"warmup": {
			warmup,
			[]string{"GET secret/data/other", "LIST secret/metadata", "LIST secret/metadata/team", "LIST kv", "GET kv/one", "POST sys/capabilities-self", "POST auth/token/renew-self"},
			[]string{"POST secret/data/app", "DELETE secret/metadata/app", "POST kv/one", "GET sys/policies/acl/default", "GET sys/mounts", "GET sys/events/subscribe/kv*"},
			nil,
		},
	} {
		if status, body := vaultCall(t, v, v.RootToken(), "PUT sys/policies/acl/"+name, map[string]string{"policy": want.policy}); status >= 300 {
			t.Fatalf("policy %s: %d %s\n%s", name, status, body, want.policy)
		}
		status, body := vaultCall(t, v, v.RootToken(), "POST auth/token/create", map[string]any{"policies": []string{name}, "no_default_policy": true, "type": "service"})
		var login struct {
			Auth struct {
				ClientToken string `json:"client_token"`
			}
		}
		if err := json.Unmarshal([]byte(body), &login); err != nil || status != http.StatusOK {
			t.Fatalf("token: %d %s", status, body)
		}
		for _, call := range append(want.allowed, want.denied...) {
			status, body := vaultCall(t, v, login.Auth.ClientToken, call, map[string]any{"paths": []string{"secret/data/app"}})
			denied := status == http.StatusForbidden
			expected := false
			for _, d := range want.denied {
				expected = expected || d == call
			}
			if denied != expected {
				t.Errorf("%s: %s is answered %d, denied wanted: %v\n%s", name, call, status, expected, body)
			}
		}
		// Community Vault has no events, and says all the same who may hear of them.
		asked := append(slices.Concat(cache.Kinds("secret", "app"), cache.Kinds("secret", "team/db"), cache.Kinds("secret", "other")), "kv/one", "kv/other")
		_, body = vaultCall(t, v, login.Auth.ClientToken, "POST sys/capabilities-self", map[string]any{"paths": append(asked, "sys/events/subscribe/kv*")})
		var held struct {
			Data map[string][]string `json:"data"`
		}
		if err := json.Unmarshal([]byte(body), &held); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		for _, p := range asked {
			if hears := slices.Contains(held.Data[p], "subscribe"); hears != slices.Contains(want.hears, p) {
				t.Errorf("%s: hears of %s: %v", name, p, hears)
			}
		}
		if may := slices.Contains(held.Data["sys/events/subscribe/kv*"], "read"); may != (want.hears != nil) {
			t.Errorf("%s: may subscribe: %v", name, may)
		}
	}
}

// TestOpenBaosPoliciesAllowTheListsThatSpareReads writes the module's policies for OpenBao
// into its stand-in.
func TestOpenBaosPoliciesAllowTheListsThatSpareReads(t *testing.T) {
	t.Parallel()
	secrets := []any{map[string]any{"mount": "secret", "paths": []string{"app", "team/"}}}
	bao := httptest.NewServer(standin.New(standin.Options{OpenBao: true}))
	defer bao.Close()
	for name, want := range map[string]struct {
		list            bool
		allowed, denied []string
	}{
		"function": {false, []string{"GET secret/data/app", "LIST secret/detailed-metadata/team/"},
			[]string{"LIST secret/detailed-metadata/", "SCAN secret/detailed-metadata/team/", "LIST secret/metadata/team/", "SCAN secret/metadata/team/"}},
		"warmup": {true, []string{"GET secret/data/team/a", "LIST secret/detailed-metadata/team/", "SCAN secret/detailed-metadata/team/", "LIST secret/metadata/team/", "SCAN secret/metadata/team/"},
			[]string{"LIST secret/detailed-metadata/", "SCAN secret/detailed-metadata/", "SCAN secret/metadata/"}},
	} {
		policy := text(t, outputs(t, "vault/modules/policies", map[string]any{"secrets": secrets, "list": want.list, "openbao": true})["policy"])
		if status, body := callAt(t, bao.URL, "root", "PUT sys/policies/acl/"+name, map[string]string{"policy": policy}); status >= 300 {
			t.Fatalf("policy %s: %d %s\n%s", name, status, body, policy)
		}
		if status, body := callAt(t, bao.URL, "root", "POST auth/token/create", map[string]any{"id": name, "policies": []string{name}, "no_default_policy": true}); status >= 300 {
			t.Fatalf("token: %d %s", status, body)
		}
		for _, call := range want.allowed {
			if status, body := callAt(t, bao.URL, name, call, nil); status == http.StatusForbidden {
				t.Errorf("%s: %s is refused: %s", name, call, body)
			}
		}
		for _, call := range want.denied {
			if status, body := callAt(t, bao.URL, name, call, nil); status != http.StatusForbidden {
				t.Errorf("%s: %s is answered %d: %s", name, call, status, body)
			}
		}
	}
}

// vaultCall sends "METHOD path" to Vault.
func vaultCall(t *testing.T, v *harness.Vault, token, call string, send any) (int, string) {
	t.Helper()
	return callAt(t, v.Addr(), token, call, send)
}

// callAt sends "METHOD path" to the origin at an address.
func callAt(t *testing.T, addr, token, call string, send any) (int, string) {
	t.Helper()
	method, path, _ := strings.Cut(call, " ")
	b, err := json.Marshal(send)
	if err != nil {
		t.Fatal(err)
	}
	if send == nil || method == "GET" || method == "LIST" || method == "DELETE" {
		b = nil
	}
	req, err := http.NewRequestWithContext(t.Context(), method, addr+"/v1/"+path, strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// azureDefaults are the values of the module's variables where nothing is said.
func azureDefaults() map[string]any {
	return map[string]any{
		"vault_addr": "https://vault.example.com:8200", "vault_namespace": nil, "vault_cacert": nil, "auth_method": "azure", "vault_auth_provider": nil,
		"vault_auth_role": "shop", "azure_resource": "https://management.azure.com/", "client_id": "11111111-2222-3333-4444-555555555555", "plan": "flex", "log_level": "INFO",
		"max_age": "10s", "stale_if_error": "24h", "cache_enable": false, "cache_ttl": 60, "memcached": nil, "memcached_timeout": "20ms", "memcached_cacert": nil, "memcached_tls_server_name": nil, "memcached_client_cert": nil, "memcached_client_key": nil, "cache_key": nil, "cache_key_keyvault": nil,
		"audience": "thaw", "clock_skew": "1s", "no_share_paths": []string{}, "proactive_cache_enable": false, "new_proactive_cache_enable": true, "proactive_cache_workers": 3,
		"proactive_cache_minimum_fetching_time": 5, "proactive_cache_dump_interval": nil, "dump": nil, "warm_paths": []string{"secret/"}, "warm_audiences": nil,
		"warm_for": 0, "warm_confirmed_only": false, "warm_function": "ThawWarmup",
	}
}

// TestAzuresAppSettingsAreTakenWithoutAWarning has thaw read what the module
// makes of its variables.
func TestAzuresAppSettingsAreTakenWithoutAWarning(t *testing.T) {
	t.Parallel()
	const wrapped = "https://thaw.vault.azure.net/keys/thaw-cache/0123456789abcdef0123456789abcdef#QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
	reached := map[string]bool{}
	for name, c := range map[string]struct {
		change map[string]any
		cache  bool
	}{
		"defaults":   {nil, false},
		"no key yet": {map[string]any{"cache_enable": true, "memcached": "10.0.0.4:11211", "proactive_cache_enable": true}, false},
		"legacy": {map[string]any{
			"plan": "premium", "vault_namespace": "team", "vault_auth_provider": "azure-eu", "cache_enable": true, "memcached": "10.0.0.4:11211", "cache_key_keyvault": wrapped, "no_share_paths": []string{"secret/data/root/*"},
			"proactive_cache_enable": true, "new_proactive_cache_enable": false, "proactive_cache_dump_interval": 15, "dump": "https://shop.blob.core.windows.net/thaw/dump",
		}, true},
		"a plain key": {map[string]any{"cache_enable": true, "memcached": "tls://cache.example.com", "memcached_cacert": "/home/site/wwwroot/ca.pem", "memcached_tls_server_name": "cache", "memcached_client_cert": "/home/c.pem", "memcached_client_key": "/home/k.pem", "cache_key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "proactive_cache_enable": true}, true},
		"audiences": {map[string]any{
			"cache_enable": true, "memcached": "10.0.0.4", "proactive_cache_enable": true,
			"warm_audiences": []any{map[string]any{"audience": "a", "namespace": "", "paths": []string{"kv/"}, "key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}},
		}, true},
	} {
		settings := azureDefaults()
		for k, v := range c.change {
			settings[k] = v
		}
		var env map[string]string
		if err := json.Unmarshal([]byte(outputs(t, "azure/modules/settings", map[string]any{"settings": settings})["app_settings"]), &env); err != nil {
			t.Fatal(err)
		}
		environ := []string{
			"FUNCTIONS_CUSTOMHANDLER_PORT=7071", "IDENTITY_ENDPOINT=http://127.0.0.1:42356/msi/token", "IDENTITY_HEADER=x",
			"WEBSITE_OWNER_NAME=00000000-0000-0000-0000-000000000000+x", "WEBSITE_RESOURCE_GROUP=g", "WEBSITE_SITE_NAME=s", "WEBSITE_SKU=FlexConsumption",
		}
		for k, v := range env {
			environ, reached[k] = append(environ, k+"="+v), true
		}
		cfg, warnings, err := config.Load(config.Source{Environ: environ, Azure: config.ForAzure()})
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v %v\n%v", name, err, warnings, env)
			continue
		}
		if cfg.CacheEnable != c.cache || cfg.Auth.Method != config.AuthAzure || cfg.Warm.Enable != c.cache {
			t.Errorf("%s: cache %v, warm-up %v, auth %v", name, cfg.CacheEnable, cfg.Warm.Enable, cfg.Auth.Method)
		}
	}
	for _, name := range tierSettings(t, "azure") {
		if !reached[name] {
			t.Errorf("%s does not reach the app", name)
		}
	}
}

// inputs are a module's variables, and the fields of those that are objects.
func inputs(t *testing.T, name string) map[string]bool {
	t.Helper()
	inputs := map[string]bool{}
	for _, b := range module(t, name).blocks {
		if b.kind != "variable" {
			continue
		}
		name := b.labels[0]
		inputs[name] = true
		if strings.HasPrefix(b.attrs["type"], "object(") {
			for _, m := range regexp.MustCompile(`(?m)^\s+(\w+)\s+= optional\(`).FindAllStringSubmatch(b.attrs["type"], -1) {
				inputs[name+"."+m[1]] = true
			}
		}
	}
	return inputs
}

// input is what a setting of the shared cache is called in a module.
func input(setting string) string {
	// Names that say more inside their object.
	special := map[string]string{
		"THAW_MEMCACHED": "memcached.nodes", "PROACTIVE_CACHE_ENABLE": "warmup", "NEW_PROACTIVE_CACHE_ENABLE": "warmup.recommended",
		"THAW_DUMP": "warmup.dump", "THAW_WARM_FOR": "warmup.run_for", "THAW_WARM_AUDIENCES": "warmup_audiences",
	}
	if s, ok := special[setting]; ok {
		return s
	}
	for prefix, object := range map[string]string{"THAW_MEMCACHED_": "memcached.", "PROACTIVE_CACHE_": "warmup.", "THAW_WARM_": "warmup."} {
		if field, ok := strings.CutPrefix(setting, prefix); ok {
			return object + strings.ToLower(field)
		}
	}
	return strings.Join(words(setting), "_")
}

// TestEverySettingOfTheTierIsAnInputOfTerraform: a variable, or a field of the
// objects memcached and warmup.
func TestEverySettingOfTheTierIsAnInputOfTerraform(t *testing.T) {
	t.Parallel()
	for name, platform := range map[string]string{"aws": "aws", "azure": "azure"} {
		inputs := inputs(t, name)
		for _, setting := range tierSettings(t, platform) {
			if !inputs[input(setting)] {
				t.Errorf("%s: the module for %s has no input %s", setting, name, input(setting))
			}
		}
	}
}

// TestVaultsOwnExemptPathsAreKept compares the list that replaces Vault's with
// a real Vault's, and has it take the new one.
func TestVaultsOwnExemptPathsAreKept(t *testing.T) {
	t.Parallel()
	_, rest, ok := strings.Cut(file(t, "terraform/vault/main.tf"), "rate_limit_exempt_paths = concat([")
	part, _, ok2 := strings.Cut(rest, "], var.exempt_paths)")
	if !ok || !ok2 {
		t.Fatal("terraform/vault/main.tf has no list of exempt paths")
	}
	var ours []string
	for line := range strings.Lines(part) {
		code, _, _ := strings.Cut(line, "#")
		for word := range strings.SplitSeq(code, ",") {
			if word = strings.Trim(strings.TrimSpace(word), `"`); word != "" {
				ours = append(ours, word)
			}
		}
	}
	v := harness.Dev(t)
	_, body := vaultCall(t, v, v.RootToken(), "GET sys/quotas/config", nil)
	var answer struct {
		Data struct {
			Paths []string `json:"rate_limit_exempt_paths"`
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Data.Paths) < 5 {
		t.Fatalf("%v: %s", err, body)
	}
	for _, p := range answer.Data.Paths {
		if !slices.Contains(ours, p) {
			t.Errorf("%s is exempt in Vault, and would not be any more", p)
		}
	}
	if !slices.Contains(ours, "sys/leader") {
		t.Error("sys/leader is not exempt")
	}
	if status, body := vaultCall(t, v, v.RootToken(), "POST sys/quotas/config", map[string]any{"rate_limit_exempt_paths": ours}); status != http.StatusNoContent {
		t.Errorf("Vault answers %d: %s", status, body)
	}
}
