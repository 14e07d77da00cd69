package memcached

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/fakes/elasticache"
	"github.com/thaw-project/thaw/tests/harness"
)

func TestDiscoveryFollowsTheCluster(t *testing.T) {
	t.Parallel()
	real(t)
	a, b := harness.Memcache(t, harness.MemcachedConfig{}), harness.Memcache(t, harness.MemcachedConfig{})
	e, err := elasticache.Start(elasticache.Options{}, elasticache.At(a.Addr()))
	must(t, err)
	t.Cleanup(e.Close)
	clk := newClock()
	c := client(t, Options{Nodes: []string{e.Addr()}, Discover: true, Now: clk.now})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	if got := get(t, c, "k"); got != "v" || e.Requests() != 1 {
		t.Fatalf("%q after %d requests", got, e.Requests())
	}
	refresh := func(age time.Duration) Stats {
		clk.advance(age)
		_, _ = c.GetMulti(t.Context(), []string{"k"})
		if r := c.refreshes.Running(struct{}{}); r != nil {
			<-r.Done()
		}
		return c.Stats()
	}
	e.Change(elasticache.At(a.Addr()), elasticache.At(b.Addr()))
	if s := refresh(59 * time.Second); s.Nodes != 1 {
		t.Errorf("asked again too early: %+v", s)
	}
	if s := refresh(2 * time.Second); s.Nodes != 2 {
		t.Errorf("a new node is not used: %+v", s)
	}
	for name, raw := range map[string]string{
		"nonsense": "CONFIG cluster 0 3\r\nxyz\r\nEND\r\n", "ERROR": "ERROR\r\n", "no nodes": "CONFIG cluster 0 3\r\n9\n\n\r\nEND\r\n",
		"an older list": "CONFIG cluster 0 3\r\n1\n|10.0.0.9|1\n\r\nEND\r\n",
	} {
		e.Answer(raw)
		if s := refresh(61 * time.Second); s.Nodes != 2 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	e.Answer("")
	e.Change(elasticache.At(b.Addr()))
	refresh(61 * time.Second)
	if s := c.Stats(); s.Nodes != 1 {
		t.Errorf("a node that left is still used: %+v", s)
	}
	// A cluster made anew counts from 1 again.
	e.SetVersion(0)
	e.Change(elasticache.At(a.Addr()))
	if refresh(61 * time.Second); c.top.Load().nodes[0].id == a.Addr() {
		t.Error("a list with a lower version was taken at once")
	}
	refresh(3 * time.Minute)
	if refresh(3 * time.Minute); c.top.Load().nodes[0].id != a.Addr() {
		t.Error("a new cluster is never taken")
	}
	if v := e.Violations(); len(v) > 0 {
		t.Errorf("the endpoint was sent %q", v)
	}
}

// stuck is a connection whose end takes its time, as TLS's may.
type stuck struct {
	net.Conn
	closing chan struct{}
	end     <-chan struct{}
}

func (s *stuck) Close() error {
	s.closing <- struct{}{}
	<-s.end
	return s.Conn.Close()
}

func TestNoCallWaitsForTheEndOfANodeThatLeft(t *testing.T) {
	t.Parallel()
	a, b := harness.Memcache(t, harness.MemcachedConfig{}), harness.Memcache(t, harness.MemcachedConfig{})
	e, err := elasticache.Start(elasticache.Options{}, elasticache.At(a.Addr()))
	must(t, err)
	t.Cleanup(e.Close)
	clk, closing, end := newClock(), make(chan struct{}, 10), make(chan struct{})
	var dialer net.Dialer
	c := client(t, Options{Nodes: []string{e.Addr()}, Discover: true, Now: clk.now, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dialer.DialContext(ctx, network, addr)
		if err == nil && addr == a.Addr() {
			nc = &stuck{nc, closing, end}
		}
		return nc, err
	}})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	e.Change(elasticache.At(b.Addr()))
	clk.advance(61 * time.Second)
	_ = c.refresh(time.Minute)
	<-closing
	set := make(chan error, 1)
	go func() { set <- c.Set(t.Context(), "k", []byte("w"), time.Minute) }()
	select {
	case err := <-set:
		must(t, err)
	case <-time.After(5 * time.Second):
		t.Error("a call waits for the end of a connection")
	}
	close(end)
}

func TestDiscoveryIsAskedAgainWhenANodeFails(t *testing.T) {
	t.Parallel()
	real(t)
	a, b := harness.Memcache(t, harness.MemcachedConfig{}), harness.Memcache(t, harness.MemcachedConfig{})
	e, err := elasticache.Start(elasticache.Options{}, elasticache.At(a.Addr()))
	must(t, err)
	t.Cleanup(e.Close)
	clk := newClock()
	c := client(t, Options{Nodes: []string{e.Addr()}, Discover: true, Now: clk.now})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	a.Kill() // replaced
	e.Change(elasticache.At(b.Addr()))
	clk.advance(2 * time.Second)
	_ = c.Set(t.Context(), "k", []byte("v"), time.Minute)
	deadline := time.Now().Add(patience)
	for c.top.Load().nodes[0].id != b.Addr() && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
}

func TestAnEndpointThatHangsCostsOneTimeout(t *testing.T) {
	t.Parallel()
	e, err := elasticache.Start(elasticache.Options{})
	must(t, err)
	t.Cleanup(e.Close)
	e.Mute(true)
	clk := newClock()
	c := client(t, Options{Nodes: []string{e.Addr()}, Discover: true, Now: clk.now, Timeout: 50 * time.Millisecond, ConnectTimeout: time.Minute})
	waited := 0
	for range 1000 {
		_, err := c.GetMulti(t.Context(), []string{"k"})
		if errors.Is(err, context.DeadlineExceeded) {
			waited++
		} else if !errors.Is(err, errNoNodes) {
			t.Fatal(err)
		}
	}
	harness.Eventually(t, patience, "the request that is on its way arrives", func() bool { return e.Requests() > 0 })
	if waited != 1 || e.Requests() != 1 {
		t.Errorf("%d calls waited, %d requests", waited, e.Requests())
	}
}

func TestDiscoveryOverTLSKeepsTheNodesNames(t *testing.T) {
	t.Parallel()
	real(t)
	ca := harness.CAFor(t)
	m := harness.Memcache(t, harness.MemcachedConfig{CA: ca})
	leaf, err := ca.Leaf("127.0.0.1")
	must(t, err)
	_, port, _ := net.SplitHostPort(m.Addr())
	// The node's name is localhost, and its certificate is checked for that.
	e, err := elasticache.Start(elasticache.Options{TLS: &tls.Config{Certificates: []tls.Certificate{leaf}}}, elasticache.Node{Hostname: "localhost", IP: "127.0.0.1", Port: port})
	must(t, err)
	t.Cleanup(e.Close)
	c := client(t, Options{Nodes: []string{e.Addr()}, Discover: true, TLS: &config.MemcachedTLS{CACert: m.CAFile()}})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	if id := c.top.Load().nodes[0].id; id != "localhost:"+port {
		t.Errorf("the node is known as %s", id)
	}
}

func TestAListThatLeadsToThisMachineIsRefused(t *testing.T) {
	t.Parallel()
	c := client(t, Options{Nodes: []string{"cache.example"}, Discover: true})
	c.apply([]string{"127.0.0.1:8200", "169.254.169.254:80", "cache.example:1"}, map[string]string{"cache.example:1": "::ffff:127.0.0.1"}, false)
	for _, n := range c.top.Load().nodes {
		if addrs, err := n.resolve(t.Context()); err == nil {
			t.Errorf("%s leads to %v", n.id, addrs)
		}
	}
}
