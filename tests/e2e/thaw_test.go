package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// answered reports whether the last request for a path was answered by Vault.
func (o *site) answered(path string) bool {
	status := 0
	for _, r := range o.counter.Requests() {
		if r.Path == path {
			status = r.Status
		}
	}
	return status == http.StatusOK
}

// TestG1PollFromBeforeTheFreezeVerifiesNothing: an invocation ends while its
// poll is on its way. Vault answers "unchanged" into the socket of the frozen
// process; then the secret is rotated, and the process thaws with an old answer
// and a new INVOKE in its hands.
func TestG1PollFromBeforeTheFreezeVerifiesNothing(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	path := "secret/data/app"
	value := o.put("app")
	e := start(t, o.login(true).With(harness.Settings{"THAW_POLL_TIMEOUT": "5s"}))
	e.invoke(func(ctx context.Context) { e.get(ctx, path).fresh(t, value) })
	for range 20 {
		harness.Must(t, e.Freeze())
		o.counter.Stall()
		o.counter.Reset()
		e.invoke(func(context.Context) {})
		harness.Eventually(t, patience, "the poll", func() bool { return o.counter.Count("", "/v1/sys/leader") > 0 })
		harness.Must(t, e.Freeze())
		harness.Must(t, o.counter.Mend())
		harness.Eventually(t, patience, "the answer", func() bool { return o.answered("/v1/sys/leader") })
		value = o.put("app")
		e.invoke(func(ctx context.Context) { e.get(ctx, path).fresh(t, value) })
	}
}

// TestG1ReadFromBeforeTheFreezeIsNotServedAfterIt: the same for the first read
// of a secret, which the function gave up, or still waits for when it is frozen.
// Neither the old answer nor what it stored is for the next invocation.
func TestG1ReadFromBeforeTheFreezeIsNotServedAfterIt(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	known := o.put("known")
	e := start(t, o.login(true).With(harness.Settings{"THAW_POLL_TIMEOUT": "5s"}))
	e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/known").fresh(t, known) })
	for n := range 20 {
		name := fmt.Sprint("app", n)
		path := "secret/data/" + name
		old := o.put(name)
		harness.Must(t, e.Freeze())
		o.counter.Reset()
		reading, giveUp := context.WithCancel(t.Context())
		var left sync.WaitGroup
		e.invoke(func(ctx context.Context) {
			e.get(ctx, "secret/data/known").fresh(t, known) // the poll is over
			o.counter.Stall()
			left.Go(func() {
				if a := e.get(reading, path); a.Err == nil {
					a.fresh(t, old)
				}
			})
			harness.Eventually(t, patience, "the read", func() bool { return o.counter.Count("", "/v1/"+path) > 0 })
			if n%2 == 0 {
				giveUp()
				left.Wait()
			}
		})
		harness.Must(t, e.Freeze())
		harness.Must(t, o.counter.Mend())
		if n%2 == 1 {
			harness.Eventually(t, patience, "the answer", func() bool { return o.answered("/v1/" + path) })
		}
		value := o.put(name)
		e.invoke(func(ctx context.Context) {
			for range 3 {
				e.get(ctx, path).fresh(t, value)
			}
		})
		left.Wait()
		giveUp()
	}
}

// TestG1WriteIsSeenByTheNextReadWhateverIsUnderWay: reads hammer a secret while
// the function writes it through the proxy.
func TestG1WriteIsSeenByTheNextReadWhateverIsUnderWay(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	path := "secret/data/app"
	o.put("app")
	k := NewChecker()
	e := start(t, o.login(true))
	e.invoke(func(ctx context.Context) {
		stop := make(chan struct{})
		var readers sync.WaitGroup
		var mu sync.Mutex
		var wrote time.Time // guarded by mu: the end of the last write
		for range 4 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					mu.Lock()
					from := wrote
					mu.Unlock()
					a := e.get(ctx, path)
					if !from.IsZero() {
						k.Read(Read{Resource: path, Answer: a.value(), From: from, To: a.Ended, Marked: a.stale(), Note: a.cacheStatus()})
					}
				}
			})
		}
		for range 100 {
			v := secret()
			begin := time.Now()
			w := e.send(ctx, put(path, v))
			if w.Status != http.StatusOK {
				t.Errorf("write: %d %s", w.Status, w.Body)
			}
			k.Wrote(path, v, begin, w.Ended)
			mu.Lock()
			wrote = w.Ended
			mu.Unlock()
			e.get(ctx, path).fresh(t, v)
		}
		close(stop)
		readers.Wait()
	})
	j := k.Judge()
	t.Logf("%s", j)
	for _, v := range j.Failures() {
		t.Error(v)
	}
}

// TestUncachedReadEndsBeforeTheFunctionsTimeout: with an origin that says
// nothing, the function gets an error to act on and not its own end.
func TestUncachedReadEndsBeforeTheFunctionsTimeout(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.counter.Stall()
	e := start(t, o.login(true), func(_ *environment, c *lambdaapi.Config) { c.Timeout = 3 * time.Second })
	e.invoke(func(ctx context.Context) {
		a := e.get(ctx, "secret/data/app")
		a.refused(t, "deadline")
		if a.took() > 2900*time.Millisecond || a.Status != http.StatusGatewayTimeout {
			t.Errorf("status %d after %v", a.Status, a.took())
		}
	})
}
