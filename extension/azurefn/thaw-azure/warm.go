package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/thaw-project/thaw/functions/warmup"
	"github.com/thaw-project/thaw/functions/warmup/bucket"
	"github.com/thaw-project/thaw/functions/warmup/job"
)

// warmer is the warm-up as a timer function. What a run does follows from
// sealed state in memcached, so a timer that fires twice, late, or again after
// a restart does no harm.
type warmer struct {
	*program
	limit time.Duration // of an invocation, by the host; 0: none

	mu  sync.Mutex // held while a run is under way
	job *job.Job   // guarded by mu; built at the first run
}

// fire is one invocation of the timer. It always succeeds as far as the host
// is concerned, since the host drops the lines of one that does not: the first
// word of the first line tells the outcome.
func (w *warmer) fire(ctx context.Context, pastDue bool) []string {
	if !w.mu.TryLock() {
		return []string{"outcome=skipped: a run is under way in this instance"}
	}
	defer w.mu.Unlock()
	var err error
	if w.job == nil { // a key service that was away is asked again
		if err = job.Check(w.cfg, false); err == nil {
			w.job, err = job.Build(w.cfg, job.Options{
				Log: w.log, Metrics: w.stdout, Login: w.outside.login(), Unwrap: w.outside.unwrap, Blobs: w.outside.blobs, Bucket: bucket.Of,
			})
		}
	}
	if err != nil {
		w.log.Error("the warm-up cannot run", "error", err)
		return []string{"outcome=failed: " + err.Error()}
	}
	if w.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.limit)
		defer cancel()
	}
	return report(w.job.Run(ctx, warmup.Order{For: w.cfg.Warm.For}), pastDue)
}

func (w *warmer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.job != nil {
		w.job.Close()
	}
}

// report is a run in lines for the host's log. Paths of secrets stay in this
// process's own log: an HTTP route of the app may show an answer to anybody.
func report(s warmup.Summary, pastDue bool) []string {
	outcome := "complete"
	switch {
	case !s.Leader && !s.Leaderless:
		outcome = "left to another instance, which is at it"
	case !s.Complete:
		outcome = "incomplete, the next run goes on"
	}
	lines := []string{fmt.Sprintf("outcome=%s pass=%s fetched=%d changed=%d unchanged=%d removed=%d failed=%d rate_limited=%d requests=%d seconds=%.3f past_due=%t",
		outcome, s.Pass, s.Fetched, s.Changed, s.Unchanged, s.Removed, len(s.Failed)+s.FailedMore, s.RateLimited, s.Requests, s.Seconds, pastDue)}
	if s.Resume != nil {
		lines = append(lines, fmt.Sprintf("resume: %d secrets are missing: %s", s.Resume.Missing, s.Resume.Reason))
	}
	return lines
}
