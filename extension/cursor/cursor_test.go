package cursor

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/vault"
)

// upgrading is an origin that tells what it is only when it is let.
type upgrading struct {
	term   atomic.Value // string
	asked  atomic.Int64 // for sys/health
	answer chan vault.Health
}

func (o *upgrading) Leader(context.Context) (vault.Leader, error) {
	now := time.Now()
	return vault.Leader{Status: http.StatusOK, IsSelf: true, HAEnabled: true, ActiveTime: o.term.Load().(string), Committed: 7, Applied: 7, SentAt: now, ReceivedAt: now}, nil
}

func (o *upgrading) Health(ctx context.Context) (vault.Health, error) {
	o.asked.Add(1)
	select {
	case h := <-o.answer:
		return h, nil
	case <-ctx.Done():
		return vault.Health{}, ctx.Err()
	}
}

// TestG1WhatWasAskedUnderOneLeaderSaysNothingOfTheNext: the version may be another's by the
// time that the answer is here.
func TestG1WhatWasAskedUnderOneLeaderSaysNothingOfTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &upgrading{answer: make(chan vault.Health)}
		o.term.Store("1")
		c := NewForPasses(o, slog.New(slog.DiscardHandler), time.Now)
		defer c.Close()
		where := func() (counts chan bool) {
			counts = make(chan bool, 1)
			go func() {
				stamp, _, _ := c.Where(t.Context())
				counts <- !stamp.At.IsZero()
			}()
			synctest.Wait()
			return counts
		}
		before := where() // waits for sys/health
		o.term.Store("2")
		after := where()
		o.answer <- forwarding // of the leader before
		synctest.Wait()
		if <-before || <-after {
			t.Error("an index counts by what was asked under the leader before")
		}
		again := where()
		o.answer <- serving
		if <-again {
			t.Error("an index counts though standbys serve reads now")
		}
		if n := o.asked.Load(); n != 2 {
			t.Errorf("sys/health was asked %d times, want twice", n)
		}
	})
}

// TestWhatIsAskedForAStampCountsForItsLeader: the first answer of sys/leader makes that
// leader no other one, so it costs no poll that reads everything again.
func TestWhatIsAskedForAStampCountsForItsLeader(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		leads string
		want  Outcome
	}{{"1", Verified}, {"2", Useless}} {
		synctest.Test(t, func(t *testing.T) {
			o := &upgrading{answer: make(chan vault.Health)}
			o.term.Store(row.leads)
			c := New(o, nil, time.Second, slog.New(slog.DiscardHandler), time.Now)
			defer c.Close()
			entries := cache.New(cache.Options{Now: time.Now})
			defer entries.Close()
			c.Take(cache.CursorStamp{At: time.Now(), Committed: 7, ActiveTime: "1"}, 1)
			found := make(chan Outcome, 1)
			go func() {
				got, _, err := c.Query(t.Context(), entries.Ledger(), 1)
				if err != nil {
					t.Error(err)
				}
				found <- got
			}()
			synctest.Wait()
			o.answer <- forwarding
			if got := <-found; got != row.want {
				t.Errorf("of leader 1 is asked, %s leads: %d, want %d", row.leads, got, row.want)
			}
		})
	}
}

// slowly tells what another instance was told, when it is let.
type slowly struct{ answer chan bool }

func (h slowly) Forwards(context.Context, string) (forwards bool, at time.Time) {
	return <-h.answer, time.Now()
}

func (slowly) SetForwards(context.Context, string, bool, time.Time) {}

// TestG1WhatOthersWereToldOfOneLeaderSaysNothingOfTheNext: the shared cache may answer when
// another node leads already, which serves reads itself or not.
func TestG1WhatOthersWereToldOfOneLeaderSaysNothingOfTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, others := &upgrading{answer: make(chan vault.Health)}, slowly{make(chan bool)}
		o.term.Store("1")
		c := New(o, others, time.Second, slog.New(slog.DiscardHandler), time.Now)
		defer c.Close()
		c.Answered()
		if err := c.Ask(t.Context(), 1); err != nil { // and begins to ask the others
			t.Fatal(err)
		}
		o.term.Store("2")
		counts := make(chan bool, 1)
		go func() {
			stamp, _, _ := c.Where(t.Context())
			counts <- !stamp.At.IsZero()
		}()
		synctest.Wait()
		others.answer <- true // of the leader before
		if <-counts {
			t.Error("an index counts by what others were told of the leader before")
		}
	})
}

// TestG4AnAnswerOfTheLeaderIsHeardBeforeItIsKnownWhatItIsWorth: sys/health may be silent
// where sys/leader answers. Till then what is restyled would look like an outage.
func TestG4AnAnswerOfTheLeaderIsHeardBeforeItIsKnownWhatItIsWorth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &upgrading{answer: make(chan vault.Health)}
		o.term.Store("1")
		c := New(o, nil, time.Second, slog.New(slog.DiscardHandler), time.Now)
		defer c.Close()
		entries := cache.New(cache.Options{RefreshInterval: time.Minute, Now: time.Now})
		defer entries.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		over := make(chan struct{})
		go func() {
			defer close(over)
			if found, _, err := c.Query(ctx, entries.Ledger(), 1); found != Useless || err != nil {
				t.Errorf("got %d, %v", found, err)
			}
		}()
		synctest.Wait()
		if !entries.Ledger().Heard().Anything(time.Now()) {
			t.Error("the origin's answer counts for nothing yet")
		}
		<-over
	})
}
