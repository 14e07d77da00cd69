package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// onPath reports whether a program can be run by its name.
func onPath(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// aptInstall installs a package as root or through sudo that asks nothing.
func aptInstall(ctx context.Context, name string) error {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("install %s: %w", name, err)
	}
	run := func(args ...string) error {
		c := Command{Path: apt, Args: args, Env: append(FromEnv().All, "DEBIAN_FRONTEND=noninteractive")}
		if os.Getuid() != 0 {
			c.Path, c.Args = "sudo", append([]string{"-n", apt}, args...)
		}
		_, err := Run(ctx, c)
		return err
	}
	install := []string{"install", "-y", "--no-install-recommends", name}
	if run(install...) == nil {
		return nil
	}
	if err := run("update"); err != nil { // a fresh machine has no package lists
		return err
	}
	return run(install...)
}

// FindNodeVault returns a folder whose node_modules has node-vault, Vault's
// JavaScript client, in the version of tests/clients/node, and installs it
// with npm first if it is missing. Errors wrap ErrMissing.
func FindNodeVault(ctx context.Context) (dir string, err error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	for program, install := range map[string]string{"node": "nodejs", "npm": "npm"} {
		there := func() bool { return onPath(program) }
		if err := once(ctx, program, there, func(ctx context.Context) error { return aptInstall(ctx, install) }); err != nil {
			return "", fmt.Errorf("%w: %s: %w", ErrMissing, program, err)
		}
	}
	src, dir := filepath.Join(root, "tests", "clients", "node"), filepath.Join(cache, "node")
	lock, err := os.ReadFile(filepath.Join(src, "package-lock.json"))
	if err != nil {
		return "", fmt.Errorf("read what npm is to install: %w", err)
	}
	stamp := filepath.Join(dir, "installed")
	there := func() bool { b, err := os.ReadFile(stamp); return err == nil && string(b) == string(lock) }
	install := func(ctx context.Context) error {
		if err := npmInstall(ctx, src, dir); err != nil {
			return err
		}
		return os.WriteFile(stamp, lock, 0o644)
	}
	if err := once(ctx, "node", there, install); err != nil {
		return "", fmt.Errorf("%w: npm's node-vault: %w", ErrMissing, err)
	}
	return dir, nil
}

func npmInstall(ctx context.Context, src, dir string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	_, err = Run(ctx, Command{
		Path: npm, Dir: dir, Env: FromEnv().All,
		Args: strings.Fields("ci --ignore-scripts --no-audit --no-fund --loglevel=error"),
	})
	return err
}
