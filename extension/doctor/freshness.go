package doctor

import (
	"context"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// freshness says how late a change in Vault may be seen.
func freshness(_ context.Context, e *Exam) {
	what := "a change in Vault is seen " + e.Config.Freshness()
	if e.Config.Poll == config.PollOff && e.Config.DefaultTTL == 0 {
		e.Advice(what, "a rotated secret goes on being served", "remove THAW_POLL, or set VAULT_DEFAULT_CACHE_TTL")
		return
	}
	e.OK(what)
}

// latency compares how long Vault takes with how long reads wait for it.
func latency(_ context.Context, e *Exam) {
	limit := e.Config.PollTimeout
	for _, n := range e.nodes {
		what := n.String() + ": an answer takes " + n.took.Round(time.Millisecond).String() + ", and THAW_POLL_TIMEOUT is " + limit.String()
		switch {
		case n.health == nil || e.Config.Poll == config.PollOff:
		case n.took > limit:
			e.Problem(what, "no verification ends in time, so each read asks for itself, or what is cached is served marked stale", "raise THAW_POLL_TIMEOUT to twice that, or bring Vault nearer")
		case n.took > limit/2:
			e.Advice(what, "slower answers come too late, and what is cached is served marked stale", "raise THAW_POLL_TIMEOUT")
		default:
			e.OK(what)
		}
	}
	e.orOK("nothing waits for Vault: THAW_POLL=off")
}
