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
	timer      *time.Timer
	connecting int           // guarded by mu
	left       time.Duration // guarded by mu; what remained when the clock last began to run or to stand
	began      time.Time     // guarded by mu; when that was
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
	b.timer = time.AfterFunc(total, func() { b.over(time.Now()) })
	b.cancel = func() {
		b.timer.Stop()
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
	b.timer.Reset(b.left + b.connect)
}

// over ends the budget at now.
func (b *budget) over(now time.Time) {
	b.mu.Lock()
	left := b.left
	if b.connecting > 0 {
		left += b.connect
	}
	ran := now.Sub(b.began)
	b.mu.Unlock()
	if ran-left > late {
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
		b.timer.Reset(b.left)
	}
}
