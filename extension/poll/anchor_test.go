package poll

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/vault"
)

// quickOrigin answers at once, as the active node of a community Vault.
type quickOrigin struct{}

func (quickOrigin) Leader(context.Context) (vault.Leader, error) {
	now := time.Now()
	return vault.Leader{SentAt: now, ReceivedAt: now, HAEnabled: true, IsSelf: true, ActiveTime: "t", Committed: 7, Applied: 7, Status: 200}, nil
}

func (quickOrigin) Health(context.Context) (vault.Health, error) {
	return vault.Health{Status: 200, Version: "1.21.0"}, nil
}

// TestFirstReadsAtOnceAllGetTheAnchor: whoever comes while the question is being
// asked waits for its answer. One who got none would be read again by the next
// invocation for nothing.
func TestFirstReadsAtOnceAllGetTheAnchor(t *testing.T) {
	t.Parallel()
	for range 3000 {
		c := NewCursor(quickOrigin{}, nil, time.Second, slog.New(slog.DiscardHandler), time.Now)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-start
				if a := c.Index(t.Context(), 1); a.Zero() {
					t.Error("a read got no anchor although the origin gave one")
				}
			})
		}
		close(start)
		wg.Wait()
		c.Close()
		if t.Failed() {
			return
		}
	}
}
