package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLayerHasTheExtensionWhereLambdaLooks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary, layer := filepath.Join(dir, "thaw"), filepath.Join(dir, "layer.zip")
	content := bytes.Repeat([]byte("a binary "), 1000)
	if err := os.WriteFile(binary, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	if code := run([]string{layer, binary}, io.Discard, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	z, err := zip.OpenReader(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if len(z.File) != 1 || z.File[0].Name != "extensions/thaw" || z.File[0].Mode() != 0o755 {
		t.Fatalf("entries: %+v", z.File)
	}
	f, err := z.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the entry is not the binary: %v", err)
	}
	b, err := os.ReadFile(layer)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%x  layer.zip\n", sha256.Sum256(b))
	if got, err := os.ReadFile(layer + ".sha256"); err != nil || string(got) != want {
		t.Errorf("checksum %q, want %q (%v)", got, want, err)
	}
}

func TestLayerIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := pack(w, []byte("a binary")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two layers of one binary differ")
	}
}

func TestLayerNamesABinaryThatIsNotThere(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	if code := run([]string{"x.zip", "/nonexistent/thaw"}, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), "/nonexistent/thaw") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
	if code := run([]string{"x.zip"}, io.Discard, &stderr); code != 2 {
		t.Errorf("exit %d for half a pair", code)
	}
}
