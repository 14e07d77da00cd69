package job

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/functions/warmup"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestARunThatGoesOnInVainSaysSo: functions count no verification that this
// warm-up makes, so all it costs is its time.
func TestARunThatGoesOnInVainSaysSo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		maxAge string
		goesOn time.Duration
		warns  bool
	}{{"0", 0, false}, {"10s", time.Second, false}, {"0", time.Second, true}, {"1s", time.Second, true}} {
		cfg, _, err := config.Load(config.Source{NoListener: true, Environ: []string{
			"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x", "CACHE_ENABLE=true", "THAW_MEMCACHED=127.0.0.1:1", "THAW_AUDIENCE=prod",
			"THAW_CACHE_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "PROACTIVE_CACHE_ENABLE=true", "NEW_PROACTIVE_CACHE_ENABLE=true",
			"THAW_WARM_PATHS=secret/", "THAW_MAX_AGE=" + c.maxAge, "THAW_CLOCK_SKEW=1s",
		}})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		j, err := Build(cfg, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		j.Run(ctx, warmup.Order{For: c.goesOn})
		j.Close()
		if warns := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "THAW_MAX_AGE is not above THAW_CLOCK_SKEW"); warns != c.warns {
			t.Errorf("THAW_MAX_AGE=%s, for %v: warns %v\n%s", c.maxAge, c.goesOn, warns, log.String())
		}
	}
}

// TestEveryIdentityThatIsRestoredIsNamedAgain: one that no record names is in no later
// backup, however often memcached loses all, and whatever others hold.
func TestEveryIdentityThatIsRestoredIsNamedAgain(t *testing.T) {
	t.Parallel()
	m := harness.Memcache(t, harness.MemcachedConfig{})
	cfg, _, err := config.Load(config.Source{NoListener: true, Environ: []string{
		"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x", "CACHE_ENABLE=true", "THAW_MEMCACHED=" + m.Addr(), "THAW_AUDIENCE=prod",
		"THAW_CACHE_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "PROACTIVE_CACHE_ENABLE=true", "NEW_PROACTIVE_CACHE_ENABLE=true", "THAW_WARM_PATHS=secret/",
	}})
	harness.Must(t, err)
	j, err := Build(cfg, Options{Log: slog.New(slog.DiscardHandler)})
	harness.Must(t, err)
	defer j.Close()
	tier, now := j.Audiences[0].Tier, time.Now()
	for range 2 {
		for _, name := range []string{"one", "two"} {
			tier.PutHeld(t.Context(), warmup.Held{Identity: name, Role: "app", Capabilities: []warmup.Known{
				{Capability: cache.Capability{Path: "secret/data/a"}, Confirmation: cache.Confirmation{Read: now, At: now}},
			}})
		}
		held := tier.Held(t.Context())
		if len(held) != 2 || len(held[0].Capabilities) != 1 || len(held[1].Capabilities) != 1 {
			t.Errorf("it holds %+v", held)
		}
		harness.Must(t, m.Flush(t.Context()))
	}
}
