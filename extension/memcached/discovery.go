package memcached

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// maxNodes bounds a cluster. ElastiCache's own limit is 60
// (https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/quota-limits.html).
const maxNodes = 300

// discovery keeps the list of nodes.
type discovery struct {
	mu      sync.Mutex    // guards what follows
	running chan struct{} // closed at the end of the refresh that runs; nil: none runs
	late    bool          // a call gave up on the refresh that runs
	tried   time.Time     // when the last refresh began
	failing bool          // it failed
	version uint64        // of the list in use
	adopted time.Time     // when that was taken
}

// nodes returns the nodes. Only while none are known yet does it wait, until
// ctx ends, and only one call for each try.
func (c *Client) nodes(ctx context.Context) (*topology, error) {
	top := c.top.Load()
	if !c.o.Discover {
		return top, ctx.Err()
	}
	done, late := c.discover.start(c, c.o.Refresh)
	if top != nil {
		return top, ctx.Err()
	}
	if done == nil || late {
		return nil, errNoNodes
	}
	select {
	case <-done:
		if top = c.top.Load(); top != nil {
			return top, nil
		}
		return nil, errNoNodes
	case <-ctx.Done():
		c.discover.mu.Lock()
		c.discover.late = c.discover.running != nil
		c.discover.mu.Unlock()
		return nil, ctx.Err()
	}
}

// urge asks for the list again soon: a node failed.
func (d *discovery) urge(c *Client) {
	if c.o.Discover {
		d.start(c, c.o.Window)
	}
}

// start begins a refresh if the last is at least age old, or a window after one
// that failed. It returns the one that runs, and whether a call gave up on it.
func (d *discovery) start(c *Client, age time.Duration) (done chan struct{}, late bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running != nil {
		return d.running, d.late
	}
	now := c.o.Now()
	if d.failing {
		age = min(age, c.o.Window)
	}
	if !d.tried.IsZero() && cache.Within(d.tried, now, age) {
		return nil, false
	}
	done = make(chan struct{})
	d.running, d.late, d.tried = done, false, now
	if !c.background(func() { d.run(c, done) }) {
		d.running = nil
		return nil, false
	}
	return done, false
}

// run refreshes the list once.
func (d *discovery) run(c *Client, done chan struct{}) {
	ctx, cancel := context.WithTimeout(c.ctx, c.o.ConnectTimeout)
	defer cancel()
	list, local, err := c.askCluster(ctx)
	d.mu.Lock()
	was := d.failing
	d.failing = err != nil
	now := c.o.Now()
	// The nodes learn of a change one after the other. A number that falls for
	// longer is a new cluster.
	stale := err == nil && list.version < d.version && cache.Within(d.adopted, now, 5*time.Minute)
	if err == nil && !stale {
		d.version, d.adopted = list.version, now
	}
	d.mu.Unlock()
	switch {
	case c.ctx.Err() != nil:
	case err != nil && !was:
		c.o.Log.Warn("memcached's list of nodes cannot be had", "endpoint", strings.Join(c.seeds, ","), "error", brief(err))
	case err == nil && !stale:
		if c.apply(list.nodes, list.addrs, local) {
			c.o.Log.Info("memcached's nodes changed", "version", list.version, "nodes", strings.Join(list.nodes, ","))
		}
	}
	d.mu.Lock()
	d.running = nil
	d.mu.Unlock()
	close(done)
}

