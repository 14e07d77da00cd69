package memcached

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
)

// The connections to a node are made one after the other, and whoever waits first gets
// the next that is made or given back.
//
// A connection belongs to a generation. A freeze begins a new one, and only what was
// idle may go over into it: connections that were lent or being made may be dead and
// are not used again.

// making is a connection that is being made: one to a node in a generation.
type making struct {
	n   *node
	gen uint64
}

// acquire lends a connection, an idle one or the next that is made. After a
// call has given up on one that is being made no other waits for it, but a
// patient one.
func (n *node) acquire(ctx context.Context, patient bool) (*conn, error) {
	for {
		if c := n.tryIdle(0); c != nil {
			if n.lend(c) {
				return c, nil
			}
			continue
		}
		call, err := n.connecting(ctx, patient)
		if err != nil {
			return nil, err
		}
		var made <-chan struct{}
		if call != nil {
			made = call.Done()
		}
		select {
		case c := <-n.idle:
			if n.lend(c) {
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
		case <-n.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			if call != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				call.GiveUp()
			}
			return nil, fmt.Errorf("%w: %w", errWaited, ctx.Err())
		}
	}
}

// connecting has a connection made, unless there are enough: then it returns nil.
func (n *node) connecting(ctx context.Context, patient bool) (*coalesce.Call[struct{}], error) {
	n.mu.Lock()
	which := making{n, n.gen}
	n.mu.Unlock()
	running := n.c.connecting.Running(which)
	switch {
	case running.GivenUp() && !patient:
		return nil, errConnecting
	case running == nil && int(n.open.Load()) >= n.c.o.MaxConns:
		return nil, nil
	}
	call, _ := n.c.connecting.Start(ctx, which, func(ctx context.Context) (struct{}, error) { return struct{}{}, n.connect(ctx, which) })
	return call, nil
}

// connect makes a connection for whoever waits first. What it finds out about
// the node counts, also when nobody waits any more.
func (n *node) connect(ctx context.Context, which making) error {
	n.open.Add(1)
	defer n.c.Use()()
	ctx, cancel := context.WithTimeout(ctx, n.c.o.ConnectTimeout)
	defer cancel()
	nc, err := n.dial(ctx)
	if err == nil {
		c := newConn(nc, n.c.o.Now(), which.gen)
		c.late = n.c.connecting.Running(which).GivenUp()
		n.put(c, 0)
		return nil
	}
	n.open.Add(-1)
	if n.c.ctx.Err() != nil {
		return ErrClosed
	}
	if n.c.connecting.Running(which).GivenUp() {
		n.c.counts.errors.Add(1)
		n.settle(false, bad, err)
	}
	return err
}

// release gives a lent connection back.
func (n *node) release(c *conn) {
	c.used = n.c.o.Now()
	n.put(c, 1)
}

// put keeps a connection that may be used again, and closes it else. Once none
// is lent any more, one is enough: the others give way to the newest.
func (n *node) put(c *conn, returned int) {
	n.mu.Lock()
	n.lent -= returned
	most := cap(n.idle)
	if n.lent == 0 {
		most = 1
	}
	keep := n.ctx.Err() == nil && c.gen == n.gen && !c.closed && len(n.idle) < cap(n.idle)
	if keep {
		n.idle <- c // never blocks: only here is something added
	}
	n.mu.Unlock()
	if !keep {
		n.drop(c)
	}
	for old := n.tryIdle(most); old != nil; old = n.tryIdle(most) {
		n.drop(old)
	}
}

// tryIdle takes the longest idle connection if there are more than so many.
func (n *node) tryIdle(most int) *conn {
	if len(n.idle) <= most {
		return nil
	}
	select {
	case c := <-n.idle:
		return c
	default:
		return nil
	}
}

func (n *node) drop(c *conn) {
	n.open.Add(-1)
	_ = c.Close()
}

// lend takes note that an idle connection is lent, or closes one that is too old.
func (n *node) lend(c *conn) bool {
	now := n.c.o.Now()
	n.mu.Lock()
	ok := n.ctx.Err() == nil && c.gen == n.gen && clock.Within(c.used, now, n.c.o.IdleConn) && clock.Within(c.born, now, maxConnAge)
	if ok {
		n.lent++
	}
	n.mu.Unlock()
	if !ok {
		n.drop(c)
	}
	return ok
}

// renew begins a new generation, of the idle connections that slept for that long at most.
func (n *node) renew(slept time.Duration) {
	now := n.c.o.Now()
	n.mu.Lock()
	n.gen++
	gen := n.gen
	n.mu.Unlock()
	n.sift(func(c *conn) bool {
		young := slept >= 0 && clock.Within(c.used, now, slept)
		if young {
			c.gen = gen
		}
		return young
	})
}

// shed closes what is idle. A connection that was made too late for the call that
// wanted it waits for the next.
func (n *node) shed() { n.sift(func(c *conn) bool { return c.late && !c.old }) }

// sift keeps of the idle connections those that stay.
func (n *node) sift(stays func(*conn) bool) {
	for range len(n.idle) {
		switch c := n.tryIdle(0); {
		case c == nil:
			return
		case stays(c):
			n.put(c, 0)
		default:
			n.drop(c)
		}
	}
}

// close ends all that is idle. What is lent or being made ends with its release.
func (n *node) close() {
	n.mu.Lock() // nothing is put between the two
	n.leave()
	n.mu.Unlock()
	n.drain()
}

// drain closes all that is idle.
func (n *node) drain() { n.sift(func(*conn) bool { return false }) }
