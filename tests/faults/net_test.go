package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// state is how a link is.
type state uint8

const (
	up      state = iota
	refused       // connecting fails at once, what is open breaks
	silent        // nothing arrives, and nothing says so
	garbled       // bytes towards the instance are changed
)

// link is the way from one instance to one server, in memory.
type link struct {
	name string
	to   *listener
	spy  func(sent []byte) // sees what the instance sends; may be nil

	mu    sync.Mutex // guards the fields below
	state state
	dials int
	open  map[*wire]bool
}

// wire is the instance's end of a connection.
type wire struct {
	net.Conn
	link *link

	mu   sync.Mutex // guards the fields below
	dead bool       // what is sent is lost
	last time.Time  // of the last byte, either way
}

var errRefused = errors.New("connection refused")

// listener hands connections to a server.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return address("127.0.0.1:8200") }

// connect gives the client's end of a new connection, as from.
func (l *listener) connect(ctx context.Context, from string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- named{theirs, address(from)}:
		return ours, nil
	case <-l.closed:
		return nil, errRefused
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// named is a server's end that knows who is at the other.
type named struct {
	net.Conn
	from net.Addr
}

func (n named) RemoteAddr() net.Addr { return n.from }

// dial connects to one of the servers at the other end, of which most have one.
func (l *link) dial(ctx context.Context, server int) (net.Conn, error) {
	l.mu.Lock()
	l.dials++
	state := l.state
	l.mu.Unlock()
	switch state {
	case refused:
		return nil, errRefused
	case silent:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	c, err := l.to.connect(ctx, fmt.Sprintf("%s@%d", l.name, server))
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: c, link: l, last: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == refused {
		c.Close()
		return nil, errRefused
	}
	l.open[w] = true
	return w, nil
}

// set changes how the link is.
func (l *link) set(s state) {
	l.mu.Lock()
	l.state = s
	l.mu.Unlock()
	switch s {
	case refused:
		l.each(func(w *wire) { w.Conn.Close() })
	case silent:
		l.each((*wire).die)
	}
}

func (l *link) is() state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *link) dialled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

func (l *link) each(f func(*wire)) {
	l.mu.Lock()
	all := make([]*wire, 0, len(l.open))
	for w := range l.open {
		all = append(all, w)
	}
	l.mu.Unlock()
	for _, w := range all {
		f(w)
	}
}

// die makes a connection half-open, as a NAT that forgot it does.
func (w *wire) die() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
}

// Write loses what is sent on a dead connection. One that had slept tells so
// after a second, as the kernel does when the client bounds its patience (the
// product sets TCP_USER_TIMEOUT on those); another stays silent.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	dead, slept := w.dead, time.Since(w.last) > time.Second
	w.last = time.Now()
	w.mu.Unlock()
	if dead {
		if slept {
			time.AfterFunc(time.Second, func() { w.Conn.Close() })
		}
		return len(p), nil
	}
	if w.link.spy != nil {
		w.link.spy(p)
	}
	return w.Conn.Write(p)
}

func (w *wire) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		w.mu.Lock()
		dead := w.dead
		w.last = time.Now()
		w.mu.Unlock()
		if dead && err == nil {
			continue // it was on its way when the connection died
		}
		if n > 0 && w.link.is() == garbled {
			p[n/2] ^= 0x15
		}
		return n, err
	}
}

func (w *wire) Close() error {
	w.link.mu.Lock()
	delete(w.link.open, w)
	w.link.mu.Unlock()
	return w.Conn.Close()
}
