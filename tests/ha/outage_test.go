package ha

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// outage is one way for a leader to go, and how it comes back.
type outage struct {
	name string
	away func(ctx context.Context, c *harness.Cluster, leader *harness.Vault) error
	back func(ctx context.Context, c *harness.Cluster, leader *harness.Vault) error
}

func outages() []outage {
	nothing := func(context.Context, *harness.Cluster, *harness.Vault) error { return nil }
	return []outage{
		{"SIGKILL", func(_ context.Context, _ *harness.Cluster, v *harness.Vault) error {
			v.Kill()
			return nil
		}, func(ctx context.Context, c *harness.Cluster, v *harness.Vault) error {
			if err := v.StartSealed(ctx); err != nil {
				return err
			}
			return c.Unseal(ctx, v)
		}},
		{"SIGSTOP", func(ctx context.Context, _ *harness.Cluster, v *harness.Vault) error { return v.Freeze(ctx) },
			func(ctx context.Context, c *harness.Cluster, v *harness.Vault) error {
				if err := v.Thaw(); err != nil {
					return err
				}
				return rejoin(ctx, c, v)
			}},
		{"seal", func(ctx context.Context, _ *harness.Cluster, v *harness.Vault) error { return v.Seal(ctx) },
			func(ctx context.Context, c *harness.Cluster, v *harness.Vault) error { return c.Unseal(ctx, v) }},
		{"cut off", func(_ context.Context, c *harness.Cluster, v *harness.Vault) error {
			if f := c.Front(v); f != nil {
				f.Cut()
			}
			return nil
		}, func(_ context.Context, c *harness.Cluster, v *harness.Vault) error {
			if f := c.Front(v); f != nil {
				return f.Mend()
			}
			return nil
		}},
		{"step down", func(ctx context.Context, _ *harness.Cluster, v *harness.Vault) error {
			_, err := v.Root(ctx, http.MethodPut, "sys/step-down", nil)
			return err
		}, nothing},
	}
}

// rejoin waits until a node that was stopped is a standby. Vault 1.21.0 can go
// on to take itself for active for good; then it is started anew.
func rejoin(ctx context.Context, c *harness.Cluster, v *harness.Vault) error {
	wait, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if await(wait, func() bool {
		r, err := v.Do(wait, harness.Call{Method: http.MethodGet, Path: "sys/health"})
		return err == nil && r.Status == http.StatusTooManyRequests
	}) == nil {
		return nil
	}
	v.Kill()
	if err := v.StartSealed(ctx); err != nil {
		return err
	}
	return c.Unseal(ctx, v)
}

// watch notes when the cluster has a leader that all its nodes agree on.
type watch struct {
	mu   sync.Mutex // guards gaps
	gaps []gap      // times without one
}

type gap struct{ from, to time.Time }

// run watches until ctx ends.
func (w *watch) run(ctx context.Context, c *harness.Cluster) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for {
		before := last
		led := c.Active(ctx) != nil
		last = time.Now()
		if !led && ctx.Err() == nil {
			w.mu.Lock()
			w.gaps = append(w.gaps, gap{before, last})
			w.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// without is for how much of a time there was no leader.
func (w *watch) without(from, to time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sum time.Duration
	for _, g := range w.gaps {
		a, b := g.from, g.to
		if a.Before(from) {
			a = from
		}
		if b.After(to) {
			b = to
		}
		if b.After(a) {
			sum += b.Sub(a)
		}
	}
	return sum
}

// quantile is the q-th part of durations in order.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[min(len(all)-1, int(q*float64(len(all))))]
}

// disrupt takes the leader away and gives it back, in every way. around runs
// each outage among its requests, and hold waits for those.
func disrupt(ctx context.Context, t testing.TB, c *harness.Cluster, around func(during func(hold func()))) {
	for _, o := range outages() {
		around(func(hold func()) {
			leader, err := c.Leader(ctx)
			if err != nil {
				t.Errorf("%s: %v", o.name, err)
				return
			}
			began := time.Now()
			if err := o.away(ctx, c, leader); err != nil {
				t.Errorf("%s: %v", o.name, err)
				return
			}
			if o.name != "cut off" {
				err = await(ctx, func() bool { a := c.Active(ctx); return a != nil && (a != leader || o.name == "step down") })
			}
			elected := time.Since(began)
			if o.name == "cut off" {
				hold() // nothing changes until it is mended
			}
			if e := o.back(ctx, c, leader); e != nil || err != nil {
				t.Errorf("%s: %v, %v", o.name, err, e)
				return
			}
			if err := await(ctx, func() bool { return c.Active(ctx) != nil }); err != nil {
				t.Errorf("%s: %v", o.name, err)
			}
			t.Logf("%s: a leader after %v, whole after %v", o.name, elected.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
		})
	}
}

// await asks until it is so, or ctx ends.
func await(ctx context.Context, is func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
