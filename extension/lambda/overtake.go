package lambda

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Lambda writes an event to the runtime and to the extensions at the same time,
// so the function's first read may be here before our INVOKE is. Then neither
// the socket nor the loop knows of it, and the read would be answered as one of
// the invocation before. Await holds such a read:
//
//   - A read that names its invocation (Lambda-Runtime-Aws-Request-Id) waits
//     for that INVOKE. One of an earlier invocation does not wait.
//   - A read whose trace is new (X-Amzn-Trace-Id) most likely begins an
//     invocation. Traces may begin anywhere, so it waits for a short time only.
//   - A read that says nothing and comes out of silence may begin one. INVOKE
//     follows within a fraction of a millisecond, so it waits for as long as
//     that. Once a read has waited in vain, one that does not say that it is of
//     the same invocation waits for a fiftieth of the silence.

// How long a read waits at most for its INVOKE.
const (
	namedWait  = time.Second           // by the id of its invocation
	tracedWait = 20 * time.Millisecond // by its trace, once an invocation
	silentWait = time.Millisecond      // out of silence, once an invocation
	silence    = time.Millisecond      // without a read and an INVOKE
	remembered = 32                    // invocations whose late reads are known
	maxName    = 128                   // bytes of an id or of a trace's root; longer ones name nothing
)

// Headers by which a read says to which invocation it belongs, as the Runtime
// API names them (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
const (
	headerRequest = "Lambda-Runtime-Aws-Request-Id"
	headerTrace   = "X-Amzn-Trace-Id"
)

// arrivals knows which invocations there were, and when something came last.
type arrivals struct {
	mu     sync.Mutex
	last   time.Time     // guarded by mu; of the latest read or INVOKE
	ids    []string      // guarded by mu; of invocations, the current one last
	roots  []string      // guarded by mu; of their traces
	waited bool          // guarded by mu; a read of this invocation has waited in vain
	traced bool          // guarded by mu; and one because of its trace
	wait   chan struct{} // guarded by mu; closed when the read that waits has; nil: none does
}

// begin notes an invocation.
func (a *arrivals) begin(ev Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = ev.ReceivedAt
	a.waited, a.traced = false, false
	a.ids = remember(a.ids, ev.RequestID)
	a.roots = remember(a.roots, root(ev.TraceID))
}

// remember appends a name, as the last of a bounded list. An empty one is
// remembered as well: what came before is not current any more.
func remember(names []string, name string) []string {
	if len(names) == remembered {
		names = append(names[:0], names[1:]...)
	}
	return append(names, name)
}

// root returns the root of an X-Ray trace's header, or "".
// Source: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
func root(trace string) string {
	for part := range strings.SplitSeq(trace, ";") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(part), "Root="); ok && len(v) <= maxName {
			return v
		}
	}
	return ""
}

// first returns the only value of a header that names something, or "".
func first(values []string) string {
	if len(values) != 1 || len(values[0]) > maxName {
		return ""
	}
	return values[0]
}

// Await holds a read that may have overtaken its own INVOKE until the Handler
// has that, or until the read has waited long enough. It reports false where
// the read names an invocation of which no INVOKE came within a second: then
// the caller must see to it that the read is verified by a request of its own.
// Where no INVOKEs come it returns at once. A read in a row after another costs
// no more than Pending.
func (c *Client) Await(ctx context.Context, h http.Header) bool {
	if !c.invokes.Load() {
		return true
	}
	c.arrived(ctx) // what is here already needs no plan
	plan := c.arrivals.plan(c.o.Now(), h)
	switch {
	case plan.named != "":
		return c.named(ctx, plan.named)
	case plan.join != nil:
		select {
		case <-plan.join:
		case <-ctx.Done():
		}
	case plan.wait > 0:
		c.arrivals.over(plan, c.readable(plan.wait))
	default:
		return true
	}
	c.arrived(ctx)
	return true
}

// arrived waits until what is pending is the Handler's, a second at most.
func (c *Client) arrived(ctx context.Context) {
	if !c.Pending() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, namedWait)
	defer cancel()
	c.Settled(ctx)
}

// plan is what a read waits for.
type plan struct {
	named string        // the INVOKE of that id
	join  chan struct{} // the wait of another read
	wait  time.Duration // any INVOKE
	mine  chan struct{} // closed when that wait is over
}

// plan decides for what a read waits that comes now with these headers.
func (a *arrivals) plan(now time.Time, h http.Header) plan {
	id := first(h[headerRequest])
	a.mu.Lock()
	defer a.mu.Unlock()
	quiet := clock.Elapsed(a.last, now)
	a.last = now
	current := id != "" && last(a.ids) == id
	switch {
	case id != "" && !slices.Contains(a.ids, id):
		return plan{named: id}
	case id != "" && !current:
		return plan{} // of an earlier invocation
	case a.wait != nil:
		return plan{join: a.wait}
	case quiet <= silence:
		return plan{}
	}
	p := plan{wait: silentWait}
	trace := root(first(h[headerTrace]))
	switch {
	case trace != "" && !a.traced && !slices.Contains(a.roots, trace):
		a.traced = true
		p.wait = tracedWait
	case a.waited && (current || trace != "" && trace == last(a.roots)):
		return plan{} // this invocation has had its wait
	case a.waited:
		p.wait = min(silentWait, quiet/50)
	}
	a.wait = make(chan struct{})
	p.mine = a.wait
	return p
}

// last returns the last of names, or "".
func last(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

// over ends the wait that p planned.
func (a *arrivals) over(p plan, came bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waited = a.waited || !came
	close(p.mine)
	a.wait = nil
}

// named waits for the INVOKE of an invocation.
func (c *Client) named(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, namedWait)
	defer cancel()
	if c.until(ctx, func() bool { return c.arrivals.knows(id) }) {
		return true
	}
	c.arrivals.expired(id)
	return false
}

func (a *arrivals) knows(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.ids, id)
}

// expired remembers an id in vain waited for as an earlier one's, so that the
// next read with it does not wait.
func (a *arrivals) expired(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.ids, id) {
		return // others waited for it, too
	}
	if n := len(a.ids); n > 0 {
		a.ids[n-1], id = id, a.ids[n-1] // before the current one
	}
	a.ids = remember(a.ids, id)
}

// readable waits until something can be read from Next's connection, at most d.
func (c *Client) readable(d time.Duration) (yes bool) {
	e := c.conn.Load()
	if e == nil || e.raw == nil {
		return false
	}
	// An error says that the connection is closed: then nothing will come on it.
	_ = e.raw.Control(func(fd uintptr) { yes = await(fd, d) })
	return yes || e.arrived.Load()
}
