package harness

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// FindPython returns a folder with the programs of a virtual environment that
// has what tests/clients/python/requirements.txt names: python, cfn-lint, sam,
// and the modules moto and hvac. It is made first where it is missing, which
// takes a minute or two. Errors wrap ErrMissing.
func FindPython(ctx context.Context) (bin string, err error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	wanted := filepath.Join(root, "tests", "clients", "python", "requirements.txt")
	pins, err := os.ReadFile(wanted)
	if err != nil {
		return "", fmt.Errorf("read what pip is to install: %w", err)
	}
	// Its programs name the folder that they were installed in, so a folder that was moved,
	// or is reached by a link, wants its real name.
	if cache, err = filepath.EvalSymlinks(cache); err != nil {
		return "", err
	}
	// Other pins make another environment: one in use is never changed.
	dir := filepath.Join(cache, fmt.Sprintf("python-%.6x", sha256.Sum256(append(pins, cache...))))
	bin = filepath.Join(dir, "bin")
	stamp := filepath.Join(dir, "installed")
	there := func() bool { _, err := os.Stat(stamp); return err == nil }
	install := func(ctx context.Context) error {
		if err := pipInstall(ctx, dir, wanted); err != nil {
			return err
		}
		return os.WriteFile(stamp, nil, 0o644)
	}
	if err := once(ctx, "python", there, install); err != nil {
		return "", fmt.Errorf("%w: what tests/clients/python asks of PyPI: %w", ErrMissing, err)
	}
	return bin, nil
}

// pipInstall makes a virtual environment in dir with what a file of
// requirements names.
func pipInstall(ctx context.Context, dir, requirements string) error {
	if !onPath("python3") {
		if err := aptInstall(ctx, "python3"); err != nil {
			return err
		}
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		return err
	}
	venv := Command{Path: python, Args: []string{"-m", "venv", "--clear", dir}, Env: FromEnv().All}
	if _, err := Run(ctx, venv); err != nil {
		// Debian's python3 comes without what makes one.
		if err := aptInstall(ctx, "python3-venv"); err != nil {
			return err
		}
		if _, err := Run(ctx, venv); err != nil {
			return err
		}
	}
	_, err = Run(ctx, Command{
		Path: filepath.Join(dir, "bin", "python"),
		Args: []string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", requirements},
		Env:  FromEnv().All,
		Nice: true,
	})
	return err
}
