package warmup

import (
	"context"
	"net/http"

	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/functions/warmup/gate"
)

// gatedAsker asks the origin about itself through the gate: a global quota
// counts these requests too.
type gatedAsker struct {
	next Asker
	gate *gate.Gate
}

// NewAsker puts a gate before an Asker. A nil gate is none.
func NewAsker(next Asker, g *gate.Gate) Asker {
	if g == nil {
		return next
	}
	return &gatedAsker{next, g}
}

// Leader asks sys/leader. A 429 is an answer here: the next look may be luckier.
func (a *gatedAsker) Leader(ctx context.Context) (vault.Leader, error) {
	t, err := a.gate.Enter(ctx)
	if err != nil {
		return vault.Leader{}, err
	}
	l, err := a.next.Leader(ctx)
	a.leave(t, l.Status, err)
	return l, err
}

// Health asks sys/health, where 429 means a standby.
func (a *gatedAsker) Health(ctx context.Context) (vault.Health, error) {
	t, err := a.gate.Enter(ctx)
	if err != nil {
		return vault.Health{}, err
	}
	h, err := a.next.Health(ctx)
	a.leave(t, http.StatusOK, err)
	return h, err
}

func (a *gatedAsker) leave(t gate.Ticket, status int, err error) {
	if err != nil && status != http.StatusTooManyRequests {
		status = 0
	}
	a.gate.Leave(t, status, nil, nil)
}
