package azurefn

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// origin is a poller whose polls take a while, and prove what was there when
// they began.
type origin struct {
	takes  time.Duration
	begun  int
	starts []time.Time
	over   chan struct{} // of the running poll
	stuck  bool
}

func (o *origin) Begin(time.Time) {
	o.begun++
	o.starts = append(o.starts, time.Now())
	over := make(chan struct{})
	o.over = over
	if !o.stuck {
		time.AfterFunc(o.takes, func() { close(over) })
	}
}

func (o *origin) Verified(ctx context.Context) {
	select {
	case <-o.over:
	case <-ctx.Done():
	}
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
				last := o.starts[len(o.starts)-1]
				if last.Before(from) {
					t.Errorf("a read passed on a poll of %v before its invocation", from.Sub(last))
				}
				reads <- span{from, time.Now()}
			}()
			time.Sleep(time.Millisecond) // of the bubble's clock
			synctest.Wait()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if o.begun < 9 || o.begun > 12 {
			t.Errorf("%d polls in 100ms, of 10ms each", o.begun)
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
		if o.begun != 2 {
			t.Errorf("%d polls", o.begun)
		}
		// One that only hangs is given up after its time.
		r.Invoked(time.Now())
		r.Gate(t.Context())
		if d := time.Since(began); d > time.Second || o.begun != 3 {
			t.Errorf("%v, %d polls", d, o.begun)
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
		if o.begun != 1 {
			t.Error(o.begun)
		}
	})
}
