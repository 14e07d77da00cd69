package ha

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

var soakFor = flag.Duration("soak", 25*time.Second, "how long the soak runs; from five minutes on it also says what grew")

// Measures of the soak.
const (
	soakCallers = 200
	soakPause   = 2600 * time.Millisecond // between two reads of a caller at most: 150 reads a second of all
	soakSecrets = 40
	soakPaths   = 8 // that a caller reads
	soakMaxAge  = 3 * time.Second
	soakRecheck = time.Second // the default of THAW_RECHECK
	soakConfirm = 20 * time.Second
	soakPlaces  = soakCallers + 56 // while Vault is silent each caller may have to be confirmed, which in line would be no outage
	soakCache   = "1MiB"           // full after some minutes, of callers who went and whose tokens live on
	soakAnswer  = 15 * time.Second // a cached read that takes longer has failed
	soakSampled = 2 * time.Second
	minuteTimer = time.Minute // at which thaw looks at files
)

// TestSoak is `thaw proxy` with all that goes on around it for long: 200 callers with
// tokens of their own come and go, every certificate is replaced again and again, the
// leader changes each minute, memcached restarts. What the process takes stays as it
// is, no cached read fails, no value is older than promised, and no token that was
// revoked through thaw is served.
//
//	go test ./tests/ha -run TestSoak                             25 s
//	go test ./tests/ha -run TestSoak -soak=60m -timeout 90m -v   in full
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT TESTED: it takes long")
	}
	w := newSoak(t)
	ctx, cancel := context.WithTimeout(t.Context(), *soakFor)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { w.sample(ctx) })
	all.Go(func() { w.writeSecrets(ctx) })
	all.Go(func() { w.changeLeaders(ctx) })
	all.Go(func() { w.restartMemcached(ctx) })
	all.Go(func() { w.rotate(ctx) })
	for n := range soakCallers {
		all.Go(func() { w.callers(ctx, n) })
	}
	all.Wait()
	w.report()
}

// counted is what happened in a soak.
type counted struct {
	cached, hits, stale, needless, failed, fills, unfilled, came, revoked, writes atomic.Int64
	leaders, certificates, memcached                                              atomic.Int64
}

// wrong notes what may not be.
func (w *soak) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad = append(w.bad, fmt.Sprintf("after %v, last %s: ", time.Since(w.began).Round(time.Second), w.last)+fmt.Sprintf(format, args...))
	if len(w.bad) <= 20 {
		w.t.Log(w.bad[len(w.bad)-1])
	}
}

// did says what happened to the world last.
func (w *soak) did(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = fmt.Sprintf("%s at %v", what, time.Since(w.began).Round(time.Second))
}

// sample looks at the process until ctx ends.
func (w *soak) sample(ctx context.Context) {
	client := w.client()
	defer client.CloseIdleConnections()
	for wait := soakSampled; ctx.Err() == nil; harness.Pause(ctx, wait) {
		text, err := w.metrics(ctx, client)
		var s harness.Sample
		if err == nil {
			s, err = harness.TakeSample(time.Since(w.began), w.p.proc.PID(), text)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.wrong("take a sample: %v", err)
			continue
		}
		w.samples = append(w.samples, s)
		if len(w.samples)%max(1, int(*soakFor/soakSampled)/30) == 1 {
			w.t.Logf("%v  %d cached reads", s, w.cached.Load())
		}
	}
}

// report says what happened, and fails the test for what may not be.
func (w *soak) report() {
	w.t.Helper()
	slices.Sort(w.took)
	w.t.Logf("%v: %d cached reads (%.0f a second; %d failed, %d hits, %d marked stale, %d of them while Vault could be asked), median %v, 99th percentile %v, longest %v; %d first reads, %d of them failed; %d callers, %d revocations through thaw; %d writes",
		*soakFor, w.cached.Load(), float64(w.cached.Load())/soakFor.Seconds(), w.failed.Load(), w.hits.Load(), w.stale.Load(), w.needless.Load(), quantile(w.took, 0.5), quantile(w.took, 0.99), quantile(w.took, 1),
		w.fills.Load(), w.unfilled.Load(), w.came.Load(), w.revoked.Load(), w.writes.Load())
	w.t.Logf("%d leaders, %d rotations of every certificate, %d starts of memcached; %d WARN and %d ERROR lines", w.leaders.Load(), w.certificates.Load(), w.memcached.Load(),
		strings.Count(w.p.proc.Output(), `"level":"WARN"`), strings.Count(w.p.proc.Output(), `"level":"ERROR"`))
	for _, b := range w.bad[:min(len(w.bad), 20)] {
		w.t.Error(b)
	}
	if len(w.bad) > 20 {
		w.t.Errorf("and %d more", len(w.bad)-20)
	}
	if n := w.needless.Load(); n > 10+w.cached.Load()/1000 { // a machine without time for a poll brings some about
		w.t.Errorf("%d reads were marked stale although Vault could be asked all the time", n)
	}
	if strings.Contains(w.p.proc.Output(), `"level":"ERROR"`) {
		w.t.Error("thaw logged an ERROR")
	}
	if w.hits.Load() == 0 || w.leaders.Load() == 0 || w.certificates.Load() == 0 || w.memcached.Load() == 0 || w.revoked.Load() == 0 {
		w.t.Error("something never happened: the soak says nothing")
	}
	if *soakFor < 5*time.Minute {
		return
	}
	for _, problem := range harness.Growth(w.samples, true) {
		w.t.Error(problem)
	}
}
