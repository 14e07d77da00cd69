// Package memcached is the shared tier: what one instance read from the origin,
// for all others of its audience.
//
// It has two layers. Client talks to the nodes, and its one concern is that a
// memcached that is slow, broken, hostile or away costs a miss and never a
// failed or a late read. Tier gives the values meaning: it seals and names
// records, and refuses what is not theirs.
//
// # The client
//
// github.com/bradfitz/gomemcache speaks the protocol on a connection. Around it:
//
//   - Nodes are picked on a ring (see ring), by the names in the configuration
//     and not by addresses, so that adding a node moves about 1/n of the keys
//     and a new address moves none.
//   - A call has one total deadline, connecting and every node included.
//     gomemcache extends its own for each item and takes no context, so every
//     connection is wrapped (see conn) and lent to one call at a time (see acquire).
//   - The wrapper also reads along, and ends a connection whose other side
//     answers with more, or larger, than was asked for: gomemcache allocates
//     what a length field says.
//   - A node that times out, refuses or talks nonsense is out for a window that
//     doubles while it stays so (see breaker). After a window one call is the
//     probe. So a hanging node costs one timeout for each window.
//   - Connecting goes on in the background when a call's deadline ends first,
//     so that a TLS handshake slower than the deadline costs the first call
//     and not all of them. Calls meanwhile don't wait again.
//
// The keys of a node that is out miss. They never go to the next node: a copy
// there would be a second one. When the first node is back, instances that have
// noticed and those that have not would read and replace different copies, and
// a tombstone would reach only one of them.
package memcached

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/material"
	"github.com/thaw-project/thaw/extension/rescue"
)

// Options configures a Client. Zero values mean what the fields say.
type Options struct {
	Nodes          []string             // host:port each; a configuration endpoint when Discover is set. The port defaults to 11211
	Discover       bool                 // ask Nodes for the cluster's nodes, as ElastiCache answers
	Timeout        time.Duration        // of one call in all; 0: 20ms
	ConnectTimeout time.Duration        // of one connection; a call waits for it no longer than Timeout. 0: 1s
	TLS            *config.MemcachedTLS // nil: plain
	MaxConns       int                  // connections to one node; 0: 4. One of them is kept when none is in use
	IdleConn       time.Duration        // a connection that slept longer, on the wall clock, is not used again; 0: 30s
	Window         time.Duration        // how long a failed node is out at first; 0: 1s
	MaxWindow      time.Duration        // and at most, doubling; 0: 30s
	Refresh        time.Duration        // age at which addresses and the list of nodes are asked for again; 0: 1m
	Frozen         bool                 // the process is frozen between uses: but for the own node's, no connection is kept after one
	Instance       string               // what the choice of the own node hangs on; empty: drawn at the first use
	Log            *slog.Logger
	Now            func() time.Time // for ages and windows; deadlines of sockets are on the real clock

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net.Dialer
}

// maxConnAge bounds how long a connection is used, so that a name that points
// elsewhere is noticed.
const maxConnAge = 5 * time.Minute

// maxConns is how many connections to a node there are at most, by default. Only
// one is kept once none is lent: every frozen instance goes on holding its own,
// and memcached takes 1,024 in all by default.
const maxConns = 4

// Client reaches the nodes. It is safe for concurrent use.
type Client struct {
	At    // the calls, each key on the node that the ring gives it
	o     Options
	tls   *material.Kept[*tls.Config] // nil: plain
	seeds []string                    // Nodes, with ports

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	connecting *coalesce.Group[making, struct{}]
	top        atomic.Pointer[topology]
	counts     counters
	instance   func() string
	uses       atomic.Int64 // running

	refreshes *coalesce.Group[struct{}, struct{}] // of the list of nodes

	mu      sync.Mutex // orders changes of top, and guards what follows
	tried   time.Time  // when the last refresh began
	failing bool       // it failed
	version uint64     // of the list in use
	since   time.Time  // when that was taken
}

// topology is which nodes there are, none before they are discovered. It never changes
// once made.
type topology struct {
	ring  *ring
	nodes []*node // in the ring's order
}

var (
	// ErrClosed is what calls return after Close.
	ErrClosed = errors.New("the memcached client is closed")
	// ErrTooLarge is returned for a value over memcached's default item limit.
	ErrTooLarge = errors.New("larger than a memcached item may be")

	errOut        = errors.New("the node failed shortly before and is left alone for now")
	errConnecting = errors.New("the connection is still being made")
	errWaited     = errors.New("no connection in time")
	errTooMuch    = errors.New("more than one call takes in")
	errLeft       = errors.New("the node has left")
	errNoNodes    = errors.New("no memcached nodes are known yet")
)

