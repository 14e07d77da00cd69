package app

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/status"
	"github.com/thaw-project/thaw/extension/vault"
)

// statusEvery is how often the origin is asked at most for what is shown: who
// may ask us must not be able to have us ask it.
const statusEvery = time.Second

// statuses asks for the origin's status once for all who ask at a time.
func (a *App) statuses() *coalesce.Group[struct{}, vault.Status] {
	return coalesce.New[struct{}](coalesce.Options[vault.Status]{
		Limit: a.cfg.ClientTimeout, Now: a.now,
		Keep: func(vault.Status, error) time.Duration { return statusEvery },
	})
}

// originStatus asks for the origin's status, unless that was just done or is
// being done. It is empty where ctx ends first.
func (a *App) originStatus(ctx context.Context) vault.Status {
	s, _, _ := a.status.Do(ctx, struct{}{}, func(ctx context.Context) (vault.Status, error) {
		return a.client.Status(ctx), nil
	})
	return s
}

// writeStatus writes the process's status as JSON.
func (a *App) writeStatus(ctx context.Context, w io.Writer) error {
	c, t := a.cache.Counters(), a.Tally()
	out := status.Report{
		Origin: a.originStatus(ctx), Reads: "active", Time: a.now().UTC(),
		Token: status.Token{Method: string(a.cfg.Auth.Method), State: "none", Left: -1},
		Cache: status.Cache{
			Entries: c.Entries, Bytes: c.Bytes, Limit: a.cfg.CacheBytes, Identities: c.Identities,
			Hits: t.hits, Stale: t.stale, Misses: t.misses, Errors: t.errors, Origin: t.origin,
		},
	}
	if a.proxy != nil {
		out.Cache.Requests = a.proxy.Counts().Requests
	}
	if a.cfg.StandbyReads {
		out.Reads = "standby"
	}
	if held, left, ends := a.tokens.Held(); held {
		out.Token.State = "held"
		if ends {
			out.Token.Left = int64(left / time.Second)
		}
	}
	if a.keeper != nil {
		k := a.keeper.Counts()
		out.Consistency = &status.Consistency{Lagging: k.Behind, Waits: k.Waits, Active: k.Active}
	}
	if a.events != nil {
		out.Events = &status.Events{Listening: a.events.Listening(), Told: a.events.Events()}
	}
	return json.NewEncoder(w).Encode(out)
}
