package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// long is the flag of the longer run: full distributions, more rounds.
var long = flag.Bool("thaw.long", false, "run the full distributions: many minutes instead of some")

// suite is what the tests of this package share.
var suite = &shared{transcript: &harness.Transcript{}}

// shared is the binary under test, and everything that any of its processes
// wrote, which is searched for secrets when all tests are over.
type shared struct {
	binary     string // set before the first test
	transcript *harness.Transcript
	hosts      atomic.Uint32
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	status := harness.Main(m, func(dir string) error {
		suite.binary = filepath.Join(dir, "thaw") // Lambda knows an extension by its file's name
		return harness.Build(context.Background(), suite.binary, "./extension")
	})
	text := suite.transcript.String()
	if found := leaks(text); len(found) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: G5: %d secrets in what the extension wrote, the first ones:\n", len(found))
		for _, f := range found[:min(len(found), 5)] {
			fmt.Fprintln(os.Stderr, " ", f)
		}
		return 1
	}
	if testing.Verbose() {
		fmt.Printf("G5: searched %d bytes that the extension wrote for %d secrets: none is there\n", len(text), planted.count())
	}
	return status
}

// address returns an address that nobody else listens on: each environment
// has a loopback address of its own, as each sandbox has, and the port of real
// life. The process id keeps test binaries that run side by side apart.
func (s *shared) address(t testing.TB) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: needs Linux: all of 127.0.0.0/8 on the loopback interface, and /proc")
	}
	n := s.hosts.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:8200", 1+os.Getpid()%254, 1+n/250%250, 1+n%250)
}

// patience is how long a test waits for what must come, on a machine that may
// be busy with much else.
const patience = 20 * time.Second
