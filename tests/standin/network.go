package standin

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Network connects clients and servers of one process by pipes, which a
// testing/synctest bubble can wait for.
type Network struct {
	mu    sync.Mutex
	hosts map[string]*listener // guarded by mu; by host:port
}

// NewNetwork returns a network without hosts.
func NewNetwork() *Network { return &Network{hosts: make(map[string]*listener)} }

// Listen makes addr, a host and a port, reachable.
func (n *Network) Listen(addr string) net.Listener {
	l := &listener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.hosts[addr] = l
	n.mu.Unlock()
	return l
}

// Dial connects to addr. Where nobody listens it is refused.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return n.From("pipe")(ctx, network, addr)
}

// From returns a Dial for a client at an address, a host and a port.
func (n *Network) From(client string) func(ctx context.Context, _, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) { return n.dial(ctx, client, addr) }
}

func (n *Network) dial(ctx context.Context, client, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.hosts[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	near, far := net.Pipe()
	select {
	case l.conns <- from{far, address(client)}:
		return near, nil
	case <-l.closed:
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// listener is one address.
type listener struct {
	addr   string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.addr) }

// from is a server's end that knows who is at the other.
type from struct {
	net.Conn
	client address
}

func (f from) RemoteAddr() net.Addr { return f.client }

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
