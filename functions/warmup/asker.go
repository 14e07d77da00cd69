package warmup

import (
	"context"
	"net/http"

	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

// politeAsker asks the origin about itself when the backoff lets it: a global
// quota may count these requests, too. Since operators exempt sys/leader from
// quotas, an answer says nothing about the limit of other requests.
type politeAsker struct {
	next    Asker
	backoff *backoff.Backoff
}

// NewAsker puts a backoff before an Asker. A nil backoff is none.
func NewAsker(next Asker, b *backoff.Backoff) Asker {
	if b == nil {
		return next
	}
	return &politeAsker{next, b}
}

// Leader asks sys/leader. A 429 is an answer here: the next look may be luckier.
func (a *politeAsker) Leader(ctx context.Context) (l vault.Leader, err error) {
	t, err := a.backoff.Enter(ctx)
	if err != nil {
		return l, err
	}
	l, err = a.next.Leader(ctx)
	status := 0
	if l.Status == http.StatusTooManyRequests {
		status = l.Status
	}
	a.backoff.Leave(t, status, nil, nil)
	return l, err
}

// Health asks sys/health, where 429 means a standby.
func (a *politeAsker) Health(ctx context.Context) (vault.Health, error) {
	t, err := a.backoff.Enter(ctx)
	if err != nil {
		return vault.Health{}, err
	}
	defer a.backoff.Leave(t, 0, nil, nil)
	return a.next.Health(ctx)
}
