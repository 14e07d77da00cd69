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
	build := func(ctx context.Context) error { return buildTool(ctx, "vaultbin", "github.com/hashicorp/vault", bin) }
	if err := once(ctx, "vault", isFile(bin), build); err != nil {
		return "", fmt.Errorf("%w: Vault %s: %w", ErrMissing, VaultVersion, err)
	}
	return bin, nil
}

// isFile reports whether there is a regular file at path.
func isFile(path string) func() bool {
	return func() bool { st, err := os.Stat(path); return err == nil && st.Mode().IsRegular() }
}

// buildTool compiles pkg, the tool dependency of a module in tests/dir, into
// bin, which appears only when it is whole.
func buildTool(ctx context.Context, dir, pkg, bin string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	tmp := bin + ".part"
	if _, err := Run(ctx, Command{
		Path: goTool,
		Args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", tmp, pkg},
		Dir:  filepath.Join(root, "tests", dir),
		Env:  append(FromEnv().All, "CGO_ENABLED=0", "GOWORK=off"),
		Nice: true,
	}); err != nil {
		return err
	}
	return os.Rename(tmp, bin)
}
