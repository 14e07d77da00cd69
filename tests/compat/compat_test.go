// Package compat holds thaw to what its peers promise: vault-lambda-extension's
// variables and headers, Vault Proxy's configuration file and behaviour, Vault's
// own clients. Every test runs the real binary in front of a real Vault.
//
// One dev server is shared by the tests; each has mounts, policies and a
// counting proxy of its own in front of it, so that they run side by side and
// "Vault is dead" is that proxy cut off. A test that must change the server
// itself starts another one. Where Vault cannot be made to say something (a
// namespace on a community server, a lease without an outside system), a small
// upstream of the test's own answers in Vault's shape.
//
// A test is named for the promise, with the variable or the issue in it.
package compat

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// suite is what the tests share. It is set before they run.
var suite struct {
	binary string                         // thaw
	vault  func() (*harness.Vault, error) // the shared server, started at first use
}

func TestMain(m *testing.M) { os.Exit(runSuite(m)) }

func runSuite(m *testing.M) int {
	dir, err := os.MkdirTemp("", "thaw-compat-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := buildThaw(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var started *harness.Vault
	suite.vault = sync.OnceValues(func() (v *harness.Vault, err error) {
		started, err = startShared()
		return started, err
	})
	status := m.Run()
	if started != nil {
		started.Close()
	}
	return status
}

// buildThaw builds the binary under test into dir.
func buildThaw(dir string) error {
	suite.binary = filepath.Join(dir, "thaw")
	return harness.Build(context.Background(), suite.binary, "./extension")
}

// startShared starts the shared server.
func startShared() (*harness.Vault, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	bin, err := harness.FindVault(ctx, harness.FromEnv().VaultBin)
	if err != nil {
		return nil, err
	}
	return harness.StartDev(ctx, harness.VaultConfig{Binary: bin})
}
