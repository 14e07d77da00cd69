package memcached

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/thaw-project/thaw/extension/cache"
)

// node is one memcached.
type node struct {
	c          *Client
	id         string // host:port, as the ring has it
	host, port string
	guard      bool // found by discovery: it must not lead to this machine or its link
	breaker    breaker

	gone chan struct{} // closed when the node left the cluster
	idle chan *lane    // has room for every lane there can be
	open atomic.Int32  // lanes, and connections being made

	mu       sync.Mutex // guards what follows
	gen      uint64     // raised by renew; lanes of an earlier one are not used
	closed   bool
	late     bool     // a call gave up on a connection that is still being made
	addrs    []string // of host; empty: to be asked for
	resolved time.Time
}

func newNode(c *Client, id string, local bool) *node {
	host, port, _ := net.SplitHostPort(id) // nodeID made it
	return &node{
		c: c, id: id, host: host, port: port, guard: c.o.Discover && !local,
		breaker: breaker{first: c.o.Window, most: c.o.MaxWindow},
		gone:    make(chan struct{}),
		idle:    make(chan *lane, c.o.MaxConns),
	}
}

// do has one exchange with the node, unless it is out, and settles what that
// says about it. items bounds the answer's items; store is whether a value is
// written, which a full server may refuse and be well.
func (n *node) do(ctx context.Context, items int, store bool, f func(*memcache.Client) error) error {
	ok, probe := n.breaker.allow(n.c.o.Now())
	if !ok {
		n.c.counts.skipped.Add(1)
		return errOut
	}
	began := time.Now()
	l, err := n.exchange(ctx, items, f)
	v := bad
	switch {
	case err == nil, answered(err):
		v, err = good, nil // the caller looks at what f saw
	case errors.Is(err, errConnecting):
		n.c.counts.skipped.Add(1)
		n.settle(probe, none, err) // making the connection will say
		return err
	case errors.Is(err, ErrClosed), errors.Is(ctx.Err(), context.Canceled): // or the caller left
		v = none
	case errors.Is(err, errWaited):
		n.c.counts.timeouts.Add(1)
		v = none // the connection, or those who have the others, will say
	case isTimeout(err):
		n.c.counts.timeouts.Add(1)
		deadline, _ := ctx.Deadline()
		if late(began, l.asked, deadline, n.c.o.Timeout) {
			n.c.counts.late.Add(1)
			v = slow
		} else if l.got > 0 {
			v = slow
		}
	case store && full(err):
		n.c.counts.refused.Add(1)
		v = good
	}
	if err != nil {
		n.c.counts.errors.Add(1)
	}
	n.settle(probe, v, err)
	return err
}

// late reports whether we, and not the node, took the time: this process was
// frozen or throttled until half of it was gone before it had even asked, or
// long after the deadline.
func late(began, asked, deadline time.Time, timeout time.Duration) bool {
	return asked.IsZero() || deadline.Sub(asked) < timeout/2 || cache.Elapsed(began, time.Now()) > 2*timeout+20*time.Millisecond
}

// full reports whether the server says that it cannot store: out of memory, or
// an item over its limit.
func full(err error) bool { return strings.Contains(err.Error(), `"SERVER_ERROR `) }

