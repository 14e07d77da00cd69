package ha

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// TestReadsAreServedByPerformanceStandbys: under THAW_READS=standby at least
// nine in ten, and all go on when both standbys die.
func TestReadsAreServedByPerformanceStandbys(t *testing.T) {
	t.Parallel()
	c := standin.NewCluster(standin.ClusterOptions{Origin: standin.New(standin.Options{}), Standbys: 2})
	var dead atomic.Bool
	var served [2]atomic.Int64
	for i := range served {
		c.Standby(i).SetFault(func(w http.ResponseWriter, _ *http.Request) bool {
			if dead.Load() {
				if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
					conn.Close()
				}
				return true
			}
			served[i].Add(1)
			return false
		})
	}
	c.Serve()
	t.Cleanup(c.Close)
	p := start(t, harness.Settings{
		"THAW_VAULT_ADDRS": c.Active().Addr(), "THAW_VAULT_READ_ADDRS": c.Standby(0).Addr() + "," + c.Standby(1).Addr(),
		"THAW_READS": "standby", "VAULT_TOKEN": "root", "THAW_WAL_WAIT": "10ms",
	})
	const secrets = 300
	for i := range secrets {
		r, err := p.send(t.Context(), harness.Call{Method: http.MethodPost, Path: fmt.Sprint("kv/s", i), Token: "root", Body: map[string]int{"n": i}})
		if err != nil || r.Status >= 300 {
			t.Fatalf("write: %v, %v", r, err)
		}
	}
	c.Flush()
	read := func(from, to int) (copies, failed int64) {
		var n, bad atomic.Int64
		var workers sync.WaitGroup
		for w := range 4 {
			workers.Go(func() {
				for i := from + w; i < to; i += 4 {
					r, err := p.send(t.Context(), harness.Call{Method: http.MethodGet, Path: fmt.Sprint("kv/s", i), Header: http.Header{"Cache-Control": {"no-cache"}}})
					if err != nil || r.Status != http.StatusOK || !strings.Contains(string(r.Body), fmt.Sprintf(`"n":%d`, i)) {
						bad.Add(1)
						continue
					}
					if strings.Contains(r.Header.Get("Cache-Status"), "node=standby") {
						n.Add(1)
					}
				}
			})
		}
		workers.Wait()
		return n.Load(), bad.Load()
	}
	copies, failed := read(0, secrets)
	t.Logf("%d of %d reads were served by standbys (%d and %d requests there), %d failed", copies, secrets, served[0].Load(), served[1].Load(), failed)
	if failed > 0 || copies*10 < secrets*9 {
		t.Errorf("%d of %d reads were served by standbys, %d failed", copies, secrets, failed)
	}
	if served[0].Load() == 0 || served[1].Load() == 0 {
		t.Error("one standby did nothing")
	}
	dead.Store(true)
	copies, failed = read(0, secrets)
	if failed > 0 || copies > 0 {
		t.Errorf("with both standbys dead %d reads failed, and %d say that they were served by one", failed, copies)
	}
}
