package memcached

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
)

// pool is the connections to one node. They are made one after the other, and
// whoever waits first gets the next that is made or given back.
//
// A connection belongs to a generation. A freeze begins a new one, and only what was
// idle may go over into it: connections that were lent or being made may be dead and
// are not used again.
type pool struct {
	n    *node
	gone chan struct{} // closed when the node left the cluster
	idle chan *pooled
	open atomic.Int32 // lent, idle, or being made

	mu     sync.Mutex // guards what follows
	gen    uint64
	closed bool
	lent   int
}

// making is a connection that is being made: one to a node in a generation.
type making struct {
	p   *pool
	gen uint64
}

func newPool(n *node) *pool {
	return &pool{n: n, gone: make(chan struct{}), idle: make(chan *pooled, n.c.o.MaxConns)}
}

// acquire lends a connection, an idle one or the next that is made. After a
// call has given up on one that is being made no other waits for it, but a
// patient one.
func (p *pool) acquire(ctx context.Context, patient bool) (*pooled, error) {
	for {
		if c := p.tryIdle(0); c != nil {
			if p.lend(c) {
				return c, nil
			}
			continue
		}
		call, err := p.dial(ctx, patient)
		if err != nil {
			return nil, err
		}
		var made <-chan struct{}
		if call != nil {
			made = call.Done()
		}
		select {
		case c := <-p.idle:
			if p.lend(c) {
				return c, nil
			}
		case <-made:
			// Without an error it was made, and perhaps for another: look again.
			switch _, err := call.Wait(ctx); {
			case errors.Is(err, coalesce.ErrClosed):
				return nil, ErrClosed
			case err != nil && !errors.Is(err, coalesce.ErrAgain):
				return nil, err
			}
		case <-p.gone:
			return nil, ErrClosed
		case <-ctx.Done():
			if call != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				call.GiveUp()
			}
			return nil, fmt.Errorf("%w: %w", errWaited, ctx.Err())
		}
	}
}

// dial has a connection made, unless there are enough: then it returns nil.
func (p *pool) dial(ctx context.Context, patient bool) (*coalesce.Call[struct{}], error) {
	p.mu.Lock()
	which := making{p, p.gen}
	p.mu.Unlock()
	running := p.n.c.connecting.Running(which)
	switch {
	case running.GivenUp() && !patient:
		return nil, errConnecting
	case running == nil && int(p.open.Load()) >= p.n.c.o.MaxConns:
		return nil, nil
	}
	call, _ := p.n.c.connecting.Start(ctx, which, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.connect(ctx, which) })
	return call, nil
}

// connect makes a connection for whoever waits first. What it finds out about
// the node counts, also when nobody waits any more.
func (p *pool) connect(ctx context.Context, which making) error {
	p.open.Add(1)
	defer p.n.c.Use()()
	ctx, cancel := context.WithTimeout(ctx, p.n.c.o.ConnectTimeout)
	defer cancel()
	nc, err := p.n.dial(ctx)
	if err == nil {
		c := newPooled(nc, nodeAddr(p.n.id), p.n.c.o.Now(), which.gen)
		c.late = p.n.c.connecting.Running(which).GivenUp()
		p.put(c, 0)
		return nil
	}
	p.open.Add(-1)
	if p.n.c.ctx.Err() != nil {
		return ErrClosed
	}
	if p.n.c.connecting.Running(which).GivenUp() {
		p.n.c.counts.errors.Add(1)
		p.n.settle(false, bad, err)
	}
	return err
}

// release gives a lent connection back.
func (p *pool) release(c *pooled) {
	c.used = p.n.c.o.Now()
	p.put(c, 1)
}

// put keeps a connection that may be used again, and closes it else. Once none
// is lent any more, one is enough: the others give way to the newest.
func (p *pool) put(c *pooled, returned int) {
	p.mu.Lock()
	p.lent -= returned
	most := cap(p.idle)
	if p.lent == 0 {
		most = 1
	}
	keep := !p.closed && c.gen == p.gen && !c.conn.closed.Load() && len(p.idle) < cap(p.idle)
	if keep {
		p.idle <- c // never blocks: only here is something added
	}
	p.mu.Unlock()
	if !keep {
		p.drop(c)
	}
	for old := p.tryIdle(most); old != nil; old = p.tryIdle(most) {
		p.drop(old)
	}
}

