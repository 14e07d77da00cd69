package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestEveryExamplesFolderPassesItsOwnTest runs the tests of examples/ before
// thaw-dev, as their README says.
func TestEveryExamplesFolderPassesItsOwnTest(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the product and runs other languages")
	}
	dev := filepath.Join(t.TempDir(), "thaw-dev")
	if err := harness.Build(t.Context(), dev, "./tests/dev"); err != nil {
		t.Fatal(err)
	}
	path := "PATH=" + filepath.Dir(dev) + ":" + harness.FromEnv().Path
	examples := filepath.Join(root(t), "examples")
	for folder, command := range map[string]func(t *testing.T) []string{
		"python": func(t *testing.T) []string {
			return []string{filepath.Join(harness.Python(t), "pytest"), "-q", "-p", "no:cacheprovider", "."}
		},
		"nodejs": func(t *testing.T) []string {
			return []string{"node", filepath.Join(harness.NodeVault(t), "node_modules", "jest", "bin", "jest.js"), "--rootDir", "."}
		},
		"go":   func(*testing.T) []string { return []string{"go", "test", "-count=1", "."} },
		"java": func(*testing.T) []string { return []string{"mvn", "-q", "-B", "test"} },
		"ruby": func(*testing.T) []string { return []string{"ruby", "test_app.rb"} },
	} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			args := command(t)
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("NOT TESTED: no %s", args[0])
			}
			dir := filepath.Join(examples, folder)
			if folder != "go" { // it is in this module
				dir = filepath.Join(t.TempDir(), folder)
				if err := os.CopyFS(dir, os.DirFS(filepath.Join(examples, folder))); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
			cmd.Dir, cmd.Env = dir, append(harness.FromEnv().All, path, "PYTHONDONTWRITEBYTECODE=1", "CI=")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		})
	}
}
