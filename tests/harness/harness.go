// Package harness starts the real components that the tests, the demo and the
// benchmarks run against: Vault itself, moto for AWS, the clients people use,
// and a counting proxy that can fail on purpose.
//
// Every component is a child process or a listener on 127.0.0.1. A child is
// started on a thread of its own with a parent-death signal, so it ends with
// the process that started it however that ends, and Close kills it by its
// process id and waits. Nothing is looked up by name and nothing is left over.
//
// Ports are chosen below the range that the kernel hands out for outgoing
// connections, because a component keeps its port while it is down: a
// connection of another test must not land on it between kill and restart.
//
// The core returns errors and takes no *testing.T, so that the demo can use
// it. The functions in testing.go wrap it for tests: they skip with the
// reason where a component cannot be had, and fail instead where CI=true says
// that everything must be there.
package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrMissing is what errors wrap when a component is not on this machine and
// cannot be had: a reason to skip, not a failure of what is tested.
var ErrMissing = errors.New("component missing")

// Env is what the harness takes from the environment. It is test code, so it
// may; it does so in FromEnv only.
type Env struct {
	VaultBin string   // VAULT_BIN: a Vault binary to use instead of the one that is built here
	CI       bool     // CI=true: a missing component is a failure
	Path     string   // PATH, for children
	Home     string   // HOME, for children
	All      []string // everything, for compilers and package managers
}

// FromEnv reads the environment.
func FromEnv() Env {
	return Env{
		VaultBin: os.Getenv("VAULT_BIN"),
		CI:       os.Getenv("CI") == "true",
		Path:     os.Getenv("PATH"),
		Home:     os.Getenv("HOME"),
		All:      os.Environ(),
	}
}

// Root returns the directory of the repository's go.mod: the nearest one at
// or above the working directory that has tests/harness beside it.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if st, err := os.Stat(filepath.Join(dir, "tests", "harness")); err == nil && st.IsDir() {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				return dir, nil
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find the repository: run this inside it; no go.mod with tests/harness beside it at or above the working directory")
		}
		dir = parent
	}
}

// CacheDir returns the folder for built and installed components, made if
// need be. Git ignores it.
func CacheDir() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "tests", ".cache")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache of components: %w", err)
	}
	return dir, nil
}

// once runs make while holding the lock file name in the cache folder, so
// that test binaries running side by side build or install a component once.
// It looks at done first and again under the lock.
func once(ctx context.Context, name string, done func() bool, make func(ctx context.Context) error) error {
	if done() {
		return nil
	}
	dir, err := CacheDir()
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	defer lock.Close() // closing drops the lock
	held := func() bool { return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil }
	if err := poll(ctx, 100*time.Millisecond, held); err != nil {
		return fmt.Errorf("wait for another process to make %s: %w", name, err)
	}
	if done() {
		return nil
	}
	return make(ctx)
}

// poll asks ok every interval until it says yes or ctx ends.
func poll(ctx context.Context, interval time.Duration, ok func() bool) error {
	if ok() {
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if ok() {
				return nil
			}
		}
	}
}
