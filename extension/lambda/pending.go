package lambda

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// Loopback TCP delivers within the sender's write: when Lambda's write has
// returned, the bytes are in our socket's receive queue. From there an event
// goes through these states, and Pending is true in all but the first and last:
//
//	nothing in the socket      Next is outstanding
//	bytes in the socket        seen by peeking at the queue
//	arrived is set             by the reader, before it takes the first byte
//	bytes taken, parsed        arrived still set
//	Handler's method returned  settle clears arrived; only then the next Next is sent
//
// The order "set, then take" leaves no gap between the socket and the flag, and
// "clear, then ask" none between one event and the next.

// eventConn is the connection Next runs on.
type eventConn struct {
	net.Conn
	raw     syscall.RawConn // nil: the flag alone must do
	arrived atomic.Bool
	look    func(fd uintptr) // sets seen; made once, since every read looks

	mu   sync.Mutex
	seen bool // guarded by mu; what this look saw
}

// Read waits for readability, sets the flag, then reads. The end of the stream
// and a reset are readable too: they end the outstanding Next. Where nothing tells of
// readability there is a gap between the bytes and the flag.
func (e *eventConn) Read(p []byte) (int, error) {
	if e.raw != nil {
		// An error here (closed, deadline) is met again by the read below.
		_ = e.raw.Read(readable)
		e.arrived.Store(true)
	}
	n, err := e.Conn.Read(p)
	e.arrived.Store(true)
	return n, err
}

// dial opens the connection of Next. TCP keep-alive is off: after a long freeze
// the kernel might give up on a connection that is sound.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.o.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	e := &eventConn{Conn: conn}
	e.look = func(fd uintptr) { e.seen = readable(fd) }
	if s, ok := conn.(syscall.Conn); ok && canPeek {
		if raw, err := s.SyscallConn(); err == nil {
			e.raw = raw
		}
	}
	c.conn.Store(e)
	c.wake()
	return e, nil
}

// Pending reports whether an event has reached this process, or its socket,
// that Run has not yet handed to the Handler (whose method has not returned).
// It costs one system call that never blocks, and no allocation. It is false
// while there is no connection.
func (c *Client) Pending() bool {
	e := c.conn.Load()
	if e == nil {
		return false
	}
	if e.arrived.Load() {
		return true
	}
	if e.raw == nil {
		return false
	}
	// Control does not take the descriptor's read lock, which the reader holds
	// while it waits; RawConn.Read would wait for that.
	e.mu.Lock()
	err := e.raw.Control(e.look)
	seen := e.seen
	e.mu.Unlock()
	// The reader may have taken the bytes between the two looks. It set the flag
	// before, so it shows now, unless the event is settled already.
	return err == nil && seen || e.arrived.Load()
}

// Settled waits until Pending is false or ctx ends.
func (c *Client) Settled(ctx context.Context) {
	c.until(ctx, func() bool { return !c.Pending() })
}

// until waits until it is so, and looks again whenever Pending may have become false.
// It reports false where ctx ends first.
func (c *Client) until(ctx context.Context, so func() bool) bool {
	for {
		c.mu.Lock()
		settled := c.settled
		c.mu.Unlock()
		// It may have become so before the line above.
		if so() {
			return true
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return false
		}
	}
}

// settle says that the event taken has been handed over.
func (c *Client) settle() {
	if e := c.conn.Load(); e != nil {
		e.arrived.Store(false)
	}
	c.wake()
}

// hangUp drops the connection of Next, and what was pending on it.
func (c *Client) hangUp() {
	c.next.CloseIdleConnections()
	c.conn.Store(nil)
	c.wake()
}

// wake makes those who wait in until look again.
func (c *Client) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.settled)
	c.settled = make(chan struct{})
}
