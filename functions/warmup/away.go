package warmup

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wait"
)

// away waits for an origin that does not answer, once for all workers.
type away struct {
	asker Asker
	log   *slog.Logger
	now   func() time.Time
	waits *coalesce.Group[struct{}, bool]

	mu     sync.Mutex // guards the fields below
	until  time.Time
	begins func() // called when a wait begins; nil: nothing to do then
}

func newAway(o *Options) *away {
	return &away{asker: o.Asker, log: o.Log, now: o.Now, waits: coalesce.New[struct{}](coalesce.Options[bool]{CancelUnwanted: true})}
}

// limit bounds the waits of a run.
func (a *away) limit(stop, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until = stop; stop.IsZero() {
		a.until = now.Add(awayMost)
	}
}

// whenItBegins has f called at the beginning of each wait from now on.
func (a *away) whenItBegins(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begins = f
}

const (
	awayFirst = 500 * time.Millisecond
	awayEach  = 10 * time.Second
)

// wait returns true when the origin answers again, and false when ctx ends or
// it has taken too long. A limit of ours is no outage: after a pause it is true.
func (a *away) wait(ctx context.Context, why error) bool {
	if vault.OurLimit(why) {
		a.mu.Lock()
		until := a.until
		a.mu.Unlock()
		return wait.For(ctx, awayFirst) == nil && a.now().Before(until)
	}
	back, _, err := a.waits.Do(ctx, struct{}{}, func(ctx context.Context) (bool, error) {
		a.mu.Lock()
		until, begins := a.until, a.begins
		a.mu.Unlock()
		a.log.Warn("the origin does not answer: waiting for it; nothing is removed meanwhile", "error", why)
		if begins != nil {
			begins()
		}
		for d := awayFirst; a.now().Before(until) && wait.For(ctx, d) == nil; d = min(2*d, awayEach) {
			if a.asker == nil || a.answers(ctx) {
				a.log.Info("the origin answers again")
				return true, nil
			}
		}
		return false, nil
	})
	return back && err == nil
}

func (a *away) answers(ctx context.Context) bool {
	h, err := a.asker.Health(ctx)
	return err == nil && serves(h)
}

// serves tells whether a node in this state answers reads, itself or through
// the active one.
func serves(h vault.Health) bool {
	return h.Initialized && !h.Sealed && (h.Status == http.StatusOK || h.Status == http.StatusTooManyRequests || h.Status == 473)
}