// tryIdle takes the longest idle connection if there are more than so many.
func (p *pool) tryIdle(most int) *pooled {
	if len(p.idle) <= most {
		return nil
	}
	select {
	case c := <-p.idle:
		return c
	default:
		return nil
	}
}

func (p *pool) drop(c *pooled) {
	p.open.Add(-1)
	_ = c.conn.Close()
}

// lend takes note that an idle connection is lent, or closes one that is too old.
func (p *pool) lend(c *pooled) bool {
	now := p.n.c.o.Now()
	p.mu.Lock()
	ok := !p.closed && c.gen == p.gen && clock.Within(c.used, now, p.n.c.o.IdleConn) && clock.Within(c.born, now, maxConnAge)
	if ok {
		p.lent++
	}
	p.mu.Unlock()
	if !ok {
		p.drop(c)
	}
	return ok
}

// renew begins a new generation, of the idle connections that slept for that long at most.
func (p *pool) renew(slept time.Duration) {
	now := p.n.c.o.Now()
	p.mu.Lock()
	p.gen++
	gen := p.gen
	p.mu.Unlock()
	p.sift(func(c *pooled) bool {
		young := slept >= 0 && clock.Within(c.used, now, slept)
		if young {
			c.gen = gen
		}
		return young
	})
}

// shed closes what is idle. A connection that was made too late for the call that
// wanted it waits for the next.
func (p *pool) shed() { p.sift(func(c *pooled) bool { return c.late && !c.old }) }

// sift keeps of the idle connections those that stay.
func (p *pool) sift(stays func(*pooled) bool) {
	for range len(p.idle) {
		switch c := p.tryIdle(0); {
		case c == nil:
			return
		case stays(c):
			p.put(c, 0)
		default:
			p.drop(c)
		}
	}
}

// close ends all that is idle. What is lent or being made ends with its release.
func (p *pool) close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.gone)
	}
	p.mu.Unlock()
	p.drain()
}

// drain closes all that is idle.
func (p *pool) drain() { p.sift(func(*pooled) bool { return false }) }

// pooled is a connection with the gomemcache client that speaks on it, lent to
// one exchange at a time.
type pooled struct {
	conn *conn
	mc   *memcache.Client
	born time.Time // wall clock
	used time.Time // wall clock; end of the last exchange
	gen  uint64
	old  bool // it has had an exchange
	late bool // a call gave up on it while it was made
}

var errAborts = errors.New("memcached connection used out of turn")

// endless keeps gomemcache's own timeouts out of the way.
const endless = time.Hour

func newPooled(c net.Conn, node net.Addr, now time.Time, gen uint64) *pooled {
	p := &pooled{conn: &conn{Conn: c}, born: now, used: now, gen: gen}
	p.mc = memcache.NewFromSelector(only{node})
	p.mc.Timeout, p.mc.MaxIdleConns = endless, 1
	dialed := false
	p.mc.DialContext = func(context.Context, string, string) (net.Conn, error) {
		if dialed {
			return nil, errAborts // it was closed; the pool drops it
		}
		dialed = true
		return p.conn, nil
	}
	return p
}

// run has one exchange: f with an answer of at most items items, until ctx ends.
func (p *pooled) run(ctx context.Context, items int, f func(*memcache.Client) error) error {
	p.old = true
	deadline, _ := ctx.Deadline()
	if err := p.conn.begin(deadline, items); err != nil {
		p.conn.Close()
		return err
	}
	stop := context.AfterFunc(ctx, p.conn.abort)
	err := f(p.mc)
	if !stop() || !p.conn.ended {
		p.conn.Close() // its deadline is spent, or the answer is not all read
	}
	return err
}

// only is a selector for gomemcache with one node: the ring has picked already.
type only struct{ addr net.Addr }

func (o only) PickServer(string) (net.Addr, error) { return o.addr, nil }
func (o only) Each(f func(net.Addr) error) error   { return f(o.addr) }

var _ memcache.ServerSelector = only{}

// nodeAddr is a node's name as a net.Addr, for gomemcache.
type nodeAddr string

func (nodeAddr) Network() string  { return "tcp" }
func (a nodeAddr) String() string { return string(a) }
