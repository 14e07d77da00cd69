package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// tester is the command that runs a language's tests in a folder.
func tester(t *testing.T, language string) []string {
	t.Helper()
	switch language {
	case "python":
		return []string{filepath.Join(harness.Python(t), "pytest"), "-q", "-p", "no:cacheprovider", "."}
	case "js":
		return []string{"node", filepath.Join(harness.NodeVault(t), "node_modules", "jest", "bin", "jest.js"), "--rootDir", "."}
	}
	t.Fatalf("no tests are run in %s", language)
	return nil
}

// withDev is PATH with thaw-dev.
func withDev(t *testing.T) string {
	t.Helper()
	dev := filepath.Join(t.TempDir(), "thaw-dev")
	if err := harness.Build(t.Context(), dev, "./tests/dev"); err != nil {
		t.Fatal(err)
	}
	return "PATH=" + filepath.Dir(dev) + ":" + harness.FromEnv().Path
}

// pass runs a folder's tests.
func pass(t *testing.T, dir, path string, args []string) {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("NOT TESTED: no %s", args[0])
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(harness.FromEnv().All, path, "PYTHONDONTWRITEBYTECODE=1", "CI=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", args, err, out)
	}
}

// TestTheTestsOfThePagePassAsPrinted runs those of docs/testing.md beside a module
// that reads as they say.
func TestTheTestsOfThePagePassAsPrinted(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the product and runs other languages")
	}
	page, path := read(t, "docs/testing.md"), withDev(t)
	for _, c := range []struct{ language, test, module, text string }{
		{"python", "test_app.py", "app.py", `import json, urllib.request
THAW = "http://127.0.0.1:8200"
def password():
    with urllib.request.urlopen(THAW + "/v1/secret/data/app") as answer:
        return json.load(answer)["data"]["data"]["password"]
`},
		{"js", "index.test.js", "index.js", `exports.password = async () =>
  (await (await fetch(process.env.SECRETS_ADDR + "/v1/secret/data/app")).json()).data.data.password;
`},
	} {
		t.Run(c.language, func(t *testing.T) {
			t.Parallel()
			args, dir := tester(t, c.language), t.TempDir()
			for name, text := range map[string]string{c.test: only(t, page, c.language), c.module: c.text, "package.json": "{}"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			pass(t, dir, path, args)
		})
	}
}

// TestEveryExamplesFolderPassesItsOwnTest runs the tests of examples/ before
// thaw-dev, as their README says.
func TestEveryExamplesFolderPassesItsOwnTest(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the product and runs other languages")
	}
	path := withDev(t)
	examples := filepath.Join(root(t), "examples")
	for folder, command := range map[string]func(t *testing.T) []string{
		"python": func(t *testing.T) []string { return tester(t, "python") },
		"nodejs": func(t *testing.T) []string { return tester(t, "js") },
		"go":     func(*testing.T) []string { return []string{"go", "test", "-count=1", "."} },
		"java":   func(*testing.T) []string { return []string{"mvn", "-q", "-B", "test"} },
		"ruby":   func(*testing.T) []string { return []string{"ruby", "test_app.rb"} },
	} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			args := command(t)
			dir := filepath.Join(examples, folder)
			if folder != "go" { // it is in this module
				dir = filepath.Join(t.TempDir(), folder)
				if err := os.CopyFS(dir, os.DirFS(filepath.Join(examples, folder))); err != nil {
					t.Fatal(err)
				}
			}
			pass(t, dir, path, args)
		})
	}
}
