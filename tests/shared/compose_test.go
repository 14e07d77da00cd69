package shared

import (
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// composed is the environment of a service of the compose file.
func composed(t testing.TB, service string) harness.Settings {
	t.Helper()
	text, err := os.ReadFile("../../layer/compose.yaml")
	harness.Must(t, err)
	_, rest, ok := strings.Cut(string(text), "\n  "+service+":\n")
	if !ok {
		t.Fatalf("layer/compose.yaml has no service %s", service)
	}
	_, rest, _ = strings.Cut(rest, "    environment:\n")
	s := harness.Settings{}
	for line := range strings.Lines(rest) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !strings.HasPrefix(line, "      ") || !ok {
			break
		}
		s[name] = strings.Trim(value, `"`)
	}
	if s["VAULT_ADDR"] == "" {
		t.Fatalf("the service %s has no environment: %v", service, s)
	}
	return s
}

// TestTheComposeFilesProcessesWorkTogether without Docker: with the environment
// of the file, only its hosts replaced. One of two proxies warms, and what the
// one has warmed the other serves while Vault is away.
func TestTheComposeFilesProcessesWorkTogether(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	names := o.fill(5)
	env := composed(t, "thaw")
	if env["VAULT_ADDR"] != "http://vault:8200" || env["THAW_MEMCACHED"] != "memcached:11211" || !strings.HasPrefix(env["THAW_CACHE_KEY"], "${THAW_CACHE_KEY:?") {
		t.Fatalf("other hosts, or a key in the file: %v", env)
	}
	maps.Copy(env, harness.Settings{"VAULT_ADDR": o.counter.Addr(), "VAULT_TOKEN": o.vault.RootToken(), "THAW_MEMCACHED": o.cache.Addr(), "THAW_CACHE_KEY": cacheKey, "THAW_MEMCACHED_TIMEOUT": "2s"})
	delete(env, "THAW_LISTEN")
	first := serve(t, env)
	harness.Eventually(t, 30*time.Second, "the proxy warms", func() bool { return strings.Contains(first.log.String(), "pass is complete") })
	second := serve(t, env)
	harness.Eventually(t, 20*time.Second, "the second leaves it to the first", func() bool { return strings.Contains(second.log.String(), "another instance leads") })
	if strings.Contains(second.log.String(), "pass begins") {
		t.Error("both warm")
	}
	for _, name := range names { // a capability is born of a read
		if a := first.get(t.Context(), name); a.wrong(o.value(name)) != "" {
			t.Errorf("%s: %d %s", name, a.Status, a.wrong(o.value(name)))
		}
	}
	for _, name := range names {
		if a := second.get(t.Context(), name); a.wrong(o.value(name)) != "" || !strings.Contains(a.Header.Get("Cache-Status"), "hit") {
			t.Errorf("%s: %d %s %s", name, a.Status, a.Header.Get("Cache-Status"), a.wrong(o.value(name)))
		}
	}
	// The first goes, and the second takes over.
	first.close()
	harness.Eventually(t, 60*time.Second, "the second takes the lead", func() bool { return strings.Contains(second.log.String(), "nothing is due") })
}
