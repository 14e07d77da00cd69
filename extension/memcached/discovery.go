package memcached

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
)

// maxNodes bounds a cluster. ElastiCache's own limit is 60
// (https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/quota-limits.html).
const maxNodes = 300

// nodes returns the nodes. Only while none are known yet does it wait, until
// ctx ends. After a call has waited in vain no other waits for the same refresh.
func (c *Client) nodes(ctx context.Context) (*topology, error) {
	top := c.top.Load()
	if !c.o.Discover {
		return top, ctx.Err()
	}
	refresh := c.refresh(c.o.Refresh)
	if len(top.nodes) > 0 {
		return top, ctx.Err()
	}
	if refresh == nil || refresh.GivenUp() {
		return nil, errNoNodes
	}
	_, _ = refresh.Wait(ctx)
	if top = c.top.Load(); len(top.nodes) > 0 {
		return top, nil
	}
	if ctx.Err() == nil {
		return nil, errNoNodes
	}
	refresh.GiveUp()
	return nil, ctx.Err()
}

// urge asks for the list again soon: a node failed.
func (c *Client) urge() {
	if c.o.Discover {
		c.refresh(c.o.Window)
	}
}

// refresh begins a refresh if the last is at least age old, or a window after
// one that failed. It returns the one that runs, or nil.
func (c *Client) refresh(age time.Duration) *coalesce.Call[struct{}] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.refreshes.Running(struct{}{}); r != nil {
		return r
	}
	now := c.o.Now()
	if c.failing {
		age = min(age, c.o.Window)
	}
	if clock.Within(c.tried, now, age) {
		return nil
	}
	c.tried = now
	running, _ := c.refreshes.Start(context.Background(), struct{}{}, c.run)
	return running
}

// run refreshes the list once.
func (c *Client) run(ctx context.Context) (struct{}, error) {
	list, err := c.askCluster(ctx)
	c.mu.Lock()
	was := c.failing
	c.failing = err != nil
	now := c.o.Now()
	// The nodes learn of a change one after the other. A number that falls for
	// longer is a new cluster.
	stale := err == nil && list.version < c.version && clock.Within(c.since, now, 5*time.Minute)
	if err == nil && !stale {
		c.version, c.since = list.version, now
	}
	c.mu.Unlock()
	switch {
	case c.ctx.Err() != nil || stale:
	case err == nil:
		if c.apply(list.nodes, list.addrs, list.local) {
			c.o.Log.Info("memcached's nodes changed", "version", list.version, "nodes", strings.Join(list.nodes, ","))
		}
	case !was:
		c.o.Log.Warn("memcached's list of nodes cannot be had", "endpoint", strings.Join(c.seeds, ","), "error", brief(err))
	}
	return struct{}{}, err
}

// askCluster asks the configured endpoints, then the nodes known, for the list.
func (c *Client) askCluster(ctx context.Context) (cluster, error) {
	return inTurn(ctx, append(slices.Clone(c.seeds), c.top.Load().ring.ids...), 4, func(ctx context.Context, id string) (cluster, error) {
		list, err := c.askEndpoint(ctx, id)
		if err != nil {
			err = fmt.Errorf("%s: %w", id, err)
		}
		return list, err
	})
}

func (c *Client) askEndpoint(ctx context.Context, id string) (list cluster, err error) {
	n := newNode(c, id, true)
	defer n.leave()
	nc, err := n.dial(ctx)
	if err != nil {
		return cluster{}, err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(nc, "config get cluster\r\n"); err != nil {
		return cluster{}, err
	}
	list, err = parseCluster(nc)
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	list.local = ok && remote.IP.IsLoopback()
	return list, err
}

// cluster is a list of nodes.
type cluster struct {
	version uint64
	nodes   []string          // host:port
	addrs   map[string]string // node -> address, where the list tells one
	local   bool              // it came from this machine
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
	in := bufio.NewScanner(io.LimitReader(r, 64<<10))
	var lines []string
	for in.Scan() && (in.Text() != "END" || len(lines) == 0) {
		if len(lines) == 0 && !strings.HasPrefix(in.Text(), "CONFIG cluster ") {
			return cluster{}, errNotCluster
		}
		if in.Text() != "" {
			lines = append(lines, in.Text())
		}
	}
	if in.Text() != "END" {
		return cluster{}, fmt.Errorf("read the list of nodes: %w", cmp.Or(in.Err(), io.ErrUnexpectedEOF))
	}
	if len(lines) != 3 {
		return cluster{}, fmt.Errorf("the list of nodes has %d lines and should have 3", len(lines))
	}
	c := cluster{addrs: map[string]string{}}
	var err error
	if c.version, err = strconv.ParseUint(lines[1], 10, 64); err != nil {
		return cluster{}, errors.New("the list of nodes has no version")
	}
	for _, f := range strings.Fields(lines[2]) {
		id, addr, err := clusterNode(f)
		if err != nil {
			return cluster{}, err
		}
		if len(c.nodes) == maxNodes {
			return cluster{}, fmt.Errorf("the list of nodes has more than %d", maxNodes)
		}
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
func clusterNode(s string) (id, addr string, err error) {
	f := strings.Split(s, "|")
	if len(f) != 3 {
		return "", "", errors.New("the list of nodes has one that is not hostname|ip-address|port")
	}
	if f[1] != "" {
		ip, err := netip.ParseAddr(f[1])
		if err != nil {
			return "", "", errors.New("the list of nodes has one with a malformed address")
		}
		addr = ip.String()
	}
	if id, err = nodeID(net.JoinHostPort(cmp.Or(f[0], addr), f[2])); err != nil {
		return "", "", errors.New("the list of nodes has one with a malformed name or port")
	}
	return id, addr, nil
}
