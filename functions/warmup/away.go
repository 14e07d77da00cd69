package warmup

import (
	"context"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wait"
)

const (
	awayFirst = 500 * time.Millisecond
	awayEach  = 10 * time.Second
	awayMost  = time.Minute // how long a run without a deadline waits for the origin
)

// outlast waits for an origin that does not answer, once for all workers; begins is called
// before that. It returns true when the origin answers again, and false when ctx ends or it
// has taken too long. A limit of ours is no outage: after a pause it is true.
func (w *Warmer) outlast(ctx context.Context, why error, begins func()) bool {
	w.mu.Lock()
	until := w.until
	w.mu.Unlock()
	if vault.OurLimit(why) {
		return wait.For(ctx, awayFirst) == nil && w.o.Now().Before(until)
	}
	back, _, err := w.away.Do(ctx, struct{}{}, func(ctx context.Context) (bool, error) {
		w.o.Log.Warn("the origin does not answer: waiting for it; nothing is removed meanwhile", "error", why)
		begins()
		for d := awayFirst; w.o.Now().Before(until) && wait.For(ctx, d) == nil; d = min(2*d, awayEach) {
			if w.serves(ctx) {
				w.o.Log.Info("the origin answers again")
				return true, nil
			}
		}
		return false, nil
	})
	return back && err == nil
}

// serves tells whether the origin answers reads: the node that was asked does, itself or
// through the active one.
func (w *Warmer) serves(ctx context.Context) bool {
	h, err := w.o.Asker.Health(ctx)
	return err == nil && h.Initialized && !h.Sealed && (h.Status == http.StatusOK || h.Status == http.StatusTooManyRequests || h.Status == 473)
}
