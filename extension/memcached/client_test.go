package memcached

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/elasticache"
	"github.com/thaw-project/thaw/tests/harness"
)

// clock is a wall clock that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(time.Now().UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// patience is a timeout that only a hanging server reaches, however busy the
// machine.
const patience = 5 * time.Second

func real(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real memcached")
	}
}

func client(t testing.TB, o Options) *Client {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, c *Client, key string) string {
	t.Helper()
	m, _ := c.GetMulti(t.Context(), []string{key})
	it, ok := m[key]
	if !ok {
		return "miss"
	}
	return string(it.Value)
}

func TestOneNodePlainAndTLS(t *testing.T) {
	t.Parallel()
	real(t)
	ca, err := harness.NewCA()
	must(t, err)
	for name, m := range map[string]*harness.Memcached{
		"plain": harness.Memcache(t, harness.MemcachedConfig{}),
		"TLS":   harness.Memcache(t, harness.MemcachedConfig{CA: ca}),
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Nodes: []string{m.Addr()}}
			if m.CAFile() != "" {
				o.TLS = &TLS{CAFile: m.CAFile()}
			}
			c := client(t, o)
			ctx := t.Context()
			if got := get(t, c, "k"); got != "miss" {
				t.Fatalf("found %q", got)
			}
			must(t, c.Set(ctx, "k", []byte("1"), time.Minute))
			if ok, err := c.Add(ctx, "k", []byte("2"), time.Minute); ok || err != nil {
				t.Fatalf("added beside: %v %v", ok, err)
			}
			items, err := c.GetMulti(ctx, []string{"k", "other"})
			must(t, err)
			if len(items) != 1 || string(items["k"].Value) != "1" {
				t.Fatalf("%v", items)
			}
			if ok, err := c.CompareAndSwap(ctx, "k", []byte("3"), time.Minute, items["k"].CAS); !ok || err != nil {
				t.Fatalf("%v %v", ok, err)
			}
			if ok, err := c.CompareAndSwap(ctx, "k", []byte("4"), time.Minute, items["k"].CAS); ok || err != nil {
				t.Fatalf("an old token swapped: %v %v", ok, err)
			}
			if got := get(t, c, "k"); got != "3" {
				t.Fatalf("%q", got)
			}
			must(t, c.Delete(ctx, "k"))
			must(t, c.Delete(ctx, "k"))
			if ok, err := c.Add(ctx, "k", []byte("5"), time.Minute); !ok || err != nil {
				t.Fatalf("%v %v", ok, err)
			}
			items, _ = c.GetMulti(ctx, []string{"k"})
			if ok, err := c.CompareAndSwap(ctx, "k", nil, -1, items["k"].CAS); !ok || err != nil {
				t.Fatalf("%v %v", ok, err)
			}
			if got := get(t, c, "k"); got != "miss" {
				t.Fatalf("removed, and found %q", got)
			}
			if s := c.Stats(); s.Errors != 0 || s.Timeouts != 0 || s.Conns != 1 || s.Nodes != 1 || s.Out != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestManyKeysComeInGroups(t *testing.T) {
	t.Parallel()
	real(t)
	a, b := harness.Memcache(t, harness.MemcachedConfig{}), harness.Memcache(t, harness.MemcachedConfig{})
	c := client(t, Options{Nodes: []string{a.Addr(), b.Addr()}})
	var keys []string
	for i := range 1050 {
		keys = append(keys, fmt.Sprint("key", i))
		must(t, c.Set(t.Context(), keys[i], []byte(keys[i]), time.Minute))
	}
	got, err := c.GetMulti(t.Context(), append(keys, "none"))
	must(t, err)
	if len(got) != len(keys) {
		t.Fatalf("%d of %d", len(got), len(keys))
	}
	for k, it := range got {
		if string(it.Value) != k {
			t.Fatalf("%s is %q", k, it.Value)
		}
	}
	for _, m := range []*harness.Memcached{a, b} {
		stats, err := m.Stats(t.Context())
		must(t, err)
		if stats["cmd_set"] == "0" {
			t.Error("a node got no keys")
		}
	}
}

func TestValuesOverTheItemLimitAreLeftOut(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	c := client(t, Options{Nodes: []string{m.Addr()}})
	name := strings.Repeat("n", 64)
	must(t, c.Set(t.Context(), name, make([]byte, maxValue), time.Minute))
	if got := get(t, c, name); len(got) != maxValue {
		t.Errorf("the largest value was not kept: %d bytes", len(got))
	}
	if err := c.Set(t.Context(), name, make([]byte, maxValue+1), time.Minute); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	// A server with a lower limit says so, and is well.
	small := harness.Memcache(t, harness.MemcachedConfig{Args: []string{"-I", "512k"}})
	c = client(t, Options{Nodes: []string{small.Addr()}})
	if err := c.Set(t.Context(), name, make([]byte, 600_000), time.Minute); err == nil {
		t.Error("stored")
	}
	must(t, c.Set(t.Context(), name, make([]byte, 1000), time.Minute))
	if s := c.Stats(); s.Refused != 1 || s.Out != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAFullServerIsNotADeadOne(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{MemoryMB: 2, Args: []string{"-M"}}) // refuses instead of evicting
	c := client(t, Options{Nodes: []string{m.Addr()}})
	refused := 0
	for i := range 200 {
		if err := c.Set(t.Context(), fmt.Sprint(i), make([]byte, 100_000), time.Minute); err != nil {
			refused++
		}
	}
	if refused == 0 || c.Stats().Out != 0 || c.Stats().Refused != uint64(refused) {
		t.Fatalf("%d refused, %+v", refused, c.Stats())
	}
	if got := get(t, c, "0"); len(got) != 100_000 {
		t.Fatal("what was stored before cannot be read")
	}
}

// Reads go on while a node is killed, frozen, flushed and back again. None
// fails, and a hanging node costs one timeout for each window.
func TestG4ReadsThroughKilledAndFrozenNodes(t *testing.T) {
	t.Parallel()
	real(t)
	var nodes []*harness.Memcached
	var ids []string
	for range 3 {
		m := harness.Memcache(t, harness.MemcachedConfig{})
		nodes, ids = append(nodes, m), append(ids, m.Addr())
	}
	clk := newClock()
	const timeout, window, reads, tick = 100 * time.Millisecond, time.Second, 10_000, 10 * time.Millisecond
	var logs bytes.Buffer
	c := client(t, Options{Nodes: ids, Timeout: timeout, Window: window, MaxWindow: 4 * window, Now: clk.now, Log: slog.New(slog.NewTextHandler(&logs, nil))})
	var keys []string
	fill := func() {
		for i := range 30 {
			_ = c.Set(t.Context(), fmt.Sprint("key", i), fmt.Append(nil, "value", i), time.Hour)
		}
	}
	for i := range 30 {
		keys = append(keys, fmt.Sprint("key", i))
	}
	fill()
	hits, asked := 0, 0
	check := func(m map[string]Item) {
		for k, it := range m {
			if want := "value" + strings.TrimPrefix(k, "key"); string(it.Value) != want {
				t.Fatalf("%s is %q", k, it.Value)
			}
		}
	}
	events := map[int]func(){
		1000: func() { must(t, nodes[0].Freeze(t.Context())) },
		3000: func() { must(t, nodes[0].Thaw()) },
		4000: func() { nodes[1].Kill() },
		6000: func() { must(t, nodes[1].Restart(t.Context())); fill() },
		7000: func() { must(t, nodes[2].Flush(t.Context())); fill() },
		8000: func() { must(t, nodes[0].Freeze(t.Context())); nodes[1].Kill() },
		9000: func() { must(t, nodes[0].Thaw()); must(t, nodes[1].Restart(t.Context())) },
	}
	for i := range reads {
		if f := events[i]; f != nil {
			f()
		}
		if i == 9900 {
			clk.advance(4 * window)
			c.GetMulti(t.Context(), keys)
			fill()
		}
		n := 1 + i%3*10 // one key, or several on all nodes
		m, _ := c.GetMulti(t.Context(), keys[i%(len(keys)-n+1):][:n])
		check(m)
		hits += len(m)
		asked += n
		if i > 9900 && len(m) != n {
			t.Fatalf("read %d: %d of %d, after all nodes are back\n%s", i, len(m), n, logs.String())
		}
		clk.advance(tick)
	}
	s := c.Stats()
	t.Logf("%d of %d keys found; %+v", hits, asked, s)
	// Frozen for 20 s, then 10 s of this clock: windows of 1, 2, 4, 4, ... s.
	const most = 1 + 20/4 + 2 + 1 + 10/4 + 2
	if s.Timeouts == 0 || s.Timeouts > most {
		t.Errorf("%d timeouts, want at most one for each of %d windows", s.Timeouts, most)
	}
	if hits < asked/2 {
		t.Errorf("%d of %d keys found: the nodes that ran were not used", hits, asked)
	}
	if n := strings.Count(logs.String(), "memcached node is out"); n != 4 {
		t.Errorf("%d nodes said to be out, want 4\n%s", n, logs.String())
	}
}

func TestKeysOfADeadNodeGoNowhereElse(t *testing.T) {
	t.Parallel()
	real(t)
	a, b := harness.Memcache(t, harness.MemcachedConfig{}), harness.Memcache(t, harness.MemcachedConfig{})
	c := client(t, Options{Nodes: []string{a.Addr(), b.Addr()}, Window: time.Hour, MaxWindow: time.Hour})
	a.Kill()
	for i := range 100 {
		_ = c.Set(t.Context(), fmt.Sprint(i), []byte("x"), time.Minute)
	}
	keys, err := b.Keys(t.Context())
	must(t, err)
	top := c.top.Load()
	for _, k := range keys {
		if top.nodes[top.ring.pick(k)].id != b.Addr() {
			t.Errorf("%s is on a node that is not its own", k)
		}
	}
	if len(keys) == 0 || len(keys) == 100 {
		t.Errorf("%d keys on the node that lives", len(keys))
	}
}

func TestConcurrentReadsOfAHangingNode(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	clk := newClock()
	const conns = 4
	c := client(t, Options{Nodes: []string{m.Addr()}, Timeout: 100 * time.Millisecond, MaxConns: conns, Window: time.Hour, MaxWindow: time.Hour, Now: clk.now})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	must(t, m.Freeze(t.Context()))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				c.GetMulti(t.Context(), []string{"k"})
			}
		})
	}
	wg.Wait()
	// Each of the eight may have been waiting when the first timed out, and a
	// wait for a free connection alone opens nothing.
	if s := c.Stats(); s.Timeouts == 0 || s.Timeouts > 16 || s.Conns > conns {
		t.Errorf("%+v", s)
	}
	must(t, m.Thaw())
	clk.advance(time.Hour)
	if got := get(t, c, "k"); got != "v" {
		t.Errorf("thawed, the probe found %q", got)
	}
}

