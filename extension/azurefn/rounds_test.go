package azurefn

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// origin is a poller whose polls take a while, and prove what was there when
// they began.
type origin struct {
	takes time.Duration
	stuck bool

	mu     sync.Mutex
	starts []time.Time   // guarded by mu; of each poll
	over   chan struct{} // guarded by mu; of the running poll
}

func (o *origin) Begin(time.Time) {
	over := make(chan struct{})
	o.mu.Lock()
	o.starts = append(o.starts, time.Now())
	o.over = over
	o.mu.Unlock()
	if !o.stuck {
		time.AfterFunc(o.takes, func() { close(over) })
	}
}

func (o *origin) Verified(ctx context.Context) {
	o.mu.Lock()
	over := o.over
	o.mu.Unlock()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// begun says how many polls have begun, and when the last one did.
func (o *origin) begun() (int, time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.starts) == 0 {
		return 0, time.Time{}
	}
	return len(o.starts), o.starts[len(o.starts)-1]
}

func TestOnlyOnePollRunsAndOneIsWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{takes: 10 * time.Millisecond}
		r := NewRounds(o, time.Second, time.Now)
		defer r.Close()
		// 100 invocations, one each millisecond, each with a read at once.
		type span struct{ from, to time.Time }
		reads := make(chan span, 100)
		for range 100 {
			from := time.Now()
			r.Invoked(from)
			go func() {
				r.Gate(t.Context())
				if _, last := o.begun(); last.Before(from) {
					t.Errorf("a read passed on a poll of %v before its invocation", from.Sub(last))
				}
				reads <- span{from, time.Now()}
			}()
			time.Sleep(time.Millisecond) // of the bubble's clock
			synctest.Wait()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n, _ := o.begun(); n < 9 || n > 12 {
			t.Errorf("%d polls in 100ms, of 10ms each", n)
		}
		close(reads)
		for s := range reads {
			if d := s.to.Sub(s.from); d > 10*time.Millisecond {
				t.Errorf("a read waited %v for its poll to begin", d)
			}
		}
	})
}

func TestAPollThatAFreezeInterruptedKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{stuck: true}
		r := NewRounds(o, time.Second, time.Now)
		defer r.Close()
		began := time.Now()
		r.Invoked(began)
		// The wall clock says that an hour has passed, no timer has fired.
		r.Invoked(began.Add(time.Hour))
		if n, _ := o.begun(); n != 2 {
			t.Errorf("%d polls", n)
		}
		// One that only hangs is given up after its time.
		r.Invoked(time.Now())
		r.Gate(t.Context())
		n, _ := o.begun()
		if d := time.Since(began); d > time.Second || n != 3 {
			t.Errorf("%v, %d polls", d, n)
		}
	})
}

func TestACallerWhoLeavesWaitsNoLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{takes: time.Hour}
		r := NewRounds(o, 2*time.Hour, time.Now)
		r.Gate(t.Context()) // nothing is wanted yet
		r.Invoked(time.Now())
		r.Gate(t.Context()) // its poll has begun
		r.Invoked(time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		r.Gate(ctx)
		if time.Since(began) != time.Second {
			t.Error(time.Since(began))
		}
		r.Close()
		r.Gate(t.Context())
		r.Invoked(time.Now())
		if n, _ := o.begun(); n != 1 {
			t.Errorf("%d polls", n)
		}
	})
}
