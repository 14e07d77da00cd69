package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestG1ManagedInstancesAreFreshWithinRecheck: there is no INVOKE and no
// freeze, invocations run side by side, and no answer is older than
// THAW_RECHECK, while the origin is asked about once in that time.
func TestG1ManagedInstancesAreFreshWithinRecheck(t *testing.T) {
	t.Parallel()
	const lasts = 4 * time.Second
	o := newSite(t)
	k := NewChecker()
	path := "secret/data/app"
	write := func() {
		begin := time.Now()
		k.Wrote(path, o.put("app"), begin, time.Now())
	}
	write()
	e := start(t, o.login(true).With(harness.Settings{"THAW_POLL_TIMEOUT": "2s"}), initType(lambdaapi.Managed))
	if e.Extension().Subscribed("INVOKE") {
		t.Error("registered for INVOKE, which Managed Instances refuse")
	}
	end := time.Now().Add(lasts)
	var wg sync.WaitGroup
	var hits, reads int
	var mu sync.Mutex
	for range 3 {
		wg.Go(func() {
			for time.Now().Before(end) {
				err := e.Invoke(t.Context(), func(ctx context.Context, _ lambdaapi.Invocation) error {
					a := e.get(ctx, path)
					if a.Status != http.StatusOK {
						return errors.New(string(a.Body))
					}
					k.Read(Read{Resource: path, Answer: a.value(), From: a.Begun.Add(-recheck), To: a.Ended, Marked: a.stale(), Note: a.cacheStatus()})
					mu.Lock()
					defer mu.Unlock()
					reads++
					if a.Header.Get("X-Cache") == "HIT" {
						hits++
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				harness.Pause(t.Context(), 3*time.Millisecond)
			}
		})
	}
	for time.Now().Before(end) {
		harness.Pause(t.Context(), 400*time.Millisecond)
		write()
	}
	wg.Wait()
	j := k.Judge()
	for _, v := range j.Failures() {
		t.Error(v)
	}
	t.Logf("%s; %d hits; the origin got %d requests in %v", j, hits, o.counter.Total(), lasts)
	if hits*2 < reads || o.counter.Total() > 40 {
		t.Errorf("%d of %d reads were hits, the origin got\n%s", hits, reads, o.counter)
	}
	e.ends("spindown")
}

// TestG6SnapStartReadsNothingBeforeTheFirstInvocation: what is in memory then
// is in the snapshot.
func TestG6SnapStartReadsNothingBeforeTheFirstInvocation(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	value := o.put("app")
	callers := o.token(harness.TokenSpec{Policies: []string{"app"}, TTL: time.Hour})
	file := filepath.Join(t.TempDir(), "dir", "secret.json")
	e := start(t, o.login(true).With(harness.Settings{
		"VAULT_SECRET_PATH": "secret/data/app", "VAULT_SECRET_FILE": file, "THAW_PREFETCH": "secret/data/app",
	}), initType(lambdaapi.SnapStart), functionInit(func(ctx context.Context, e *environment) {
		for _, token := range []string{"", callers} {
			a := e.getAs(ctx, "secret/data/app", token)
			a.refused(t, "SnapStart", "snapshot", "handler")
			if a.Status != http.StatusServiceUnavailable {
				t.Errorf("status %d, want 503", a.Status)
			}
		}
	}))
	e.freeze(100 * time.Millisecond) // the snapshot
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) || o.counter.Total() != 0 {
		t.Errorf("before the first invocation: file %v, the origin got\n%s", err, o.counter)
	}
	e.invoke(func(ctx context.Context) {
		e.get(ctx, "secret/data/app").fresh(t, value)
		e.getAs(ctx, "secret/data/app", callers).fresh(t, value)
		harness.Eventually(t, patience, "the secret file", func() bool { _, err := os.Stat(file); return err == nil })
	})
	e.freeze(10 * time.Millisecond)
	value = o.put("app")
	e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, value) })
}

// TestProvisionedConcurrencyKeepsWhatItsInitDid: long after init comes the first
// invocation, and it is like any other.
func TestProvisionedConcurrencyKeepsWhatItsInitDid(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	e := start(t, o.login(true), initType(lambdaapi.Provisioned))
	e.prepared()
	e.freeze(1500 * time.Millisecond)
	o.counter.Reset()
	value := o.put("app")
	e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, value) })
	if n := o.counter.Count("", "/v1/auth/approle/login"); n != 0 {
		t.Errorf("it logged in again:\n%s", o.counter)
	}
}

// TestAFreezeInTheMidstOfTheInitLosesNothing: the login or the first read ahead is under
// way when the process is frozen, and its connection dies meanwhile or stays dumb. The
// first invocation does again what is missing, whether it reads or not.
func TestAFreezeInTheMidstOfTheInitLosesNothing(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"auth/approle/login", "sys/leader", "secret/data/a"} {
		for _, dead := range []bool{false, true} {
			t.Run(fmt.Sprint(at, ", connection dead: ", dead), func(t *testing.T) {
				t.Parallel()
				o := newSite(t)
				values := map[string]string{"secret/data/a": o.put("a"), "secret/data/b": o.put("b")}
				o.counter.StallAt("/v1/" + at)
				e := start(t, o.login(true).With(harness.Settings{"THAW_PREFETCH": "secret/data/a,secret/data/b"}), initType(lambdaapi.Provisioned))
				harness.Eventually(t, patience, "the init is at "+at, func() bool { return o.counter.Count("", "/v1/"+at) > 0 })
				harness.Must(t, e.Freeze())
				if dead {
					harness.Must(t, o.counter.CloseConnections())
				}
				harness.Pause(t.Context(), 200*time.Millisecond)
				harness.Must(t, o.counter.Mend())
				e.invoke(func(ctx context.Context) {
					e.prepared()
					for p, want := range values {
						e.get(ctx, p).fresh(t, want)
					}
				})
			})
		}
	}
}

// TestPrefetchReadsDuringTheInit, each secret once. The first invocation verifies them all by
// one request.
func TestPrefetchReadsDuringTheInit(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	values := map[string]string{"secret/data/a": o.put("a"), "kv/b": o.putKV1("b")}
	e := start(t, o.login(true).With(harness.Settings{"THAW_PREFETCH": "secret/data/a, kv/b, secret/data/missing"}))
	e.prepared()
	e.invoke(func(ctx context.Context) {
		for p, want := range values {
			e.get(ctx, p).fresh(t, want)
		}
	})
	for p := range values {
		if n := o.counter.Count("", "/v1/"+p); n != 1 {
			t.Errorf("%s was read %d times, want once", p, n)
		}
	}
}
