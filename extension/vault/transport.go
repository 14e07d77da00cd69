package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// maxHead bounds the head of an answer, in bytes. Vault's are below 2 KiB.
const maxHead = 256 << 10

// maxIdle bounds the connections to a node that are kept while idle. Each holds
// two goroutines and their buffers, 25 KB in all; more than a poll's reads at a
// time are seldom wanted.
const maxIdle = 16

// transports make the connections, with the TLS files as they were. Those to nodes that
// are dialled by an address that their certificate does not name must not be mixed up
// with others.
type transports struct {
	mu sync.Mutex
	by map[string]*http.Transport // guarded by mu; by the name that is expected, "" for that of the address
}

// newTransports builds the transports, and retires those that they replace.
//
// HTTP/1.1 only: under HTTP/2 every request shares one connection, so one that
// died in a freeze takes all of them with it, and only its own pings (late
// timers, in a process that freezes) would find out. Under HTTP/1.1 a dead
// connection costs the one request that drew it, and the request can move to a
// fresh one.
func (c *Client) newTransports() (*transports, error) {
	cfg, err := tlsConfig(c.o.TLS)
	if err != nil {
		return nil, fmt.Errorf("set up TLS to Vault: %w", err)
	}
	c.dropIdle()
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	t := new(transports)
	t.by = map[string]*http.Transport{"": {
		Protocols: http1,
		Proxy:     c.proxy,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return c.dial(ctx, t, network, addr)
		},
		TLSClientConfig:        cfg,
		TLSHandshakeTimeout:    c.o.ConnTimeout,
		MaxIdleConns:           2 * maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		WriteBufferSize:        1 << 10, // a request without its body; bodies are written past it
		IdleConnTimeout:        0,       // a timer fires late in a process that freezes; the pool asks the wall clock
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHead,
		DisableCompression:     true, // bodies pass through byte for byte
	}}
	return t, nil
}

// transportOf returns the transport that verifies the node by its name.
func (c *Client) transportOf(n *node) (*http.Transport, error) {
	t, err := c.transports.Get()
	if err != nil {
		return nil, err
	}
	name := n.server
	if n.scheme != "https" || c.o.TLS.ServerName != "" {
		name = ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by[name] == nil {
		named := t.by[""].Clone()
		named.TLSClientConfig.ServerName = name
		t.by[name] = named
	}
	return t.by[name], nil
}

// closeIdle closes every connection that carries no request. That may take seconds, in
// which no request waits for the lock: a connection with TLS says goodbye.
func (t *transports) closeIdle() {
	t.mu.Lock()
	all := maps.Clone(t.by)
	t.mu.Unlock()
	for _, via := range all {
		via.CloseIdleConnections()
	}
}

// dropIdle closes every connection that carries no request.
func (c *Client) dropIdle() {
	if t := c.transports.Peek(); t != nil {
		(*t).closeIdle()
	}
}

// dial makes a connection of some transports.
func (c *Client) dial(ctx context.Context, of *transports, network, addr string) (net.Conn, error) {
	// The transport lets a dial outlive the request that asked for it; Close
	// ends it.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.life, func() { cancel(errClosed) })()
	if path := c.socket(addr); path != "" {
		network, addr = "unix", path
	}
	nc, err := c.o.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	cn := &conn{Conn: nc, c: c, of: of}
	c.pool.add(cn)
	return cn, nil
}

// socket is the path of the unix socket that a host stands for; empty: it stands for none.
func (c *Client) socket(host string) string {
	if i := slices.IndexFunc(c.seeds, func(n *node) bool { return n.host == host }); i >= 0 {
		return c.seeds[i].socket
	}
	return ""
}

var errProxy = errors.New("the proxy's address is not valid: check HTTPS_PROXY, HTTP_PROXY and VAULT_PROXY_ADDR")

// proxy keeps sockets direct, and an unreadable proxy URL, which may hold a password, out
// of errors.
func (c *Client) proxy(req *http.Request) (*url.URL, error) {
	if c.o.ProxyURL == nil || c.socket(req.URL.Host) != "" {
		return nil, nil
	}
	u, err := c.o.ProxyURL(req)
	if err != nil {
		return nil, errProxy
	}
	return u, nil
}
