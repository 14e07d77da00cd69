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

// leadership is the lock of one audience while this instance holds it.
type leadership struct {
	audience *Audience
	lease    Lease
	now      func() time.Time
	lost     context.CancelCauseFunc // ends what runs under the lock
	ctx      context.Context
	stop     context.CancelFunc // ends the renewal
	renewer  sync.WaitGroup

	// Only the run's own goroutine uses these.
	checked   bool // everything was found or made fresh in this run
	unchanged int  // secrets that the last such check found so
	before    int  // those of other audiences in this cycle

	mu      sync.Mutex // guards the fields below
	renewed time.Time
	over    bool      // it is lost
	next    time.Time // when something is due again
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
		l := &leadership{audience: a, lease: lease, now: w.o.Now, renewed: at}
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
		at := l.now()
		switch {
		case l.lease.Renew(ctx):
			failed = 0
			l.mu.Lock()
			l.renewed = at
			l.mu.Unlock()
		case ctx.Err() != nil:
		default: // another has it, or memcached was slow: the second time is enough
			if failed++; failed > 1 {
				l.lose()
			}
		}
	}
}

func (l *leadership) lose() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.lost(errLost)
}

// held reports whether this instance still leads. A lock ends by itself, too, as
// after a freeze.
func (l *leadership) held() bool {
	l.mu.Lock()
	over, ended := l.over, !clock.Within(l.renewed, l.now(), leaseTTL)
	l.mu.Unlock()
	if ended && !over {
		l.lose()
	}
	return !over && !ended
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

func (l *leadership) setNext(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = at
}

// due reports whether a pass may be, at now.
func (l *leadership) due(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.over && !now.Before(l.next)
}

// keepStamps asks for the index once a second and tells every audience that
// this instance leads where it is. The returned function ends it.
func (w *Warmer) keepStamps(ctx context.Context, leads []*leadership) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if len(leads) > 0 && w.o.Asker != nil {
		wg.Go(func() {
			rescue.Keep(ctx, w.o.Log, "tell where the index is", func(ctx context.Context) {
				for wait.For(ctx, cursorTick) == nil {
					w.stampCursor(ctx, leads)
				}
			})
		})
	}
	return func() { cancel(); wg.Wait() }
}

func (w *Warmer) stampCursor(ctx context.Context, leads []*leadership) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stamp, _, _ := w.askIndex(ctx) // the next may know
	if stamp.At.IsZero() {
		return
	}
	for _, l := range leads {
		if l.held() {
			l.audience.PutStamps(ctx, stamp, nil)
		}
	}
}
