package proxy

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// Room for so many connections, and for whoever comes.
//
// A kept connection waits for its next request without a deadline: a function
// that was frozen for hours finds it where it was. So whoever opens as many as
// are allowed, and does one request on each, would hold all places for ever.
// Therefore, when all are taken, one that is idle gives way to the next caller:
// one of those there are, or the first that falls idle. Idle is what net/http
// calls so: its last answer has gone out, and nothing of a next request is here.

// roomyListener accepts connections for which there is room.
type roomyListener struct {
	net.Listener
	places chan struct{} // holds a value for each connection
	wanted atomic.Bool   // a caller waits: the next connection to fall idle gives way
	done   chan struct{} // closed by Close
	once   sync.Once

	mu   sync.Mutex
	held map[*placed]struct{} // guarded by mu
}

func newRoomyListener(ln net.Listener, most int) *roomyListener {
	return &roomyListener{Listener: ln, places: make(chan struct{}, most), done: make(chan struct{}), held: make(map[*placed]struct{})}
}

// placed is a connection that has a place.
type placed struct {
	net.Conn
	l    *roomyListener
	idle atomic.Bool
	once sync.Once
}

// Accept implements net.Listener.
func (l *roomyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.takePlace() {
		conn.Close()
		return nil, net.ErrClosed
	}
	p := &placed{Conn: conn, l: l}
	l.mu.Lock()
	l.held[p] = struct{}{}
	l.mu.Unlock()
	return p, nil
}

// takePlace waits for a place; false: the listener was closed.
func (l *roomyListener) takePlace() bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	// First said and then looked for: one that falls idle meanwhile is seen here
	// or sees it itself.
	l.wanted.Store(true)
	if p := l.anyIdle(); p != nil && l.wanted.CompareAndSwap(true, false) {
		p.Close()
	}
	select {
	case l.places <- struct{}{}:
		l.wanted.Store(false)
		return true
	case <-l.done:
		return false
	}
}

// anyIdle returns one of the idle connections, nil if there is none. None is
// preferred: what an attacker opened last would outlive what was there before.
func (l *roomyListener) anyIdle() *placed {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.held {
		if p.idle.Load() {
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
func (p *placed) Close() error {
	err := p.Conn.Close()
	p.once.Do(func() {
		p.l.mu.Lock()
		delete(p.l.held, p)
		p.l.mu.Unlock()
		<-p.l.places
	})
	return err
}

// noteState is the server's ConnState. It runs twice for each request.
func noteState(conn net.Conn, state http.ConnState) {
	t, ok := conn.(*thriftyConn)
	if !ok {
		return
	}
	p, ok := t.Conn.(*placed)
	if !ok {
		return
	}
	idle := state == http.StateIdle
	p.idle.Store(idle)
	if idle && p.l.wanted.Load() && p.l.wanted.CompareAndSwap(true, false) {
		p.Close()
	}
}
