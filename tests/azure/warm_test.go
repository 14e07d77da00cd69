package azure

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/fakes/azurehost"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestTheWarmUpIsATimerFunctionOfTheSameApp: its key is unwrapped by Key Vault,
// its backup goes to Blob storage, its login is the managed identity's, and the
// user's handler in the same app reads what it warmed.
func TestTheWarmUpIsATimerFunctionOfTheSameApp(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	v := vaultWithAzure(t, a)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	const n = 40
	for i := range n {
		_, err := v.Put(t.Context(), "secret", fmt.Sprintf("app/%d", i), map[string]any{"v": fmt.Sprint("value-", i)})
		harness.Must(t, err)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	id, err := a.NewKey("thaw")
	harness.Must(t, err)
	wrapped, err := a.Wrap(id, key)
	harness.Must(t, err)
	counter := harness.Count(t, harness.CounterConfig{Origin: v.Addr()})
	settings := append(append(a.Environ(), trust(t, a)...), "VAULT_ADDR="+counter.Addr(), "VAULT_AUTH_ROLE=app", "THAW_AZURE_RESOURCE="+audience,
		"CACHE_ENABLE=true", "PROACTIVE_CACHE_ENABLE=true", "THAW_MEMCACHED="+m.Addr(), "THAW_MEMCACHED_TIMEOUT=2s", "THAW_CACHE_KEY_KEYVAULT="+id+"#"+wrapped, "THAW_AUDIENCE=prod",
		"THAW_WARM_PATHS=secret/", "THAW_WARM_FOR=2s", "THAW_MAX_AGE=30s", "PROACTIVE_CACHE_MINIMUM_FETCHING_TIME=0",
		"PROACTIVE_CACHE_DUMP_INTERVAL=60", "THAW_DUMP=https://thawtest.blob.core.windows.net/backups/thaw/prod")
	h := start(t, &app{mode: azurehost.Proxy, env: settings})
	ready(t, h)
	r, err := h.Timer(t.Context(), "ThawWarmup", "timer", false)
	harness.Must(t, err)
	if len(r.Logs) == 0 || !strings.HasPrefix(r.Logs[0], "outcome=complete pass=full fetched=40 changed=40 ") || !strings.HasSuffix(r.Logs[0], "past_due=false") {
		t.Fatalf("%q\n%s", r.Logs, h.Output())
	}
	_, rest, _ := strings.Cut(r.Logs[0], " seconds=")
	var took float64
	if _, err := fmt.Sscanf(rest, "%f", &took); err != nil || took < 2 {
		t.Errorf("the run took %v s, not THAW_WARM_FOR: %v", took, err)
	}
	// Late, and again after a restart: no harm, and nothing to do.
	r, err = h.Timer(t.Context(), "ThawWarmup", "timer", true)
	harness.Must(t, err)
	if !strings.Contains(r.Logs[0], "changed=0") || !strings.HasSuffix(r.Logs[0], "past_due=true") {
		t.Errorf("%q", r.Logs)
	}
	blob := a.Blob("/backups/thaw/prod")
	if !strings.HasPrefix(string(blob), "thaw-backup-1\n") || strings.Contains(string(blob), "value-7") {
		t.Errorf("a backup of %d bytes", len(blob))
	}
	// The user's handler reads: once for the app, which has a capability from then
	// on. Another instance of the app asks Vault for no secret.
	another := start(t, &app{mode: azurehost.Proxy, env: settings})
	ready(t, another)
	for i := range 2 * n {
		h := h
		if i >= n {
			h = another
		}
		if i == n {
			counter.Reset()
		}
		i %= n
		res, err := h.HTTP(t.Context(), "fn", httptest.NewRequest(http.MethodGet, fmt.Sprintf("https://app/read?path=secret/data/app/%d", i), nil))
		harness.Must(t, err)
		body, err := all(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), fmt.Sprintf(`"value-%d"`, i)) {
			t.Fatalf("%d %s %v\n%s", res.StatusCode, body, err, h.Output())
		}
	}
	for _, q := range counter.Requests() {
		if strings.HasPrefix(q.Path, "/v1/secret/data/") {
			t.Errorf("Vault was asked for %s", q.Path)
		}
	}
	if f := a.Faults(); len(f) > 0 {
		t.Error(f)
	}
	for _, secret := range []string{a.Header(), string(key), "eyJ0eXAi"} {
		if strings.Contains(h.Output(), secret) {
			t.Error("a secret in the log")
		}
	}
}

// TestAWarmUpThatCannotRunSaysSoInItsLogs: the host drops the lines of an
// invocation that fails, so it does not fail.
func TestAWarmUpThatCannotRunSaysSoInItsLogs(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	id, err := a.NewKey("thaw")
	harness.Must(t, err)
	lost, err := a.Wrap(id, make([]byte, 31))
	harness.Must(t, err)
	for _, c := range []struct {
		name string
		env  []string
		want []string
	}{
		{"not enabled", nobody(), []string{"outcome=failed", "PROACTIVE_CACHE_ENABLE=true", "THAW_MEMCACHED"}},
		{"a key that Key Vault cannot give", append(append(a.Environ(), trust(t, a)...), "VAULT_ADDR=http://127.0.0.1:1", "VAULT_AUTH_ROLE=app", "THAW_AZURE_RESOURCE="+audience, "CACHE_ENABLE=true", "PROACTIVE_CACHE_ENABLE=true",
			"THAW_MEMCACHED=127.0.0.1:1", "THAW_CACHE_KEY_KEYVAULT="+id+"#"+lost, "THAW_AUDIENCE=prod", "THAW_WARM_PATHS=secret/"), []string{"outcome=failed", "THAW_CACHE_KEY_KEYVAULT", "31 bytes and needs 32"}},
		{"no such key", append(append(a.Environ(), trust(t, a)...), "VAULT_ADDR=http://127.0.0.1:1", "VAULT_AUTH_ROLE=app", "THAW_AZURE_RESOURCE="+audience, "CACHE_ENABLE=true", "PROACTIVE_CACHE_ENABLE=true",
			"THAW_MEMCACHED=127.0.0.1:1", "THAW_CACHE_KEY_KEYVAULT="+id+"0#"+lost, "THAW_AUDIENCE=prod", "THAW_WARM_PATHS=secret/"), []string{"outcome=failed", "404 KeyNotFound", "no such key or version"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, &app{mode: azurehost.Envelope, env: append(c.env, "THAW_WARM_FUNCTION=Fill"), none: true})
			ready(t, h)
			r, err := h.Timer(t.Context(), "Fill", "t", false)
			harness.Must(t, err)
			for _, w := range c.want {
				if !strings.Contains(strings.Join(r.Logs, "\n"), w) {
					t.Errorf("no %q in %q", w, r.Logs)
				}
			}
			// Without a command there is no other function, and that is said.
			if _, err := h.Timer(t.Context(), "Other", "t", false); err == nil {
				t.Error("a function that is not here succeeds")
			}
			harness.Eventually(t, patience, "the log says why", func() bool { return strings.Contains(h.Output(), "no command to start") })
		})
	}
}
