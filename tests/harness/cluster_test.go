package harness

import (
	"context"
	"net/http"
	"testing"
	"time"
)

func TestClusterElectsAnotherLeaderAndKeepsItsData(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]ClusterConfig{"plain": {Front: true}, "TLS": {TLS: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Raft3(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			first, err := c.Leader(ctx)
			Must(t, err)
			if _, err := first.Put(t.Context(), "secret", "app", map[string]any{"k": "v"}); err != nil {
				t.Fatal(err)
			}
			first.Kill()
			second, err := c.Leader(ctx)
			Must(t, err)
			if second == first {
				t.Fatal("a dead node leads")
			}
			if got := version(t, second, second.RootToken(), "secret/data/app"); got != 1 {
				t.Errorf("version %v", got)
			}
			Must(t, first.StartSealed(ctx), c.Unseal(ctx, first))
			if status, err := first.health(t.Context()); err != nil || status != http.StatusTooManyRequests {
				t.Errorf("the old leader came back as %d, %v", status, err)
			}
		})
	}
}