// askCluster asks the configured endpoints, then the nodes known, for the list.
func (c *Client) askCluster(ctx context.Context) (list cluster, local bool, err error) {
	ids := append([]string(nil), c.seeds...)
	if top := c.top.Load(); top != nil {
		ids = append(ids, top.ring.ids...)
	}
	var errs []error
	for i, id := range ids {
		share := time.Until(deadlineOf(ctx)) / time.Duration(min(len(ids)-i, 4))
		list, local, err := c.askEndpoint(ctx, share, id)
		if err == nil {
			return list, local, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", id, err))
		if ctx.Err() != nil {
			break
		}
	}
	return cluster{}, false, errors.Join(errs...)
}

func (c *Client) askEndpoint(ctx context.Context, share time.Duration, id string) (list cluster, local bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, share)
	defer cancel()
	host, port, _ := net.SplitHostPort(id) // nodeID made it
	addrs, err := lookup(ctx, host)
	if err != nil {
		return cluster{}, false, err
	}
	nc, err := c.dialAny(ctx, addrs, port, host)
	if err != nil {
		return cluster{}, false, err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(nc, "config get cluster\r\n"); err != nil {
		return cluster{}, false, err
	}
	list, err = parseCluster(nc)
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	return list, ok && remote.IP.IsLoopback(), err
}

// cluster is a list of nodes.
type cluster struct {
	version uint64
	nodes   []string          // host:port
	addrs   map[string]string // node -> address, where the list tells one
}

var errNotCluster = errors.New("no answer to `config get cluster`: the endpoint is not ElastiCache's configuration endpoint; name the nodes themselves and turn discovery off")

// parseCluster reads the answer to "config get cluster":
//
//	CONFIG cluster 0 <bytes>\r\n
//	<version>\n
//	<hostname>|<ip-address>|<port> <hostname>|<ip-address>|<port> ...\n
//	\r\n
//	END\r\n
//
// https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.AddingToYourClientLibrary.html
// The lines are what counts, as in other clients, and not <bytes>: the
// documentation's own example has it wrong. The hostname or the address may be
// empty.
func parseCluster(r io.Reader) (cluster, error) {
	br := bufio.NewReader(io.LimitReader(r, 64<<10))
	var lines [][]byte
	for {
		line, err := br.ReadBytes('\n')
		if err != nil {
			return cluster{}, fmt.Errorf("read the list of nodes: %w", noEOF(err))
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(lines) == 0 && !bytes.HasPrefix(line, []byte("CONFIG cluster ")) {
			return cluster{}, errNotCluster
		}
		if string(line) == "END" {
			break
		}
		if len(line) > 0 {
			lines = append(lines, line)
		}
	}
	if len(lines) != 3 {
		return cluster{}, fmt.Errorf("the list of nodes has %d lines and should have 3", len(lines))
	}
	c := cluster{addrs: map[string]string{}}
	var err error
	if c.version, err = strconv.ParseUint(string(lines[1]), 10, 64); err != nil {
		return cluster{}, errors.New("the list of nodes has no version")
	}
	for _, f := range strings.Fields(string(lines[2])) {
		host, addr, port, err := clusterNode(f)
		if err != nil {
			return cluster{}, err
		}
		if len(c.nodes) == maxNodes {
			return cluster{}, fmt.Errorf("the list of nodes has more than %d", maxNodes)
		}
		id := net.JoinHostPort(host, port)
		c.nodes = append(c.nodes, id)
		if addr != "" {
			c.addrs[id] = addr
		}
	}
	if len(c.nodes) == 0 {
		return cluster{}, errors.New("the list of nodes is empty")
	}
	return c, nil
}

// clusterNode takes one hostname|ip-address|port apart.
func clusterNode(s string) (host, addr, port string, err error) {
	f := strings.Split(s, "|")
	if len(f) != 3 {
		return "", "", "", errors.New("the list of nodes has one that is not hostname|ip-address|port")
	}
	host, addr, port = f[0], f[1], f[2]
	if addr != "" {
		ip, err := netip.ParseAddr(addr)
		if err != nil {
			return "", "", "", errors.New("the list of nodes has one with a malformed address")
		}
		addr = ip.String()
	}
	if host == "" {
		host = addr
	}
	if !validHost(host) || !validPort(port) {
		return "", "", "", errors.New("the list of nodes has one with a malformed name or port")
	}
	return host, addr, port, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
