package warmup

import (
	"context"
	"net/http"

	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

// backedAsker asks the origin about itself through the backoff: a global quota
// counts these requests too.
type backedAsker struct {
	next    Asker
	backoff *backoff.Backoff
}

// NewAsker puts a backoff before an Asker. A nil backoff is none.
func NewAsker(next Asker, g *backoff.Backoff) Asker {
	if g == nil {
		return next
	}
	return &backedAsker{next, g}
}

// Leader asks sys/leader. A 429 is an answer here: the next look may be luckier.
func (a *backedAsker) Leader(ctx context.Context) (vault.Leader, error) {
	t, err := a.backoff.Enter(ctx)
	if err != nil {
		return vault.Leader{}, err
	}
	l, err := a.next.Leader(ctx)
	a.leave(t, l.Status, err)
	return l, err
}

// Health asks sys/health, where 429 means a standby.
func (a *backedAsker) Health(ctx context.Context) (vault.Health, error) {
	t, err := a.backoff.Enter(ctx)
	if err != nil {
		return vault.Health{}, err
	}
	h, err := a.next.Health(ctx)
	a.leave(t, http.StatusOK, err)
	return h, err
}

func (a *backedAsker) leave(t backoff.Ticket, status int, err error) {
	if err != nil && status != http.StatusTooManyRequests {
		status = 0
	}
	a.backoff.Leave(t, status, nil, nil)
}
