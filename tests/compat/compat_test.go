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
	"os"
	"path/filepath"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// suite is what the tests share.
var suite = struct {
	binary string // thaw; set before the first test
	vault  *harness.SharedVault
}{vault: &harness.SharedVault{Start: harness.StartDev}}

func TestMain(m *testing.M) { os.Exit(runSuite(m)) }

func runSuite(m *testing.M) int {
	defer suite.vault.Close()
	return harness.Main(m, func(dir string) error {
		suite.binary = filepath.Join(dir, "thaw")
		return harness.Build(context.Background(), suite.binary, "./extension")
	})
}
