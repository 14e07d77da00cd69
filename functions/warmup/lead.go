package warmup

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
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
	gone    bool
	next    time.Time // when something is due again
}

const lockName = "warm-up"

// lead takes the lock of every audience that nobody else leads.
func (w *Warmer) lead(ctx, last context.Context) []*leadership {
	var leads []*leadership
	for i := range w.o.Audiences {
		a := &w.o.Audiences[i]
		at := w.o.Now()
		lease, ok := a.Ledger.Lock(ctx, lockName, leaseTTL)
		if !ok {
			level := slog.LevelInfo
			if w.follows[a.Name] {
				level = slog.LevelDebug // said before
			}
			w.follows[a.Name] = true
			w.o.Log.Log(ctx, level, "another instance leads, or memcached is away: nothing to do for this audience", "audience", a.Name)
			w.stopped(Resume{Audience: a.Name, Reason: "another instance leads, or memcached is away"})
			continue
		}
		w.follows[a.Name] = false
		l := &leadership{audience: a, lease: lease, now: w.o.Now, renewed: at}
		l.ctx, l.lost = context.WithCancelCause(ctx)
		renewal, stop := context.WithCancel(last)
		l.stop = stop
		l.renewer.Go(func() { l.renew(renewal) })
		leads = append(leads, l)
		w.note(func(s *Summary) { s.Leader = true })
	}
	return leads
}

// renew keeps the lock until it is lost or released.
func (l *leadership) renew(ctx context.Context) {
	tick := time.NewTicker(leaseTTL / 5)
	defer tick.Stop()
	failed := 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		at := l.now()
		if l.expired() {
			l.lose()
			return
		}
		if !l.lease.Renew(ctx) {
			if ctx.Err() != nil {
				return
			}
			// Another has it, or memcached was slow: the second time is enough.
			if failed++; failed > 1 {
				l.lose()
				return
			}
			continue
		}
		failed = 0
		l.mu.Lock()
		l.renewed = at
		l.mu.Unlock()
	}
}

func (l *leadership) lose() {
	l.mu.Lock()
	l.gone = true
	l.mu.Unlock()
	l.lost(errLost)
}

// expired reports whether the lock ended by itself, as after a freeze.
func (l *leadership) expired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !clock.Within(l.renewed, l.now(), leaseTTL)
}

// held reports whether this instance still leads.
func (l *leadership) held() bool {
	if l.expired() {
		l.lose()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.gone
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

func anyHeld(leads []*leadership) bool {
	for _, l := range leads {
		if l.held() {
			return true
		}
	}
	return false
}

// anythingDue reports whether a pass of some audience may be due.
func (w *Warmer) anythingDue(leads []*leadership) bool {
	now := w.o.Now()
	for _, l := range leads {
		l.mu.Lock()
		due := !l.gone && !now.Before(l.next)
		l.mu.Unlock()
		if due {
			return true
		}
	}
	return false
}

// keepStamps asks for the cursor once a second and tells every audience that
// this instance leads where it is. The returned function ends it.
func (w *Warmer) keepStamps(ctx context.Context, leads []*leadership) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if len(leads) > 0 && w.o.Asker != nil {
		wg.Go(func() {
			tick := time.NewTicker(cursorTick)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					w.stampCursor(ctx, leads)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

func (w *Warmer) stampCursor(ctx context.Context, leads []*leadership) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stamp := w.cursor.ask(ctx)
	if !w.cursor.whole() || !w.o.Stamps {
		return
	}
	for _, l := range leads {
		if l.held() {
			l.audience.Marks.PutStamps(ctx, stamp, nil)
		}
	}
}
