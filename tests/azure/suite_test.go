// Package azure runs the real thaw-azure under a strict stand-in for the Azure
// Functions host, with a real Vault whose azure method meets a stand-in for
// Entra and ARM.
package azure

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/azure/handler"
	"github.com/thaw-project/thaw/tests/fakes/azurehost"
	"github.com/thaw-project/thaw/tests/harness"
)

// patience bounds waits for something that must come, on a busy machine.
const patience = 30 * time.Second

// suite is what the tests share.
var suite struct {
	binary string // thaw-azure; set before the first test
	hosts  atomic.Uint32
}

func TestMain(m *testing.M) {
	if handler.Ours(os.Args) {
		os.Exit(handler.Main(os.Args))
	}
	os.Exit(harness.Main(m, func(dir string) error {
		suite.binary = filepath.Join(dir, "thaw-azure")
		return harness.Build(context.Background(), suite.binary, "./extension/azurefn/thaw-azure")
	}))
}

// app is what a test's function app is.
type app struct {
	mode    azurehost.Mode
	env     []string // app settings
	handler []string // how the user's handler behaves; nil: there is none
	none    bool     // host.json gives no command
	command []string // instead of the tests' handler
	secret  string   // host:port of thaw's proxy; set by start
}

// start starts the host with thaw-azure as its custom handler.
func start(t *testing.T, a *app) *azurehost.Host {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: the Linux plans only: all of 127.0.0.0/8 on the loopback interface")
	}
	// Each app has a loopback address of its own, as each sandbox has.
	n := suite.hosts.Add(1)
	a.secret = fmt.Sprintf("127.%d.%d.%d:8200", 1+os.Getpid()%254, 1+n/250%250, 1+n%250)
	exe, err := os.Executable()
	harness.Must(t, err)
	var args []string
	if !a.none {
		args = append([]string{"--", exe, handler.Argument, "proxy=" + a.secret}, a.handler...)
	}
	dir := t.TempDir()
	harness.Must(t, os.WriteFile(filepath.Join(dir, "host.json"), []byte(`{"version":"2.0","functionTimeout":"00:05:00","customHandler":{"initializationTimeout":"00:00:30"}}`), 0o600))
	if len(a.command) > 0 {
		args = append([]string{"--"}, a.command...)
		a.env = append(a.env, "VAULT_ADDR=http://"+a.secret) // for that handler
	}
	env := append([]string{"PATH=" + harness.FromEnv().Path, "HOME=" + dir, "THAW_LISTEN=" + a.secret}, a.env...)
	h, err := azurehost.New(azurehost.Config{Path: suite.binary, Args: args, Env: env, Dir: dir, Mode: a.mode})
	harness.Must(t, err)
	t.Cleanup(func() {
		h.Dispose()
		if t.Failed() {
			out := h.Output()
			t.Logf("thaw-azure wrote:\n%s", out[max(0, len(out)-6000):])
		}
	})
	return h
}

// ready waits until the host has its handler.
func ready(t *testing.T, h *azurehost.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	harness.Must(t, h.Await(ctx, azurehost.Initialized))
}

// all reads a body and closes it.
func all(body io.ReadCloser) ([]byte, error) {
	defer body.Close()
	return io.ReadAll(body)
}

// nobody is an address of Vault where nobody is.
func nobody() []string {
	return []string{"VAULT_ADDR=http://127.0.0.1:1", "THAW_AUTH_METHOD=none", "VAULT_LOG_LEVEL=warn"}
}