// New returns a client. It reads the CA file and does nothing on the network.
func New(o Options) (*Client, error) {
	o.Timeout = cmp.Or(o.Timeout, 20*time.Millisecond)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, time.Second)
	o.IdleConn = cmp.Or(o.IdleConn, 30*time.Second)
	o.Window = cmp.Or(o.Window, time.Second)
	o.MaxWindow = max(cmp.Or(o.MaxWindow, 30*time.Second), o.Window)
	o.Refresh = cmp.Or(o.Refresh, time.Minute)
	o.MaxConns = cmp.Or(o.MaxConns, maxConns)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Now = clock.Of(o.Now)
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	c := &Client{o: o, instance: sync.OnceValue(func() string { return cmp.Or(o.Instance, rand.Text()) })}
	c.At.c = c
	c.connecting = coalesce.New[making](coalesce.Options[struct{}]{}) // after a freeze a new generation begins
	c.refreshes = coalesce.New[struct{}](coalesce.Options[struct{}]{Limit: o.ConnectTimeout})
	for _, n := range o.Nodes {
		seed, err := nodeID(n)
		if err != nil {
			return nil, err
		}
		c.seeds = append(c.seeds, seed)
	}
	if len(c.seeds) == 0 {
		return nil, errors.New("no memcached node is named; give host:port")
	}
	if o.TLS != nil {
		c.tls = material.Keep(func() (*tls.Config, error) { return TLSConfig(*o.TLS) }, o.TLS.CACert, o.TLS.ClientCert, o.TLS.ClientKey)
		if _, err := c.tls.Get(); err != nil {
			return nil, err
		}
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.top.Store(&topology{ring: newRing(nil)})
	if !o.Discover {
		c.apply(c.seeds, nil, false)
	}
	return c, nil
}

// nodeID returns host:port as the ring knows a node.
func nodeID(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "11211"
		if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
	}
	if !validHost(host) || !validPort(port) {
		return "", fmt.Errorf("memcached node %q: not host:port", s)
	}
	return net.JoinHostPort(host, port), nil
}

// Close ends every connection and what runs in the background, and waits for
// it. Calls on their way end by their deadlines.
func (c *Client) Close() {
	c.mu.Lock() // no list is taken after it
	c.cancel()
	top := c.top.Load()
	c.mu.Unlock()
	for _, n := range top.nodes {
		n.close()
	}
	_ = c.connecting.Close(context.Background())
	_ = c.refreshes.Close(context.Background())
}

// Reload reads the TLS files again, and has new connections use them. New files that
// cannot be used leave the old in use; the log tells.
func (c *Client) Reload() (changed bool) {
	if c.tls == nil {
		return false
	}
	changed, err := c.tls.Look()
	if err != nil {
		c.o.Log.Warn("the new TLS files for memcached cannot be used, and the old stay in use; correct them", "error", err)
	}
	if changed {
		c.renew(-1) // no connection is used again
	}
	return changed
}

// Thawed closes the connections that slept through a freeze for longer than
// IdleConn. Calls on their way keep theirs, and close them at their end.
func (c *Client) Thawed() { c.renew(c.o.IdleConn) }

// renew has none but idle connections used again, and of those none that slept longer.
func (c *Client) renew(slept time.Duration) {
	for _, n := range c.top.Load().nodes {
		n.renew(slept)
	}
}

// Connect makes a connection to every node, so that the next call need not. It
// returns when all are there or have failed, or ctx ends; then they go on in
// the background.
func (c *Client) Connect(ctx context.Context) {
	top, err := c.nodes(ctx)
	if err != nil {
		return
	}
	rescue.Each(c.o.Log, "connect to memcached", len(top.nodes), len(top.nodes), func(i int) {
		n := top.nodes[i]
		if conn, err := n.acquire(ctx, true); err == nil {
			n.release(conn)
		}
	})
}

// apply takes a new list of nodes. Those that stay keep their connections.
func (c *Client) apply(ids []string, addrs map[string]string, local bool) (changed bool) {
	c.mu.Lock()
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		return false
	}
	was, top := c.top.Load(), &topology{ring: newRing(ids)}
	for _, id := range top.ring.ids {
		n := was.node(id)
		if n == nil {
			n = newNode(c, id, local)
			changed = true
		}
		if a := addrs[id]; a != "" {
			n.learn(c.o.Now(), a)
		}
		top.nodes = append(top.nodes, n)
	}
	c.top.Store(top)
	c.mu.Unlock() // calls need it, and a connection may take its time to end
	for _, n := range was.nodes {
		if top.node(n.id) == nil {
			n.close()
			changed = true
		}
	}
	return changed
}
