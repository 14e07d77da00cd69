package tier

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/memcached"
)

// deferred is the shared tier whose key may come later, from KMS: until then it
// holds nothing and keeps nothing. It is asked for during the init, after Register
// and in no snapshot, and again, ever less often, at later invocations. Reads wait
// for the first answer only, and not longer than keyWait after the question: what a
// cold start would have to ask of the origin costs more.
type deferred struct {
	at   atomic.Pointer[memcached.Tier]
	open func(context.Context) (*memcached.Tier, error) // nil: at is set from the start
	log  *slog.Logger
	now  func() time.Time

	attempts *coalesce.Group[struct{}, *memcached.Tier]

	mu    sync.Mutex
	first *coalesce.Call[*memcached.Tier] // guarded by mu; the first attempt; nil: none began
	since time.Time                       // guarded by mu; when it began
	pause time.Duration                   // guarded by mu; after the last failure; 0: none failed
	ends  []func(*memcached.Tier)         // guarded by mu; what ended before the key was here
}

// Times of asking KMS.
const (
	keyTime     = 3 * time.Second // for one attempt
	keyWait     = 100 * time.Millisecond
	keyPause    = time.Second // between the first two, then twice as long each
	keyPauseMax = time.Minute
	maxEnds     = 1024 // that are remembered until the key is here
)

func newDeferred(open func(context.Context) (*memcached.Tier, error), log *slog.Logger) *deferred {
	d := &deferred{open: open, log: log, now: time.Now}
	d.attempts = coalesce.New[struct{}](coalesce.Options[*memcached.Tier]{
		Limit: keyTime, Now: func() time.Time { return d.now() },
		Keep: func(*memcached.Tier, error) time.Duration { return d.rest() },
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
	if d.open == nil || d.at.Load() != nil {
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
		_, _ = c.Wait(ctx) // at says what came of it
	}
}

// ask is one attempt. The key is welcome even if the attempt was given up.
func (d *deferred) ask(ctx context.Context) (*memcached.Tier, error) {
	t, err := d.open(ctx)
	if err == nil {
		d.mu.Lock()
		d.at.CompareAndSwap(nil, t)
		ends := d.ends
		d.ends = nil
		d.mu.Unlock()
		for _, end := range ends {
			end(d.at.Load())
		}
		return t, nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, coalesce.ErrAgain) || errors.Is(cause, coalesce.ErrClosed) {
		return nil, err
	}
	d.mu.Lock()
	d.pause = min(max(2*d.pause, keyPause), keyPauseMax)
	pause := d.pause
	d.mu.Unlock()
	d.log.Warn("the shared cache is off until the key service gives its key (THAW_CACHE_KEY_KMS, THAW_CACHE_KEY_KEYVAULT)", "error", err, "retry_after_seconds", pause.Seconds())
	return nil, err
}

// watch wakes until the key is here: on hosts that do not freeze no INVOKE
// would.
func (d *deferred) watch(ctx context.Context) {
	tick := time.NewTicker(keyPause)
	defer tick.Stop()
	for d.wake(); d.open != nil && d.at.Load() == nil; d.wake() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// errNoTier is why nothing is kept.
var errNoTier = errors.New("the shared cache has no key yet")

// await is the tier once its key is here, or nil: the first attempt is waited
// for.
func (d *deferred) await(ctx context.Context) *memcached.Tier {
	d.mu.Lock()
	first, since, now := d.first, d.since, d.now()
	d.mu.Unlock()
	if d.at.Load() == nil && first != nil && clock.Within(since, now, keyWait) {
		ctx, cancel := context.WithTimeout(ctx, keyWait-clock.Elapsed(since, now))
		defer cancel()
		_, _ = first.Wait(ctx) // at says what came of it
	}
	return d.at.Load()
}

// The tier's calls, and what they say while there is none. What ends meanwhile is said
// when the key is here: what memcached holds of it would count until then.

func (d *deferred) Fetch(ctx context.Context, keys []cache.Key) ([]cache.Record, map[cache.Capability]cache.Confirmation) {
	if t := d.await(ctx); t != nil {
		return t.Fetch(ctx, keys)
	}
	return nil, nil
}

func (d *deferred) Keep(ctx context.Context, records []cache.Record, grants map[cache.Capability]cache.Confirmation) {
	if t := d.at.Load(); t != nil {
		t.Keep(ctx, records, grants)
	}
}

func (d *deferred) Drop(ctx context.Context, keys []cache.Key, rights []cache.Capability, at time.Time) {
	d.mu.Lock()
	t := d.at.Load()
	if t == nil && d.open != nil && len(d.ends) < maxEnds {
		d.ends = append(d.ends, func(t *memcached.Tier) { t.Drop(context.Background(), keys, rights, at) })
	}
	d.mu.Unlock()
	if t != nil {
		t.Drop(ctx, keys, rights, at)
	}
}

func (d *deferred) State(ctx context.Context, name string, into any) bool {
	t := d.at.Load()
	return t != nil && t.State(ctx, name, into)
}

func (d *deferred) PutState(ctx context.Context, name string, v any, ttl time.Duration) {
	if t := d.at.Load(); t != nil {
		t.PutState(ctx, name, v, ttl)
	}
}

func (d *deferred) Merged(ctx context.Context, name string) [][]byte {
	if t := d.at.Load(); t != nil {
		return t.Merged(ctx, name)
	}
	return nil
}

func (d *deferred) Merge(ctx context.Context, name string, ttl time.Duration, merge func(old [][]byte) []byte) error {
	if t := d.at.Load(); t != nil {
		return t.Merge(ctx, name, ttl, merge)
	}
	return errNoTier
}

func (d *deferred) Stamps(ctx context.Context, keys []cache.Key) (cache.CursorStamp, map[cache.Key]cache.Stamp) {
	if t := d.at.Load(); t != nil {
		return t.Stamps(ctx, keys)
	}
	return cache.CursorStamp{}, nil
}

func (d *deferred) Near(ctx context.Context, keys []cache.Key) (cache.CursorStamp, map[cache.Key]cache.Stamp, []cache.Key) {
	if t := d.at.Load(); t != nil {
		return t.Near(ctx, keys)
	}
	return cache.CursorStamp{}, nil, nil
}

func (d *deferred) PutStamps(ctx context.Context, cursor cache.CursorStamp, entries map[cache.Key]cache.Stamp) {
	if t := d.at.Load(); t != nil {
		t.PutStamps(ctx, cursor, entries)
	}
}

// Taken is false while there is no tier: no other is to be waited for.
func (d *deferred) Taken(ctx context.Context, name string, ttl time.Duration, own bool) (memcached.Lease, bool) {
	if t := d.at.Load(); t != nil {
		return t.Taken(ctx, name, ttl, own)
	}
	return memcached.Lease{}, false
}