// servers that are something else, or nothing.
func TestWrongServersCostMissesOnly(t *testing.T) {
	t.Parallel()
	ca, err := harness.NewCA()
	must(t, err)
	leaf, err := ca.Leaf("127.0.0.1")
	must(t, err)
	talk := func(f func(nc net.Conn)) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer nc.Close()
					f(nc)
				})
			}
		})
		t.Cleanup(func() { ln.Close(); wg.Wait() })
		return ln.Addr().String()
	}
	drain := func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(caFile, ca.PEM(), 0o600))
	other, err := harness.NewCA()
	must(t, err)
	otherFile := filepath.Join(t.TempDir(), "other.pem")
	must(t, os.WriteFile(otherFile, other.PEM(), 0o600))
	tlsServer := func(nc net.Conn) {
		tc := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{leaf}})
		drain(tc)
	}
	say := func(what string) func(net.Conn) {
		return func(nc net.Conn) {
			_, _ = nc.Read(make([]byte, 1000))
			_, _ = nc.Write([]byte(what))
			drain(nc)
		}
	}
	for name, c := range map[string]struct {
		server func(net.Conn)
		tls    *TLS
	}{
		"silent":               {drain, nil},
		"closes":               {func(net.Conn) {}, nil},
		"a web server":         {say("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), nil},
		"Redis":                {say("-ERR unknown command 'gets'\r\n"), nil},
		"binary noise":         {say("\x81\x00\x00\x00\x00\n\xff"), nil},
		"a 4 GiB item":         {say("VALUE k 0 4294967290 1\r\n"), nil},
		"TLS, spoken to plain": {tlsServer, nil},
		"plain, TLS expected":  {say("ERROR\r\n"), &TLS{CAFile: caFile}},
		"silent, TLS expected": {drain, &TLS{CAFile: caFile}},
		"another authority":    {tlsServer, &TLS{CAFile: otherFile}},
		"another name":         {tlsServer, &TLS{CAFile: caFile, ServerName: "cache.example"}},
		"system roots only":    {tlsServer, &TLS{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, Options{Nodes: []string{talk(c.server)}, Timeout: 100 * time.Millisecond, ConnectTimeout: 200 * time.Millisecond, Window: time.Hour, MaxWindow: time.Hour, TLS: c.tls})
			for range 1000 {
				if m, _ := c.GetMulti(t.Context(), []string{"k"}); len(m) != 0 {
					t.Fatalf("found %v", m)
				}
				if ok, _ := c.Add(t.Context(), "k", []byte("v"), time.Minute); ok {
					t.Fatal("added")
				}
			}
			if s := c.Stats(); s.Timeouts > 1 || s.Hits != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A handshake that takes longer than a call may must not keep the tier off.
func TestASlowConnectionIsThereForALaterCall(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	hold := make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ca, err := harness.NewCA()
	must(t, err)
	leaf, err := ca.Leaf("127.0.0.1")
	must(t, err)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(caFile, ca.PEM(), 0o600))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				<-hold
				back, err := net.Dial("tcp", m.Addr())
				if err != nil {
					return
				}
				defer back.Close()
				tc := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{leaf}})
				go func() { _, _ = io.Copy(tc, back); nc.Close() }()
				_, _ = io.Copy(back, tc)
			})
		}
	})
	c := client(t, Options{Nodes: []string{ln.Addr().String()}, Timeout: 50 * time.Millisecond, ConnectTimeout: time.Minute, TLS: &TLS{CAFile: caFile}})
	t.Cleanup(func() { c.Close(); ln.Close(); wg.Wait() })
	for range 100 {
		if err := c.Set(t.Context(), "k", []byte("v"), time.Minute); err == nil {
			t.Fatal("stored")
		}
	}
	if s := c.Stats(); s.Timeouts != 1 || s.Skipped != 99 || s.Out != 0 {
		t.Errorf("%+v, want one that waited", s)
	}
	close(hold)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c.Connect(ctx)
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	if got := get(t, c, "k"); got != "v" {
		t.Errorf("found %q", got)
	}
}

