package config_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

var update = flag.Bool("update", false, "write the README's table of settings anew")

const (
	readme        = "../../README.md"
	settingsBegin = "<!-- settings:begin -->\n"
	settingsEnd   = "<!-- settings:end -->\n"
)

// TestReadmeListsEverySetting holds the README's table to the settings. Run
// it with -update to write the table anew.
func TestReadmeListsEverySetting(t *testing.T) {
	t.Parallel()
	text := readReadme(t)
	before, rest, ok := strings.Cut(text, settingsBegin)
	table, after, ok2 := strings.Cut(rest, settingsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", readme, settingsBegin, settingsEnd)
	}
	if table == config.Markdown(config.ForAzure()) {
		return
	}
	if !*update {
		t.Fatal("the README's table is not config.Markdown(config.ForAzure()); write it anew with: go test ./extension/config -run TestReadmeListsEverySetting -update")
	}
	if err := os.WriteFile(readme, []byte(before+settingsBegin+config.Markdown(config.ForAzure())+settingsEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestReadmeFileIsTaken loads the configuration file that the README shows.
func TestReadmeFileIsTaken(t *testing.T) {
	t.Parallel()
	_, rest, _ := strings.Cut(readReadme(t), "```hcl\n")
	file, _, ok := strings.Cut(rest, "```\n")
	if !ok || !strings.Contains(file, "auto_auth") {
		t.Fatal("the README's first hcl block is no configuration file")
	}
	got, warnings, err := config.Load(config.Source{
		ConfigFile: "proxy.hcl", ReadFile: func(string) ([]byte, error) { return []byte(file), nil },
	})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("the README's file is not taken as it is: %v %v", err, warnings)
	}
	if got.Auth.Role != "my-function" || !got.StaticCache || got.OwnToken != config.OwnTokenFill || len(got.Listeners) != 1 || got.MaxRetries != 3 {
		t.Errorf("the README's file means something else: %+v", got)
	}
}

// TestReadmeKnowsTheKeys holds the variables that the README's text names to
// the table.
func TestReadmeKnowsTheKeys(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range config.Settings(config.ForAzure()) {
		known[s.Name] = true
	}
	text := readReadme(t)
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
				t.Errorf("the README names %s, which is no setting", name)
			}
		}
	}
}

func nameByte(b byte) bool { return b == '_' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' }

func readReadme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
