// Package shared tests that many instances share one warm cache: the real
// extension and the real warm-up, a real memcached, and a real Vault with
// integrated storage behind a proxy that counts what reaches it.
package shared

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// full is the flag of the full sizes: 1,000 cold starts, 200 instances.
var full = flag.Bool("thaw.full", false, "run with the full sizes: many minutes instead of one or two")

// sized is n by default and whole with -thaw.full.
func sized(n, whole int) int {
	if *full {
		return whole
	}
	return n
}

// suite is what the tests of this package share.
var suite struct {
	thaw, warmup string // the binaries under test; set before the first test
	hosts        atomic.Uint32
	names        atomic.Uint32
}

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, func(dir string) error {
		suite.thaw, suite.warmup = filepath.Join(dir, "thaw"), filepath.Join(dir, "warmup")
		return errors.Join(
			harness.Build(context.Background(), suite.thaw, "./extension"),
			harness.Build(context.Background(), suite.warmup, "./functions/warmup/lambda"),
		)
	}))
}

// address returns an address that nobody else listens on: each instance has a
// loopback address of its own, as each sandbox has, and the port of real life.
// The process id keeps test binaries that run side by side apart.
func address(t testing.TB) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: needs Linux: all of 127.0.0.0/8 on the loopback interface")
	}
	n := suite.hosts.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:8210", 1+os.Getpid()%254, 1+n/250%250, 1+n%250)
}

// mark begins every secret value of these tests.
const mark = "PlantedSecret-"

// secret makes a value that nothing may ever write down.
func secret() string { return mark + rand.Text() }

// transcript is what processes write, in which no secret may be.
type transcript struct{ harness.Transcript }

// check fails the test where a secret was written, and shows the end of it
// where the test failed.
func (w *transcript) check(t testing.TB, who string) {
	t.Helper()
	text := w.String()
	for _, s := range []string{mark, cacheKey, "hvs.", "hvb."} {
		if i := strings.Index(text, s); i >= 0 {
			t.Errorf("%s wrote a secret: ...%s...", who, text[max(0, i-100):min(len(text), i+30)])
		}
	}
	if t.Failed() {
		t.Logf("%s wrote, at last:\n%s", who, w.Tail(3000))
	}
}
