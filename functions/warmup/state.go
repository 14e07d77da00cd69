package warmup

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
)

// record is what one audience's runs leave to the next, sealed in memcached.
// Losing it costs a full pass.
type record struct {
	Of        string    `json:"of"`        // what the passes below were to warm, see scope
	Full      time.Time `json:"full"`      // when the last complete full pass began
	Verified  time.Time `json:"verified"`  // when everything was last known to be fresh
	Cursor    recorded  `json:"cursor"`    // before the last complete pass began
	Inventory inventory `json:"inventory"` // of the last complete pass
	Cut       *progress `json:"cut"`       // the pass that was cut off; nil: none
	Dumped    time.Time `json:"dumped"`    // when the last backup was written
	Restored  time.Time `json:"restored"`  // when one was read
}

// recorded is an index without what only one process knows.
type recorded struct {
	Applied    uint64 `json:"applied"`
	ActiveTime string `json:"active_time"`
	Node       string `json:"node,omitempty"`
}

// inventory says where the paths of a pass are written down: in numbered
// chunks, since one item of memcached holds 1 MiB at most.
type inventory struct {
	Generation int64 `json:"generation"` // names the chunks
	Chunks     int   `json:"chunks"`
	Secrets    int   `json:"secrets"`
}

// progress is how far a pass came.
type progress struct {
	Pass   string    `json:"pass"`
	Began  time.Time `json:"began"`
	Cursor recorded  `json:"cursor"` // before its first read
	After  string    `json:"after"`  // everything up to this is done; empty: nothing
	Left   []string  `json:"left"`   // but for these
}

const (
	stateName  = "warm-up/state"
	chunkPaths = 2000
	maxChunks  = 4096
)

func chunkName(generation int64, n int) string {
	return "warm-up/inventory/" + strconv.FormatInt(generation, 36) + "/" + strconv.Itoa(n)
}

func recordedIndex(a cache.Index) recorded { return recorded{a.Applied, a.ActiveTime, a.Node} }

// stands reports whether nothing was appended since the cursor was a.
func (a recorded) stands(s cache.CursorStamp) bool {
	return a.Applied != 0 && !s.At.IsZero() && s.Committed == a.Applied && s.ActiveTime == a.ActiveTime && s.Node == a.Node
}

// due says which pass a run makes at now, and from where.
func (r *record) due(now time.Time, full bool, fullEvery, modifiedEvery time.Duration) (pass string, resume *progress) {
	c := r.Cut
	switch {
	case c != nil && recent(c.Began, now, fullEvery) && (c.Pass == passFull || c.Pass == passModified && !full && recent(r.Full, now, fullEvery)):
		return c.Pass, c
	case full || !recent(r.Full, now, fullEvery):
		return passFull, nil
	case modifiedEvery <= 0 || !recent(r.Verified, now, modifiedEvery):
		return passModified, nil
	}
	return passNothing, nil
}

// recent reports whether at lies less than d before now. A time in the future
// is not recent: some clock is wrong.
func recent(at, now time.Time, d time.Duration) bool {
	return clock.Within(at, now, d-1)
}

func (l *leadership) load(ctx context.Context) {
	var r record
	if l.state = (record{}); l.audience.State(ctx, stateName, &r) {
		l.state = r
	}
}

// scope says what is to be warmed for an audience.
func (w *Warmer) scope(a *Audience) string {
	return fmt.Sprintf("%q but %q, confirmed only: %t", a.Prefixes, w.o.Skip, w.o.ConfirmedOnly)
}

// rescope reports whether something else was to be warmed when the record was
// written. Then only a full pass tells what there is, and no pass goes on.
func (l *leadership) rescope() bool {
	before := l.state.Of
	if l.state.Of = l.w.scope(l.audience); l.state.Of == before {
		return false
	}
	if l.state.Cut = nil; before != "" {
		l.w.o.Log.Info("the last run had other prefixes to warm: everything is loaded. If each run says so, two warm-ups with different settings share one audience",
			"audience", l.audience.Name)
	}
	return true
}

func (l *leadership) save(ctx context.Context, r record) {
	if l.held() {
		l.audience.PutState(ctx, stateName, r, l.w.o.Keep)
	}
}

// saveInventory writes the paths of a complete pass down.
func (p *pass) saveInventory(ctx context.Context) inventory {
	inv := inventory{Generation: p.progress.Began.UnixNano(), Secrets: len(p.items)}
	for chunk := range slices.Chunk(p.items, chunkPaths) {
		p.audience.PutState(ctx, chunkName(inv.Generation, inv.Chunks), pathsOf(chunk), p.w.o.Keep)
		inv.Chunks++
	}
	return inv
}

// removeZombies removes the secrets of the last inventory that lie below what was listed as
// a whole, and were not there then. A chunk that is lost keeps its
// zombies: they expire by themselves.
func (p *pass) removeZombies(ctx context.Context, listed time.Time) {
	a, inv := p.audience, p.state.Inventory
	for n := range min(inv.Chunks, maxChunks) {
		var paths []string
		if !a.State(ctx, chunkName(inv.Generation, n), &paths) {
			p.w.o.Log.Warn("a part of the last inventory is lost; what was removed of it expires by itself", "audience", a.Name, "part", n)
			continue
		}
		absent := slices.DeleteFunc(paths, func(path string) bool {
			_, found := slices.BinarySearchFunc(p.items, path, cmpPath)
			return found || !slices.ContainsFunc(p.whole, func(p prefix) bool { return p.covers(path) })
		})
		for some := range slices.Chunk(absent, 100) {
			if !p.held() {
				return
			}
			a.Remove(ctx, keysAt(a.Namespace, some), listed)
			p.w.note(func(s *Summary) { s.Removed += len(some) })
		}
	}
}
