package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// built is the thaw under test, built when a test first asks for it.
var built func() (path string, err error)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "thaw-docs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = sync.OnceValues(func() (string, error) {
		root, err := harness.Root()
		if err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		path := filepath.Join(dir, "thaw")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "./extension")
		cmd.Dir, cmd.Env = root, append(harness.FromEnv().All, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build thaw: %w\n%s", err, out)
		}
		return path, nil
	})
	return m.Run()
}

// binary is the thaw under test.
func binary(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
