package shared

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/e2e"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestABusyOriginIsAskedForEachSecretOnceAnAge: the cursor moves all the time
// and proves nothing, so each secret is read again when its last verification is
// THAW_MAX_AGE old: by one instance, for all. It counts in real time, so it has
// the machine to itself.
func TestABusyOriginIsAskedForEachSecretOnceAnAge(t *testing.T) {
	const maxAge, recheck = 3 * time.Second, time.Second
	o := newSite(t)
	judge := e2e.NewChecker()
	names := make([]string, 10)
	rotate := func(name string) {
		begin := time.Now()
		v := o.put(name)
		judge.Wrote(name, v, begin, time.Now())
	}
	for i := range names {
		names[i] = fmt.Sprintf("app/%02d", i)
		rotate(names[i])
	}
	s := o.login(true).With(harness.Settings{"THAW_MAX_AGE": "3s"})
	first := cold(t, s)
	first.reads(o, names)
	first.shutdown()

	instances, invocations := sized(30, 200), sized(12, 20)
	fleet := make([]*instance, instances)
	for k := range fleet {
		fleet[k] = cold(t, s)
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if n%20 == 0 {
				rotate(names[n/20%len(names)])
			} else if _, err := o.vault.Put(t.Context(), "secret", "noise", map[string]any{"n": n}); err != nil {
				t.Error(err)
				return
			}
			harness.Pause(t.Context(), 10*time.Millisecond)
		}
	})
	o.counter.Reset()
	began := time.Now()
	var functions sync.WaitGroup
	for k, i := range fleet {
		functions.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(k)))
			for range invocations {
				i.invoke(func(ctx context.Context) {
					for _, n := range random.Perm(len(names))[:3] {
						a := i.get(ctx, names[n])
						if a.err != nil || a.Status != 200 {
							t.Errorf("%s: %d %.200s %v", names[n], a.Status, a.Body, a.err)
							continue
						}
						judge.Read(e2e.Read{
							Resource: names[n], Answer: a.value(), From: a.begun.Add(-maxAge - recheck), To: a.ended,
							Marked: a.stale(), Note: a.Header.Get("Cache-Status"),
						})
					}
				})
				harness.Pause(t.Context(), time.Duration(random.IntN(1600))*time.Millisecond)
			}
		})
	}
	functions.Wait()
	close(stop)
	writer.Wait()
	took := time.Since(began)
	a, peak := o.asked(), o.worstSecond()
	perSecond := float64(a.all) / took.Seconds()
	t.Logf("%d instances, %v: %+v, %.1f a second, in the worst second %d and %d logins", instances, took.Round(time.Millisecond), a, perSecond, peak.all-peak.logins, peak.logins)
	if perSecond > 11 {
		t.Errorf("%.1f requests a second, want at most 11", perSecond)
	}
	// In one second each secret is read once and the cursor asked for once, if
	// all of it comes at once: 11. A verifier that this machine stops in the
	// midst is stood in for, so each may come twice. The simulation in
	// extension/poll, whose machine is never busy, allows 11. Logins come on top:
	// an instance has one, before the first time that it verifies for the others.
	if n := peak.all - peak.logins; n > 2*11 {
		t.Errorf("%d requests besides logins in the worst second, want at most 11 and as many again", n)
	}
	j := judge.Judge()
	t.Logf("%s", j)
	for _, v := range j.Failures() {
		t.Error(v)
	}
}