func TestThawedClosesWhatSlept(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	clk := newClock()
	c := client(t, Options{Nodes: []string{m.Addr()}, Now: clk.now})
	accepted := func() string {
		stats, err := m.Stats(t.Context())
		must(t, err)
		return stats["total_connections"]
	}
	// Each look at the statistics is a connection too.
	before := accepted()
	steps := []struct {
		name string
		do   func()
		more int // connections of the client's own
	}{
		{"first", func() {}, 1},
		{"again", func() {}, 0},
		{"thawed", c.Thawed, 1},
		{"a short sleep", func() { clk.advance(29 * time.Second) }, 0},
		{"a long sleep", func() { clk.advance(31 * time.Second) }, 1},
		{"the clock set back", func() { clk.advance(-time.Hour) }, 1},
	}
	for _, s := range steps {
		s.do()
		must(t, c.Set(t.Context(), "k", []byte("v"), time.Hour))
		var a, b int
		now := accepted()
		fmt.Sscan(before, &a)
		fmt.Sscan(now, &b)
		if got := b - a - 1; got != s.more {
			t.Errorf("%s: %d new connections, want %d", s.name, got, s.more)
		}
		before = now
	}
	if n := c.Stats().Conns; n != 1 {
		t.Errorf("%d connections are left", n)
	}
}

