package harness

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
)

// startTimeout bounds the start of one component in a test.
const startTimeout = 60 * time.Second

// buildTimeout bounds a build or an installation in a test.
const buildTimeout = 20 * time.Minute

// Missing ends the test because of err: it skips, with the reason, where err
// says that a component is missing, and fails for any other error and where
// CI=true.
func Missing(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrMissing) && !FromEnv().CI {
		t.Skipf("NOT TESTED: %v", err)
	}
	t.Fatal(err)
}

// VaultBin returns the Vault binary, built if need be.
func VaultBin(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	bin, err := FindVault(ctx, FromEnv().VaultBin)
	if err != nil {
		Missing(t, err)
	}
	return bin
}

// Dev is StartDev for one test.
func Dev(t testing.TB) *Vault {
	t.Helper()
	return testVault(t, StartDev, VaultConfig{Binary: VaultBin(t)})
}

// Raft is StartRaft for one test, with KV v2 at secret/ and KV v1 at kv/.
func Raft(t testing.TB) *Vault {
	t.Helper()
	v := testVault(t, StartRaft, VaultConfig{Binary: VaultBin(t)})
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := errors.Join(v.EnableKV(ctx, "secret", 2), v.EnableKV(ctx, "kv", 1)); err != nil {
		t.Fatal(err)
	}
	return v
}

// CAFor is NewCA for one test.
func CAFor(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func testVault(t testing.TB, start func(context.Context, VaultConfig) (*Vault, error), cfg VaultConfig) *Vault {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	v, err := start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.Close()
		if t.Failed() {
			t.Logf("Vault's output:\n%s", v.Process().Tail(4000))
		}
	})
	return v
}

// Count is StartCounter for one test.
func Count(t testing.TB, cfg CounterConfig) *Counter {
	t.Helper()
	c, err := StartCounter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Logf("requests that reached the counter:\n%s", c)
		}
	})
	return c
}

// AWS is StartMoto for one test.
func AWS(t testing.TB) *Moto {
	t.Helper()
	Python(t) // installed before the start's clock runs
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	m, err := StartMoto(ctx)
	if err != nil {
		Missing(t, err)
	}
	t.Cleanup(m.Close)
	return m
}

// Python returns a folder with python, cfn-lint and sam; that python has moto
// and hvac.
func Python(t testing.TB) string { t.Helper(); return find(t, FindPython) }

// NodeVault returns a folder to run node in, with node-vault installed.
func NodeVault(t testing.TB) string { t.Helper(); return find(t, FindNodeVault) }

func find(t testing.TB, what func(context.Context) (string, error)) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	got, err := what(ctx)
	if err != nil {
		Missing(t, err)
	}
	return got
}

// Must fails the test at once where one of errs is an error.
func Must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until ok says yes, and fails the test when limit has passed without.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); Pause(t.Context(), 5*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Pause lets real time pass, until ctx ends: the clocks of other processes cannot be injected.
func Pause(ctx context.Context, d time.Duration) {
	_ = wait.For(ctx, d)
}

// FreeAddr returns an address on 127.0.0.1 at which nothing listens now.
func FreeAddr(t testing.TB) string {
	t.Helper()
	port, err := freePorts(1)
	Must(t, err)
	return loopback(port)
}

// AwaitListener waits until something takes connections at addr.
func AwaitListener(t testing.TB, addr string) {
	t.Helper()
	Eventually(t, startTimeout, "something listens at "+addr, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
