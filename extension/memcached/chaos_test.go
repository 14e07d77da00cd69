package memcached

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

// The tier over three nodes that fail in turn, filled beyond their memory: 10,000
// reads, none wrong.
func TestG4TheTierNeverServesAWrongRecord(t *testing.T) {
	real(t)
	ca := harness.CAFor(t)
	var nodes []*harness.Memcached
	var ids []string
	for range 3 {
		m := harness.Memcache(t, harness.MemcachedConfig{CA: ca, MemoryMB: 2})
		nodes, ids = append(nodes, m), append(ids, m.Addr())
	}
	clk := newClock()
	var logs bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logs, nil))
	c := client(t, Options{Nodes: ids, Timeout: 200 * time.Millisecond, Now: clk.now, TLS: &config.MemcachedTLS{CACert: nodes[0].CAFile()}, Log: log})
	// All use one authority, and each its own file of it.
	s := &site{nil, c, clk}
	tier := s.tier(t, nil)
	const n = 300
	keys := make([]cache.Key, n)
	for i := range keys {
		keys[i] = read(fmt.Sprint("secret/data/", i))
	}
	body := func(i int) string { return strings.Repeat(fmt.Sprint(i, " "), 8000) } // more than the nodes hold
	hits := 0
	for i := range 2000 {
		switch i {
		case 300:
			must(t, nodes[0].Freeze(t.Context()))
		case 600:
			must(t, nodes[0].Thaw())
		case 700:
			nodes[1].Kill()
		case 1000:
			must(t, nodes[1].Restart(t.Context()))
		case 1200:
			tier.o.Client.Thawed()
		}
		at := rand.IntN(n - 5)
		got := tier.Entries(t.Context(), keys[at:at+5])
		hits += len(got)
		var missing []cache.Record
		for j, k := range keys[at : at+5] {
			r, ok := got[k]
			switch {
			case !ok && i%3 == 0:
				missing = append(missing, s.record(k, body(at+j), 0))
			case ok && string(r.Body) != body(at+j):
				t.Fatalf("read %d: %s is %.20q", i, k.Path, r.Body)
			}
		}
		tier.Put(t.Context(), missing)
		clk.advance(20 * time.Millisecond)
	}
	st := c.Stats()
	t.Logf("%d hits of 10000, %+v", hits, st)
	if hits < 1000 || st.Timeouts == 0 || st.Timeouts-st.Late > 20 {
		t.Errorf("%d hits, %d timeouts\n%s", hits, st.Timeouts, logs.String())
	}
	if strings.Contains(logs.String(), "do not open") {
		t.Error(logs.String())
	}
}

// Reads go on while a node is killed, frozen, flushed and back again. None
// fails, and a hanging node costs one timeout for each window.
//
// It runs alone: on a busy machine this process is late itself.
func TestG4ReadsThroughKilledAndFrozenNodes(t *testing.T) {
	real(t)
	var nodes []*harness.Memcached
	var ids []string
	for range 3 {
		m := harness.Memcache(t, harness.MemcachedConfig{})
		nodes, ids = append(nodes, m), append(ids, m.Addr())
	}
	clk := newClock()
	const timeout, window, reads, tick = 250 * time.Millisecond, time.Second, 10_000, 10 * time.Millisecond
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
	check := func(m map[string]memcache.Item) {
		for k, it := range m {
			if want := "value" + strings.TrimPrefix(k, "key"); string(it.Value) != want {
				t.Fatalf("%s is %q", k, it.Value)
			}
		}
	}
	down := map[string]bool{}
	freeze := func(n int) { must(t, nodes[n].Freeze(t.Context())); down[ids[n]] = true }
	thaw := func(n int) { must(t, nodes[n].Thaw()); down[ids[n]] = false }
	kill := func(n int) { nodes[n].Kill(); down[ids[n]] = true }
	restart := func(n int) { must(t, nodes[n].Restart(t.Context())); down[ids[n]] = false }
	events := map[int]func(){
		1000: func() { freeze(0) },
		3000: func() { thaw(0) },
		4000: func() { kill(1) },
		6000: func() { restart(1); fill() },
		7000: func() { must(t, nodes[2].Flush(t.Context())); fill() },
		8000: func() { freeze(0); kill(1) },
		9000: func() { thaw(0); restart(1) },
	}
	out, busy, told := 0, uint64(0), 0 // nodes said to be out, those of them that run but had no processor
	count := func() {
		for _, line := range strings.Split(logs.String()[told:], "\n") {
			if _, rest, ok := strings.Cut(line, "memcached node is out"); ok {
				_, rest, _ = strings.Cut(rest, " node=")
				out++
				if node, _, _ := strings.Cut(rest, " "); !down[node] {
					busy++
				}
			}
		}
		told = logs.Len()
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
		count()
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
	if waits := s.Timeouts - s.Late; waits == 0 || waits > most+4*busy {
		t.Errorf("%d timeouts, want at most one for each of %d windows", waits, most+4*busy)
	}
	if hits < asked/2 {
		t.Errorf("%d of %d keys found: the nodes that ran were not used", hits, asked)
	}
	if out < 4 || uint64(out) > 4+busy && s.Late == 0 {
		t.Errorf("%d nodes said to be out, want 4 and %d that were busy\n%s", out, busy, logs.String())
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
	if s := c.Stats(); s.Timeouts == 0 || s.Timeouts-s.Late > 16 || s.Conns > conns {
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
	ca := harness.CAFor(t)
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
		tls    *config.MemcachedTLS
	}{
		"silent":               {drain, nil},
		"closes":               {func(net.Conn) {}, nil},
		"a web server":         {say("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), nil},
		"Redis":                {say("-ERR unknown command 'gets'\r\n"), nil},
		"binary noise":         {say("\x81\x00\x00\x00\x00\n\xff"), nil},
		"a 4 GiB item":         {say("VALUE k 0 4294967290 1\r\n"), nil},
		"TLS, spoken to plain": {tlsServer, nil},
		"plain, TLS expected":  {say("ERROR\r\n"), &config.MemcachedTLS{CACert: caFile}},
		"silent, TLS expected": {drain, &config.MemcachedTLS{CACert: caFile}},
		"another authority":    {tlsServer, &config.MemcachedTLS{CACert: otherFile}},
		"another name":         {tlsServer, &config.MemcachedTLS{CACert: caFile, ServerName: "cache.example"}},
		"system roots only":    {tlsServer, &config.MemcachedTLS{}},
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
			// One, but where a busy machine has a call and its connection end at the same moment.
			if s := c.Stats(); s.Timeouts-s.Late > 3 || s.Hits != 0 {
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
	ca := harness.CAFor(t)
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
	c := client(t, Options{Nodes: []string{ln.Addr().String()}, Timeout: 500 * time.Millisecond, ConnectTimeout: time.Minute, TLS: &config.MemcachedTLS{CACert: caFile}})
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
