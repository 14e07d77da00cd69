package app

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/vault"
)

// report is what `thaw status` shows; nothing in it is secret.
type report struct {
	Origin vault.Status `json:"origin"`
	Reads  string       `json:"reads"` // active or standby
	Token  tokenStatus  `json:"token"`
	Cache  cacheStatus  `json:"cache"`
	Time   time.Time    `json:"time"`

	// Absent where that is not in use.
	Consistency *consistencyStatus `json:"consistency,omitempty"`
	Events      *eventStatus       `json:"events,omitempty"`
}

type consistencyStatus struct {
	Lagging uint64 `json:"lagging"`        // answers of nodes that lacked what a caller had written
	Waits   uint64 `json:"waits"`          // before such a node was asked again
	Active  uint64 `json:"sent_to_active"` // requests, for that reason
}

type eventStatus struct {
	Listening bool   `json:"listening"`
	Told      uint64 `json:"told"` // changes
}

type tokenStatus struct {
	Method string `json:"method"` // how thaw logs in; none: callers bring their own tokens
	State  string `json:"state"`  // none, held
	// Left is how long the token lasts, in seconds; -1: no end is known, or no
	// token is held.
	Left int64 `json:"seconds_left"`
}

type cacheStatus struct {
	Entries    int    `json:"entries"`
	Bytes      int64  `json:"bytes"`
	Limit      int64  `json:"limit_bytes"`
	Identities int    `json:"identities"`
	Requests   uint64 `json:"requests"`
	Hits       uint64 `json:"hits"`
	Stale      uint64 `json:"stale"`
	Misses     uint64 `json:"misses"`
	Errors     uint64 `json:"errors"`
	Origin     uint64 `json:"origin_requests"`
}

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
	out := report{
		Origin: a.originStatus(ctx), Reads: "active", Time: a.now().UTC(),
		Token: tokenStatus{Method: string(a.cfg.Auth.Method), State: "none", Left: -1},
		Cache: cacheStatus{
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
		out.Consistency = &consistencyStatus{Lagging: k.Behind, Waits: k.Waits, Active: k.Active}
	}
	if a.events != nil {
		out.Events = &eventStatus{Listening: a.events.Listening(), Told: a.events.Events()}
	}
	return json.NewEncoder(w).Encode(out)
}
