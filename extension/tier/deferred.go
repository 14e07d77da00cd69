package tier

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/wait"
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

	attempts *coalesce.Group[struct{}, time.Duration]     // what one brings is how long nobody asks again
	first    atomic.Pointer[coalesce.Call[time.Duration]] // nil: none began
	pause    atomic.Int64                                 // after the last failure, in nanoseconds; 0: none failed
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
	d.attempts = coalesce.New[struct{}](coalesce.Options[time.Duration]{
		Limit: keyTime, Now: func() time.Time { return d.now() },
		Keep: func(pause time.Duration, _ error) time.Duration { return pause },
	})
	return d
}

// wake asks for the key in the background, unless it is here, is being asked
// for, or could not be had just now. An attempt that a freeze interrupted is
// given up.
func (d *deferred) wake() (attempt *coalesce.Call[time.Duration]) {
	if d.here.Load() {
		return nil
	}
	attempt, _ = d.attempts.Start(context.Background(), struct{}{}, d.ask)
	d.first.CompareAndSwap(nil, attempt)
	return attempt
}

// ready wakes and waits for the attempt.
func (d *deferred) ready(ctx context.Context) {
	if attempt := d.wake(); attempt != nil {
		_, _ = attempt.Wait(ctx) // here says what came of it
	}
}

// ask is one attempt. The key is welcome even if the attempt was given up.
func (d *deferred) ask(ctx context.Context) (pause time.Duration, err error) {
	if err = d.open(ctx); err == nil {
		d.here.Store(true)
		return 0, nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, coalesce.ErrAgain) || errors.Is(cause, coalesce.ErrClosed) {
		return 0, err
	}
	pause = min(max(2*time.Duration(d.pause.Load()), keyPause), keyPauseMax)
	d.pause.Store(int64(pause))
	d.log.Warn("the shared cache is off until the key service gives its key (THAW_CACHE_KEY_KMS, THAW_CACHE_KEY_KEYVAULT)", "error", err, "retry_after_seconds", pause.Seconds())
	return pause, err
}

// watch wakes until the key is here: on hosts that do not freeze no INVOKE
// would.
func (d *deferred) watch(ctx context.Context) {
	for d.wake(); !d.here.Load() && wait.For(ctx, keyPause) == nil; d.wake() {
	}
}

// await reports whether the key is here. The first attempt is waited for.
func (d *deferred) await(ctx context.Context) bool {
	first, now := d.first.Load(), d.now()
	if !d.here.Load() && first != nil && clock.Within(first.Began(), now, keyWait) {
		ctx, cancel := context.WithTimeout(ctx, keyWait-clock.Elapsed(first.Began(), now))
		defer cancel()
		_, _ = first.Wait(ctx) // here says what came of it
	}
	return d.here.Load()
}
