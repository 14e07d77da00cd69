package proxy

import (
	"sync/atomic"
	"time"
)

// waits are how long callers waited for the answers to reads.
type waits struct {
	active atomic.Int64  // requests under way
	slow   atomic.Uint64 // reads that took longer than THAW_POLL_TIMEOUT
	last   [2]longest    // of this minute and the one before, in turns
}

// longest is the longest wait of one minute.
type longest struct {
	minute, nanoseconds atomic.Int64
}

// note takes a wait in that is over now.
func (w *waits) note(took time.Duration, now time.Time, slow time.Duration) {
	if slow > 0 && took > slow {
		w.slow.Add(1)
	}
	minute := now.Unix() / 60
	l := &w.last[minute&1]
	if l.minute.Swap(minute) != minute {
		l.nanoseconds.Store(0)
	}
	for {
		most := l.nanoseconds.Load()
		if int64(took) <= most || l.nanoseconds.CompareAndSwap(most, int64(took)) {
			return
		}
	}
}

// Waits says how callers fare.
type Waits struct {
	Active  int           // requests under way
	Slow    uint64        // reads that took longer than THAW_POLL_TIMEOUT, since the start
	Slowest time.Duration // the longest wait for a read in the last minute, or the one before
}

// Waits says how callers fare at the moment.
func (s *Server) Waits() Waits {
	w := &s.waits
	out := Waits{Active: int(w.active.Load()), Slow: w.slow.Load()}
	now := s.o.Now().Unix() / 60
	for i := range w.last {
		if l := &w.last[i]; now-l.minute.Load() < 2 {
			out.Slowest = max(out.Slowest, time.Duration(l.nanoseconds.Load()))
		}
	}
	return out
}
