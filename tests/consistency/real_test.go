package consistency

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// The same before a real Vault, on real time and real connections: what the
// fake adds, it adds to the real server's answers.
func TestBeforeARealVaultAnIdentityReadsWhatItWrote(t *testing.T) {
	t.Parallel()
	v := harness.Raft(t)
	at, err := url.Parse(v.Addr())
	if err != nil {
		t.Fatal(err)
	}
	cluster := standin.NewCluster(standin.ClusterOptions{
		Origin: httputil.NewSingleHostReverseProxy(at), RootToken: v.RootToken(), Standbys: 1,
		Lag: func() time.Duration { return rand.N(200 * time.Millisecond) },
	})
	cluster.Serve()
	t.Cleanup(cluster.Close)
	for _, tt := range []struct {
		name, enforce string
		old           bool
	}{{"never", "never", true}, {"always", "always", false}} {
		x, stop := before(t, app.Hooks{}, "VAULT_ADDR="+cluster.Standby(0).Addr(), "VAULT_TOKEN="+v.RootToken(),
			"THAW_ENFORCE_CONSISTENCY="+tt.enforce, "THAW_WHEN_INCONSISTENT=retry")
		x.prefix = tt.name + "/"
		c := writeAndRead(x, x, v.RootToken(), 100, 0)
		stop()
		t.Log(tt.name, c, cluster.Counts())
		if c.failed.Load() > 0 || c.behind.Load() > 0 || (c.old.Load() > 0) != tt.old {
			t.Errorf("%s: %v\n%s", tt.name, c, x.log)
		}
	}
}

// before starts a thaw before a real server.
func before(t *testing.T, hooks app.Hooks, env ...string) (x *instance, stop func()) {
	t.Helper()
	cfg, _, err := config.Load(config.Source{Environ: append(env, "THAW_LISTEN=127.0.0.1:0")})
	harness.Must(t, err)
	x = &instance{t: t, log: new(bytes.Buffer), Client: &http.Client{}}
	x.app, err = app.Build(cfg, slog.New(slog.NewTextHandler(&locked{w: x.log}, nil)), io.Discard, hooks)
	harness.Must(t, err)
	harness.Must(t, x.app.Listen())
	x.addr = x.app.Addrs()[0]
	return x, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		x.app.Shutdown(ctx)
	}
}

// One request per quiet invocation before a real Vault whose answers name their node,
// however many secrets.
func TestBeforeARealVaultAQuietInvocationCostsOneRequest(t *testing.T) {
	t.Parallel()
	v, err := harness.StartRaft(t.Context(), harness.VaultConfig{Binary: harness.VaultBin(t), Extra: "enable_response_header_raft_node_id = true\n"})
	harness.Must(t, err)
	t.Cleanup(v.Close)
	harness.Must(t, v.EnableKV(t.Context(), "secret", 2))
	for i := range 1000 {
		_, err := v.Put(t.Context(), "secret", fmt.Sprintf("quiet/%d", i), map[string]any{"n": 1})
		harness.Must(t, err)
	}
	for _, secrets := range []int{1, 10, 100, 1000} {
		counter := harness.Count(t, harness.CounterConfig{Origin: v.Addr()})
		// Nothing but invocations begins a poll, however slow this host is.
		x, stop := before(t, app.Hooks{Frozen: true}, "VAULT_ADDR="+counter.Addr(), "VAULT_TOKEN="+v.RootToken(), "THAW_POLL_TIMEOUT=10s", "THAW_RECHECK=10m")
		each := func() {
			x.app.Invoke(time.Now(), time.Now().Add(time.Hour)) // a busy machine may take minutes for the first reads
			for i := range secrets {
				if a, n := x.read(fmt.Sprintf("quiet/%d", i), ""); n != 1 || a.header.Get("X-Vault-Raft-Node-Id") == "" {
					t.Fatalf("%d secrets, %d: %d %v", secrets, i, a.status, a.header)
				}
			}
		}
		least := 0
		for round := range 4 { // the first reads; then Vault writes something by itself now and then
			start := counter.Total()
			for range 10 {
				each()
			}
			if n := counter.Total() - start; round > 0 && (n < least || least == 0) {
				least = n
			}
			if least == 10 {
				break
			}
		}
		if least != 10 {
			t.Errorf("%d secrets: %d requests in 10 invocations", secrets, least)
		}
		stop()
	}
}
