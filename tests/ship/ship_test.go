// Package ship checks what users install, with the tools that they install it
// with: the layer and the image run under the stand-in for Lambda; the SAM
// template passes cfn-lint and the translator; the Terraform modules pass
// fmt, validate, test and, against moto, an apply that a plan finds nothing to
// change after. Where no provider is at hand (azurerm, vault) every name is
// compared with its published schema.
//
// A tool that is missing skips its tests, which say so: they are no part of the
// product, and a machine without them must still be able to test the rest.
package ship

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// toolTime bounds one run of a tool.
const toolTime = 5 * time.Minute

// root is the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// file reads a file of the repository.
func file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tool finds a program, or skips the test.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("NOT TESTED: %s is not installed here", name)
	}
	return path
}

// pypi is a program of the virtual environment with what comes from PyPI.
func pypi(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(harness.Python(t), name)
}

// run runs a program in a folder and returns its output, standard error
// included.
func run(t *testing.T, dir string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), toolTime)
	defer cancel()
	p, err := harness.Run(ctx, harness.Command{Path: name, Args: args, Dir: dir, Env: append(harness.FromEnv().All, env...)})
	if p == nil {
		return "", err
	}
	return p.Output(), err
}

// must is run for what has to succeed.
func must(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	out, err := run(t, dir, env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

// copyTree copies the files that git would have in a clone.
func copyTree(t *testing.T, from, to string, skip ...string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		for _, s := range skip {
			if rel == s {
				return filepath.SkipDir
			}
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir() && rel != "." && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case strings.HasPrefix(d.Name(), ".") || strings.Contains(d.Name(), ".tfstate"):
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // another's temporary file
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