func TestARestartedNodeCostsNothing(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	c := client(t, Options{Nodes: []string{m.Addr()}})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	must(t, m.Restart(t.Context()))
	must(t, c.Set(t.Context(), "k", []byte("w"), time.Minute)) // on a connection that died
	if got := get(t, c, "k"); got != "w" || c.Stats().Errors != 0 {
		t.Errorf("%q, %+v", got, c.Stats())
	}
}

func TestACallerWhoLeavesBlamesNoNode(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	c := client(t, Options{Nodes: []string{m.Addr()}, Timeout: time.Minute, Window: time.Hour, MaxWindow: time.Hour})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	must(t, m.Freeze(t.Context()))
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.GetMulti(ctx, []string{"k"})
		}()
		cancel()
		<-done
	}
	must(t, m.Thaw())
	if got := get(t, c, "k"); got != "v" || c.Stats().Out != 0 {
		t.Errorf("%q, %+v", got, c.Stats())
	}
}

func TestCloseLeavesNothingRunning(t *testing.T) {
	real(t)
	m, frozen := harness.Memcache(t, harness.MemcachedConfig{}), harness.Memcache(t, harness.MemcachedConfig{})
	before := runtime.NumGoroutine()
	c, err := New(Options{Nodes: []string{m.Addr(), frozen.Addr()}, Timeout: 50 * time.Millisecond, TLS: nil})
	must(t, err)
	for i := range 20 {
		_ = c.Set(t.Context(), fmt.Sprint(i), []byte("v"), time.Minute)
	}
	must(t, frozen.Freeze(t.Context()))
	for i := range 20 {
		c.GetMulti(t.Context(), []string{fmt.Sprint(i)})
	}
	c.Close()
	c.Close()
	must(t, frozen.Thaw())
	if err := c.Set(t.Context(), "k", []byte("v"), time.Minute); !errors.Is(err, ErrClosed) && !errors.Is(err, errOut) {
		t.Error(err)
	}
	if n := c.Stats().Conns; n != 0 {
		t.Errorf("%d connections are left", n)
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
}

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
		c.discover.mu.Lock()
		done := c.discover.running
		c.discover.mu.Unlock()
		if done != nil {
			<-done
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
	if waited != 1 || e.Requests() != 1 {
		t.Errorf("%d calls waited, %d requests", waited, e.Requests())
	}
}

func TestDiscoveryOverTLSKeepsTheNodesNames(t *testing.T) {
	t.Parallel()
	real(t)
	ca, err := harness.NewCA()
	must(t, err)
	m := harness.Memcache(t, harness.MemcachedConfig{CA: ca})
	leaf, err := ca.Leaf("127.0.0.1")
	must(t, err)
	_, port, _ := net.SplitHostPort(m.Addr())
	// The node's name is localhost, and its certificate is checked for that.
	e, err := elasticache.Start(elasticache.Options{TLS: &tls.Config{Certificates: []tls.Certificate{leaf}}}, elasticache.Node{Hostname: "localhost", IP: "127.0.0.1", Port: port})
	must(t, err)
	t.Cleanup(e.Close)
	c := client(t, Options{Nodes: []string{e.Addr()}, Discover: true, TLS: &TLS{CAFile: m.CAFile()}})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	if id := c.top.Load().nodes[0].id; id != "localhost:"+port {
		t.Errorf("the node is known as %s", id)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	must(t, os.WriteFile(empty, []byte("x"), 0o600))
	for want, o := range map[string]Options{
		"no memcached node":  {},
		`"a b:1"`:            {Nodes: []string{"a b:1"}},
		`"a:0"`:              {Nodes: []string{"ok:1", "a:0"}},
		`"http://a"`:         {Nodes: []string{"http://a"}},
		"no such file":       {Nodes: []string{"a"}, TLS: &TLS{CAFile: empty + "x"}},
		"no certificate in ": {Nodes: []string{"a"}, TLS: &TLS{CAFile: empty}},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for in, want := range map[string]string{"a": "a:11211", "a:1": "a:1", "::1": "[::1]:11211", "[::1]": "[::1]:11211", "[::1]:2": "[::1]:2", "10.0.0.1": "10.0.0.1:11211"} {
		if got, err := nodeID(in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

// A freeze, or a node that leaves, while a connection is being made: the call
// that waits for it must not wait in vain.
func TestAConnectionMadeInVainWakesItsCaller(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	for name, disturb := range map[string]func(*Client, *node){
		"thawed": func(c *Client, _ *node) { c.Thawed() },
		"left":   func(_ *Client, n *node) { n.close() },
	} {
		for range 50 {
			c := client(t, Options{Nodes: []string{m.Addr()}, Timeout: time.Minute})
			done := make(chan error)
			go func() { done <- c.Set(t.Context(), "k", []byte("v"), time.Minute) }()
			disturb(c, c.top.Load().nodes[0])
			select {
			case err := <-done:
				if name == "thawed" && err != nil {
					t.Fatal(err)
				}
			case <-time.After(patience):
				t.Fatalf("%s: the call still waits", name)
			}
		}
	}
}