// answered reports whether err is memcached's plain answer.
func answered(err error) bool {
	return errors.Is(err, memcache.ErrCacheMiss) || errors.Is(err, memcache.ErrNotStored) || errors.Is(err, memcache.ErrCASConflict)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

func (n *node) settle(probe bool, v verdict, err error) {
	opened, closed := n.breaker.settle(n.c.o.Now(), probe, v)
	switch {
	case opened && !probe:
		n.c.o.Log.Warn("memcached node is out: what it holds is read from the origin meanwhile; check that it runs, is reachable from here and speaks (or does not speak) TLS as configured",
			"node", n.id, "error", brief(err), "retry_in", n.breaker.retryIn().String())
	case opened:
		n.c.o.Log.Debug("memcached node is still out", "node", n.id, "error", brief(err), "retry_in", n.breaker.retryIn().String())
	case closed:
		n.c.o.Log.Info("memcached node is back", "node", n.id)
	}
	if opened {
		n.forget()
		n.c.discover.urge(n.c)
	}
}

// brief keeps what a strange server wrote out of the log but for its beginning.
func brief(err error) string {
	if err == nil {
		return ""
	}
	s := err.Error()
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// progress is how far an exchange came.
type progress struct {
	asked time.Time // when the request began to be written; zero: it was not
	got   int       // items that came
}

// exchange runs f on a connection. One that was used before may have died
// since, a restart of the node, say; then f runs once more on a new one. (What
// the first run stored, if it was the answer that got lost, the second finds in
// its way. Who adds takes that for another's, and looks.)
func (n *node) exchange(ctx context.Context, items int, f func(*memcache.Client) error) (p progress, err error) {
	for again := false; ; again = true {
		l, err := n.acquire(ctx, false)
		if err != nil {
			return p, err
		}
		reused := l.old
		err = l.run(ctx, items, f)
		p = progress{l.conn.asked, l.conn.got}
		n.release(l)
		if err == nil || answered(err) || again || !reused || ctx.Err() != nil || isTimeout(err) || errors.Is(err, errAnswer) || full(err) {
			return p, err
		}
		n.drain()
	}
}

// acquire lends a lane, an idle one or a new one. patient waits for a
// connection that another call has given up on.
func (n *node) acquire(ctx context.Context, patient bool) (*lane, error) {
	var own *attempt // the connection made for this call
	for {
		select {
		case l := <-n.idle:
			if n.usable(l) {
				return l, nil
			}
			n.drop(l)
			continue
		default:
		}
		if own == nil {
			a, err := n.attempt(patient)
			if err != nil {
				return nil, err
			}
			own = a
		}
		var failed chan error
		if own != nil {
			failed = own.failed
		}
		select {
		case l := <-n.idle:
			if n.usable(l) {
				return l, nil
			}
			n.drop(l)
		case err := <-failed:
			if err != nil {
				return nil, err
			}
			own = nil // made, and not kept: it is older than a freeze, or others are idle
		case <-n.gone:
			return nil, ErrClosed
		case <-ctx.Done():
			if own != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				n.gaveUp(own)
			}
			return nil, fmt.Errorf("%w: %w", errWaited, ctx.Err())
		}
	}
}

// attempt is a connection being made.
type attempt struct {
	failed chan error // why it cannot be had, or nil when it is to be made anew; has room for it
	gen    uint64
	ended  bool // guarded by node.mu
}

// attempt starts a connection, or returns nil when there are enough.
func (n *node) attempt(patient bool) (*attempt, error) {
	n.mu.Lock()
	a := &attempt{failed: make(chan error, 1), gen: n.gen}
	late := n.late
	n.mu.Unlock()
	if late && !patient {
		return nil, errConnecting
	}
	if n.open.Add(1) > int32(n.c.o.MaxConns) {
		n.open.Add(-1)
		return nil, nil
	}
	if !n.c.background(func() { n.connect(a) }) {
		n.open.Add(-1)
		return nil, ErrClosed
	}
	return a, nil
}

// gaveUp notes that a call's deadline ended before its connection was made.
// Until that has ended, no call waits for one again.
func (n *node) gaveUp(a *attempt) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !a.ended && a.gen == n.gen {
		n.late = true
	}
}

// connect makes one connection and hands it to whoever waits first. What it
// finds out about the node counts, also when nobody waits any more.
func (n *node) connect(a *attempt) {
	ctx, cancel := context.WithTimeout(n.c.ctx, n.c.o.ConnectTimeout)
	defer cancel()
	nc, err := n.dial(ctx)
	n.mu.Lock()
	a.ended = true
	late := n.late && a.gen == n.gen
	if late {
		n.late = false
	}
	n.mu.Unlock()
	if err == nil {
		if !n.release(newLane(nc, nodeAddr(n.id), n.c.o.Now(), a.gen)) {
			a.failed <- nil
		}
		return
	}
	n.open.Add(-1)
	if n.c.ctx.Err() != nil {
		err = ErrClosed
	}
	a.failed <- err
	if late && !errors.Is(err, ErrClosed) {
		n.c.counts.errors.Add(1)
		n.settle(false, bad, err)
	}
}

// release gives a lane back, or closes one that is not to be used again. It
// reports whether the lane was kept.
func (n *node) release(l *lane) bool {
	l.used = n.c.o.Now()
	n.mu.Lock()
	keep := !n.closed && l.gen == n.gen && !l.conn.closed.Load() && len(n.idle) < maxIdle
	if keep {
		n.idle <- l // never blocks: there are no more lanes than it has room for
	}
	n.mu.Unlock()
	if !keep {
		n.drop(l)
	}
	return keep
}

func (n *node) drop(l *lane) {
	n.open.Add(-1)
	_ = l.conn.Close()
}

// usable reports whether a lane that was idle may be lent.
func (n *node) usable(l *lane) bool {
	n.mu.Lock()
	gen, closed := n.gen, n.closed
	n.mu.Unlock()
	now := n.c.o.Now()
	return !closed && l.gen == gen && cache.Within(l.used, now, n.c.o.IdleConn) && cache.Within(l.born, now, maxConnAge)
}

// renew keeps every lane there is now from being used again.
func (n *node) renew() {
	n.mu.Lock()
	n.gen++
	n.late = false
	n.mu.Unlock()
	n.drain()
}

func (n *node) close() {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.gone)
	}
	n.mu.Unlock()
	n.drain()
}

func (n *node) drain() {
	for {
		select {
		case l := <-n.idle:
			n.drop(l)
		default:
			return
		}
	}
}

// nodeAddr is a node's name as a net.Addr, for gomemcache.
type nodeAddr string

func (nodeAddr) Network() string  { return "tcp" }
func (a nodeAddr) String() string { return string(a) }
