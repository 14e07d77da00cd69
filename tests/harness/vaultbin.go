package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// VaultVersion is the Vault that the tests are about. v1.21.4 does not build
// from the module proxy: it needs modules that were never published.
const VaultVersion = "1.21.0"

// FindVault returns the path of a Vault binary: explicit, if not empty; else
// the one in the cache folder, which is built first if it is missing. The
// build takes minutes of two cores, once. Errors wrap ErrMissing.
func FindVault(ctx context.Context, explicit string) (string, error) {
	if explicit != "" {
		if _, err := os.Stat(explicit); err != nil {
			return "", fmt.Errorf("%w: VAULT_BIN is set, but: %w", ErrMissing, err)
		}
		return explicit, nil
	}
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "vault-"+VaultVersion)
	there := func() bool { st, err := os.Stat(bin); return err == nil && st.Mode().IsRegular() }
	build := func(ctx context.Context) error { return buildVault(ctx, bin) }
	if err := once(ctx, "vault", there, build); err != nil {
		return "", fmt.Errorf("%w: Vault %s: %w", ErrMissing, VaultVersion, err)
	}
	return bin, nil
}

// buildVault compiles tests/vaultbin's tool dependency into bin, which
// appears only when it is whole.
func buildVault(ctx context.Context, bin string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("build Vault: %w", err)
	}
	env := append(FromEnv().All, "CGO_ENABLED=0", "GOWORK=off")
	tmp := bin + ".part"
	if _, err := Run(ctx, Command{
		Path: goTool,
		Args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", tmp, "github.com/hashicorp/vault"},
		Dir:  filepath.Join(root, "tests", "vaultbin"),
		Env:  env,
		Nice: true,
	}); err != nil {
		return err
	}
	return os.Rename(tmp, bin)
}
