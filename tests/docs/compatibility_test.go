package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// followed are the names that the five documents define for whoever follows them.
var followed = []string{
	// Static secret caching of Vault Proxy.
	"cache_static_secrets", "static_secret_token_capability_refresh_interval", "static_secret_token_capability_refresh_behavior", "sys/capabilities-self",
	"X-Cache", "Age", "sys/events/subscribe/kv*", "allow_forwarding_via_header", "sys/internal/ui/mounts", "use_auto_auth_token", "address", "tls_disable",
	"role_id_file_path", "secret_id_file_path", "remove_secret_id_file_after_reading",
	// Eventual consistency.
	"enforce_consistency", "when_inconsistent", "X-Vault-Index", "X-Vault-Inconsistent", "X-Vault-Forward", "best_effort_wal_wait_duration",
	// Proactive caching.
	"CACHE_ENABLE", "PROACTIVE_CACHE_ENABLE", "NEW_PROACTIVE_CACHE_ENABLE", "PROACTIVE_CACHE_WORKERS", "PROACTIVE_CACHE_MINIMUM_FETCHING_TIME",
	"CACHE_TTL", "PROACTIVE_CACHE_DUMP_INTERVAL", "Retry-After", "will be released in <duration>", "GW_ACCESS_ID", "--ignore-cache",
	// High availability, performance standbys.
	"sys/leader", "sys/health", "disable_performance_standby", "performance-standby.vault.dc1.consul", "vault status", "Active Node Address",
	"Performance Standby Last Remote WAL",
}

// theirs are names on the left of the page that are no concern of the product's.
var theirs = map[string]bool{
	"best_effort_wal_wait_duration": true, "GW_ACCESS_ID": true, "gatewayAccessId": true, "--ignore-cache": true, "disable_performance_standby": true,
	"performance-standby.vault.dc1.consul": true, "vault status": true, "vault kv get": true, "will be released in <duration>": true,
	`use_auto_auth_token = "force"`: true, // the key is looked for by its name
}

var quotedName = regexp.MustCompile("`([^`]+)`")

// TestEachNameOfTheDocumentsHasItsPlace holds the page to the five documents and to
// the product: each name has a row, and what the row says is there is there.
func TestEachNameOfTheDocumentsHasItsPlace(t *testing.T) {
	t.Parallel()
	product := productText(t)
	left, rows := map[string]bool{}, 0
	for _, line := range strings.Split(read(t, "docs/compatibility.md").text, "\n") {
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) < 2 || cells[0] == " there" {
			continue
		}
		rows++
		if strings.TrimSpace(cells[1]) == "" {
			t.Errorf("%s: nothing is said of it", cells[0])
		}
		for _, m := range quotedName.FindAllStringSubmatch(cells[0], -1) {
			left[m[1]] = true
			if !theirs[m[1]] && !strings.Contains(product, strings.TrimSuffix(m[1], "*")) {
				t.Errorf("%s: the product knows no such name", m[1])
			}
		}
	}
	left["use_auto_auth_token"] = left[`use_auto_auth_token = "force"`]
	for _, name := range followed {
		if !left[name] {
			t.Errorf("no row says what became of %s", name)
		}
	}
	if rows < 40 {
		t.Errorf("only %d rows were found", rows)
	}
}

// productText is the text of the product.
func productText(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, folder := range []string{"extension", "functions"} {
		err := filepath.WalkDir(filepath.Join(root(t), folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
