package memcached

import (
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// health is what an exchange says about its node.
type health uint8

const (
	none health = iota // nothing: the caller left
	good
	slow // it ran out of time, but answers had come, we were not running ourselves, or the connection may have died before
	bad
)

// maxSlow is how many slow exchanges in a row are bad.
const maxSlow = 3

// breaker says whether a node is asked. Closed, everybody may. A bad exchange
// opens it for a window. After the window one exchange at a time is let through,
// the probe: if it is good the breaker closes, else the next window is twice as
// long.
type breaker struct {
	first, most time.Duration // windows

	mu      sync.Mutex    // guards what follows
	window  time.Duration // 0: closed
	opened  time.Time
	probing bool
	slow    int // slow exchanges in a row
}

// allow reports whether the node may be asked now, and whether that is the
// probe. Whoever was allowed settles.
func (b *breaker) allow(now time.Time) (ok, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.window == 0 {
		return true, false
	}
	if b.probing || b.runningLocked(now) {
		return false, false
	}
	b.probing = true
	return true, true
}

// runningLocked reports whether the window is not over. The wall clock counts
// too, as windows pass in a frozen sandbox; a clock that was set back ends it.
func (b *breaker) runningLocked(now time.Time) bool {
	d := clock.Elapsed(b.opened, now)
	return d >= 0 && d < b.window
}

// settle takes what an exchange says of its node. It reports whether the breaker
// opened or closed by it.
func (b *breaker) settle(now time.Time, probe bool, h health) (opened, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch {
	case h == good:
		b.slow = 0
		if closed = probe && b.window != 0; closed {
			b.window = 0
		}
	case h == slow && b.slow < maxSlow-1:
		b.slow++
	case h == slow, h == bad:
		opened = b.openLocked(now)
	}
	return opened, closed
}

// openLocked opens the breaker. A failure while a window runs is of an exchange
// from before it, and adds nothing.
func (b *breaker) openLocked(now time.Time) bool {
	b.slow = 0
	if b.runningLocked(now) {
		return false
	}
	b.window, b.opened = max(b.first, min(2*b.window, b.most)), now
	return true
}

// out reports whether the node is not asked, but for probes.
func (b *breaker) out() bool { return b.retryIn() != 0 }

func (b *breaker) retryIn() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.window
}
