package docs

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/doctor"
)

// settings are names that look like variables of thaw's.
var settings = regexp.MustCompile(`\b(?:THAW|VAULT|VLE|CACHE|PROACTIVE_CACHE|NEW_PROACTIVE)_[A-Z0-9_]*[A-Z0-9]\b`)

func TestEveryVariableThatIsNamedExists(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range config.Settings(config.ForAzure()) {
		known[s.Name] = true
	}
	seen := 0
	for _, p := range manual(t) {
		for _, name := range settings.FindAllString(p.text, -1) {
			seen++
			if !known[name] && !mentioned(name) {
				t.Errorf("%s: there is no setting %s", p.name, name)
			}
		}
	}
	if seen < 150 {
		t.Errorf("only %d names were found", seen)
	}
}

// mentioned are names that are no settings and rightly stand in the text.
func mentioned(name string) bool {
	return slices.Contains([]string{"VAULT_SECRET_PATH_", "VAULT_SECRET_FILE_", "CACHE_SIZE"}, name)
}

// TestEveryMetricThatIsNamedExists, and every one that is written is named.
func TestEveryMetricThatIsNamedExists(t *testing.T) {
	t.Parallel()
	written := map[string]bool{}
	quoted := regexp.MustCompile(`"(thaw_[a-z_]*[a-z])"`)
	for _, folder := range []string{"extension", "functions"} {
		err := filepath.WalkDir(filepath.Join(root(t), folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range quoted.FindAllSubmatch(text, -1) {
				written[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(written) < 50 {
		t.Errorf("only %d metrics were found", len(written))
	}
	named := map[string]bool{}
	metric := regexp.MustCompile("`(thaw_[a-z_]*[a-z])`")
	for _, p := range manual(t) {
		for _, m := range metric.FindAllStringSubmatch(p.text, -1) {
			if named[m[1]] = true; !written[m[1]] {
				t.Errorf("%s: there is no metric %s", p.name, m[1])
			}
		}
	}
	for name := range written {
		if !named[name] {
			t.Errorf("no page names the metric %s", name)
		}
	}
}

// TestEveryCheckOfTheDoctorIsDocumented: by its name, which reports show.
func TestEveryCheckOfTheDoctorIsDocumented(t *testing.T) {
	t.Parallel()
	text := read(t, "docs/operations.md").text
	checks := []string{"configuration"}
	for _, c := range doctor.Checks() {
		checks = append(checks, c.Name)
	}
	for _, name := range checks {
		if !regexp.MustCompile("(?m)^\\|[^|]*`" + name + "`[^|]*\\|").MatchString(text) {
			t.Errorf("docs/operations.md does not have the check %s", name)
		}
	}
}

// TestTheFilesThatAreShownAreTaken: a configuration of Vault Proxy, host.json,
// the module's variables and outputs, SAM's parameters and outputs.
func TestTheFilesThatAreShownAreTaken(t *testing.T) {
	t.Parallel()
	moving := read(t, "docs/moving.md")
	if b := only(t, moving, "hcl"); b != "" {
		file := filepath.Join(t.TempDir(), "proxy.hcl")
		if err := os.WriteFile(file, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, warnings, err := config.Load(config.Source{ConfigFile: file, Environ: []string{"AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"}})
		if err != nil || len(warnings) > 0 || !cfg.StaticCache || cfg.Auth.Method != config.AuthAWS {
			t.Errorf("docs/moving.md: the file is not taken as it is: %v %v", err, warnings)
		}
	}
	var host struct {
		CustomHandler struct {
			Description struct{ DefaultExecutablePath string }
		}
	}
	if err := json.Unmarshal([]byte(only(t, read(t, "docs/azure.md"), "json")), &host); err != nil || host.CustomHandler.Description.DefaultExecutablePath != "thaw-azure" {
		t.Errorf("docs/azure.md: host.json: %v", err)
	}
	lambda := read(t, "docs/lambda.md")
	module := sources(t, "terraform/aws/*.tf")
	argument := regexp.MustCompile(`(?m)^  (\w+) +=`)
	for _, m := range argument.FindAllStringSubmatch(only(t, lambda, "hcl"), -1) {
		if m[1] != "source" && !strings.Contains(module, `variable "`+m[1]+`"`) {
			t.Errorf("docs/lambda.md: the module has no variable %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`module\.thaw\.(\w+)`).FindAllStringSubmatch(lambda.text, -1) {
		if !strings.Contains(module, `output "`+m[1]+`"`) {
			t.Errorf("docs/lambda.md: the module has no output %s", m[1])
		}
	}
	template := sources(t, "template*.yaml")
	name := regexp.MustCompile("`((?:Vault|Cache|Proactive|Demo|Layer|Warm)[A-Z][A-Za-z0-9]+)(?:=\\w+)?`")
	for _, p := range manual(t) {
		for _, m := range name.FindAllStringSubmatch(p.text, -1) {
			if !strings.Contains(template, "\n  "+m[1]+":") {
				t.Errorf("%s: no template has the parameter or output %s", p.name, m[1])
			}
		}
	}
}

// only is the page's one block of a language.
func only(t *testing.T, p page, language string) string {
	t.Helper()
	var found []string
	for _, b := range p.blocks {
		if b.language == language {
			found = append(found, b.text)
		}
	}
	if len(found) != 1 {
		t.Errorf("%s has %d blocks of %s, and the test knows one", p.name, len(found), language)
		return ""
	}
	return found[0]
}

// sources reads files of the repository.
func sources(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), filepath.FromSlash(pattern)))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// TestArchitectureNamesWhatThereIs looks up the types and functions that
// docs/architecture.md names as the owners of the four questions.
func TestArchitectureNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	source := sources(t, "extension/cache/*.go")
	_, table, _ := strings.Cut(read(t, "docs/architecture.md").text, "| question | owner | how |")
	table, _, _ = strings.Cut(table, "\n\n")
	named := 0
	for row := range strings.Lines(table) {
		cells := strings.Split(row, " | ")
		if len(cells) != 3 {
			continue
		}
		for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(cells[1], -1) {
			named++
			if !regexp.MustCompile(`(?m)^(type|func(?: \(.*\))?) ` + name[1] + `\b`).MatchString(source) {
				t.Errorf("extension/cache has no %s", name[1])
			}
		}
	}
	if named < 6 {
		t.Errorf("only %d names were found", named)
	}
}
