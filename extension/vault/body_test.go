package vault

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/tests/standin"
)

func TestAStreamMayLastButNotPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t, func(w http.ResponseWriter, r *http.Request) {
			for range 10 {
				_, _ = io.WriteString(w, "tick")
				_ = http.NewResponseController(w).Flush()
				if wait.For(r.Context(), 9*time.Second) != nil {
					return
				}
			}
			<-r.Context().Done()
		})
		c := n.client(t, Options{Config: config.Config{ClientTimeout: 10 * time.Second}})
		start := time.Now()
		resp, err := c.Do(request(t, "GET", "/v1/sys/monitor", ""))
		if err != nil {
			t.Fatal(err)
		}
		// A caller who is slow to read is not a pause of the origin's.
		time.Sleep(30 * time.Second)
		body, err := io.ReadAll(resp.Body)
		e := wantKind(t, err, Timeout)
		if string(body) != strings.Repeat("tick", 10) || !strings.Contains(e.Error(), "10s") {
			t.Errorf("%q, %v", body, e)
		}
		if took := time.Since(start); took < 90*time.Second {
			t.Errorf("took %v", took)
		}
		if c.places.Free() != c.o.MaxInFlight-1 {
			t.Error("the slot was given back before the body was closed")
		}
		_ = resp.Body.Close()
		_ = resp.Body.Close()
		if c.places.Free() != c.o.MaxInFlight {
			t.Error("a slot leaked")
		}
	})
}

func TestTheCallersContextEndsABody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		c := n.client(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := c.Do(request(t, "GET", "/v1/x", "").WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		time.AfterFunc(time.Second, cancel)
		_, err = io.ReadAll(resp.Body)
		wantKind(t, err, Canceled)
	})
}

// echo switches protocols and sends back every line.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
		http.Error(w, "no upgrade", http.StatusBadRequest)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, line)
	}
}

func upgrade(t *testing.T, ctx context.Context) *http.Request {
	t.Helper()
	req := request(t, "GET", "/v1/sys/events/subscribe/kv*", "").WithContext(ctx)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	return req
}

func TestUpgradesPassThroughAndFreeTheirSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t, echo)
		c := n.client(t, Options{Config: config.Config{ClientTimeout: time.Second, MaxInFlight: 1}})
		for _, endIt := range []func(cancel func(), rwc io.Closer){
			func(_ func(), rwc io.Closer) { _ = rwc.Close() },
			func(cancel func(), _ io.Closer) { cancel() },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := c.Do(upgrade(t, ctx))
			if err != nil {
				t.Fatal(err)
			}
			rwc, ok := resp.Body.(io.ReadWriteCloser)
			if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("got %d with a %T", resp.StatusCode, resp.Body)
			}
			lines := bufio.NewReader(rwc)
			for range 3 {
				time.Sleep(time.Minute) // longer than ClientTimeout: an event stream may be quiet
				if _, err := io.WriteString(rwc, "hello\n"); err != nil {
					t.Fatal(err)
				}
				if line, err := lines.ReadString('\n'); err != nil || line != "hello\n" {
					t.Fatalf("got %q, %v", line, err)
				}
			}
			endIt(cancel, rwc)
			if _, err := lines.ReadString('\n'); err == nil {
				t.Error("it is still open")
			}
			_ = rwc.Close()
			cancel()
			if c.places.Free() != c.o.MaxInFlight {
				t.Error("a slot leaked")
			}
		}
	})
}

func TestUpgradesFollowAWebsocketRedirect(t *testing.T) {
	t.Parallel()
	_, leader, addr := pair(t)
	leader.answers(echo)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}})
	resp, err := c.Do(upgrade(t, t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("got %d", resp.StatusCode)
	}
	c.Close() // ends streams, too
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Log("closed without an error")
	}
	_ = resp.Body.Close()
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		n := newMemNet(t, func(w http.ResponseWriter, r *http.Request) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			_ = wait.For(r.Context(), time.Second)
		})
		c := n.client(t, Options{Config: config.Config{MaxInFlight: 3}})
		var wg sync.WaitGroup
		start := time.Now()
		for range 12 {
			req := request(t, "GET", "/v1/x", "")
			wg.Go(func() { do(t, c.Do, req) })
		}
		wg.Wait()
		if most.Load() != 3 || time.Since(start) != 4*time.Second {
			t.Errorf("%d at a time, took %v", most.Load(), time.Since(start))
		}
	})
}

func TestAWaitForASlotEndsWithTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newNodes(standin.ClusterOptions{}, RoleActive).nodes[0]
		f.answers(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		n := newMemNet(t, f.ServeHTTP)
		c := n.client(t, Options{Config: config.Config{MaxInFlight: 1, ClientTimeout: time.Hour}})
		resp, err := c.Do(request(t, "GET", "/v1/x", ""))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Do(request(t, "GET", "/v1/x", "").WithContext(ctx))
		e := wantKind(t, err, Limited)
		if !strings.Contains(e.Error(), "THAW_MAX_IN_FLIGHT") || StatusFor(err) != 503 {
			t.Errorf("message: %v", e)
		}
		// What verifies does not queue behind what it verifies.
		if l, err := c.Leader(t.Context()); err != nil || !l.IsSelf {
			t.Errorf("Leader: %+v, %v", l, err)
		}
	})
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t, func(http.ResponseWriter, *http.Request) {})
		c := n.client(t, Options{Config: config.Config{RateLimit: 2, RateBurst: 1}})
		start := time.Now()
		for range 5 {
			do(t, c.Do, request(t, "GET", "/v1/x", ""))
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("5 requests at 2 per second took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := c.Do(request(t, "GET", "/v1/x", "").WithContext(ctx))
		wantKind(t, err, Limited)
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("it waited for what could not come: %v", took)
		}
		if !Unavailable(err) || errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNoGoroutineOutlivesTheClient(t *testing.T) {
	t.Parallel()
	// A bubble ends only when every goroutine in it has.
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t, newNodes(standin.ClusterOptions{}, RoleActive).nodes[0].ServeHTTP)
		c := n.client(t, Options{Config: config.Config{MaxRetries: 1, ClientTimeout: time.Second}})
		do(t, c.Do, request(t, "GET", "/v1/x", ""))
		n.freeze(5 * time.Second)
		do(t, c.DoOnce, request(t, "GET", "/v1/x", ""))
		if _, err := c.Leader(t.Context()); err != nil {
			t.Error(err)
		}
		n.mu.Lock()
		n.stall = time.Hour // a dial that nobody waits for any more
		n.mu.Unlock()
		c.dropIdle()
		_, err := c.Do(request(t, "POST", "/v1/x", "body"))
		wantKind(t, err, Timeout)
	})
}
