package harness

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
)

// Main is a package's TestMain but for the exit: it has prepare build what is
// tested into a folder, runs the tests, removes the folder, and returns the
// status to exit with.
func Main(m *testing.M, prepare func(dir string) error) int {
	flag.Parse() // a wrong flag is told before anything is built
	dir, err := os.MkdirTemp("", "thaw-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the binaries under test:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// SharedVault is one server for all tests of a package that do not harm it,
// started for the first that asks for it.
type SharedVault struct {
	// Start starts it, with what all tests need in it; StartDev does.
	Start func(context.Context, VaultConfig) (*Vault, error)

	once  sync.Once
	vault *Vault // set by once
	err   error  // set by once
}

// Get returns the server; the test skips or fails, as Missing says, where
// there is none.
func (s *SharedVault) Get(t testing.TB) *Vault {
	t.Helper()
	s.once.Do(s.start)
	if s.err != nil {
		Missing(t, s.err)
	}
	return s.vault
}

// start has a context of its own: the first test may end before the others.
func (s *SharedVault) start() {
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	bin, err := FindVault(ctx, FromEnv().VaultBin)
	if err != nil {
		s.err = err
		return
	}
	s.vault, s.err = s.Start(ctx, VaultConfig{Binary: bin})
}

// Close ends the server, if it was started, when all tests are over.
func (s *SharedVault) Close() {
	if s.vault != nil {
		s.vault.Close()
	}
}
