package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// unhurried makes invocations shorter than THAW_RECHECK also on a machine that
// does much else.
func unhurried(s harness.Settings) harness.Settings {
	return s.With(harness.Settings{"THAW_RECHECK": "60s", "THAW_POLL_TIMEOUT": "20s"})
}

// TestQuietOriginGetsOneRequestPerInvocation counts in front of Vault: an
// invocation costs the origin one GET of sys/leader, however much is cached.
func TestQuietOriginGetsOneRequestPerInvocation(t *testing.T) {
	t.Parallel()
	for _, secrets := range []int{1, 1000} {
		t.Run(fmt.Sprint(secrets, " cached"), func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			values := o.fill(secrets)
			e := start(t, unhurried(o.login(true)))
			e.prepared()
			e.invoke(func(ctx context.Context) { e.readAll(ctx, values) })
			first := o.counter.Total()
			for n := range 10 {
				e.freeze(time.Duration(n) * 5 * time.Millisecond)
				o.counter.Reset()
				e.invoke(func(ctx context.Context) {
					if n == 5 {
						return // a function that reads nothing
					}
					e.readAll(ctx, values)
				})
				// The poll of an invocation that reads nothing runs beside it.
				harness.Eventually(t, patience, "the poll", func() bool { return o.counter.Total() > 0 })
				if o.counter.Total() != 1 || o.counter.Count("GET", "/v1/sys/leader") != 1 {
					t.Fatalf("invocation %d: want one GET of sys/leader, the origin got\n%s", n+2, o.counter)
				}
			}
			t.Logf("%d secrets: %d origin requests in the first invocation, 1 in each of the 10 after it", secrets, first)
		})
	}
}

func TestQuietOriginGetsNothingWhileNothingIsCached(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	e := start(t, o.login(true))
	e.prepared()
	o.counter.Reset()
	for range 10 {
		e.invoke(func(context.Context) {})
		e.freeze(5 * time.Millisecond)
	}
	if o.counter.Total() != 0 {
		t.Errorf("the origin got\n%s", o.counter)
	}
}

// TestMovedCursorCostsNoMoreThanOneReadPerSecret: after a rotation the poll is
// one request for the cursor and at most one for each cached secret; after
// that the cursor holds for all of them again.
func TestMovedCursorCostsNoMoreThanOneReadPerSecret(t *testing.T) {
	t.Parallel()
	const secrets = 50
	o := newSite(t)
	values := o.fill(secrets)
	e := start(t, unhurried(o.login(true)))
	e.prepared()
	e.invoke(func(ctx context.Context) { e.readAll(ctx, values) })
	for n := range 5 {
		harness.Must(t, e.Freeze())
		path := fmt.Sprintf("app/%d", n*7)
		values["secret/data/"+path] = o.put(path)
		o.counter.Reset()
		e.invoke(func(ctx context.Context) { e.readAll(ctx, values) })
		if got := o.counter.Total(); got > 1+secrets || o.counter.Count("GET", "/v1/sys/leader") != 1 {
			t.Errorf("rotation %d: want at most %d requests, one of them the cursor's, the origin got %d\n%s", n+1, 1+secrets, got, o.counter)
		}
		harness.Must(t, e.Freeze())
		o.counter.Reset()
		e.invoke(func(ctx context.Context) { e.readAll(ctx, values) })
		if o.counter.Total() != 1 {
			t.Errorf("after rotation %d: want one request, the origin got\n%s", n+1, o.counter)
		}
	}
}

// fill writes n secrets to KV v2 and returns their values by API path.
func (o *site) fill(n int) map[string]string {
	o.t.Helper()
	values := make(map[string]string, n)
	for i := range n {
		path := fmt.Sprintf("app/%d", i)
		values["secret/data/"+path] = o.put(path)
	}
	return values
}

// readAll reads every secret, eight at a time, and wants each one fresh.
func (e *environment) readAll(ctx context.Context, values map[string]string) {
	e.t.Helper()
	paths := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := make(map[string]answer, len(values))
	for range 8 {
		wg.Go(func() {
			for p := range paths {
				a := e.get(ctx, p)
				mu.Lock()
				got[p] = a
				mu.Unlock()
			}
		})
	}
	for p := range values {
		paths <- p
	}
	close(paths)
	wg.Wait()
	for p, want := range values {
		got[p].fresh(e.t, want)
	}
}
