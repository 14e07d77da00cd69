package harness

import (
	"path/filepath"
	"testing"
)

func TestHvacReadsFromVault(t *testing.T) {
	t.Parallel()
	python, v := filepath.Join(Python(t), "python"), Dev(t)
	_, err := v.Put(t.Context(), "secret", "a", map[string]any{"k": "planted"})
	Must(t, err)
	const program = `
import hvac, sys
c = hvac.Client(url=sys.argv[1], token=sys.argv[2])
print(c.secrets.kv.v2.read_secret_version(path="a")["data"]["data"]["k"])`
	p, err := Run(t.Context(), Command{Path: python, Args: []string{"-c", program, v.Addr(), v.RootToken()}})
	Must(t, err)
	if p.Stdout() != "planted\n" {
		t.Errorf("hvac printed %q", p.Output())
	}
}

func TestNodeVaultReadsFromVault(t *testing.T) {
	t.Parallel()
	dir, v := NodeVault(t), Dev(t)
	_, err := v.Put(t.Context(), "secret", "a", map[string]any{"k": "planted"})
	Must(t, err)
	const program = `
const [endpoint, token] = process.argv.slice(1);
require("node-vault")({ apiVersion: "v1", endpoint, token })
  .read("secret/data/a").then((r) => console.log(r.data.data.k), (e) => { console.error(e); process.exit(1); });`
	p, err := Run(t.Context(), Command{Path: "node", Dir: dir, Args: []string{"-e", program, v.Addr(), v.RootToken()}})
	Must(t, err)
	if p.Stdout() != "planted\n" {
		t.Errorf("node-vault printed %q", p.Output())
	}
}

func TestVaultCommandLineReadsFromVault(t *testing.T) {
	t.Parallel()
	v := Dev(t)
	_, err := v.Put(t.Context(), "secret", "a", map[string]any{"k": "planted"})
	Must(t, err)
	p, err := Run(t.Context(), Command{
		Path: v.Binary(), Args: []string{"kv", "get", "-field=k", "secret/a"},
		Env: []string{"VAULT_ADDR=" + v.Addr(), "VAULT_TOKEN=" + v.RootToken(), "HOME=" + t.TempDir()},
	})
	Must(t, err)
	if p.Stdout() != "planted" && p.Stdout() != "planted\n" {
		t.Errorf("%s printed %q", filepath.Base(v.Binary()), p.Output())
	}
}
