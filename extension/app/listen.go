package app

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/events"
)

// reconcile is how long a secret is taken for unchanged because no event told
// otherwise: Vault may drop events, and a restored snapshot makes none.
const reconcile = 30 * time.Second

// listener returns what listens to the origin's events, for hosts that do not
// freeze.
func (a *App) listener() *events.Listener {
	return events.New(events.Options{
		Stream: a.cache.Stream(), Load: a.cache.Load, Namespace: a.cfg.Namespace, Send: a.session.Subscribe, Idle: a.cache.Empty,
		Ping: min(a.cfg.Recheck/4, 250*time.Millisecond), Log: a.log, Now: a.now,
		Capabilities: func(ctx context.Context, namespace string, paths []string) (map[string][]string, error) { // of thaw's own token
			status, held, err := a.session.Capabilities(ctx, a.cache.Own(), namespace, paths)
			if err == nil && status != http.StatusOK {
				err = errors.New("sys/capabilities-self was not answered with 200")
			}
			return held, err
		},
		Offered: func(ctx context.Context) (bool, error) {
			h, err := a.client.Health(ctx)
			return h.Enterprise, err
		},
	})
}
