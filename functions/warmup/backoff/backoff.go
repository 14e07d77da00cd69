// Package backoff lets the requests of all workers of the warm-up through to the
// origin, one backoff for all calls, so that a rate limit of the origin is met
// once and not once per worker.
//
// # Waiting
//
// A 429 closes the backoff. Every worker waits in Enter, one at the door and the others
// behind it, until the origin's own time is over: Retry-After (seconds or a date), X-Ratelimit-Reset, or a text
// "will be released in 30s" in a header or the body. Without any of them the
// wait is random between 0 and a limit that doubles with each refusal in a row
// (exponential backoff with full jitter:
// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
//
// When the wait is over one request goes first, and keeps the door. The others follow
// when it is answered, so a backoff that opens too early costs one refusal and not one per
// worker.
//
// # Attempts
//
// The 429s of requests that were on their way together are one attempt: those
// that entered before the backoff closed don't count again. After Attempts of them
// Enter fails with ErrGivenUp until the next Cycle.
//
// # Pacing
//
// Waiting alone would run into the limit in every window. So the backoff also
// spreads requests evenly, somewhat below the limit; see pace.go.
package backoff

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
)

// ErrGivenUp says that the origin refused too many attempts in this cycle.
var ErrGivenUp = errors.New("the origin's rate limit refused too many attempts in this cycle")

// Waits without word from the origin: at most backoffFirst, doubled with each
// refusal in a row up to backoffMost.
const (
	backoffFirst = 250 * time.Millisecond
	backoffMost  = 30 * time.Second
	// late is added at random to a wait the origin asked for, so that several
	// clients don't come back in the same moment.
	late = 25 * time.Millisecond
)

// Options configures a Backoff.
type Options struct {
	Attempts int                 // refusals in a cycle before it is given up; 0: no limit
	Rand     func(n int64) int64 // random number in [0,n); nil: math/rand/v2
	Held     func(time.Duration) // told of each wait that begins; nil: nobody
}

// Stats are totals since New.
type Stats struct {
	Requests int           // let through
	Refused  int           // answered 429
	Attempts int           // refusals in this cycle, those of one moment counted once
	GivenUp  int           // cycles in which Enter failed with ErrGivenUp, or would have
	Held     time.Duration // sum of the waits that refusals caused
}

// Backoff is shared by all workers. It is safe for concurrent use.
type Backoff struct {
	o    Options
	door chan struct{} // full: somebody waits for the time to enter, or is trying

	mu       sync.Mutex // guards everything below
	stats    Stats
	until    time.Time // closed until then
	closed   bool      // closed, or one request is trying whether it is open
	wave     uint64    // counts closings: requests that entered in an older wave were refused together
	row      int       // refusals in a row
	schedule pace
}

// New returns an open backoff.
func New(o Options) *Backoff {
	if o.Rand == nil {
		o.Rand = rand.Int64N
	}
	return &Backoff{o: o, door: make(chan struct{}, 1)}
}

// Cycle begins a cycle: all attempts are allowed again. What was learned about
// the limit stays.
func (g *Backoff) Cycle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.Attempts, g.row = 0, 0
}

// Stats returns the totals.
func (g *Backoff) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}

// Ticket is one request that was let through. Leave must be called with it
// once, whatever became of the request.
type Ticket struct {
	wave   uint64
	trying bool // whether it is open, and keeps the door meanwhile
}

// Enter waits until a request may be sent. It fails with ErrGivenUp, or when
// ctx ends.
func (g *Backoff) Enter(ctx context.Context) (Ticket, error) {
	select {
	case g.door <- struct{}{}:
	case <-ctx.Done():
		return Ticket{}, context.Cause(ctx)
	}
	for {
		t, left, err := g.tryEnter()
		if left > 0 {
			if err = wait.For(ctx, min(left, time.Second)); err == nil { // the cycle may be given up meanwhile
				continue
			}
		}
		if !t.trying {
			<-g.door
		}
		return t, err
	}
}

// tryEnter returns a ticket, or how long to wait.
func (g *Backoff) tryEnter() (t Ticket, left time.Duration, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.o.Attempts > 0 && g.stats.Attempts >= g.o.Attempts {
		return t, 0, ErrGivenUp
	}
	now := time.Now()
	if left = g.until.Sub(now); left <= 0 {
		left = g.schedule.take(now)
	}
	if left > 0 {
		return t, left, nil
	}
	g.stats.Requests++
	return Ticket{g.wave, g.closed}, 0, nil
}

// Leave tells the backoff what became of a request: its status, header and the
// beginning of its body. A status of 0 is a request without an answer.
func (g *Backoff) Leave(t Ticket, status int, header http.Header, body []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if t.trying {
		defer func() { <-g.door }()
	}
	switch {
	case status == http.StatusTooManyRequests:
		g.refusedLocked(t, now, header, body)
	case status == 0:
		// Nothing is known; whoever comes next tries again.
	default:
		if t.trying {
			g.closed, g.row = false, 0
			g.schedule.reopened(now)
		}
		g.schedule.accepted(now, readLimit(header, now))
	}
}

func (g *Backoff) refusedLocked(t Ticket, now time.Time, header http.Header, body []byte) {
	g.stats.Refused++
	hint := readLimit(header, now)
	wait, told := askedWait(header, body, now)
	if t.wave != g.wave {
		// It was on its way when the backoff closed. It may know better how long.
		if told && now.Add(wait).After(g.until) {
			g.holdLocked(now, wait)
		}
		return
	}
	g.wave++
	if g.stats.Attempts++; g.stats.Attempts == g.o.Attempts {
		g.stats.GivenUp++
	}
	g.schedule.refused(now, hint, g.closed)
	g.closed = true
	if told {
		wait += time.Duration(g.o.Rand(int64(late)))
	} else {
		most := min(backoffFirst<<min(g.row, 16), backoffMost)
		wait = time.Duration(g.o.Rand(int64(most)) + 1)
	}
	g.row++
	g.holdLocked(now, wait)
}

func (g *Backoff) holdLocked(now time.Time, wait time.Duration) {
	until := now.Add(wait)
	if from := g.until; from.After(now) {
		g.stats.Held += until.Sub(from)
	} else {
		g.stats.Held += wait
	}
	g.until = until
	if g.o.Held != nil {
		g.o.Held(wait)
	}
}
