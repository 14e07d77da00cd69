package warmup

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wait"
)

var (
	errDeadline = errors.New("the function's time is nearly over")
	errLost     = errors.New("another instance took the lead over")
)

// leadership is one audience while this instance holds its lock.
type leadership struct {
	w        *Warmer
	audience *Audience
	lease    Lease
	ctx      context.Context         // of what runs under the lock
	lost     context.CancelCauseFunc // ends that
	last     context.Context         // outlives it, for what has to be written down then
	stop     context.CancelFunc      // ends the renewal
	renewer  sync.WaitGroup

	// Only the run's own goroutine uses these.
	state     record
	next      time.Time // when something is due again
	checked   bool      // everything was found or made fresh in this run
	unchanged int       // secrets that the last such check found so
	before    int       // those of other audiences in this cycle

	mu      sync.Mutex
	renewed time.Time // guarded by mu; zero: it is lost
}

const lockName = "warm-up"

// lead takes the lock of every audience that nobody else leads.
func (w *Warmer) lead(ctx, last context.Context) []*leadership {
	var leads []*leadership
	for i := range w.o.Audiences {
		a := &w.o.Audiences[i]
		at := w.o.Now()
		lease, held, taken := a.Lock(ctx, lockName, leaseTTL)
		if !held {
			level, why := slog.LevelInfo, "another instance leads"
			if !taken {
				level, why = slog.LevelWarn, "memcached does not answer, so nobody can lead"
				w.note(func(s *Summary) { s.Leaderless = true })
			}
			if w.idle[a.Name] == why {
				level = slog.LevelDebug // said before
			}
			w.idle[a.Name] = why
			w.o.Log.Log(ctx, level, why+": nothing is done for this audience", "audience", a.Name)
			w.stopped(Resume{Audience: a.Name, Reason: why})
			continue
		}
		delete(w.idle, a.Name)
		l := &leadership{w: w, audience: a, lease: lease, renewed: at, last: last}
		l.ctx, l.lost = context.WithCancelCause(ctx)
		renewal, stop := context.WithCancel(last)
		l.stop = stop
		l.renewer.Go(func() { rescue.Keep(renewal, w.o.Log, "keep the lead", l.renew) })
		leads = append(leads, l)
		w.note(func(s *Summary) { s.Leader = true })
	}
	return leads
}

// renew keeps the lock until it is lost or released.
func (l *leadership) renew(ctx context.Context) {
	for failed := 0; wait.For(ctx, leaseTTL/5) == nil && l.held(); {
		at := l.w.o.Now()
		renewed := l.lease.Renew(ctx)
		if ctx.Err() != nil {
			return
		}
		failed++
		l.mu.Lock()
		switch {
		case renewed && !l.renewed.IsZero():
			l.renewed, failed = at, 0
		case failed > 1: // another has it, or memcached was slow: the second time is enough
			l.loseLocked()
		}
		l.mu.Unlock()
	}
}

func (l *leadership) loseLocked() {
	l.renewed = time.Time{}
	l.lost(errLost)
}

// held reports whether this instance still leads. A lock ends by itself, too, as
// after a freeze. One that is lost stays so.
func (l *leadership) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := clock.Within(l.renewed, l.w.o.Now(), leaseTTL)
	if !held {
		l.loseLocked()
	}
	return held
}

func (l *leadership) release(ctx context.Context) {
	held := l.held()
	l.stop()
	l.renewer.Wait()
	if held {
		l.lease.Release(ctx)
	}
	l.lost(nil)
}

// keepStamps asks for the index once a second, until ctx ends, and tells every audience
// that this instance leads where it is.
func (w *Warmer) keepStamps(ctx context.Context, leads []*leadership) {
	for wait.For(ctx, cursorTick) == nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		stamp, _, _ := w.askIndex(ctx) // the next may know
		for _, l := range leads {
			if !stamp.At.IsZero() && l.held() {
				l.audience.PutStamps(ctx, stamp, nil)
			}
		}
		cancel()
	}
}
