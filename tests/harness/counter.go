package harness

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// Counter is a reverse proxy in front of an origin. It counts and records
// every request, and fails on demand:
//
//	Cut     nothing listens; connections are reset
//	Stall   connections are taken, requests are read, nothing answers
//	Inject  a status of ours instead of the origin's answer
//	Delay   answers come later
//
// A request is recorded when it arrives, before it is passed on, so a count
// includes those that were stalled or answered by an injection.
type Counter struct {
	scheme string
	addr   string // host:port, kept through Cut and Mend
	ca     *CA    // nil without TLS
	tls    *tls.Config
	proxy  *httputil.ReverseProxy

	mu        sync.Mutex // guards everything below
	origin    *url.URL
	conns     map[net.Conn]struct{}
	server    *http.Server // nil while cut
	served    chan struct{}
	stalled   chan struct{} // closed by Mend; nil when not stalled
	stalledAt string        // path of the requests that are stalled; empty: all
	delay     time.Duration
	faults    []*Fault
	requests  []*Request
}

// CounterConfig says where a Counter passes requests on to.
type CounterConfig struct {
	Origin string // scheme://host:port
	TLS    bool   // listen with a certificate of a CA of its own
}

// Request is one recorded request.
type Request struct {
	Seq    int
	At     time.Time // arrival
	Method string
	Path   string // escaped, without the query
	Query  string
	Header http.Header
	Remote string        // the client's address: equal for requests on one connection
	Status int           // 0 while unanswered, or if the client left
	Took   time.Duration // until the answer was written
}

// Fault is an answer given instead of the origin's.
type Fault struct {
	Method string // empty: any
	Path   string // exact, or a prefix if it ends in "*"; empty: any
	Status int
	Header http.Header
	Body   string // empty: an error body like Vault's
	Times  int    // how often; 0: until cleared

	used int
}

// StartCounter starts listening on 127.0.0.1.
func StartCounter(cfg CounterConfig) (*Counter, error) {
	origin, err := url.Parse(cfg.Origin)
	if err != nil {
		return nil, fmt.Errorf("parse the origin's address: %w", err)
	}
	c := &Counter{scheme: "http", origin: origin, conns: map[net.Conn]struct{}{}}
	c.proxy = &httputil.ReverseProxy{
		Rewrite:  c.rewrite,
		ErrorLog: log.New(io.Discard, "", 0),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // as if the origin had been reached directly
		},
		// No proxy of the environment, no decompression: bytes pass as they are.
		Transport: &http.Transport{
			DisableCompression:  true,
			MaxIdleConnsPerHost: 64,
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, // a test's own origin on loopback
		},
		FlushInterval: -1,
	}
	if cfg.TLS {
		if c.ca, err = NewCA(); err != nil {
			return nil, err
		}
		leaf, err := c.ca.Leaf("127.0.0.1", "localhost")
		if err != nil {
			return nil, err
		}
		c.scheme = "https"
		c.tls = &tls.Config{Certificates: []tls.Certificate{leaf}}
	}
	l, err := listenLoopback()
	if err != nil {
		return nil, fmt.Errorf("start a counter: %w", err)
	}
	c.addr = l.Addr().String()
	c.serve(l)
	return c, nil
}

// Addr is the address with scheme.
func (c *Counter) Addr() string { return c.scheme + "://" + c.addr }

// CA signed the listener's certificate; nil without TLS.
func (c *Counter) CA() *CA { return c.ca }

// serve starts the server on l.
func (c *Counter) serve(l net.Listener) {
	srv := &http.Server{
		Handler:           c,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
		ConnState:         c.track,
	}
	if c.tls != nil {
		srv.TLSConfig = c.tls.Clone()
	}
	served := make(chan struct{})
	c.mu.Lock()
	c.server, c.served = srv, served
	c.mu.Unlock()
	go func() {
		defer close(served)
		if srv.TLSConfig != nil {
			_ = srv.ServeTLS(l, "", "")
		} else {
			_ = srv.Serve(l)
		}
	}()
}

func (c *Counter) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.conns[conn] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(c.conns, conn)
	}
}

// Connections is the number of open client connections.
func (c *Counter) Connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

// Cut stops listening and resets every connection: new ones are refused.
func (c *Counter) Cut() {
	c.mu.Lock()
	srv, served := c.server, c.served
	c.server = nil
	conns := make([]net.Conn, 0, len(c.conns))
	for conn := range c.conns {
		conns = append(conns, conn)
	}
	clear(c.conns)
	c.mu.Unlock()
	if srv == nil {
		return
	}
	for _, conn := range conns {
		if t, ok := conn.(*tls.Conn); ok {
			conn = t.NetConn()
		}
		if t, ok := conn.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // RST, not FIN
		}
		_ = conn.Close()
	}
	_ = srv.Close()
	<-served
}

// CloseConnections resets the open connections; new ones are taken.
func (c *Counter) CloseConnections() error {
	c.Cut()
	return c.Mend()
}

// Stall takes connections and requests but answers none, from now on.
// Requests that wait when Mend is called go on to the origin then.
func (c *Counter) Stall() { c.StallAt("") }

// StallAt is Stall for requests of one path.
func (c *Counter) StallAt(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalledAt = path
	if c.stalled == nil {
		c.stalled = make(chan struct{})
	}
}

// Mend undoes Cut, Stall, Delay and every injection.
func (c *Counter) Mend() error {
	c.mu.Lock()
	if c.stalled != nil {
		close(c.stalled)
		c.stalled = nil
	}
	c.delay, c.faults = 0, nil
	cut := c.server == nil
	c.mu.Unlock()
	if !cut {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var l net.Listener
	var last error
	listen := func() bool { l, last = net.Listen("tcp", c.addr); return last == nil }
	if err := poll(ctx, 10*time.Millisecond, listen); err != nil {
		return fmt.Errorf("listen again: %w", last)
	}
	c.serve(l)
	return nil
}

// Delay makes every later request wait before it is passed on.
func (c *Counter) Delay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = d
}

// Inject adds a fault. Of several that match, the first one is used.
func (c *Counter) Inject(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, &f)
}

// SetOrigin sends later requests elsewhere.
func (c *Counter) SetOrigin(addr string) error {
	u, err := url.Parse(addr)
	if err != nil {
		return fmt.Errorf("parse the origin's address: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.origin = u
	return nil
}

// Close ends it.
func (c *Counter) Close() {
	c.mu.Lock()
	if c.stalled != nil {
		close(c.stalled)
		c.stalled = nil
	}
	c.mu.Unlock()
	c.Cut()
	c.proxy.Transport.(*http.Transport).CloseIdleConnections()
}
