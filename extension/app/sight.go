package app

import (
	"context"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/meter"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wait"
)

// metrics are all numbers of the process as they stand.
func (a *App) metrics() []meter.Metric {
	c, p := a.cache.Counters(), a.poller.Counts()
	counter := func(name, help string, v uint64) meter.Metric {
		return meter.Metric{Name: name, Help: help, Counter: true, Unit: "Count", Value: float64(v)}
	}
	main := func(m meter.Metric) meter.Metric { // what alarms and the dashboard need: THAW_EMF=true
		m.Main = true
		return m
	}
	said := a.answers.Counts()
	out := []meter.Metric{
		main(counter("thaw_origin_requests_total", "Requests sent to the origin, each attempt counted.", a.client.Requests())),
		counter("thaw_fills_total", "Reads of secrets sent to the origin.", c.Fills),
		counter("thaw_collapsed_total", "Callers who shared another's read.", c.Shared),
		counter("thaw_stored_total", "Answers stored.", c.Stored),
		counter("thaw_evicted_total", "Entries dropped for room.", c.Evicted),
		counter("thaw_invalidated_total", "Entries dropped because of a write, a 403 or a 404.", c.Invalidated),
		counter("thaw_polls_total", "Polls begun.", p.Polls),
		counter("thaw_polls_at_read_total", "Of those, polls that a read began, and not an INVOKE.", p.AtRead),
		counter("thaw_polls_proven_total", "Polls that the cursor answered alone.", p.Proven),
		counter("thaw_polls_moved_total", "Polls whose cursor had moved.", p.Moved),
		main(counter("thaw_polls_failed_total", "Polls that the origin failed.", p.Failed)),
		counter("thaw_polls_reread_total", "Secrets read again by polls.", p.Reread),
		counter("thaw_polls_unreached_total", "Secrets that a poll's budget left unverified.", p.Unreached),
		main(counter("thaw_origin_refused_total", "Answers by which the origin refused: 4xx but 404 and 412.", said.Refused)),
		main(counter("thaw_origin_foreign_total", "Answers that were not the origin's, but of something in its place.", said.Foreign)),
		counter("thaw_reloads_total", "Files that changed and were taken in: TLS files, certificates, credentials.",
			a.reloads.Load()+a.client.Reloads()+a.proxy.Reloads()),
		{Name: "thaw_entries", Help: "Entries in memory.", Unit: "Count", Value: float64(c.Entries)},
		{Name: "thaw_cache_bytes", Help: "Memory of entries and grants, estimated.", Unit: "Bytes", Value: float64(c.Bytes)},
		{Name: "thaw_identities", Help: "Callers' tokens remembered.", Value: float64(c.Identities)},
		{Name: "thaw_places_in_use", Help: "Requests in flight to the origin, of THAW_MAX_IN_FLIGHT.", Value: float64(a.cfg.MaxInFlight - a.client.Places().Free())},
		{Name: "thaw_queue_length", Help: "Requests of callers that wait for one of these places.", Value: float64(a.client.Places().Waiting())},
		{Name: "thaw_goroutines", Help: "Goroutines of the process.", Value: float64(runtime.NumGoroutine())},
	}
	if a.tier != nil {
		m := a.tier.Stats()
		out = append(out,
			counter("thaw_adopted_total", "Entries taken over from the shared cache.", c.FromShared),
			counter("thaw_grants_shared_total", "Of those, entries that may be read as another instance had confirmed.", c.Borrowed),
			counter("thaw_stamps_total", "Verifications of other instances that polls found.", p.Stamps),
			meter.Metric{Name: "thaw_stamp_age_seconds", Help: "Age of the oldest of them at the last poll that found any.", Unit: "Seconds", Main: true, Value: p.StampAge.Seconds()},
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
		out = append(out,
			counter("thaw_events_total", "Changes that Vault's events told of.", a.events.Events()),
			meter.Metric{Name: "thaw_events_listening", Help: "Whether there is a stream of events now.", Value: meter.Flag(a.events.Listening())},
		)
	}
	if a.cfg.RunMode != config.RunFile { // there nobody asks
		r, w := a.proxy.Counts(), a.proxy.Waits()
		out = append(out,
			counter("thaw_requests_total", "Requests to /v1/ let in.", r.Requests),
			main(counter("thaw_hits_total", "Requests answered from the cache, verified.", r.Hits)),
			counter("thaw_hits_shared_total", "Of those hits, answers that were taken over from the shared cache.", r.Shared),
			main(counter("thaw_stale_total", "Requests answered from the cache, marked stale.", r.Stale)),
			main(counter("thaw_misses_total", "Reads that the origin answered.", r.Misses)),
			counter("thaw_bypass_total", "Reads that the cache has no part in.", r.Bypass),
			counter("thaw_writes_total", "Writes passed through.", r.Writes),
			counter("thaw_refused_total", "Requests refused by the guard.", r.Refused),
			main(counter("thaw_errors_total", "Requests answered with an error of thaw's own.", r.Failed)),
			counter("thaw_slow_total", "Reads that took longer than THAW_POLL_TIMEOUT.", w.Slow),
			meter.Metric{Name: "thaw_slowest_wait_seconds", Help: "Longest wait for a read in the last two minutes.", Unit: "Seconds", Main: true, Value: w.Slowest.Seconds()},
		)
	}
	for _, code := range slices.Sorted(maps.Keys(said.Codes)) {
		out = append(out, meter.Metric{
			Name: "thaw_origin_answers_total", Help: "Answers of the origin by status, of each attempt; those of sys/health are left out.", Counter: true,
			Label: `code="` + strconv.Itoa(code) + `"`, Value: float64(said.Codes[code]),
		})
	}
	return out
}

// Report is told of an invocation that is over: it writes its EMF line, and one of
// the log: at INFO where something was unusual, else at DEBUG; none where nothing
// was done.
func (a *App) Report(id string, before, after Tally, took time.Duration) {
	a.tell(a.log.With("request_id", id), "invocation", after.since(before), took)
}

// SumUp logs what was done, at INFO, if the last such line is a minute old.
func (a *App) SumUp(now Tally) { a.sum(now, reportEvery) }

// ReportInit is Report for what was asked of the proxy before the first
// invocation.
func (a *App) ReportInit(after Tally, took time.Duration) {
	if d := after; d.hits+d.stale+d.misses+d.writes+d.errors > 0 {
		a.tell(a.log, "init", d, took)
	}
}

// tell logs what was done, and writes its EMF line.
func (a *App) tell(log *slog.Logger, what string, done Tally, took time.Duration) {
	level := slog.LevelDebug
	switch {
	case done.idle():
		return
	case done.unusual():
		level = slog.LevelInfo
	}
	log.Log(context.Background(), level, what, done.attrs(took)...)
	a.writeEMF()
}

func (a *App) writeEMF() {
	if a.emf != nil {
		if err := a.emf.Write(a.stdout, a.now(), a.metrics()); err != nil {
			a.log.Debug("write metrics", "error", err)
		}
	}
}

// reportEvery is how long a line of activity covers at least.
const reportEvery = time.Minute

// sum logs what was done since the last line of activity, where that is at least
// so long ago; after 0, although it were nothing.
func (a *App) sum(now Tally, after time.Duration) {
	at := a.now()
	a.mu.Lock()
	done, took := now.since(a.summed), clock.Elapsed(a.told, at)
	due := took >= after
	if due {
		a.summed, a.told = now, at
	}
	a.mu.Unlock()
	if due && (after == 0 || !done.idle()) {
		a.log.Info("activity", done.attrs(took)...)
	}
}

// Rest is what was done since the last line of activity, for the log's last line.
func (a *App) Rest() []any {
	a.mu.Lock()
	defer a.mu.Unlock()
	if done := a.Tally().since(a.summed); !done.idle() {
		return done.attrs(clock.Elapsed(a.told, a.now()))
	}
	return nil
}

// Reports is Report where nobody says when an invocation is over: until ctx
// ends a line each minute, then one for the rest. What happened since the start
// is in the first; a minute in which nothing happened has none.
func (a *App) Reports(ctx context.Context) {
	var told float64
	tell := func() {
		done := counted(a.metrics())
		if done == told {
			a.mu.Lock()
			a.told = a.now()
			a.mu.Unlock()
			return
		}
		told = done
		a.sum(a.Tally(), 0)
		a.writeEMF()
	}
	rescue.Keep(ctx, a.log, "report", func(ctx context.Context) {
		for wait.For(ctx, reportEvery) == nil {
			tell()
		}
		tell()
	})
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

// Tally is what such a line counts.
type Tally struct {
	hits, stale, misses, writes, errors, origin uint64
	refused, foreign, failed, slow              uint64
	entries                                     int
}

// Tally counts what was done so far.
func (a *App) Tally() Tally {
	said, c := a.answers.Counts(), a.proxy.Counts()
	return Tally{
		hits: c.Hits, stale: c.Stale, misses: c.Misses, writes: c.Writes, errors: c.Failed, slow: a.proxy.Waits().Slow,
		origin: a.client.Requests(), entries: a.cache.Counters().Entries, refused: said.Refused, foreign: said.Foreign, failed: a.poller.Counts().Failed,
	}
}

// since is what was done between two tallies.
func (t Tally) since(o Tally) Tally {
	return Tally{
		t.hits - o.hits, t.stale - o.stale, t.misses - o.misses, t.writes - o.writes, t.errors - o.errors, t.origin - o.origin,
		t.refused - o.refused, t.foreign - o.foreign, t.failed - o.failed, t.slow - o.slow, t.entries,
	}
}

func (t Tally) idle() bool { return t == Tally{entries: t.entries} }

// unusual reports whether somebody should look.
func (t Tally) unusual() bool { return t.stale+t.errors+t.refused+t.foreign+t.failed+t.slow > 0 }

func (t Tally) attrs(took time.Duration) []any {
	return []any{
		"seconds", took.Round(time.Millisecond).Seconds(), "hits", t.hits, "stale", t.stale, "misses", t.misses, "writes", t.writes, "errors", t.errors,
		"refused", t.refused, "foreign", t.foreign, "failed_polls", t.failed, "slow", t.slow, "origin_requests", t.origin, "entries", t.entries,
	}
}
