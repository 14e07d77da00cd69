package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
)

// tools pins cyclonedx-gomod.
const tools = "../tests/sbom/go.mod"

// built is a small Go binary, made once.
var built = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "thaw-layer-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "tiny")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, out)
	}
	return os.ReadFile(binary)
})

// goBinary is that binary in a file.
func goBinary(t *testing.T) (name string, content []byte) {
	t.Helper()
	content, err := built()
	if err != nil {
		t.Fatal(err)
	}
	name = filepath.Join(t.TempDir(), "tiny")
	if err := os.WriteFile(name, content, 0o700); err != nil {
		t.Fatal(err)
	}
	return name, content
}

func TestLayerHasTheExtensionWhereLambdaLooks(t *testing.T) {
	t.Parallel()
	binary, content := goBinary(t)
	for entry, args := range map[string][]string{"extensions/thaw": nil, "bootstrap": {"-entry", "bootstrap"}} {
		layer := filepath.Join(t.TempDir(), "thaw.zip")
		var stdout, stderr bytes.Buffer
		if code := run(append(args, layer, binary), &stdout, &stderr); code != 0 {
			t.Fatalf("exit %d: %s", code, &stderr)
		}
		z, err := zip.OpenReader(layer)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		if len(z.File) != 1 || z.File[0].Name != entry || z.File[0].Mode() != 0o755 {
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
		want := fmt.Sprintf("%x  thaw.zip\n", sha256.Sum256(b))
		if got, err := os.ReadFile(layer + ".sha256"); err != nil || string(got) != want {
			t.Errorf("checksum %q, want %q (%v)", got, want, err)
		}
		if got := strings.Contains(stdout.String(), "publish-layer-version"); got != (entry != "bootstrap") {
			t.Errorf("%s: output %s", entry, &stdout)
		}
	}
}

func TestLayerIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	binary, _ := goBinary(t)
	var first map[string]string
	for range 2 {
		dir := t.TempDir()
		if code := run([]string{"-version", "v1.2.3", "-sbom", tools, filepath.Join(dir, "l.zip"), binary}, io.Discard, io.Discard); code != 0 {
			t.Fatal(code)
		}
		got := map[string]string{}
		for _, name := range []string{"l.zip", "l.zip.sha256", "l.cdx.json"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			got[name] = string(b)
		}
		if first == nil {
			first = got
		}
		for name := range got {
			if got[name] != first[name] {
				t.Errorf("two %s of one binary differ", name)
			}
		}
	}
}

func TestLayerPublishesForLambdasNameOfTheArchitecture(t *testing.T) {
	t.Parallel()
	for arch, want := range map[string]string{"amd64": "--compatible-architectures x86_64", "arm64": "--compatible-architectures arm64"} {
		if got := publish("dist/thaw-layer-"+arch+".zip", arch); !strings.Contains(got, want) || !strings.Contains(got, "fileb://dist/thaw-layer-"+arch+".zip") {
			t.Errorf("%s: %s", arch, got)
		}
	}
}

func TestLayerNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	binary, _ := goBinary(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]struct {
		code int
		args []string
	}{
		"/nonexistent/thaw": {1, []string{filepath.Join(dir, "x.zip"), "/nonexistent/thaw"}},
		"usage":             {2, []string{"x.zip"}},
		"list what is in":   {1, []string{filepath.Join(dir, "x.zip"), text}},
		"cyclonedx-gomod":   {1, []string{"-sbom", text, filepath.Join(dir, "x.zip"), binary}},
	} {
		var stderr bytes.Buffer
		if code := run(c.args, io.Discard, &stderr); code != c.code || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: exit %d, %s; want %q", c.args, code, &stderr, want)
		}
	}
}

func TestTheListHasEveryModuleAndNothingOfTheMachine(t *testing.T) {
	t.Parallel()
	name, err := os.Executable() // it links modules, perhaps
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "l.cdx.json")
	if err := writeList(file, tools, "v1.2.3", name); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	type component struct {
		Ref           string `json:"bom-ref"`
		PURL, Version string
	}
	var got struct {
		SerialNumber string
		Metadata     struct {
			Timestamp string
			Component component
			Tools     []map[string]any
		}
		Components   []component
		Dependencies []struct{ Ref string }
	}
	if err := json.Unmarshal(list, &got); err != nil {
		t.Fatal(err)
	}
	info, _ := debug.ReadBuildInfo()
	if len(got.Components) != 1+len(info.Deps) {
		t.Errorf("components %+v, linked %d modules", got.Components, len(info.Deps))
	}
	refs := map[string]bool{}
	for _, c := range append(got.Components, got.Metadata.Component) {
		if refs[c.Ref] || c.PURL == "" || c.Version == "" {
			t.Errorf("component %+v", c)
		}
		refs[c.Ref] = true
	}
	for _, d := range got.Dependencies {
		if !refs[d.Ref] {
			t.Errorf("dependency of %s, which is no component", d.Ref)
		}
	}
	if m := got.Metadata; m.Component.Version != "v1.2.3" || m.Timestamp != "" || got.SerialNumber != "" || len(m.Tools) != 1 || m.Tools[0]["hashes"] != nil {
		t.Errorf("%+v %s", m, got.SerialNumber)
	}
	if _, err := withoutTool([]byte("{}")); err == nil {
		t.Error("a list that names no tool is taken")
	}
}
