package ship

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/standin"
)

// largest is what a layer's zip may weigh, in bytes; Lambda loads it at each cold start.
const largest = 4_500_000

// dist builds `make layer` once for all tests of this package, in a folder of
// its own that TestMain removes.
var dist = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "thaw-ship-")
	if err != nil {
		return "", err
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return dir, err
	}
	cmd := exec.Command("make", "-s", "layer", "DIST="+dir, "VERSION=v0.0.1-test")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("make layer: %w\n%s", err, out)
	}
	return dir, os.WriteFile(filepath.Join(dir, "output"), out, 0o600)
})

// made says that some test asked for it.
var made atomic.Bool

func TestMain(m *testing.M) {
	code := m.Run()
	if made.Load() {
		if dir, _ := dist(); dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// layers is the folder that `make layer` filled.
func layers(t *testing.T) string {
	t.Helper()
	made.Store(true)
	dir, err := dist()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLayersAreSmallAndTheirChecksumsRight(t *testing.T) {
	t.Parallel()
	dir := layers(t)
	for _, name := range []string{"layer-amd64", "layer-arm64", "warmup-amd64", "warmup-arm64", "demo-amd64", "demo-arm64", "azure-amd64", "azure-arm64"} {
		b, err := os.ReadFile(filepath.Join(dir, "thaw-"+name+".zip"))
		if err != nil {
			t.Error(err)
			continue
		}
		if strings.HasPrefix(name, "layer") && len(b) >= largest {
			t.Errorf("thaw-%s.zip has %d bytes, the limit is %d", name, len(b), largest)
		}
		sum, err := os.ReadFile(filepath.Join(dir, "thaw-"+name+".zip.sha256"))
		if want := fmt.Sprintf("%x  thaw-%s.zip\n", sha256.Sum256(b), name); err != nil || string(sum) != want {
			t.Errorf("checksum %q (%v), want %q", sum, err, want)
		}
	}
	out, err := os.ReadFile(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if want := "aws lambda publish-layer-version --layer-name thaw-" + arch; !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

func TestLayersAreTheSameEveryTime(t *testing.T) {
	t.Parallel()
	first, second := layers(t), t.TempDir()
	must(t, root(t), nil, "make", "-s", "layer", "DIST="+second, "VERSION=v0.0.1-test", "ARCHS=amd64")
	names, err := filepath.Glob(filepath.Join(second, "thaw-*"))
	if err != nil || len(names) != 12 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, name := range names {
		a, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(first, filepath.Base(name))); err != nil || string(a) != string(b) {
			t.Errorf("%s differs between two runs (%v)", filepath.Base(name), err)
		}
	}
}

func TestTheListOfModulesIsThatOfTheBinary(t *testing.T) {
	t.Parallel()
	dir, sums := layers(t), file(t, "go.sum")
	for _, arch := range []string{"amd64", "arm64"} {
		b, err := os.ReadFile(filepath.Join(dir, "thaw-layer-"+arch+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var list struct {
			BOMFormat, SpecVersion string
			Metadata               struct{ Component struct{ Version string } }
			Components             []struct{ Name, Version, PURL string }
		}
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		if list.BOMFormat != "CycloneDX" || list.SpecVersion != "1.5" || list.Metadata.Component.Version != "v0.0.1-test" {
			t.Errorf("%+v", list)
		}
		mods := must(t, root(t), nil, "go", "version", "-m", filepath.Join(dir, "linux-"+arch, "thaw-layer"))
		if want := strings.Count(mods, "\n\tdep\t") + 1; len(list.Components) != want {
			t.Errorf("%s: %d components, the binary links %d modules and the standard library", arch, len(list.Components), want-1)
		}
		for _, c := range list.Components {
			if c.Name == "std" {
				continue
			}
			if !strings.Contains(sums, c.Name+" "+c.Version+" h1:") || !strings.Contains(mods, "\tdep\t"+c.Name+"\t"+c.Version+"\t") {
				t.Errorf("%s %s is not in go.sum, or not in the binary", c.Name, c.Version)
			}
		}
	}
}

// unzip writes a zip's files into a folder, with their modes.
func unzip(t *testing.T, name, dir string) {
	t.Helper()
	z, err := zip.OpenReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) {
			t.Fatalf("%s has an entry %q", name, f.Name)
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, f.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(to, f.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheLayerServesInLambda unpacks the layer to where /opt would be and runs
// what Lambda would start there.
func TestTheLayerServesInLambda(t *testing.T) {
	t.Parallel()
	opt := t.TempDir()
	unzip(t, filepath.Join(layers(t), "thaw-layer-"+runtime.GOARCH+".zip"), opt)
	found, err := filepath.Glob(filepath.Join(opt, "extensions", "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("extensions: %v %v", found, err)
	}
	lifeInLambda(t, found[0])
}

// lifeInLambda runs an extension through a life in which a function reads a
// secret, from a socket of its own.
func lifeInLambda(t *testing.T, binary string) {
	t.Helper()
	o := standin.New(standin.Options{})
	o.Root("POST", "secret/data/app", `{"data":{"password":"p"}}`)
	vault := httptest.NewServer(o)
	defer vault.Close()
	socket := filepath.Join(t.TempDir(), "thaw.sock")
	var log strings.Builder
	e, err := lambdaapi.Start(t.Context(), lambdaapi.Config{
		Binary: binary, Stderr: &log,
		Env: []string{"VAULT_ADDR=" + vault.URL, "VAULT_TOKEN=root", "THAW_AUTH_METHOD=token", "THAW_LISTEN=unix://" + socket},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	defer e.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for range 2 {
		err := e.Invoke(t.Context(), func(ctx context.Context, _ lambdaapi.Invocation) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/secret/data/app", nil)
			if err != nil {
				return err
			}
			res, err := client.Do(req)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(b), `"password":"p"`) {
				return fmt.Errorf("status %d: %s (%w)", res.StatusCode, b, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if exit, err := e.Shutdown("spindown"); err != nil || !exit.InTime {
		t.Errorf("shutdown: %+v, %v", exit, err)
	}
	if v := e.Violations(); len(v) > 0 {
		t.Errorf("violations: %v\n%s", v, &log)
	}
}

// TestTheImageHasAllItNeeds follows layer/Dockerfile by hand: an empty root,
// what COPY says, and the extension run from there, in that root where the
// system lets us.
func TestTheImageHasAllItNeeds(t *testing.T) {
	t.Parallel()
	dir, image := layers(t), t.TempDir()
	var from, entry string
	for line := range strings.Lines(file(t, "layer/Dockerfile")) {
		line = strings.TrimSpace(strings.ReplaceAll(line, "${TARGETARCH}", runtime.GOARCH))
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "", "#", "ARG":
		case "FROM":
			from = rest
		case "COPY":
			mode, rest, ok := strings.Cut(rest, " ")
			source, target, ok2 := strings.Cut(rest, " ")
			source, ok3 := strings.CutPrefix(source, "dist/")
			if !ok || !ok2 || !ok3 || mode != "--chmod=0755" {
				t.Fatalf("not understood: %s", line)
			}
			b, err := os.ReadFile(filepath.Join(dir, source))
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(image, target)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, b, 0o755); err != nil {
				t.Fatal(err)
			}
		case "ENTRYPOINT":
			var args []string
			if err := json.Unmarshal([]byte(rest), &args); err != nil || len(args) != 1 {
				t.Fatalf("not understood: %s", line)
			}
			entry = args[0]
		default:
			t.Fatalf("not understood: %s", line)
		}
	}
	if from != "scratch" || entry != "/opt/extensions/thaw" {
		t.Fatalf("FROM %s, ENTRYPOINT %s", from, entry)
	}
	binary := filepath.Join(image, entry)
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Error("the binary needs a dynamic linker, which an empty image lacks")
		}
	}
	lifeInLambda(t, binary)
	if os.Getuid() != 0 {
		t.Log("NOT TESTED: run inside the image's root, which takes root")
		return
	}
	cmd := exec.CommandContext(t.Context(), entry, "-version")
	cmd.SysProcAttr, cmd.Dir, cmd.Env = &syscall.SysProcAttr{Chroot: image}, "/", []string{}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "v0.0.1-test") {
		t.Errorf("inside the image: %v %s", err, out)
	}
}
