package app

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/thaw-project/thaw/extension/meter"
)

// metrics are all numbers of the process as they stand.
func (a *App) metrics() []meter.Metric {
	c, p := a.cache.Counters(), a.poller.Counts()
	counter := func(name, help string, v uint64) meter.Metric {
		return meter.Metric{Name: name, Help: help, Counter: true, Unit: "Count", Value: float64(v)}
	}
	out := []meter.Metric{
		counter("thaw_origin_requests_total", "Requests sent to the origin, each attempt counted.", a.client.Requests()),
		counter("thaw_fills_total", "Reads of secrets sent to the origin.", c.Fills),
		counter("thaw_collapsed_total", "Callers who shared another's read.", c.Shared),
		counter("thaw_stored_total", "Answers stored.", c.Stored),
		counter("thaw_evicted_total", "Entries dropped for room.", c.Evicted),
		counter("thaw_invalidated_total", "Entries dropped because of a write, a 403 or a 404.", c.Invalidated),
		counter("thaw_polls_total", "Polls begun.", p.Polls),
		counter("thaw_polls_proven_total", "Polls that the cursor answered alone.", p.Proven),
		counter("thaw_polls_moved_total", "Polls whose cursor had moved.", p.Moved),
		counter("thaw_polls_failed_total", "Polls that the origin failed.", p.Failed),
		counter("thaw_polls_reread_total", "Secrets read again by polls.", p.Reread),
		counter("thaw_polls_unreached_total", "Secrets that a poll's budget left unverified.", p.Unreached),
		{Name: "thaw_entries", Help: "Entries in memory.", Unit: "Count", Value: float64(c.Entries)},
		{Name: "thaw_cache_bytes", Help: "Memory of entries and grants, estimated.", Unit: "Bytes", Value: float64(c.Bytes)},
		{Name: "thaw_identities", Help: "Callers' tokens remembered.", Value: float64(c.Identities)},
		{Name: "thaw_goroutines", Help: "Goroutines of the process.", Value: float64(runtime.NumGoroutine())},
	}
	if a.tier != nil {
		m := a.tier.Stats()
		out = append(out,
			counter("thaw_adopted_total", "Entries taken over from the shared cache.", c.FromShared),
			counter("thaw_grants_shared_total", "Of those, entries that may be read as another instance had confirmed.", c.Borrowed),
			counter("thaw_stamps_total", "Verifications of other instances that polls found.", p.Stamps),
			meter.Metric{Name: "thaw_stamp_age_seconds", Help: "Age of the oldest of them at the last poll that found any.", Unit: "Seconds", Value: p.StampAge.Seconds()},
			counter("thaw_memcached_hits_total", "Records that memcached had.", m.Hits),
			counter("thaw_memcached_misses_total", "Records that memcached had not, or did not give.", m.Misses),
			counter("thaw_memcached_errors_total", "Calls of memcached that failed, timeouts included.", m.Errors),
			counter("thaw_memcached_timeouts_total", "Calls of memcached that ran out of time, but for our own fault.", m.Timeouts-m.Late),
			meter.Metric{Name: "thaw_memcached_nodes_out", Help: "Nodes of memcached that are not asked at the moment.", Unit: "Count", Value: float64(m.Out)},
		)
	}
	if a.keeper != nil {
		k := a.keeper.Counts()
		out = append(out,
			counter("thaw_lagging_total", "Answers of nodes that lacked what a caller had written.", k.Behind),
			counter("thaw_lag_waits_total", "Waits before such a node was asked again.", k.Waits),
			counter("thaw_lag_active_total", "Requests sent to the active node for that reason.", k.Active),
		)
	}
	if a.events != nil {
		listening := 0.0
		if a.events.Listening() {
			listening = 1
		}
		out = append(out,
			counter("thaw_events_total", "Changes that Vault's events told of.", a.events.Events()),
			meter.Metric{Name: "thaw_events_listening", Help: "Whether there is a stream of events now.", Value: listening},
		)
	}
	if a.proxy != nil {
		r := a.proxy.Counts()
		out = append(out,
			counter("thaw_requests_total", "Requests to /v1/ let in.", r.Requests),
			counter("thaw_hits_total", "Requests answered from the cache, verified.", r.Hits),
			counter("thaw_hits_shared_total", "Of those hits, answers that were taken over from the shared cache.", r.Shared),
			counter("thaw_stale_total", "Requests answered from the cache, marked stale.", r.Stale),
			counter("thaw_misses_total", "Reads that the origin answered.", r.Misses),
			counter("thaw_bypass_total", "Reads that the cache has no part in.", r.Bypass),
			counter("thaw_writes_total", "Writes passed through.", r.Writes),
			counter("thaw_refused_total", "Requests refused by the guard.", r.Refused),
			counter("thaw_errors_total", "Requests answered with an error of thaw's own.", r.Failed),
		)
	}
	return out
}

func (a *App) writeMetrics(w io.Writer) {
	if err := meter.WriteText(w, a.metrics()); err != nil {
		a.log.Debug("write metrics", "error", err)
	}
}

// Report logs one line for an invocation that is over, and its EMF line.
func (a *App) Report(id string, before, after Tally, took time.Duration) {
	a.tell(a.log.With("request_id", id), "invocation", before, after, took)
}

// ReportInit logs one line for what was asked of the proxy before the first
// invocation, and its EMF line; none where nothing was.
func (a *App) ReportInit(after Tally, took time.Duration) {
	if after.hits+after.stale+after.misses+after.writes+after.errors > 0 {
		a.tell(a.log, "init", Tally{}, after, took)
	}
}

// reportEvery is how long a line of Reports covers.
const reportEvery = time.Minute

// Reports is Report where nobody says when an invocation is over: until ctx
// ends a line each minute, then one for the rest. What happened since the start
// is in the first; a minute in which nothing happened has none.
func (a *App) Reports(ctx context.Context) {
	var before Tally
	var told float64
	since := a.now()
	tell := func() {
		now, after, done := a.now(), a.Tally(), counted(a.metrics())
		if done != told {
			a.tell(a.log, "activity", before, after, now.Sub(since))
		}
		since, before, told = now, after, done
	}
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			tell()
		case <-ctx.Done():
			tell()
			return
		}
	}
}

// counted changes with everything that is counted.
func counted(metrics []meter.Metric) (sum float64) {
	for _, m := range metrics {
		if m.Counter {
			sum += m.Value
		}
	}
	return sum
}

// tell logs one line for what was done between two tallies, and its EMF line.
func (a *App) tell(log *slog.Logger, what string, before, after Tally, took time.Duration) {
	log.Info(what, "seconds", took.Round(time.Millisecond).Seconds(), "hits", after.hits-before.hits,
		"stale", after.stale-before.stale, "misses", after.misses-before.misses, "writes", after.writes-before.writes,
		"errors", after.errors-before.errors, "origin_requests", after.origin-before.origin, "entries", after.entries)
	if a.emf != nil {
		if err := a.emf.Write(a.stdout, a.now(), a.metrics()); err != nil {
			a.log.Debug("write metrics", "error", err)
		}
	}
}

// Tally is what such a line counts.
type Tally struct {
	hits, stale, misses, writes, errors, origin uint64
	entries                                     int
}

// Tally counts what was done so far.
func (a *App) Tally() Tally {
	t := Tally{origin: a.client.Requests(), entries: a.cache.Counters().Entries}
	if a.proxy != nil {
		c := a.proxy.Counts()
		t.hits, t.stale, t.misses, t.writes, t.errors = c.Hits, c.Stale, c.Misses, c.Writes, c.Failed
	}
	return t
}
