package consistency

import (
	"bytes"
	"context"
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
		cfg, _, err := config.Load(config.Source{Environ: []string{
			"VAULT_ADDR=" + cluster.Standby(0).Addr(), "VAULT_TOKEN=" + v.RootToken(), "THAW_LISTEN=127.0.0.1:0",
			"THAW_ENFORCE_CONSISTENCY=" + tt.enforce, "THAW_WHEN_INCONSISTENT=retry",
		}})
		if err != nil {
			t.Fatal(err)
		}
		x := &instance{t: t, log: new(bytes.Buffer), prefix: tt.name + "/", Client: &http.Client{}}
		if x.app, err = app.Build(cfg, slog.New(slog.NewTextHandler(&locked{w: x.log}, nil)), io.Discard, app.Hooks{}); err != nil {
			t.Fatal(err)
		}
		if err := x.app.Listen(); err != nil {
			t.Fatal(err)
		}
		x.addr = x.app.Addrs()[0]
		c := writeAndRead(x, x, v.RootToken(), 100, 0)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		x.app.Shutdown(ctx)
		cancel()
		t.Log(tt.name, c, cluster.Counts())
		if c.failed.Load() > 0 || c.behind.Load() > 0 || (c.old.Load() > 0) != tt.old {
			t.Errorf("%s: %v\n%s", tt.name, c, x.log)
		}
	}
}
