package azure

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/azurehost"
	"github.com/thaw-project/thaw/tests/harness"
)

// children are the processes that a process started.
func children(t *testing.T, pid int) []int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil || len(text) == 0 {
		// The thread that started the child is another.
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, task := range tasks {
			more, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
			text = append(text, more...)
		}
	}
	var out []int
	for f := range strings.FieldsSeq(string(text)) {
		var n int
		if _, err := fmt.Sscan(f, &n); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// TestG1FreshAfterAFreeze: the app is frozen, thaw-azure and the user's handler
// together, and a secret changes meanwhile. The first read of the invocation
// that thaws it has the new value, whether the freeze came in the midst of an
// invocation or between two.
func TestG1FreshAfterAFreeze(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	v := vaultWithAzure(t, a)
	counter := harness.Count(t, harness.CounterConfig{Origin: v.Addr()})
	h := start(t, &app{mode: azurehost.Proxy, env: append(a.Environ(), "VAULT_ADDR="+counter.Addr(), "VAULT_AUTH_ROLE=app", "THAW_AZURE_RESOURCE="+audience, "THAW_AZURE_PLAN=flex", "THAW_IDLE_CONN=200ms", "THAW_POLL_TIMEOUT=5s")})
	ready(t, h)
	read := func(want string) {
		t.Helper()
		res, err := h.HTTP(t.Context(), "fn", httptest.NewRequest(http.MethodGet, "https://app/read?path=secret/data/frozen", nil))
		harness.Must(t, err)
		body, err := all(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"v":"`+want+`"`) || res.Header.Get("Warning") != "" {
			t.Errorf("want %s: %d %s %v %v", want, res.StatusCode, body, res.Header, err)
		}
	}
	put := func(value string) {
		t.Helper()
		_, err := v.Put(t.Context(), "secret", "frozen", map[string]any{"v": value})
		harness.Must(t, err)
	}
	put("0")
	read("0")
	kids := children(t, h.Handler().PID())
	if len(kids) != 1 {
		t.Fatalf("children %v", kids)
	}
	for n := 1; n <= 6; n++ {
		if n%2 == 0 { // a poll is on its way when the freeze comes
			counter.Stall()
			go func() {
				r := httptest.NewRequest(http.MethodGet, "https://app/?size=1", nil)
				if res, err := h.HTTP(t.Context(), "fn", r); err == nil {
					res.Body.Close()
				}
			}()
		}
		harness.Must(t, h.Handler().Freeze(t.Context()))
		harness.Must(t, syscall.Kill(kids[0], syscall.SIGSTOP))
		counter.Mend()
		put(fmt.Sprint(n))
		timer := time.NewTimer(300 * time.Millisecond) // longer than THAW_IDLE_CONN
		<-timer.C
		counter.CloseConnections() // what a balancer does meanwhile
		harness.Must(t, syscall.Kill(kids[0], syscall.SIGCONT))
		harness.Must(t, h.Handler().Thaw())
		read(fmt.Sprint(n))
	}
}
