package vault

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Connections and sleep.
//
// A connection that carried nothing for a while may be dead at the other end:
// the server closed it, or a NAT or load balancer forgot it, while this
// process was frozen. A closed one fails at once. A forgotten one swallows the
// request without a word until some deadline. What is done about it depends on
// how long the connection slept, on the wall clock, because no timer runs in a
// frozen process:
//
//   - longer than IdleConn: it is closed before the next request;
//   - longer than sleptLong, request with a body or other than a read: a fresh
//     connection, since a lost write cannot be told from a slow one;
//   - longer than sleptLong, a poll: it is tried, and after hedgeAfter the same
//     request goes out on a fresh connection too (see hedge.go);
//   - longer than sleptLong, any other read: it is tried with a limit on how
//     long the kernel waits for the other end to acknowledge the request
//     (TCP_USER_TIMEOUT). A second copy would be wrong here: reading
//     database/creds/app creates a credential, takes its time, and must not be
//     done twice. A server that is busy acknowledges at once; only one that is
//     gone doesn't, and then the request is repeated on a fresh connection.
const sleptLong = time.Second

// pool knows which connections carry no request. How long they slept counts
// from the last byte they brought, not from when they became idle: a freeze may
// come between an answer and the end of its reading.
type pool struct {
	mu   sync.Mutex // guards the fields below and conn.use, conn.closed
	idle map[*conn]struct{}
}

// conn is a connection to the origin as the transport sees it.
type conn struct {
	net.Conn
	c  *Client
	of *transports

	last   atomic.Int64 // when it was opened or last brought something; wall clock, nanoseconds since 1970
	woken  atomic.Bool  // carries its first request after a long sleep
	taken  atomic.Bool  // for a request of which nothing was written yet
	spoke  atomic.Bool  // something came since it was last idle
	use    uint64       // how often it was taken for a request; guarded by pool.mu
	closed bool         // guarded by pool.mu

	preceded atomic.Bool // something came before the request was written: that is not its answer
}

// slept is how long nothing came, on the wall clock.
func (cn *conn) slept(now time.Time) time.Duration {
	return clock.Wall(now).Sub(time.Unix(0, cn.last.Load()))
}

// slept tells whether some idle connection has been so for longer than d. A
// clock that went back by more than a second says nothing about how long, so it
// counts.
func (p *pool) slept(now time.Time, d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for cn := range p.idle {
		if tooLong(cn.slept(now), d) {
			return true
		}
	}
	return false
}

func tooLong(slept, limit time.Duration) bool { return slept > limit || slept < -time.Second }

// add takes note of a connection that was just opened. It counts as idle until
// a request takes it: the transport opens some that it finds no use for, and
// keeps them without a word.
func (p *pool) add(cn *conn) {
	cn.last.Store(cn.c.o.Now().UnixNano())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle[cn] = struct{}{}
}

// take marks cn as busy. It returns a number to give back to put.
func (p *pool) take(cn *conn) (use uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, idle := p.idle[cn]
	delete(p.idle, cn)
	cn.use++
	cn.preceded.Store(false)
	cn.taken.Store(idle) // else what came may be of the request before
	return cn.use
}

// put marks cn as idle. The transport reports a connection idle after others
// may already take it: a report about an earlier use than the latest is void.
func (p *pool) put(cn *conn, use uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !cn.closed && cn.use == use {
		cn.spoke.Store(false)
		p.idle[cn] = struct{}{}
	}
}

func (p *pool) forget(cn *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cn.closed = true
	delete(p.idle, cn)
}

// Close closes the connection.
func (cn *conn) Close() error {
	cn.c.pool.forget(cn)
	return cn.Conn.Close()
}

// Read reads from the origin. When a woken connection fails, the other idle
// ones, which slept as long, are dropped before the transport learns of it and
// picks the next connection for the same request.
func (cn *conn) Read(p []byte) (int, error) {
	n, err := cn.Conn.Read(p)
	if n > 0 {
		cn.spoke.Store(true)
		cn.last.Store(cn.c.o.Now().UnixNano())
	}
	if err != nil && cn.woken.CompareAndSwap(true, false) {
		cn.c.dropIdle()
	}
	return n, err
}

// Write writes to the origin.
func (cn *conn) Write(p []byte) (int, error) {
	if cn.taken.CompareAndSwap(true, false) {
		cn.preceded.Store(cn.spoke.Load())
	}
	return cn.Conn.Write(p)
}

// rouse bounds the time that the request about to be sent may stay
// unacknowledged by as long as a new connection may take.
func (cn *conn) rouse() {
	cn.woken.Store(true)
	setUserTimeout(cn.Conn, cn.c.o.ConnTimeout)
}

// awake ends what rouse began: the other end answers.
func (cn *conn) awake() {
	if cn.woken.CompareAndSwap(true, false) {
		setUserTimeout(cn.Conn, 0)
	}
}

// unwrap finds the conn under TLS; nil for a connection that isn't ours.
func unwrap(c net.Conn) *conn {
	for t, ok := c.(*tls.Conn); ok; t, ok = c.(*tls.Conn) {
		c = t.NetConn()
	}
	cn, _ := c.(*conn)
	return cn
}

// exchange is one round trip while it lasts. The hooks run in the transport's
// goroutines.
type exchange struct {
	c     *Client
	ctx   context.Context
	rouse bool // a connection that slept long is roused, see conn.rouse
	at    atomic.Int32
	on    atomic.Pointer[trip] // nil: no connection was had yet
}

// trip is the connection of a round trip.
type trip struct {
	conn   *conn
	use    uint64
	slept  time.Duration
	pooled bool // the connection carried other requests before
	plain  bool // without TLS, so that what its conn knows is about HTTP
}

func (f *exchange) gotConn(info httptrace.GotConnInfo) {
	f.c.sent.Add(1)
	t := &trip{conn: unwrap(info.Conn), pooled: info.Reused}
	_, t.plain = info.Conn.(*conn)
	if t.conn != nil {
		t.slept, t.use = t.conn.slept(f.c.o.Now()), f.c.pool.take(t.conn)
	}
	f.on.Store(t)
	f.at.CompareAndSwap(connecting, asking)
	if t.conn != nil && f.rouse && tooLong(t.slept, sleptLong) {
		t.conn.rouse()
	}
}

func (f *exchange) gotByte() {
	f.at.Store(answering)
	if t := f.on.Load(); t != nil && t.conn != nil {
		t.conn.awake()
	}
}

func (f *exchange) putIdle(err error) {
	if t := f.on.Load(); err == nil && t != nil && t.conn != nil {
		f.c.pool.put(t.conn, t.use)
		if now := f.c.transports.Peek(); now != nil && *now != t.conn.of { // files changed meanwhile
			t.conn.of.closeIdle()
		}
	}
}

// premature tells whether an answer 408 or 425 is not the request's: a balancer
// ended a connection that was idle for too long, or did not want the request to be
// first on it. Of a write that is only believed where it came before the request.
// https://www.rfc-editor.org/rfc/rfc9110#section-15.5.9,
// https://www.rfc-editor.org/rfc/rfc8470#section-5.2
func (t *trip) premature(status int, read bool) bool {
	return (status == http.StatusRequestTimeout || status == http.StatusTooEarly) && t.pooled && (read || t.plain && t.conn.preceded.Load())
}
