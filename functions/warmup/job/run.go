package job

import (
	"context"
	"log/slog"
	"time"

	"github.com/thaw-project/thaw/extension/meter"
	"github.com/thaw-project/thaw/functions/warmup"
)

// Run is one run, with its metrics.
func (a *Job) Run(ctx context.Context, order warmup.Order) warmup.Summary {
	a.client.Thawed(time.Now()) // the process may have slept
	a.memcached.Thawed()
	if order.For > 0 && !a.stamps() {
		a.o.Log.Warn("the run goes on to keep verifications young, and none counts: THAW_MAX_AGE is not above THAW_CLOCK_SKEW; set both as the functions have them, or let the run end (-for, THAW_WARM_FOR)")
	}
	sum := a.warmer.Run(ctx, order)
	a.say("") // the end of the progress line
	level := slog.LevelInfo
	if !sum.Leader || sum.Pass == "nothing" {
		level = slog.LevelDebug // nothing was done
	}
	a.o.Log.Log(ctx, level, "warm-up", "pass", sum.Pass, "leader", sum.Leader, "fetched", sum.Fetched, "changed", sum.Changed, "removed", sum.Removed,
		"unchanged", sum.Unchanged, "failed", len(sum.Failed)+sum.FailedMore, "rate_limited", sum.RateLimited, "seconds", sum.Seconds, "complete", sum.Complete)
	if a.cfg.EMF && a.o.Metrics != nil {
		if err := a.emf.Write(a.o.Metrics, time.Now(), a.numbers(sum)); err != nil {
			a.o.Log.Debug("write metrics", "error", err)
		}
	}
	return sum
}

// numbers are a run's metrics.
func (a *Job) numbers(s warmup.Summary) []meter.Metric {
	gauge := func(name, unit string, v float64) meter.Metric { return meter.Metric{Name: name, Unit: unit, Value: v} }
	out := []meter.Metric{
		gauge("thaw_warm_fetched", "Count", float64(s.Fetched)), gauge("thaw_warm_changed", "Count", float64(s.Changed)),
		gauge("thaw_warm_removed", "Count", float64(s.Removed)), gauge("thaw_warm_unchanged", "Count", float64(s.Unchanged)),
		gauge("thaw_warm_failed", "Count", float64(len(s.Failed)+s.FailedMore)), gauge("thaw_warm_rate_limited", "Count", float64(s.RateLimited)),
		gauge("thaw_warm_requests", "Count", float64(s.Requests)), gauge("thaw_warm_seconds", "Seconds", s.Seconds),
		gauge("thaw_warm_leader", "Count", meter.Flag(s.Leader)), gauge("thaw_warm_complete", "Count", meter.Flag(s.Complete)),
	}
	if a.backoff != nil {
		now := a.backoff.Stats()
		out = append(out, meter.Metric{Name: "thaw_warm_gate_wait_seconds", Unit: "Seconds", Counter: true, Value: now.Held.Seconds()},
			meter.Metric{Name: "thaw_warm_gate_exhausted", Unit: "Count", Counter: true, Value: float64(now.GivenUp)})
	}
	if !s.LastFull.IsZero() {
		out = append(out, gauge("thaw_warm_last_full_age_seconds", "Seconds", time.Since(s.LastFull).Seconds()))
	}
	return out
}
