package tier

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
)

// deferred gets the shared tier's key, which may come later, from KMS. It is asked
// for during the init, after Register and in no snapshot, and again, ever less often,
// at later invocations. Reads wait for the first answer only, and not longer than
// keyWait after the question: what a cold start would have to ask of the origin costs
// more.
type deferred struct {
	here atomic.Bool
	open func(context.Context) error // gets the key and opens the tier with it
	log  *slog.Logger
	now  func() time.Time

	attempts *coalesce.Group[struct{}, struct{}]

	mu    sync.Mutex
	first *coalesce.Call[struct{}] // guarded by mu; the first attempt; nil: none began
	since time.Time                // guarded by mu; when it began
	pause time.Duration            // guarded by mu; after the last failure; 0: none failed
}

// Times of asking KMS.
const (
	keyTime     = 3 * time.Second // for one attempt
	keyWait     = 100 * time.Millisecond
	keyPause    = time.Second // between the first two, then twice as long each
	keyPauseMax = time.Minute
)

func newDeferred(open func(context.Context) error, log *slog.Logger) *deferred {
	d := &deferred{open: open, log: log, now: time.Now}
	d.attempts = coalesce.New[struct{}](coalesce.Options[struct{}]{
		Limit: keyTime, Now: func() time.Time { return d.now() },
		Keep: func(struct{}, error) time.Duration { return d.rest() },
	})
	return d
}

// rest is how long nobody asks again after a failure.
func (d *deferred) rest() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pause
}

// wake asks for the key in the background, unless it is here, is being asked
// for, or could not be had just now. An attempt that a freeze interrupted is
// given up.
func (d *deferred) wake() {
	if d.here.Load() {
		return
	}
	now := d.now()
	c, _ := d.attempts.Start(context.Background(), struct{}{}, d.ask)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.first == nil {
		d.first, d.since = c, now
	}
}

// ready wakes and waits for the attempt.
func (d *deferred) ready(ctx context.Context) {
	d.wake()
	if c := d.attempts.Running(struct{}{}); c != nil {
		_, _ = c.Wait(ctx) // here says what came of it
	}
}

// ask is one attempt. The key is welcome even if the attempt was given up.
func (d *deferred) ask(ctx context.Context) (none struct{}, err error) {
	if err = d.open(ctx); err == nil {
		d.here.Store(true)
		return none, nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, coalesce.ErrAgain) || errors.Is(cause, coalesce.ErrClosed) {
		return none, err
	}
	d.mu.Lock()
	d.pause = min(max(2*d.pause, keyPause), keyPauseMax)
	pause := d.pause
	d.mu.Unlock()
	d.log.Warn("the shared cache is off until the key service gives its key (THAW_CACHE_KEY_KMS, THAW_CACHE_KEY_KEYVAULT)", "error", err, "retry_after_seconds", pause.Seconds())
	return none, err
}

// watch wakes until the key is here: on hosts that do not freeze no INVOKE
// would.
func (d *deferred) watch(ctx context.Context) {
	tick := time.NewTicker(keyPause)
	defer tick.Stop()
	for d.wake(); !d.here.Load(); d.wake() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// await reports whether the key is here. The first attempt is waited for.
func (d *deferred) await(ctx context.Context) bool {
	d.mu.Lock()
	first, since, now := d.first, d.since, d.now()
	d.mu.Unlock()
	if !d.here.Load() && first != nil && clock.Within(since, now, keyWait) {
		ctx, cancel := context.WithTimeout(ctx, keyWait-clock.Elapsed(since, now))
		defer cancel()
		_, _ = first.Wait(ctx) // here says what came of it
	}
	return d.here.Load()
}
