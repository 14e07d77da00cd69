package shared

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/e2e"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestTroubleWithMemcachedFailsNoRead: instances read while secrets rotate and
// memcached goes through all that can befall it. Every read is answered, and by
// what was true.
func TestTroubleWithMemcachedFailsNoRead(t *testing.T) {
	t.Parallel()
	const maxAge = 2 * time.Second
	ctx := t.Context()
	for name, c := range map[string]struct {
		nodes   int
		setUp   func(t *testing.T, o *site) harness.Settings
		trouble func(o *site, nodes []*harness.Memcached) error
		mended  func(o *site, nodes []*harness.Memcached) error
	}{
		"killed": {
			trouble: func(_ *site, m []*harness.Memcached) error { m[0].Kill(); return nil },
			mended:  func(_ *site, m []*harness.Memcached) error { return m[0].Restart(ctx) },
		},
		"frozen": {
			trouble: func(_ *site, m []*harness.Memcached) error { return m[0].Freeze(ctx) },
			mended:  func(_ *site, m []*harness.Memcached) error { return m[0].Thaw() },
		},
		"flushed": {
			trouble: func(_ *site, m []*harness.Memcached) error { return m[0].Flush(ctx) },
			mended:  func(_ *site, m []*harness.Memcached) error { return m[0].Flush(ctx) },
		},
		"one of three gone": {
			nodes:   3,
			trouble: func(_ *site, m []*harness.Memcached) error { m[1].Kill(); return nil },
			mended:  func(_ *site, m []*harness.Memcached) error { return m[1].Restart(ctx) },
		},
		"one of three frozen": {
			nodes:   3,
			trouble: func(_ *site, m []*harness.Memcached) error { return m[2].Freeze(ctx) },
			mended:  func(_ *site, m []*harness.Memcached) error { return m[2].Thaw() },
		},
		"evicting": {
			setUp: func(t *testing.T, o *site) harness.Settings {
				o.cache = harness.Memcache(t, harness.MemcachedConfig{MemoryMB: 2})
				return harness.Settings{"THAW_MEMCACHED": o.cache.Addr()}
			},
			trouble: func(_ *site, m []*harness.Memcached) error { return fillUp(ctx, m[0]) },
			mended:  func(_ *site, m []*harness.Memcached) error { return fillUp(ctx, m[0]) },
		},
		"another protocol": {setUp: func(t *testing.T, o *site) harness.Settings {
			return harness.Settings{"THAW_MEMCACHED": strings.TrimPrefix(o.counterOfNobody(t), "http://")}
		}},
		"babble": {setUp: func(t *testing.T, _ *site) harness.Settings { return harness.Settings{"THAW_MEMCACHED": babbler(t)} }},
		"TLS asked of a plain one": {setUp: func(_ *testing.T, o *site) harness.Settings {
			return harness.Settings{"THAW_MEMCACHED": "tls://" + o.cache.Addr()}
		}},
		"nobody there": {setUp: func(_ *testing.T, o *site) harness.Settings { o.cache.Kill(); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			s := o.login(true).With(harness.Settings{"THAW_MAX_AGE": "2s", "THAW_CLOCK_SKEW": "100ms", "THAW_MEMCACHED_TIMEOUT": "50ms"})
			if c.setUp != nil {
				s = s.With(c.setUp(t, o))
			}
			nodes := []*harness.Memcached{o.cache}
			for len(nodes) < c.nodes {
				nodes = append(nodes, harness.Memcache(t, harness.MemcachedConfig{}))
				s["THAW_MEMCACHED"] += "," + nodes[len(nodes)-1].Addr()
			}
			judge := e2e.NewChecker()
			names := []string{"a", "b", "c", "d", "e", "f"}
			rotate := func(name string) {
				begin := time.Now()
				v := o.put(name)
				judge.Wrote(name, v, begin, time.Now())
			}
			for _, n := range names {
				rotate(n)
			}
			fleet := []*instance{serve(t, s), serve(t, s), serve(t, s)}
			var reads atomic.Int64
			var took latencies
			stop := make(chan struct{})
			var work sync.WaitGroup
			for _, i := range fleet {
				work.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						name := names[n%len(names)]
						a := i.get(ctx, name)
						reads.Add(1)
						took.add(a.ended.Sub(a.begun))
						if a.err != nil || a.Status != http.StatusOK || a.stale() {
							t.Errorf("%s: %d %v %.200s %v", name, a.Status, a.Header, a.Body, a.err)
							return
						}
						judge.Read(e2e.Read{
							Resource: name, Answer: a.value(), From: a.begun.Add(-maxAge - time.Second), To: a.ended,
							Note: a.Header.Get("Cache-Status"),
						})
						harness.Pause(ctx, time.Millisecond)
					}
				})
			}
			work.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						rotate(names[n%len(names)])
						harness.Pause(ctx, 50*time.Millisecond)
					}
				}
			})
			least := int64(sized(1000, 10000))
			upTo := func(n int64) {
				harness.Eventually(t, 2*time.Minute, "so many reads", func() bool { return reads.Load() >= n || t.Failed() })
			}
			upTo(least / 3)
			t.Logf("before: %s", took.cut())
			began := time.Now()
			if c.trouble != nil {
				harness.Must(t, c.trouble(o, nodes))
			}
			harness.Pause(ctx, 2*maxAge) // what was verified before is too old now
			upTo(2 * least / 3)
			t.Logf("in trouble: %s", took.cut())
			if c.mended != nil {
				harness.Must(t, c.mended(o, nodes))
			}
			fresh := cold(t, s)
			fresh.invoke(func(ctx context.Context) {
				for _, name := range names {
					if a := fresh.get(ctx, name); a.err != nil || a.Status != http.StatusOK {
						t.Errorf("%s: %d %.200s %v", name, a.Status, a.Body, a.err)
					}
				}
			})
			upTo(least)
			close(stop)
			work.Wait()
			t.Logf("afterwards: %s", took.cut())
			// What runs out of time are the calls that were on their way when the
			// node stopped, on four connections each, and one for each window of the
			// breaker, the shortest of which is a second.
			nodesHere := float64(len(nodes))
			most := nodesHere * (4 + 1 + time.Since(began).Seconds())
			for k, i := range fleet {
				if n := i.metric("thaw_memcached_timeouts_total"); n > most {
					t.Errorf("instance %d: %.0f calls of memcached ran out of time, want at most %.0f", k, n, most)
				}
			}
			j := judge.Judge()
			t.Logf("%s", j)
			for _, v := range j.Failures() {
				t.Error(v)
			}
		})
	}
}

// fillUp stores far more than a small memcached has room for.
func fillUp(ctx context.Context, m *harness.Memcached) error {
	for n := range 1500 {
		size := 200 + n%60*100 // of every class that entries, stamps and grants are in
		if _, err := m.Ask(ctx, fmt.Sprintf("set junk-%d 0 0 %d\r\n%s", n, size, strings.Repeat("x", size)), "STORED"); err != nil {
			return err
		}
	}
	stats, err := m.Stats(ctx)
	if err == nil && stats["evictions"] == "0" {
		err = io.ErrShortWrite
	}
	return err
}

// counterOfNobody is an HTTP server.
func (o *site) counterOfNobody(t testing.TB) string {
	return harness.Count(t, harness.CounterConfig{Origin: o.vault.Addr()}).Addr()
}

// babbler answers everything with lines that look a little like memcached's.
func babbler(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				b := make([]byte, 4096)
				for {
					_ = c.SetDeadline(time.Now().Add(2 * time.Second))
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := io.WriteString(c, "VALUE x 0 5 1\r\nhello\r\nVALUE y 4294967299 99999999\r\nSTORED\r\nEND\r\n"); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}
