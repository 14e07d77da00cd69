package memcached

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/thaw-project/thaw/extension/clock"
)

// node is one memcached, and the connections to it.
type node struct {
	c          *Client
	id         string // host:port, as the ring has it
	host, port string
	guard      bool // found by discovery: it must not lead to this machine or its link
	breaker    breaker

	ctx   context.Context    // ends when the node has left the cluster, or with Close
	leave context.CancelFunc // called under mu
	idle  chan *conn
	open  atomic.Int32 // connections that are lent, idle, or being made

	mu       sync.Mutex // guards what follows
	gen      uint64
	lent     int
	addrs    []string  // of host
	resolved time.Time // when they were asked for; zero: they have to be
}

func newNode(c *Client, id string, local bool) *node {
	host, port, _ := net.SplitHostPort(id) // nodeID made it
	n := &node{
		c: c, id: id, host: host, port: port, guard: c.o.Discover && !local,
		breaker: breaker{first: c.o.Window, most: c.o.MaxWindow}, idle: make(chan *conn, c.o.MaxConns),
	}
	n.ctx, n.leave = context.WithCancel(c.ctx)
	return n
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
	p, err := n.exchange(ctx, items, f)
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
		if heldUp(began, p.asked, deadline, n.c.o.Timeout) {
			n.c.counts.late.Add(1)
			v = slow
		} else if p.got > 0 || p.reused {
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

// heldUp reports whether we, and not the node, took the time: this process was
// frozen or throttled until half of it was gone before it had even asked, or
// long after the deadline.
func heldUp(began, asked, deadline time.Time, timeout time.Duration) bool {
	return asked.IsZero() || deadline.Sub(asked) < timeout/2 || clock.Elapsed(began, time.Now()) > 2*timeout+20*time.Millisecond
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

func (n *node) settle(probe bool, h health, err error) {
	opened, closed := n.breaker.settle(n.c.o.Now(), probe, h)
	switch {
	case opened && !probe:
		n.c.o.Log.Warn("memcached node is out: what it holds is read from the origin meanwhile; check that it runs, is reachable from here and speaks (or does not speak) TLS as configured",
			"node", n.id, "error", brief(err), "retry_in", n.breaker.retryIn())
	case opened:
		n.c.o.Log.Debug("memcached node is still out", "node", n.id, "error", brief(err), "retry_in", n.breaker.retryIn())
	case closed:
		n.c.o.Log.Info("memcached node is back", "node", n.id)
	}
	if opened {
		n.forget()
		n.c.urge()
	}
}

// brief keeps what a strange server wrote out of the log but for its beginning.
func brief(err error) string {
	s := err.Error()
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// exchange runs f on a pooled connection. One that was used before may have died
// since, a restart of the node, say; then f runs once more on a new one. (What
// the first run stored, if it was the answer that got lost, the second finds in
// its way. Who adds takes that for another's, and looks.)
func (n *node) exchange(ctx context.Context, items int, f func(*memcache.Client) error) (p progress, err error) {
	for again := false; ; again = true {
		c, err := n.acquire(ctx, false)
		if err != nil {
			return p, err
		}
		err = c.run(ctx, items, f)
		p = c.progress
		n.release(c)
		if refused := new(net.OpError); errors.As(err, &refused) && refused.Op == "remote error" {
			n.c.Reload() // by a TLS alert; one about the client certificate comes at the first read
		}
		if err == nil || answered(err) || !p.reused || errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, errAnswer) || full(err) {
			return p, err
		}
		n.drain() // the others may have died, too
		if again || ctx.Err() != nil || isTimeout(err) {
			return p, err
		}
	}
}
