package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// seed repeats a run's choices; what the scheduler does is not repeated.
var seed = flag.Uint64("thaw.seed", 0, "seed of the random choices; 0: a new one")

// TestG1NoStaleReadIn500Invocations runs five environments of different
// settings against one Vault that others write to all the time. Freezes, outages, crashes, writes of the
// function's own, readers with several tokens: no answer that does not say so
// is older than its invocation.
func TestG1NoStaleReadIn500Invocations(t *testing.T) {
	t.Parallel()
	const environments, invocations = 5, 500
	w := newWorld(t)
	w.soak(t, environments, invocations, true, func(n int) harness.Settings {
		// A busy machine must not look like an origin that fails.
		return w.login(n%2 == 0).With(harness.Settings{"THAW_POLL_TIMEOUT": "2s"}).With(kinds()[n])
	})
	j := w.checker.Judge()
	t.Logf("%s", j)
	for _, v := range j.Failures()[:min(len(j.Failures()), 10)] {
		t.Errorf("%v", v)
	}
	if len(j.Failures()) > 10 {
		t.Errorf("and %d more", len(j.Failures())-10)
	}
	if w.proven.Load() == 0 || w.hits.Load() == w.proven.Load() || j.Marked == 0 {
		t.Errorf("the test did not reach what it is about: %d hits, %d of them proven by the cursor, %d marked stale", w.hits.Load(), w.proven.Load(), j.Marked)
	}
}

// TestSoakCatchesACacheThatNeverAsks is the control: the same test must see
// what is wrong with an extension that is told not to verify anything.
func TestSoakCatchesACacheThatNeverAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.soak(t, 1, 60, false, func(int) harness.Settings {
		return w.login(true).With(harness.Settings{"THAW_POLL": "off", "VAULT_DEFAULT_CACHE_TTL": "1h"})
	})
	if j := w.checker.Judge(); len(j.Stale) == 0 || len(j.Wrong) > 0 {
		t.Errorf("%s: want stale answers, for nothing was verified", j)
	} else {
		t.Logf("control: %s", j)
	}
}

// soak runs the environments until all invocations are over.
func (w *world) soak(t *testing.T, environments, invocations int, outages bool, with func(n int) harness.Settings) {
	t.Helper()
	from := *seed
	if from == 0 {
		from = rand.Uint64()
	}
	t.Logf("seed: -thaw.seed=%d", from)
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var soakers []*soaker
	for n := range environments {
		s := &soaker{
			w: w, counter: counterFor(t, w.vault), index: n, random: rand.New(rand.NewPCG(from, uint64(n))),
			outages: outages, wrote: map[*object]time.Time{},
		}
		more := with(n)
		s.maxAge, _ = time.ParseDuration(more["THAW_MAX_AGE"]) // 0 where there is none
		s.environment = start(t, more.With(harness.Settings{"VAULT_ADDR": s.counter.Addr()}))
		soakers = append(soakers, s)
	}
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	errs := make([]error, environments+2)
	for n := range 2 {
		random := rand.New(rand.NewPCG(from, uint64(1000+n)))
		writers.Go(func() { errs[environments+n] = w.rotate(ctx, stop, random) })
	}
	for n, s := range soakers {
		readers.Go(func() {
			for i := range invocations / environments {
				if err := s.cycle(ctx); err != nil {
					errs[n] = fmt.Errorf("environment %d, cycle %d: %w", n, i, err)
					return
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d invocations in %v: %d freezes of %v in all, %d in the midst of one, %d cut off, %d crashes and timeouts; %d writes, %d of them through the proxy",
		w.invocations.Load(), time.Since(began).Round(time.Second), w.freezes.Load(), time.Duration(w.frozenFor.Load()).Round(time.Millisecond),
		w.midway.Load(), w.cuts.Load(), w.resets.Load(), w.writes.Load(), w.ownWrites.Load())
	t.Logf("%d requests: %d hits, %d of them verified by the cursor; %d marked stale, %d refused while cut off; %d without permission, none answered",
		w.reads.Load(), w.hits.Load(), w.proven.Load(), w.stale.Load(), w.refused.Load(), w.nonePassed.Load())
}
