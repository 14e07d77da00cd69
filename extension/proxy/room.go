package proxy

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Room for so many connections, and for whoever comes.
//
// A kept connection waits for its next request without a deadline: a function
// that was frozen for hours finds it where it was. So whoever opens as many as
// are allowed, and does one request on each, would hold all places for ever.
// Therefore, when all are taken, one that is idle gives way to the next caller:
// one of those there are, or the first that falls idle. Idle is what net/http
// calls so: its last answer has gone out, and nothing of a next request is here.
//
// There are never so many that the process runs out of file descriptors: Lambda
// has 1,024 for each (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html),
// and the origin, memcached and files need theirs.

// room is shared by all listeners.
type room struct {
	places  chan struct{} // holds a value for each connection
	waiting atomic.Int32  // callers for whom there is none: whoever falls idle gives way

	mu   sync.Mutex
	held map[*callerConn]struct{} // guarded by mu
}

// newRoom has room for most connections, or for fewer where descriptors, the
// number of files that may be open, is low; 0: it is not known.
func newRoom(most int, descriptors uint64) *room {
	if descriptors > 0 {
		most = int(min(uint64(most), max(1, descriptors/4*3)))
	}
	return &room{places: make(chan struct{}, most), held: make(map[*callerConn]struct{})}
}

// roomyListener accepts connections for which there is room.
type roomyListener struct {
	net.Listener
	room  *room
	slack time.Duration // of write deadlines
	done  chan struct{} // closed by Close
	once  sync.Once
}

// Accept implements net.Listener.
func (l *roomyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	r := l.room
	if !r.takePlace(l.done) {
		conn.Close()
		return nil, net.ErrClosed
	}
	p := newCallerConn(conn, r, l.slack)
	r.mu.Lock()
	r.held[p] = struct{}{}
	r.mu.Unlock()
	return p, nil
}

// takePlace waits for a place; false: done was closed.
func (r *room) takePlace(done <-chan struct{}) bool {
	select {
	case r.places <- struct{}{}:
		return true
	default:
	}
	// First said and then looked for: one that falls idle meanwhile is seen here
	// or sees it itself.
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	if p := r.anyIdle(); p != nil {
		p.Close()
	}
	select {
	case r.places <- struct{}{}:
		return true
	case <-done:
		return false
	}
}

// anyIdle returns one of the idle connections, nil if there is none. None is
// preferred: what an attacker opened last would outlive what was there before.
func (r *room) anyIdle() *callerConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.held {
		if p.idle.CompareAndSwap(true, false) {
			return p
		}
	}
	return nil
}

// Close implements net.Listener.
func (l *roomyListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// Close implements net.Conn.
func (p *callerConn) Close() error {
	err := p.Conn.Close()
	p.once.Do(func() {
		p.room.mu.Lock()
		delete(p.room.held, p)
		p.room.mu.Unlock()
		<-p.room.places
	})
	return err
}

// noteState is the server's ConnState. It runs twice for each request.
func noteState(conn net.Conn, state http.ConnState) {
	p := conn.(*callerConn)
	idle := state == http.StateIdle
	p.idle.Store(idle)
	if idle && p.room.waiting.Load() > 0 {
		p.Close()
	}
}
