package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// stock is what an environment has cached before its origin fails, by API path.
type stock map[string]string

// others are cached answers that are no secrets.
func others() []string {
	return []string{"secret/metadata/app/0", "secret/subkeys/app/0", "secret/metadata/app?list=true", "sys/internal/ui/mounts/secret/app/0"}
}

// stocked makes an environment that has read secrets of KV v1 and v2, and what
// the command line tool asks beside them.
func stocked(t *testing.T, o *site, more harness.Settings) (*environment, stock) {
	t.Helper()
	values := stock(o.fill(6))
	for n := range 3 {
		p := fmt.Sprintf("app/%d", n)
		values["kv/"+p] = o.putKV1(p)
	}
	e := start(t, o.login(true).With(more))
	e.invoke(func(ctx context.Context) {
		e.readAll(ctx, values)
		for _, p := range others() {
			if a := e.get(ctx, p); a.Status != http.StatusOK {
				t.Fatalf("%s: %d %s", p, a.Status, a.Body)
			}
		}
	})
	return e, values
}

// allStale reads everything cached and wants it marked stale.
func (e *environment) allStale(ctx context.Context, values stock) {
	e.t.Helper()
	for _, p := range slices.Sorted(maps.Keys(values)) {
		e.get(ctx, p).servedStale(e.t, values[p])
	}
	for _, p := range others() {
		if a := e.get(ctx, p); a.Status != http.StatusOK || !a.stale() {
			e.t.Errorf("%s: %d %v, want 200 and marked stale", p, a.Status, a.Header)
		}
	}
}

// outage is a way for the origin to be away, and the way back.
type outage struct {
	name       string
	begin, end func(o *site) error
	down       bool   // Vault itself is away: nothing can be rotated meanwhile
	says       string // part of thaw's error for a secret that is not cached; empty: Vault answers by itself
}

func outages(ctx context.Context) []outage {
	mend := func(o *site) error { return o.counter.Mend() }
	status := func(code int) func(o *site) error {
		return func(o *site) error { o.counter.Inject(harness.Fault{Status: code}); return nil }
	}
	return []outage{
		{"killed", func(o *site) error { o.vault.Kill(); return nil }, func(o *site) error { return o.vault.Restart(ctx) }, true, "closed the connection"},
		{"sealed", func(o *site) error { return o.vault.Seal(ctx) }, func(o *site) error { return o.vault.Unseal(ctx) }, true, ""},
		{"partitioned", func(o *site) error { o.counter.Cut(); return nil }, mend, false, "check VAULT_ADDR"},
		{"silent", func(o *site) error { o.counter.Stall(); return nil }, mend, false, "VAULT_CLIENT_TIMEOUT"},
		{"limiting the rate", status(http.StatusTooManyRequests), mend, false, ""},
		{"failing with 500", status(http.StatusInternalServerError), mend, false, ""},
	}
}

// TestG4ServesCachedSecretsWhileTheOriginIsAway: whatever is the matter with
// Vault, what is cached is answered, marked; what is not cached is an error
// within its budget; and the first invocation after the outage is fresh.
func TestG4ServesCachedSecretsWhileTheOriginIsAway(t *testing.T) {
	t.Parallel()
	for _, out := range outages(t.Context()) {
		t.Run(out.name, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			const budget = 2 * time.Second
			e, values := stocked(t, o, harness.Settings{"VAULT_CLIENT_TIMEOUT": "2s"})
			unread := o.put("never/read")
			harness.Must(t, e.Freeze())
			harness.Must(t, out.begin(o))
			for range 2 {
				e.invoke(func(ctx context.Context) {
					e.allStale(ctx, values)
					a := e.get(ctx, "secret/data/never/read")
					if a.took() > budget+time.Second {
						t.Errorf("the error for an uncached secret took %v", a.took())
					}
					if out.says != "" {
						a.refused(t, out.says)
					} else if !a.fails() {
						t.Errorf("an uncached secret: %d %.200s", a.Status, a.Body)
					}
				})
				e.freeze(10 * time.Millisecond)
			}
			if !out.down {
				values["secret/data/app/0"] = o.put("app/0")
			}
			harness.Must(t, out.end(o))
			if out.down {
				values["secret/data/app/0"] = o.put("app/0")
			}
			e.invoke(func(ctx context.Context) {
				e.readAll(ctx, values)
				e.get(ctx, "secret/data/never/read").fresh(t, unread)
			})
		})
	}
}

// fails reports whether the answer is an error in the shape of Vault's.
func (a answer) fails() bool {
	var body struct{ Errors []string }
	return a.Err == nil && (a.Status >= 500 || a.Status == http.StatusTooManyRequests) &&
		json.Unmarshal(a.Body, &body) == nil && len(body.Errors) > 0
}

