package poll

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// TestARequestEndsBeforeThePlatformEndsIt is the table of when a request ends that the
// origin does not answer, by when it came and what happened meanwhile. The time is the
// process's age at its end.
func TestARequestEndsBeforeThePlatformEndsIt(t *testing.T) {
	t.Parallel()
	const limit, never = 8 * time.Second, time.Hour
	for name, c := range map[string]struct {
		init     time.Duration // the platform's limit for the init
		comes    time.Duration // after the start of the process
		frozen   time.Duration // before it came
		freezes  time.Duration // while it waited
		invoked  time.Duration // when an invocation began; 0: none did
		deadline time.Duration // of that, after its begin; 0: unknown
		ends     time.Duration
		why      error
	}{
		"at once in the init":                    {init: limit, ends: limit, why: errInit},
		"later in the init":                      {init: limit, comes: 5 * time.Second, ends: limit, why: errInit},
		"shortly before its limit":               {init: limit, comes: 7900 * time.Millisecond, ends: limit, why: errInit},
		"after its limit":                        {init: limit, comes: limit, ends: never},
		"after a freeze":                         {init: limit, comes: time.Second, frozen: time.Minute, ends: never},
		"a freeze while it waits":                {init: limit, freezes: time.Minute, ends: never},
		"where the platform has no limit":        {ends: never},
		"in an invocation":                       {init: limit, invoked: time.Second, comes: 2 * time.Second, deadline: 10 * time.Second, ends: 10500 * time.Millisecond, why: errDeadline},
		"in a short one":                         {init: limit, invoked: time.Second, comes: time.Second, deadline: 200 * time.Millisecond, ends: 1100 * time.Millisecond, why: errDeadline},
		"in one of an unknown end":               {init: limit, invoked: time.Second, comes: 2 * time.Second, ends: never},
		"an invocation begins while it waits":    {init: limit, comes: time.Second, invoked: 2 * time.Second, deadline: 20 * time.Second, ends: 21500 * time.Millisecond, why: errDeadline},
		"one of an unknown end, while it waits":  {init: limit, comes: time.Second, invoked: 2 * time.Second, ends: never},
		"where it has none, an invocation while": {comes: time.Second, invoked: 2 * time.Second, deadline: 20 * time.Second, ends: never},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := &skipped{}
				w := newWorld(t)
				defer w.close()
				w.cluster.set(func(c *cluster) { c.slow = never })
				waiting := NewWaiting(WaitingOptions{Init: c.init, Log: slog.New(slog.DiscardHandler), Now: clock.now})
				reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Waiting: waiting, Now: clock.now})
				began := time.Now()
				if c.invoked > 0 {
					time.AfterFunc(c.invoked, func() {
						end := time.Time{}
						if c.deadline > 0 {
							end = clock.now().Add(c.deadline)
						}
						waiting.Invoke(clock.now(), end)
					})
				}
				time.Sleep(c.comes)
				synctest.Wait()
				clock.skip(c.frozen)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if c.freezes > 0 {
					time.AfterFunc(time.Second, func() { clock.skip(c.freezes) })
				}
				o := reads.Ensure(ctx, Want{Key: cache.Key{Path: "secret/data/a"}, ID: w.cache.Own(), MaxAge: -1, StaleFor: -1})
				took := time.Since(began)
				switch {
				case c.ends == never && o.Result != Left && took < 59*time.Second:
					t.Errorf("it ended at %v: %v", took, o.Err)
				case c.ends != never && (o.Result != Failed || !errors.Is(o.Err, c.why) || took != c.ends):
					t.Errorf("it ended at %v with %v, %v, want %v with %v", took, o.Result, o.Err, c.ends, c.why)
				}
			})
		})
	}
}

// TestWhatStillWaitsIsToldOf when an invocation or the environment ends, with what it
// waits for, and when a caller leaves where no event would tell.
func TestWhatStillWaitsIsToldOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		loggedIn, left bool
		what           reason
		happens        func(w *Waiting, leave func(), now time.Time)
		told           string // for what it waits; empty: nothing is told
	}{
		"the next invocation":   {loggedIn: true, happens: func(w *Waiting, _ func(), now time.Time) { w.Invoke(now, time.Time{}) }, told: string(forOrigin)},
		"a login":               {happens: func(w *Waiting, _ func(), now time.Time) { w.Invoke(now, time.Time{}) }, told: string(forLogin)},
		"the poll":              {what: forPoll, happens: func(w *Waiting, _ func(), now time.Time) { w.Invoke(now, time.Time{}) }, told: string(forPoll)},
		"the end":               {loggedIn: true, happens: func(w *Waiting, _ func(), now time.Time) { w.End(now) }, told: string(forOrigin)},
		"a caller leaves":       {loggedIn: true, left: true, happens: func(_ *Waiting, leave func(), _ time.Time) { leave() }, told: string(forOrigin)},
		"one where events tell": {loggedIn: true, happens: func(_ *Waiting, leave func(), _ time.Time) { leave() }},
		"nothing":               {loggedIn: true, left: true, happens: func(*Waiting, func(), time.Time) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				w := NewWaiting(WaitingOptions{
					Left: c.left, LoggedIn: func() bool { return c.loggedIn }, Log: slog.New(slog.NewJSONHandler(&log, nil)), Now: time.Now,
				})
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				_, quick := w.Begin(ctx, "secret/data/quick", true)
				quick.End()
				_, x := w.Begin(ctx, "secret/data/a", true)
				x.on(cmp.Or(c.what, forOrigin))
				time.Sleep(3 * time.Second)
				c.happens(w, leave, time.Now())
				x.End()
				_, early := w.Begin(t.Context(), "secret/data/early", true) // may be of the next invocation
				w.Invoke(time.Now(), time.Time{})
				early.End()
				w.End(time.Now())
				var line struct {
					Path, For string
					Seconds   float64
				}
				err := json.Unmarshal(log.Bytes(), &line)
				switch {
				case c.told == "" && log.Len() > 0, c.told != "" && strings.Count(log.String(), "\n") != 1:
					t.Errorf("told:\n%s", log.String())
				case c.told != "" && (err != nil || line.Path != "secret/data/a" || line.For != c.told || line.Seconds != 3):
					t.Errorf("told, want %q after 3s:\n%s", c.told, log.String())
				}
			})
		})
	}
}
