package docs

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// built is the thaw under test, built when a test first asks for it.
var built func() (path string, err error)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, func(dir string) error {
		built = sync.OnceValues(func() (string, error) {
			path := filepath.Join(dir, "thaw")
			return path, harness.Build(context.Background(), path, "./extension")
		})
		return nil
	}))
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