// TestG4SilentOriginHoldsUpNoReadLongerThanThePollTimeout counts the time that
// a read of a cached secret takes while Vault is frozen: connections open,
// nothing answered.
func TestG4SilentOriginHoldsUpNoReadLongerThanThePollTimeout(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	e, values := stocked(t, o, harness.Settings{"THAW_POLL_TIMEOUT": "300ms"})
	harness.Must(t, e.Freeze())
	harness.Must(t, o.vault.Freeze(t.Context()))
	e.invoke(func(ctx context.Context) {
		var wg sync.WaitGroup
		for p, want := range values {
			wg.Go(func() {
				a := e.get(ctx, p)
				// Generous above the budget: the machine may be busy.
				if a.Status != http.StatusOK || !a.stale() || a.value() != want || a.took() > 1500*time.Millisecond {
					t.Errorf("%s: %d after %v: %v", p, a.Status, a.took(), a.Header)
				}
			})
		}
		wg.Wait()
		// The failure is remembered: later reads of this invocation don't wait.
		a := e.get(ctx, "secret/data/app/0")
		a.servedStale(t, values["secret/data/app/0"])
		t.Logf("a later read took %v", a.took())
	})
	harness.Must(t, o.vault.Thaw())
	harness.Must(t, e.Freeze())
	values["secret/data/app/0"] = o.put("app/0")
	e.invoke(func(ctx context.Context) { e.readAll(ctx, values) })
}

// TestG4StaleAnswersCanBeForbidden: by the behaviour setting, by the bound on
// their age, and by the request.
func TestG4StaleAnswersCanBeForbidden(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]harness.Settings{
		"pessimistic":             {"THAW_CAPABILITY_REFRESH_BEHAVIOR": "pessimistic"},
		"THAW_STALE_IF_ERROR=0":   {"THAW_STALE_IF_ERROR": "0"},
		"THAW_STALE_IF_ERROR=1ms": {"THAW_STALE_IF_ERROR": "1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			e, values := stocked(t, o, more.With(harness.Settings{"VAULT_CLIENT_TIMEOUT": "2s"}))
			harness.Must(t, e.Freeze())
			o.vault.Kill()
			for range 2 {
				e.invoke(func(ctx context.Context) {
					for p := range values {
						e.get(ctx, p).refused(t)
					}
				})
			}
			harness.Must(t, o.vault.Restart(t.Context()))
			e.invoke(func(ctx context.Context) { e.readAll(ctx, values) })
		})
	}
	t.Run("stale-if-error=0 in the request", func(t *testing.T) {
		t.Parallel()
		o := newSite(t)
		e, values := stocked(t, o, harness.Settings{"VAULT_CLIENT_TIMEOUT": "2s"})
		harness.Must(t, e.Freeze())
		o.vault.Kill()
		e.invoke(func(ctx context.Context) {
			path := "secret/data/app/1"
			e.get(ctx, path).servedStale(t, values[path])
			for _, directive := range []string{"stale-if-error=0", "max-age=60, stale-if-error=0"} {
				e.send(ctx, harness.Call{Method: http.MethodGet, Path: path, Header: http.Header{"Cache-Control": {directive}}}).refused(t)
			}
			e.get(ctx, path).servedStale(t, values[path])
		})
	})
}

// TestG2PolicyThatIsTakenAwayIsNoOutage: a 403 is an answer. It evicts, also
// when the origin is away afterwards.
func TestG2PolicyThatIsTakenAwayIsNoOutage(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	e, values := stocked(t, o, harness.Settings{"THAW_CAPABILITY_REFRESH_INTERVAL": "1s"})
	harness.Must(t, e.Freeze())
	harness.Must(t, o.vault.PutPolicy(t.Context(), "app", `path "kv/*" { capabilities = ["read"] }`))
	harness.Pause(t.Context(), 1100*time.Millisecond) // the refresh interval
	kv1 := func(path string) bool { return path[0] == 'k' }
	e.invoke(func(ctx context.Context) {
		for p, want := range values {
			if a := e.get(ctx, p); kv1(p) {
				a.fresh(t, want)
			} else if a.Status != http.StatusForbidden {
				t.Errorf("%s: %d %v, want the origin's 403", p, a.Status, a.Header)
			}
		}
	})
	harness.Must(t, e.Freeze())
	o.vault.Kill()
	e.invoke(func(ctx context.Context) {
		for p, want := range values {
			if a := e.get(ctx, p); kv1(p) {
				a.servedStale(t, want)
			} else if a.Status == http.StatusOK {
				t.Errorf("%s: served although its permission is gone: %v", p, a.Header)
			}
		}
	})
}
