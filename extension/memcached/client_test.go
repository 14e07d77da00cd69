package memcached

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

// clock is a wall clock that tests move.
type fakeClock struct{ ns atomic.Int64 }

func newClock() *fakeClock {
	c := &fakeClock{}
	c.ns.Store(time.Now().UnixNano())
	return c
}
func (c *fakeClock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *fakeClock) advance(d time.Duration) { c.ns.Add(int64(d)) }

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
	ca := harness.CAFor(t)
	for name, m := range map[string]*harness.Memcached{
		"plain": harness.Memcache(t, harness.MemcachedConfig{}),
		"TLS":   harness.Memcache(t, harness.MemcachedConfig{CA: ca}),
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Nodes: []string{m.Addr()}}
			if m.CAFile() != "" {
				o.TLS = &config.MemcachedTLS{CACert: m.CAFile()}
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
			if ok, err := c.CompareAndSwap(ctx, "k", []byte("3"), time.Minute, items["k"].CasID); !ok || err != nil {
				t.Fatalf("%v %v", ok, err)
			}
			if ok, err := c.CompareAndSwap(ctx, "k", []byte("4"), time.Minute, items["k"].CasID); ok || err != nil {
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
			if ok, err := c.CompareAndSwap(ctx, "k", nil, -1, items["k"].CasID); !ok || err != nil {
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
		if top.nodes[top.ring.pick(k, nil)].id != b.Addr() {
			t.Errorf("%s is on a node that is not its own", k)
		}
	}
	if len(keys) == 0 || len(keys) == 100 {
		t.Errorf("%d keys on the node that lives", len(keys))
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
		{"thawed after a short sleep", func() { clk.advance(29 * time.Second); c.Thawed() }, 0},
		{"thawed after a long sleep", func() { clk.advance(31 * time.Second); c.Thawed() }, 1},
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
	if err := c.Set(t.Context(), "k", []byte("v"), time.Minute); !errors.Is(err, ErrClosed) && !errors.Is(err, errOut) && !errors.Is(err, context.Canceled) {
		t.Errorf("after Close: %v", err)
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

func TestNewSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	must(t, os.WriteFile(empty, []byte("x"), 0o600))
	for want, o := range map[string]Options{
		"no memcached node":  {},
		`"a b:1"`:            {Nodes: []string{"a b:1"}},
		`"a:0"`:              {Nodes: []string{"ok:1", "a:0"}},
		`"http://a"`:         {Nodes: []string{"http://a"}},
		"no such file":       {Nodes: []string{"a"}, TLS: &config.MemcachedTLS{CACert: empty + "x"}},
		"no certificate in ": {Nodes: []string{"a"}, TLS: &config.MemcachedTLS{CACert: empty}},
		"client certificate": {Nodes: []string{"a"}, TLS: &config.MemcachedTLS{ClientCert: empty, ClientKey: empty}},
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

func TestACallTakesInNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{MemoryMB: 512})
	c := client(t, Options{Nodes: []string{m.Addr()}})
	var keys []string
	for i := range 300 {
		keys = append(keys, fmt.Sprint("k", i))
		must(t, c.Set(t.Context(), keys[i], make([]byte, 150_000), time.Minute))
	}
	got, err := c.GetMulti(t.Context(), keys) // 15 MB in each group of 100
	if !errors.Is(err, errTooMuch) || len(got) != 200 {
		t.Errorf("%d values, %v", len(got), err)
	}
	if s := c.Stats(); s.Out != 0 {
		t.Errorf("%+v", s)
	}
}

func TestIdleConnectionsAreFew(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	c := client(t, Options{Nodes: []string{m.Addr()}, MaxConns: 16})
	for range 20 {
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() { must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute)) })
		}
		wg.Wait()
	}
	// What was being connected when another connection came free is counted until
	// it is there, and closed then.
	harness.Eventually(t, 20*time.Second, "one connection", func() bool { return c.Stats().Conns == 1 })
}
