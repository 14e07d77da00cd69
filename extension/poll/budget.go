package poll

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http/httptrace"
	"sync"
	"time"
)

// budget is a deadline that does not run while a connection is being made:
// connecting has a bound of its own. It ends with DeadlineExceeded as the
// cause, with Canceled when the poll was given up, or with errFroze when its
// timer came so late that the process must have been frozen meanwhile: then the
// origin had no chance to answer, and nothing is known of it.
type budget struct {
	ctx    context.Context
	cancel context.CancelFunc
	end    context.CancelCauseFunc

	mu         sync.Mutex
	timer      *time.Timer   // guarded by mu
	due        time.Time     // guarded by mu; when timer should fire
	connecting int           // guarded by mu
	left       time.Duration // guarded by mu; what remains while the clock stands
	began      time.Time     // guarded by mu; since when it runs
	connect    time.Duration // guarded by mu; what connecting may still take
}

// errFroze says that a freeze took the time that a poll had.
var errFroze = errors.New("a freeze interrupted the poll")

// late is how much later than it should a timer of a process fires that was
// frozen and not only busy.
const late = time.Second / 4

func newBudget(parent context.Context, total, connect time.Duration) *budget {
	ctx, cancel := context.WithCancelCause(parent)
	b := &budget{end: cancel, left: total, began: time.Now(), connect: connect}
	b.mu.Lock()
	b.due = b.began.Add(total)
	b.timer = time.AfterFunc(total, func() { b.over(time.Now()) })
	b.mu.Unlock()
	b.cancel = func() {
		b.mu.Lock()
		b.timer.Stop()
		b.mu.Unlock()
		cancel(context.Canceled)
	}
	b.ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart:      func(string, string) { b.pause() },
		ConnectDone:       func(string, string, error) { b.resume() },
		TLSHandshakeStart: b.pause,
		TLSHandshakeDone:  func(tls.ConnectionState, error) { b.resume() },
	})
	return b
}

// pause stops the clock; the connection's own bound runs instead.
func (b *budget) pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.connecting++
	if b.connecting > 1 {
		return
	}
	now := time.Now()
	b.left -= now.Sub(b.began)
	b.began = now
	b.resetLocked(now, b.left+b.connect)
}

func (b *budget) resetLocked(now time.Time, d time.Duration) {
	b.due = now.Add(d)
	b.timer.Reset(d)
}

// over ends the budget at now.
func (b *budget) over(now time.Time) {
	b.mu.Lock()
	due := b.due
	b.mu.Unlock()
	if now.Sub(due) > late {
		b.end(errFroze)
		return
	}
	b.end(context.DeadlineExceeded)
}

func (b *budget) resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.connecting == 0 {
		return
	}
	b.connecting--
	if b.connecting > 0 {
		return
	}
	now := time.Now()
	b.connect = max(0, b.connect-now.Sub(b.began))
	b.began = now
	if b.ctx.Err() == nil {
		b.resetLocked(now, b.left)
	}
}
