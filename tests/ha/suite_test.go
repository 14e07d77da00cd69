// Package ha runs the real binary against three real Vault nodes with raft, and
// takes the leader away in every way that happens: killed, stopped, sealed, cut
// off, stepped down.
package ha

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// requests is how many the mixed runs send.
var requests = flag.Int("thaw.requests", 1000, "requests of the mixed run against a cluster that loses its leader")

// patience bounds waits for something that must come, on a busy machine.
const patience = time.Minute

// binary is the program under test; set before the first test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, func(dir string) error {
		binary = filepath.Join(dir, "thaw")
		return harness.Build(context.Background(), binary, "./extension")
	}))
}

// thaw is a running `thaw proxy`.
type thaw struct {
	t      testing.TB
	proc   *harness.Process
	addr   string
	client *http.Client
}

// start runs the proxy with VAULT_ and THAW_ settings.
func start(t testing.TB, settings harness.Settings) *thaw {
	t.Helper()
	env := harness.Settings{"PATH": harness.FromEnv().Path, "HOME": t.TempDir(), "THAW_LISTEN": "127.0.0.1:0"}.With(settings)
	proc, err := harness.Start(harness.Command{Path: binary, Args: []string{"proxy"}, Env: env.List(), Dir: t.TempDir()})
	harness.Must(t, err)
	p := &thaw{t: t, proc: proc, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}}
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		proc.Stop(5 * time.Second)
		if t.Failed() {
			t.Logf("thaw's output:\n%s", proc.Tail(6000))
		}
	})
	harness.Eventually(t, patience, "the listener", func() bool {
		for line := range strings.Lines(proc.Stderr()) {
			var said struct {
				Msg       string   `json:"msg"`
				Addresses []string `json:"addresses"`
			}
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving" && len(said.Addresses) > 0 {
				p.addr = "http://" + said.Addresses[0]
				return true
			}
		}
		return false
	})
	return p
}

// send sends one request to the proxy.
func (p *thaw) send(ctx context.Context, c harness.Call) (*harness.Response, error) {
	return harness.Send(ctx, p.client, p.addr, c)
}
