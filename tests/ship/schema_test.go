package ship

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// The published schemas that modules are held to where no provider is at hand:
// TypeScript declarations, generated from the providers themselves.
const (
	azurermSchema = "@cdktf/provider-azurerm@14.23.1" // azurerm 4.55
	vaultSchema   = "@cdktf/provider-vault@15.6.1"    // vault 5.6
)

// schema is what a provider's declarations say of one block: attributes by
// their names in Terraform.
type schema map[string]field

type field struct {
	required bool
	block    string // name of the interface, where it is a block
}

// declarations are the interfaces of one resource, by name.
type declarations map[string]schema

// meta are attributes of every resource, Terraform's own.
func meta() []string {
	return []string{"count", "for_each", "depends_on", "provider", "lifecycle", "dynamic", "provisioner", "connection"}
}

// schemaDir is a folder with an npm package's declarations, fetched once.
func schemaDir(t *testing.T, name string) string {
	t.Helper()
	npm := tool(t, "npm")
	cache, err := harness.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, strings.NewReplacer("@", "", "/", "-").Replace(name))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	work, err := os.MkdirTemp(cache, "fetching-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	if out, err := run(t, work, nil, npm, "pack", "--silent", name); err != nil {
		t.Skipf("NOT TESTED: npm has no %s: %v\n%s", name, err, out)
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("%v %v", archives, err)
	}
	to := filepath.Join(work, "unpacked")
	if err := unpack(t.Context(), archives[0], to); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to, dir); err != nil && !errors.Is(err, os.ErrExist) {
		if _, there := os.Stat(dir); there != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// unpack writes the declarations of each resource, lib/<resource>/index.d.ts,
// as <resource>.d.ts.
func unpack(ctx context.Context, archive, to string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for r := tar.NewReader(z); ctx.Err() == nil; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		resource, ok := strings.CutPrefix(path.Dir(h.Name), "package/lib/")
		if !ok || path.Base(h.Name) != "index.d.ts" || !isWord(resource) {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, resource+".d.ts"), b, 0o644); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// declared reads a resource's declarations. The comment before each property
// has its name in Terraform after a #, its type tells blocks.
func declared(text string) declarations {
	all := declarations{}
	interfaces := regexp.MustCompile(`(?s)export interface (\w+)[^{]*\{\n(.*?)\n\}`)
	property := regexp.MustCompile(`#(\w+) \w+#\w+\}(?:[^*]|\*[^/])*\*/\s*readonly \w+(\??): ([^;]*);`)
	for _, m := range interfaces.FindAllStringSubmatch(text, -1) {
		s := schema{}
		for _, p := range property.FindAllStringSubmatch(m[2], -1) {
			f := field{required: p[2] == ""}
			for _, word := range regexp.MustCompile(`\w+`).FindAllString(p[3], -1) {
				if strings.Contains(text, "export interface "+word+" ") {
					f.block = word
				}
			}
			s[p[1]] = f
		}
		all[m[1]] = s
	}
	return all
}

func TestAzureHasOnlyWhatItsProviderKnows(t *testing.T) {
	t.Parallel()
	fits(t, "azure", "azurerm", schemaDir(t, azurermSchema))
}

func TestVaultHasOnlyWhatItsProviderKnows(t *testing.T) {
	t.Parallel()
	fits(t, "vault", "vault", schemaDir(t, vaultSchema))
}

// fits compares every resource and data source of a module with the schema.
func fits(t *testing.T, name, provider, dir string) {
	t.Helper()
	kinds := 0
	for _, b := range module(t, name).blocks {
		if b.kind != "resource" && b.kind != "data" {
			continue
		}
		kinds++
		kind, ok := strings.CutPrefix(b.labels[0], provider+"_")
		if !ok {
			t.Errorf("%s is no resource of %s", b.labels[0], provider)
			continue
		}
		file := strings.ReplaceAll(kind, "_", "-")
		if b.kind == "data" {
			file = "data-" + provider + "-" + file
		}
		text, err := os.ReadFile(filepath.Join(dir, file+".d.ts"))
		if err != nil {
			t.Errorf("%s: the provider has none: %v", b.labels[0], err)
			continue
		}
		all := declared(string(text))
		top := regexp.MustCompile(`export interface (\w+Config) extends cdktf.TerraformMetaArguments`).FindSubmatch(text)
		if top == nil || len(all[string(top[1])]) == 0 {
			t.Fatalf("%s: the declarations are not understood", file)
		}
		where := fmt.Sprintf("%s %s.%s", b.kind, b.labels[0], b.labels[1])
		known(t, where, b, all[string(top[1])], all)
		references(t, name, b.labels[0], string(text))
	}
	if kinds < 5 {
		t.Errorf("%d resources", kinds)
	}
}

// known compares a block with its schema: nothing unknown, nothing missing.
func known(t *testing.T, where string, b *block, s schema, all declarations) {
	t.Helper()
	has := map[string]bool{}
	for a := range b.attrs {
		has[a] = true
		if f, ok := s[a]; !ok && !slices.Contains(meta(), a) {
			t.Errorf("%s: the provider knows no attribute %s", where, a)
		} else if f.block != "" {
			t.Errorf("%s: %s is a block, not an attribute", where, a)
		}
	}
	for _, inner := range b.blocks {
		has[inner.kind] = true
		if slices.Contains(meta(), inner.kind) {
			continue
		}
		f, ok := s[inner.kind]
		if !ok || f.block == "" {
			t.Errorf("%s: the provider knows no block %s", where, inner.kind)
			continue
		}
		known(t, where+"."+inner.kind, inner, all[f.block], all)
	}
	for name, f := range s {
		if f.required && !has[name] {
			t.Errorf("%s lacks %s, which the provider requires", where, name)
		}
	}
}

// references checks that what the module takes from a resource is there.
func references(t *testing.T, name, kind, declaration string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), "terraform", name, "*.tf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(kind+`\.\w+(?:\[[^\]]*\])?\.(\w+)`).FindAllStringSubmatch(string(text), -1) {
			camel := regexp.MustCompile(`_(\w)`).ReplaceAllStringFunc(m[1], func(s string) string { return strings.ToUpper(s[1:]) })
			if !strings.Contains(declaration, "get "+camel+"()") && m[1] != "id" {
				t.Errorf("%s: %s has no %s", filepath.Base(f), kind, m[1])
			}
		}
	}
}
