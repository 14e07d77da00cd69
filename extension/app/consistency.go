package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/consistency"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/extension/vault"
)

// keeper returns what makes reads see what their identity wrote, or nil where
// nothing asks for it: no header is required, and every read goes to the active
// node anyhow.
func keeper(cfg config.Config, client *vault.Client, standbyReads bool, shared *tier.Tier, log *slog.Logger, now func() time.Time) *consistency.Keeper {
	headers := cfg.EnforceConsistency == config.EnforceAlways
	if !headers && !standbyReads {
		return nil
	}
	o := consistency.Options{Headers: headers, When: cfg.WhenInconsistent, Wait: cfg.WALWait, Active: vault.ToActive, Log: log, Now: now}
	if standbyReads {
		o.AtLeast = vault.AtLeast
		o.Applied = func(ctx context.Context) (uint64, error) { return applied(ctx, client) }
	}
	if shared != nil && cfg.ConsistencyScope == config.ScopeAudience {
		o.Shared = shared
	}
	return consistency.New(o)
}

var errNoLeader = errors.New("the node that answered is not the active one")

// applied is the raft index that the active node has applied; 0 where storage
// is not integrated.
func applied(ctx context.Context, client *vault.Client) (uint64, error) {
	l, err := client.Leader(ctx)
	if err != nil {
		return 0, err
	}
	if l.HAEnabled && !l.IsSelf || l.Cached {
		return 0, errNoLeader
	}
	return l.Applied, nil
}
