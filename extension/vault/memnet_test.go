package vault

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
)

// memNet is a network of pipes inside a synctest bubble, with a server at its
// end and a switch that makes connections go dead as a freeze does.
type memNet struct {
	ln     chan net.Conn
	closed chan struct{}

	mu    sync.Mutex // guards the fields below
	dials int
	stall time.Duration // how long a dial takes
	open  []*memConn
}

// memConn is the client's end of a pipe.
type memConn struct {
	net.Conn
	mu   sync.Mutex // guards dead
	dead bool       // what is written is swallowed
}

func (m *memConn) Write(p []byte) (int, error) {
	m.mu.Lock()
	dead := m.dead
	m.mu.Unlock()
	if dead {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

func newMemNet(t *testing.T, h http.HandlerFunc) *memNet {
	t.Helper()
	n := &memNet{ln: make(chan net.Conn), closed: make(chan struct{})}
	var running sync.WaitGroup
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		h(w, r)
	})}
	running.Go(func() { _ = s.Serve(n) })
	t.Cleanup(func() { _ = s.Close(); running.Wait() })
	return n
}

// mute dials what takes everything and says nothing.
func mute(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	return ours, nil
}

// Accept waits for the next connection.
func (n *memNet) Accept() (net.Conn, error) {
	select {
	case c := <-n.ln:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the listener.
func (n *memNet) Close() error { close(n.closed); return nil }

// Addr is of no meaning.
func (n *memNet) Addr() net.Addr { return &net.TCPAddr{} }

func (n *memNet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	stall := n.stall
	n.mu.Unlock()
	if err := wait.For(ctx, stall); err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	select {
	case n.ln <- theirs:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m := &memConn{Conn: ours}
	n.mu.Lock()
	n.open = append(n.open, m)
	n.mu.Unlock()
	return m, nil
}

// freeze lets time pass; afterwards every open connection is half-open.
func (n *memNet) freeze(d time.Duration) {
	time.Sleep(d) // the bubble's clock
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.open {
		m.mu.Lock()
		m.dead = true
		m.mu.Unlock()
	}
}

func (n *memNet) dialled() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

func (n *memNet) client(t *testing.T, o Options) *Client {
	t.Helper()
	o.Addrs, o.Dial = []string{"http://vault.test:8200"}, n.dial
	return newClient(t, o)
}
