package warmup

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/vault"
)

// node is an active node with a log.
type node struct{ committed, applied uint64 }

func (n *node) Leader(context.Context) (vault.Leader, error) {
	now := time.Now()
	return vault.Leader{SentAt: now, ReceivedAt: now, HAEnabled: true, IsSelf: true, ActiveTime: "t", Status: http.StatusOK, Committed: n.committed, Applied: n.applied}, nil
}

func (n *node) Health(context.Context) (vault.Health, error) {
	return vault.Health{Status: 200, Initialized: true, Version: "1.21.0"}, nil
}

// TestG1NoStampBetweenAppendAndApply: a function that reads the old value then
// would hold it for the new one's.
func TestG1NoStampBetweenAppendAndApply(t *testing.T) {
	t.Parallel()
	n := &node{committed: 7, applied: 6}
	c := &cursor{asker: n, log: slog.New(slog.DiscardHandler), now: time.Now}
	if c.whole() {
		t.Error("whole before anything was asked")
	}
	if _, err := c.query(t.Context()); err != nil || c.whole() {
		t.Error("an entry was appended and not applied")
	}
	n.applied = 7
	if _, err := c.query(t.Context()); err != nil || !c.whole() {
		t.Error("everything was applied")
	}
}
