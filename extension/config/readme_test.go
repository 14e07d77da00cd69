package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// pages are the README and the pages of docs, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, path := range append(paths, "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	return texts
}

// TestReadmeFileIsTaken loads the configuration file that the documentation shows.
func TestReadmeFileIsTaken(t *testing.T) {
	t.Parallel()
	for _, text := range pages(t) {
		for _, rest := range strings.Split(text, "```hcl\n")[1:] {
			file, _, _ := strings.Cut(rest, "```\n")
			if !strings.Contains(file, "my-function") || !strings.Contains(file, "num_retries") {
				continue
			}
			got, warnings, err := config.Load(config.Source{
				ConfigFile: "proxy.hcl", ReadFile: func(string) ([]byte, error) { return []byte(file), nil },
			})
			if err != nil || len(warnings) > 0 {
				t.Fatalf("the documentation's file is not taken as it is: %v %v", err, warnings)
			}
			if got.Auth.Role != "my-function" || !got.StaticCache || got.OwnToken != config.OwnTokenFill || len(got.Listeners) != 1 || got.MaxRetries != 3 {
				t.Errorf("the documentation's file means something else: %+v", got)
			}
			return
		}
	}
	t.Fatal("no page has a configuration file with my-function's auto_auth")
}

// TestReadmeKnowsTheKeys holds the variables that the README's text names to
// the table.
func TestReadmeKnowsTheKeys(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range config.Settings(config.ForAzure()) {
		known[s.Name] = true
	}
	for path, text := range pages(t) {
		if path != "../../README.md" && path != "../../docs/settings.md" {
			continue // tests/docs holds the names in the others
		}
		for _, prefix := range []string{"THAW_", "VAULT_", "VLE_"} {
			for i := range len(text) - len(prefix) {
				if text[i:i+len(prefix)] != prefix || i > 0 && nameByte(text[i-1]) {
					continue
				}
				end := i
				for nameByte(text[end]) {
					end++
				}
				name := text[i:end]
				if strings.HasSuffix(name, "_") {
					continue // a prefix: THAW_, VAULT_SECRET_PATH_<NAME>
				}
				if !known[name] {
					t.Errorf("%s names %s, which is no setting", path, name)
				}
			}
		}
	}
}

func nameByte(b byte) bool { return b == '_' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' }
