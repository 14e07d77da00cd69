package warmup

import (
	"context"
	"fmt"
	"net/http"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/wire"
)

// askIndex asks the origin where its index is. The stamp is zero where there is none that
// counts; with an error nothing is known about it.
func (w *Warmer) askIndex(ctx context.Context) (stamp cache.CursorStamp, status int, err error) {
	stamp, status, err = w.cursor.Where(ctx)
	if err == nil && wire.Failed(status) { // it is sealed, or refuses for its rate limit
		err = fmt.Errorf("sys/leader: status %d", status)
	}
	if err != nil {
		w.o.Log.Debug("ask for the cursor", "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stood = nil; err == nil {
		w.stood = &stamp
	}
	return stamp, status, err
}

// lookTries is how often the cursor is asked for in a cycle where the origin is
// there and only this question fails.
const lookTries = 3

// whereStands is the cursor in this cycle. A request that failed is no reason
// to read every secret again: an origin that is away is waited for, and one
// whose rate limit refused is asked when the backoff opens.
func (w *Warmer) whereStands(ctx context.Context) cache.CursorStamp {
	for range lookTries {
		w.mu.Lock()
		stood := w.stood
		w.mu.Unlock()
		if stood != nil {
			return *stood
		}
		stamp, status, err := w.askIndex(ctx)
		if err == nil || ctx.Err() != nil || !wire.Failed(status) && !isAway(err) {
			return stamp
		}
		if status != http.StatusTooManyRequests && !w.outlast(ctx, err, func() {}) {
			break
		}
	}
	return cache.CursorStamp{}
}
