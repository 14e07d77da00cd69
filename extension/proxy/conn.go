package proxy

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Deadlines at the price of comparisons.
//
// net/http sets nine deadlines for one request on a kept connection, each of
// which takes locks and may move a timer; together they cost more than a look
// into the cache. Nearly all are without effect: while a request that has
// arrived is answered at once, nobody waits. So a connection remembers the
// deadline it was last given, and sets it when a Read or Write begins, or at
// once if one is under way. A write deadline that has only moved on a little
// since it was set is left where it is.
//
// It stays because it was measured: without it a hit takes 5 % to 15 % more of
// thaw's CPU time, at one connection and at 32, on one processor and on two
// (medians of 150 interleaved pairs of 600 requests each, eight runs).

// callerConn is a caller's connection, which has a place (room.go).
type callerConn struct {
	net.Conn
	read, write deadline

	room *room
	idle atomic.Bool
	once sync.Once // gives the place back
}

// newCallerConn returns a connection whose write deadlines may come too early by slack.
func newCallerConn(conn net.Conn, r *room, slack time.Duration) *callerConn {
	return &callerConn{Conn: conn, read: deadline{apply: conn.SetReadDeadline}, write: deadline{apply: conn.SetWriteDeadline, slack: slack}, room: r}
}

// Read implements net.Conn.
func (c *callerConn) Read(p []byte) (int, error) {
	if err := c.read.begin(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.read.end()
	return n, err
}

// Write implements net.Conn.
func (c *callerConn) Write(p []byte) (int, error) {
	if err := c.write.begin(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	c.write.end()
	return n, err
}

// SetReadDeadline implements net.Conn.
func (c *callerConn) SetReadDeadline(t time.Time) error { return c.read.want(t) }

// SetWriteDeadline implements net.Conn.
func (c *callerConn) SetWriteDeadline(t time.Time) error { return c.write.want(t) }

// SetDeadline implements net.Conn.
func (c *callerConn) SetDeadline(t time.Time) error {
	if err := c.read.want(t); err != nil {
		return err
	}
	return c.write.want(t)
}

// deadline is one direction's.
type deadline struct {
	apply func(time.Time) error
	slack time.Duration // by how much it may come too early

	mu     sync.Mutex
	wanted time.Time // guarded by mu; as asked for last
	set    time.Time // guarded by mu; as applied last
	busy   int       // guarded by mu; calls that it bounds
}

// begin makes the deadline hold for a call that begins. Every begin without
// an error needs its end.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if longAgo(d.wanted) {
		return os.ErrDeadlineExceeded // as the connection itself would say
	}
	if err := d.holdLocked(); err != nil {
		return err
	}
	d.busy++
	return nil
}

func (d *deadline) end() {
	d.mu.Lock()
	d.busy--
	d.mu.Unlock()
}

func (d *deadline) want(t time.Time) error {
	d.mu.Lock()
	d.wanted = t
	if d.busy == 0 {
		d.mu.Unlock()
		return nil
	}
	defer d.mu.Unlock()
	return d.holdLocked()
}

func (d *deadline) holdLocked() error {
	if d.wanted.IsZero() == d.set.IsZero() {
		if early := d.wanted.Sub(d.set); 0 <= early && early <= d.slack {
			return nil
		}
	}
	d.set = d.wanted
	return d.apply(d.wanted)
}

// longAgo reports whether t is the deadline with which net/http ends a read,
// or keeps one from beginning.
func longAgo(t time.Time) bool { return !t.IsZero() && t.Unix() < 1<<20 }
