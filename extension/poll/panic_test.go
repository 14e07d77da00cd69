package poll

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// stumbling panics at its first call.
type stumbling struct{ calls int }

func (m *stumbling) Maintain(context.Context) error {
	if m.calls++; m.calls == 1 {
		panic("planted-value")
	}
	return nil
}

// TestAPollThatPanicsEndsAndTheNextOneVerifies: nobody waits for it for ever, and
// nothing stays held.
func TestAPollThatPanicsEndsAndTheNextOneVerifies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &stumbling{}
		w := newWorld(t, func(_ *cache.Options, o *Options) { o.Maintain = m.Maintain })
		defer w.poller.Close()
		for range 2 {
			w.poller.Ahead()
			w.poller.Over(t.Context())
			synctest.Wait()
			if w.poller.Running() {
				t.Fatal("it still runs")
			}
			time.Sleep(time.Minute)
		}
		if m.calls != 2 {
			t.Errorf("%d polls came so far", m.calls)
		}
	})
}
