package docs

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPicturesAreNotStale compares the checksum that tests/pictures/render.sh
// wrote into each picture with its source and the tool's version.
func TestPicturesAreNotStale(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile(filepath.Join(root(t), "tests", "pictures", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`oss\.terrastruct\.com/d2 (v\S+)`).FindSubmatch(mod)
	if version == nil {
		t.Fatal("tests/pictures/go.mod pins no d2")
	}
	sources, err := filepath.Glob(filepath.Join(root(t), "docs", "pictures", "*.d2"))
	if err != nil || len(sources) < 4 {
		t.Fatalf("%d sources: %v", len(sources), err)
	}
	for _, s := range sources {
		text, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(append([]byte(string(version[1])+"\n"), text...))
		picture, err := os.ReadFile(strings.TrimSuffix(s, ".d2") + ".svg")
		if err != nil {
			t.Fatal(err)
		}
		if want := "<!-- made by make pictures: " + hex.EncodeToString(sum[:]) + " -->\n"; !strings.HasSuffix(string(picture), want) {
			t.Errorf("%s is not what its source says: make pictures", filepath.Base(s))
		}
		if !strings.Contains(string(picture), "prefers-color-scheme") {
			t.Errorf("%s has no dark colours", filepath.Base(s))
		}
	}
}
