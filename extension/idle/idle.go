// Package idle gives memory back to the host when the process was busy and is
// so no more.
//
// Go keeps garbage until the heap has doubled, and hands free pages back
// slowly. After a burst (a thousand secrets read, a hundred thousand hits)
// that is more than the secrets themselves, in a sandbox whose memory the
// function pays for. What to do about it must cost nothing while the process
// is busy, nor where little is allocated. So nothing here ticks:
//
//	a collection ends ── timer, unless one runs ──► no collection since?
//	                                                yes: collect, give back
//	                                                no:  timer again
//
// A process that allocates little never collects, and has nothing to give. One with a
// large heap that is used all the time is never quiet for long, and each collection
// takes it long: so what was given back once is left for many times as long as that took.
package idle

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/rescue"
)

// Pause is how long without a collection counts as quiet.
const Pause = 300 * time.Millisecond

// After memory was given back, none is for rest times as long as that took: half a
// percent of the time. It is mostRest at most, since a freeze may have been in it.
const (
	rest     = 200
	mostRest = 5 * time.Minute
)

// Release watches until ctx ends.
func Release(ctx context.Context, log *slog.Logger) {
	w := &watch{ctx: ctx, log: log, pause: Pause, free: func() {
		runtime.GC() // what a sync.Pool holds outlives one collection
		debug.FreeOSMemory()
	}, collects: 2}
	w.await()
}

// watch is the state between two collections.
type watch struct {
	ctx   context.Context
	log   *slog.Logger
	pause time.Duration
	free  func() // gives free memory back

	collects int // how often free collects

	mu     sync.Mutex
	cycles uint64    // guarded by mu; collections seen
	armed  bool      // guarded by mu; a timer runs
	own    int       // guarded by mu; so many collections to come are free's
	next   time.Time // guarded by mu; nothing is freed before
}

// sentinel is garbage at once. It has a pointer, since the runtime may pack
// what has none together with other things that live on.
type sentinel struct{ _ *byte }

// await calls collected after the next collection.
func (w *watch) await() {
	runtime.AddCleanup(&sentinel{}, func(w *watch) {
		if w.ctx.Err() != nil {
			return
		}
		rescue.Do(w.log, "note a garbage collection", w.collected)
		w.await()
	}, w)
}

// collected is called after each collection.
func (w *watch) collected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cycles++
	if w.own > 0 {
		w.own--
		return
	}
	if !w.armed {
		w.armed = true
		w.armLocked()
	}
}

func (w *watch) armLocked() {
	pause := max(w.pause, time.Until(w.next))
	seen, due := w.cycles, time.Now().Add(pause)
	time.AfterFunc(pause, func() { rescue.Do(w.log, "free memory", func() { w.look(seen, due) }) })
}

// look frees memory if there was no collection since the timer was set. After a
// freeze it does not: that is the beginning of an invocation, no time to tidy up.
func (w *watch) look(seen uint64, due time.Time) {
	w.mu.Lock()
	if w.ctx.Err() != nil {
		w.armed = false
		w.mu.Unlock()
		return
	}
	if now := time.Now(); w.cycles != seen || clock.Froze(due, now) || now.Before(w.next) {
		w.armLocked()
		w.mu.Unlock()
		return
	}
	w.own, w.armed = w.collects, false
	w.mu.Unlock()
	began := time.Now()
	w.free()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = time.Now().Add(min(rest*time.Since(began), mostRest))
}
