package poll

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"
)

// budget is a deadline that does not run while a connection is being made:
// connecting has a bound of its own. It ends with DeadlineExceeded as the
// cause, or with Canceled when the poll was given up.
type budget struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu         sync.Mutex
	timer      *time.Timer   // guarded by mu
	connecting int           // guarded by mu
	left       time.Duration // guarded by mu; what remains while the clock stands
	began      time.Time     // guarded by mu; since when it runs
	connect    time.Duration // guarded by mu; what connecting may still take
}

func newBudget(parent context.Context, total, connect time.Duration) *budget {
	ctx, cancel := context.WithCancelCause(parent)
	b := &budget{left: total, began: time.Now(), connect: connect}
	end := func() { cancel(context.DeadlineExceeded) }
	b.timer = time.AfterFunc(total, end)
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
	b.timer.Reset(b.left + b.connect)
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
