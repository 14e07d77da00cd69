package shared

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestFillStampAndGrantAreSharedBeforeShutdownEnds: an environment reads once
// and is ended at once. Another one, cold, needs nothing of the origin: neither
// the secret, nor the right to it, nor its verification.
func TestFillStampAndGrantAreSharedBeforeShutdownEnds(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	s := o.login(true).With(harness.Settings{"THAW_MAX_AGE": "60s"})
	for round := range 5 {
		harness.Must(t, o.cache.Flush(t.Context()))
		names := o.fill(3 + round)
		first := cold(t, s)
		first.reads(o, names)
		first.shutdown()
		o.counter.Reset()
		second := cold(t, s)
		second.reads(o, names)
		second.invoke(func(ctx context.Context) {
			second.get(ctx, names[0])
			for name, least := range map[string]float64{
				"thaw_hits_shared_total": 1, "thaw_adopted_total": float64(len(names)), "thaw_grants_shared_total": float64(len(names)), "thaw_stamps_total": 1,
				"thaw_stamp_age_seconds": 0.001, "thaw_memcached_hits_total": float64(len(names)),
			} {
				if got := second.metric(name); got < least {
					t.Errorf("%s is %v, want at least %v", name, got, least)
				}
			}
		})
		second.shutdown()
		if a := o.asked(); a.all > 0 {
			t.Errorf("round %d: %+v reached the origin, want nothing", round, a)
		}
	}
}

// fleet is n instances, each of which has read what the names say.
func (o *site) fleet(n int, s harness.Settings, names []string) []*instance {
	o.t.Helper()
	all := make([]*instance, n)
	for k := range all {
		all[k] = cold(o.t, s)
		all[k].reads(o, names)
	}
	return all
}

// TestARotationThatTheWarmUpNoticesIsServedByAll: what every instance holds is
// old; the warm-up reads it once for all of them.
func TestARotationThatTheWarmUpNoticesIsServedByAll(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []string{"0", "60s"} {
		t.Run("max-age "+maxAge, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			names := o.fill(4)
			s := o.login(true).With(harness.Settings{"THAW_MAX_AGE": maxAge})
			more := harness.Settings{"THAW_MAX_AGE": maxAge}
			o.warm(more)
			fleet := o.fleet(6, s, names)
			for range 3 {
				o.put(names[0])
				o.put(names[2])
				if got := o.warm(more); got.Changed != 2 {
					t.Errorf("warm-up: %+v, want 2 changed", got)
				}
				o.counter.Reset()
				for _, i := range fleet {
					i.reads(o, names)
				}
				if a := o.asked(); a.reads+a.logins+a.capabilities > 0 || a.cursors > len(fleet) {
					t.Errorf("%+v reached the origin of %d instances, want no read", a, len(fleet))
				}
			}
		})
	}
}

// TestARotationWrittenThroughAProxyIsServedByAll: whoever reads it first reads
// it for all.
func TestARotationWrittenThroughAProxyIsServedByAll(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []string{"0", "60s"} {
		t.Run("max-age "+maxAge, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			names := o.fill(4)
			s := o.login(true).With(harness.Settings{"THAW_MAX_AGE": maxAge})
			fleet := o.fleet(6, s, names)
			for round := range 3 {
				name, value := names[round], secret()
				writer := fleet[round]
				writer.invoke(func(ctx context.Context) {
					w := writer.send(ctx, harness.Call{
						Method: http.MethodPost, Path: "secret/data/" + name, Body: map[string]any{"data": map[string]string{"password": value}},
					})
					if w.err != nil || w.Status != http.StatusOK {
						t.Errorf("write: %d %s %v", w.Status, w.Body, w.err)
					}
				})
				o.know(name, value)
				reader := fleet[(round+1)%len(fleet)]
				o.counter.Reset()
				reader.reads(o, names)
				t.Logf("the first reader: %+v", o.asked())
				reader.invoke(func(context.Context) { harness.Pause(t.Context(), 100*time.Millisecond) }) // its fill is in the cache
				o.counter.Reset()
				for _, i := range fleet {
					if i != writer {
						i.reads(o, names)
					}
				}
				if a := o.asked(); a.reads+a.logins+a.capabilities > 0 {
					t.Errorf("%+v reached the origin after one instance had read it", a)
				}
				// Within THAW_CLOCK_SKEW of its write the writer does not take another's word for
				// what came after it.
				o.counter.Reset()
				writer.reads(o, names)
				if a := o.asked(); a.reads > 1 || a.logins+a.capabilities > 0 {
					t.Errorf("%+v of the writer reached the origin", a)
				}
			}
		})
	}
}
