package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// TestInstancesServeARotationThatTheWarmUpNoticed runs the real extension beside
// it, on a host that does not freeze: it polls whenever it likes, so a read of
// its own now and then is not excluded.
func TestInstancesServeARotationThatTheWarmUpNoticed(t *testing.T) {
	t.Parallel()
	bin := binary(t)
	thaw := filepath.Join(t.TempDir(), "thaw")
	if err := harness.Build(t.Context(), thaw, "./extension"); err != nil {
		t.Fatal(err)
	}
	m := harness.Memcache(t, harness.MemcachedConfig{})
	origin := standin.New(standin.Options{})
	server := httptest.NewServer(origin)
	defer server.Close()
	write := func(value string) {
		fill(t, server.URL, "root", 1, func(int) (string, string) { return "secret/data/app/db", `{"data":{"v":"` + value + `"}}` })
	}
	write("old")
	env := environ(server.URL, m.Addr(), "THAW_MAX_AGE=3s", "THAW_CLOCK_SKEW=10ms", "THAW_RECHECK=50ms")
	addr := harness.FreeAddr(t)
	p, err := harness.Start(harness.Command{Path: thaw, Args: []string{"proxy"}, Env: append(env, "THAW_LISTEN="+addr)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	read := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v1/secret/data/app/db", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return fmt.Sprint(res.Header.Get("Cache-Status"), " ", string(b))
	}
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(read(), `"old"`) {
		if time.Now().After(deadline) {
			t.Fatalf("%s\n%s", read(), p.Output())
		}
		wait(t.Context(), 20*time.Millisecond)
	}
	// Its verification is about to end, and the next finds the warm-up's.
	for end := time.Now().Add(1750 * time.Millisecond); time.Now().Before(end); wait(t.Context(), 50*time.Millisecond) {
		read()
	}
	write("new")
	// The first run notices the rotation, and from here on only it reads.
	invoke(t, bin, env, "-once")
	origin.ResetCounts()
	w, err := harness.Start(harness.Command{Path: bin, Args: []string{"-for", "10s"}, Env: append(env, "PROACTIVE_CACHE_MINIMUM_FETCHING_TIME=60")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Kill()
	for deadline = time.Now().Add(15 * time.Second); !strings.Contains(read(), `"new"`); wait(t.Context(), 20*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s\n%s", read(), p.Output())
		}
	}
	for range 45 { // beyond MAX_AGE
		if got := read(); !strings.Contains(got, `"new"`) {
			t.Fatal(got)
		}
		wait(t.Context(), 100*time.Millisecond)
	}
	t.Logf("%v", origin.Counts())
	if n := origin.Counts()["GET /v1/secret/data/app/db"]; n > 3 {
		t.Errorf("%d reads of the secret", n)
	}
}

// TestTheWarmUpNeverLinksTheProxy keeps the direction of the dependencies.
func TestTheWarmUpNeverLinksTheProxy(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the go command")
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"extension/proxy", "extension/poll", "extension/lambda", "aws-sdk-go-v2/config", "Azure"} {
		if strings.Contains(string(out), bad) {
			t.Errorf("it links %s", bad)
		}
	}
}
