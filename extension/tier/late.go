package tier

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/memcached"
)

// late is the shared tier whose key may come late, from KMS: until then it
// holds nothing and keeps nothing. It is asked for once there is an INVOKE, so
// never before Register and in no snapshot, and again, ever less often, at later
// ones. Reads wait for the first answer only, and not longer than keyWait after
// the question: what a cold start would have to ask of the origin costs more.
type late struct {
	at   atomic.Pointer[memcached.Tier]
	open func(context.Context) (*memcached.Tier, error) // nil: at is set from the start
	log  *slog.Logger
	now  func() time.Time

	ctx    context.Context // ends at close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	stop    context.CancelFunc // guarded by mu; of the attempt that runs; nil: none does
	over    chan struct{}      // guarded by mu; closed when the attempt that runs is over
	since   time.Time          // guarded by mu; when the last attempt began, on the wall clock
	failed  time.Duration      // guarded by mu; the pause after the last failure; 0: none failed
	counted int                // guarded by mu; which attempt runs
}

// Times of asking KMS.
const (
	keyTime     = 3 * time.Second // for one attempt
	keyWait     = 100 * time.Millisecond
	keyPause    = time.Second // between the first two, then twice as long each
	keyPauseMax = time.Minute
)

func newLate(open func(context.Context) (*memcached.Tier, error), log *slog.Logger) *late {
	l := &late{open: open, log: log, now: time.Now}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// wake asks for the key in the background, unless it is here, is being asked
// for, or could not be had just now. An attempt that a freeze interrupted is
// given up.
func (l *late) wake() {
	if l.open == nil || l.at.Load() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now().Round(0)
	past := now.Sub(l.since)
	switch {
	case l.ctx.Err() != nil, l.stop != nil && past >= 0 && past < keyTime, l.stop == nil && past >= 0 && past < l.failed:
		return
	case l.stop != nil:
		l.stop()
	}
	ctx, cancel := context.WithTimeout(l.ctx, keyTime)
	over := make(chan struct{})
	l.stop, l.since, l.over = cancel, now, over
	l.counted++
	n := l.counted
	l.wg.Go(func() {
		defer close(over)
		defer cancel()
		t, err := l.open(ctx)
		l.mu.Lock()
		defer l.mu.Unlock()
		if err == nil {
			l.at.CompareAndSwap(nil, t)
		}
		if n != l.counted {
			return // another attempt took over
		}
		l.stop = nil
		if err != nil {
			l.since, l.failed = l.now().Round(0), min(max(2*l.failed, keyPause), keyPauseMax)
			if l.ctx.Err() == nil {
				l.log.Warn("the shared cache is off until the key service gives its key (THAW_CACHE_KEY_KMS, THAW_CACHE_KEY_KEYVAULT)", "error", err, "retry_after_seconds", l.failed.Seconds())
			}
		}
	})
}

// watch wakes until the key is here: on hosts that do not freeze no INVOKE
// would.
func (l *late) watch(ctx context.Context) {
	tick := time.NewTicker(keyPause)
	defer tick.Stop()
	for l.wake(); l.open != nil && l.at.Load() == nil; l.wake() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (l *late) close() {
	l.mu.Lock() // no attempt begins between the two
	l.cancel()
	l.mu.Unlock()
	l.wg.Wait()
}

// errNoTier is why nothing is kept.
var errNoTier = errors.New("the shared cache has no key yet")

// await is the tier once its key is here, or nil: the first attempt is waited
// for.
func (l *late) await(ctx context.Context) *memcached.Tier {
	t := l.at.Load()
	if t != nil || l.open == nil {
		return t
	}
	l.mu.Lock()
	over, first := l.over, l.stop != nil && l.counted == 1
	past := l.now().Round(0).Sub(l.since)
	l.mu.Unlock()
	if !first || past < 0 || past >= keyWait {
		return nil
	}
	enough := time.NewTimer(keyWait - past)
	defer enough.Stop()
	select {
	case <-over:
	case <-enough.C:
	case <-ctx.Done():
	}
	return l.at.Load()
}

// The tier's calls, and what they say while there is none.

func (l *late) Fetch(ctx context.Context, keys []cache.Key) ([]cache.Record, map[cache.Right]time.Time) {
	if t := l.await(ctx); t != nil {
		return t.Fetch(ctx, keys)
	}
	return nil, nil
}

func (l *late) Keep(ctx context.Context, records []cache.Record, grants map[cache.Right]time.Time) {
	if t := l.at.Load(); t != nil {
		t.Keep(ctx, records, grants)
	}
}

func (l *late) Drop(ctx context.Context, keys []cache.Key, rights []cache.Right, at time.Time) {
	if t := l.at.Load(); t != nil {
		t.Drop(ctx, keys, rights, at)
	}
}

func (l *late) State(ctx context.Context, name string, into any) bool {
	t := l.at.Load()
	return t != nil && t.State(ctx, name, into)
}

func (l *late) PutState(ctx context.Context, name string, v any, ttl time.Duration) {
	if t := l.at.Load(); t != nil {
		t.PutState(ctx, name, v, ttl)
	}
}

func (l *late) Merged(ctx context.Context, name string) [][]byte {
	if t := l.at.Load(); t != nil {
		return t.Merged(ctx, name)
	}
	return nil
}

func (l *late) Merge(ctx context.Context, name string, ttl time.Duration, merge func(old [][]byte) []byte) error {
	if t := l.at.Load(); t != nil {
		return t.Merge(ctx, name, ttl, merge)
	}
	return errNoTier
}

func (l *late) Stamps(ctx context.Context, keys []cache.Key) (cache.CursorStamp, map[cache.Key]cache.Stamp) {
	if t := l.at.Load(); t != nil {
		return t.Stamps(ctx, keys)
	}
	return cache.CursorStamp{}, nil
}

func (l *late) PutStamps(ctx context.Context, cursor cache.CursorStamp, entries map[cache.Key]cache.Stamp) {
	if t := l.at.Load(); t != nil {
		t.PutStamps(ctx, cursor, entries)
	}
}

// Taken is false while there is no tier: no other is to be waited for.
func (l *late) Taken(ctx context.Context, name string, ttl time.Duration) (memcached.Lease, bool) {
	if t := l.at.Load(); t != nil {
		return t.Taken(ctx, name, ttl)
	}
	return memcached.Lease{}, false
}
