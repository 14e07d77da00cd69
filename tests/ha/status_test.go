package ha

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestStatusTellsOfEveryNodeAndNoSecret, with TLS, before and after the leader
// is killed.
func TestStatusTellsOfEveryNodeAndNoSecret(t *testing.T) {
	t.Parallel()
	c := harness.Raft3(t, harness.ClusterConfig{TLS: true})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	harness.Must(t, os.WriteFile(ca, c.CA.PEM(), 0o600))
	token := c.Nodes[0].RootToken()
	p := start(t, harness.Settings{"THAW_VAULT_ADDRS": c.String(), "VAULT_TOKEN": token, "VAULT_CACERT": ca, "THAW_LOCAL_TOKEN": "a-local-token-of-some-length", "THAW_ENFORCE_CONSISTENCY": "always"})
	local := http.Header{"X-Thaw-Token": {"a-local-token-of-some-length"}}
	read := func() {
		t.Helper()
		r, err := p.send(t.Context(), harness.Call{Method: http.MethodGet, Path: "secret/metadata/absent?a=b", Header: local})
		if err != nil || r.Status != http.StatusNotFound {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	read()
	status := func(args ...string) (string, int) {
		t.Helper()
		proc, err := harness.Start(harness.Command{
			Path: binary, Args: append([]string{"status", "-addr", p.addr}, args...), Env: []string{"THAW_LOCAL_TOKEN=a-local-token-of-some-length", "VAULT_ADDR=https://elsewhere"},
		})
		harness.Must(t, err)
		<-proc.Done()
		return proc.Output(), proc.ExitCode()
	}
	type report struct {
		Origin struct {
			Leader    string `json:"leader"`
			ClusterID string `json:"cluster_id"`
			Nodes     []struct {
				Address string `json:"address"`
				Role    string `json:"role"`
				Applied uint64 `json:"applied_index"`
				Breaker string `json:"breaker"`
				Error   string `json:"error"`
			} `json:"nodes"`
		} `json:"origin"`
		Token struct {
			State string `json:"state"`
		} `json:"token"`
	}
	roles := func() (map[string]int, report) {
		t.Helper()
		out, code := status("-json")
		var r report
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
			t.Fatalf("exit %d, %v: %s", code, err, out)
		}
		n := make(map[string]int)
		for _, node := range r.Origin.Nodes {
			n[node.Role]++
			if node.Role != "unreachable" && node.Applied == 0 {
				t.Errorf("no index: %+v", node)
			}
		}
		return n, r
	}
	leader, err := c.Leader(t.Context())
	harness.Must(t, err)
	n, r := roles()
	if n["active"] != 1 || n["standby"] != 2 || r.Origin.Leader != leader.Addr() || r.Origin.ClusterID == "" || r.Token.State != "held" {
		t.Errorf("%v, %+v", n, r)
	}
	text, code := status()
	for _, part := range []string{"Active Node Address", leader.Addr(), "standby", "Raft Applied Index", r.Origin.ClusterID, "token, held", "Consistency", "no stream, polling"} {
		if code != 0 || !strings.Contains(text, part) {
			t.Errorf("exit %d, no %q in:\n%s", code, part, text)
		}
	}
	if strings.Contains(text, token) {
		t.Error("the token is shown")
	}
	leader.Kill()
	read()
	after, err := c.Leader(t.Context())
	harness.Must(t, err)
	harness.Eventually(t, patience, "the new leader in the status", func() bool {
		n, r := roles()
		return n["active"] == 1 && n["unreachable"] == 1 && r.Origin.Leader == after.Addr()
	})
	if out, code := status("-addr", "http://127.0.0.1:1"); code != 1 || !strings.Contains(out, "no thaw answers") {
		t.Errorf("exit %d: %s", code, out)
	}
}
