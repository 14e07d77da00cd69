package app

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/journal"
	"github.com/thaw-project/thaw/extension/status"
	"github.com/thaw-project/thaw/extension/vault"
)

// statusEvery is how often the origin is asked at most for what is shown: who
// may ask us must not be able to have us ask it.
const statusEvery = time.Second

// writeStatus writes the process's status as JSON.
func (a *App) writeStatus(ctx context.Context, w io.Writer) error {
	// First, since it takes seconds where the origin hangs, and what it learns counts. It is
	// empty where ctx ends first.
	origin, _, _ := a.status.Do(ctx, struct{}{}, func(ctx context.Context) (vault.Status, error) { return a.client.Status(ctx), nil })
	c, t, now, said, sum, waits := a.cache.Counters(), a.Tally(), a.now(), a.answers.Counts(), a.cache.Summary(), a.proxy.Waits()
	ago := func(at time.Time) int64 {
		if at.IsZero() {
			return -1
		}
		return int64(clock.Elapsed(at, now) / time.Second)
	}
	out := status.Report{
		Reads:   map[bool]string{false: "active", true: "standby"}[a.cfg.StandbyReads],
		Version: a.hooks.Version, Uptime: ago(a.started), Listeners: a.Addrs(), Origin: origin, Time: now.UTC(),
		Answers:   status.Answers{Codes: said.Codes, Refused: said.Refused, Foreign: said.Foreign, Silent: ago(a.answers.Silent())},
		Token:     status.Token{Method: string(a.cfg.Auth.Method), State: "none", Left: -1, Refused: ago(a.answers.TokenRefused())},
		Freshness: status.Freshness{Rule: a.cfg.Freshness(), Stale: sum.Stale, Verified: shown(sum.Verified), Since: shown(sum.Since)},
		Cache: status.Cache{
			Entries: c.Entries, Bytes: c.Bytes, Limit: a.cfg.CacheBytes, Identities: c.Identities,
			Requests: a.proxy.Counts().Requests, Hits: t.hits, Stale: t.stale, Misses: t.misses, Errors: t.errors, Origin: t.origin,
			Capabilities: sum.Capabilities, Confirmed: ago(sum.Confirmed),
		},
		Waiting: status.Waiting{
			Requests: waits.Active, Slowest: waits.Slowest.Seconds(), Fills: sum.Fills, Poll: a.poller.Running(),
			Places: a.cfg.MaxInFlight - a.client.Places().Free(), Limit: a.cfg.MaxInFlight, Queued: a.client.Places().Waiting(),
		},
		Errors: journal.Of(a.log),
	}
	if sum.Stale > 0 {
		out.Freshness.Until = shown(sum.Since.Add(a.cfg.StaleIfError))
	}
	switch held, left, ends := a.tokens.Held(); {
	case out.Token.Refused >= 0:
		out.Token.State = "refused"
	case held:
		out.Token.State = "held"
		if ends {
			out.Token.Left = int64(left / time.Second)
		}
	case ends:
		out.Token.State = "ended"
	}
	if a.tier != nil {
		out.Memcached = a.tier.Nodes()
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

// shown is a time for the report; nil for none.
func shown(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}

// Started logs that the process serves: where, what it asks, and how to try it.
func (a *App) Started() {
	login := string(a.cfg.Auth.Method)
	if a.cfg.Auth.Role != "" {
		login += ", role " + a.cfg.Auth.Role
	}
	shared := "off"
	if a.tier != nil {
		shared = strings.Join(a.cfg.Memcached, ", ") + ", audience " + a.cfg.Audience
	}
	a.log.Info("serving", "addresses", a.Addrs(), "version", a.hooks.Version, "vault", a.cfg.Addrs, "login", login, "shared_cache", shared,
		"freshness", "a change is seen "+a.cfg.Freshness(), "try", curl(a.cfg, a.Addrs()))
}

// curl is a command that asks a process that listens there.
func curl(cfg config.Config, addrs []string) string {
	if len(addrs) == 0 || len(cfg.Listeners) == 0 {
		return ""
	}
	l, flags := cfg.Listeners[0], ""
	if l.CertFile != "" {
		flags = " -k"
	}
	if l.Network == "unix" {
		flags += " --unix-socket " + l.Address
	}
	if l.RequireRequestHeader {
		flags += " -H 'X-Vault-Request: true'"
	}
	if cfg.LocalToken != "" {
		flags += ` -H "X-Thaw-Token: $THAW_LOCAL_TOKEN"`
	}
	return "curl -sf" + flags + " " + status.URL(l, addrs[0]) + "/proxy/v1/status"
}
