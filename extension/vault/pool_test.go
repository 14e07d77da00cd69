package vault

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wait"
)

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// counting dials and counts, one dial at a time.
func counting(n *int) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		*n++
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}

// keep stores the last connection.
func (d dialFunc) keep(c *net.Conn) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := d(ctx, network, addr)
		*c = nc
		return nc, err
	}
}

func TestConnectionsThatSleptTooLongAreClosed(t *testing.T) {
	t.Parallel()
	cl := newClock()
	addr := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	dials := 0
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, IdleConn: 30 * time.Second}, Now: cl.Now, Dial: counting(&dials)})
	steps := []struct {
		sleep time.Duration
		thaw  bool // Thawed is called, as at an INVOKE
		dials int
	}{
		{0, false, 1},
		{30 * time.Second, false, 1},
		{31 * time.Second, false, 2},
		{time.Second, true, 2},
		{31 * time.Second, true, 3},
		{-500 * time.Millisecond, true, 3},
		{-time.Hour, true, 4}, // a clock that went back tells nothing
	}
	for i, s := range steps {
		cl.advance(s.sleep)
		if s.thaw {
			c.Thawed(cl.Now())
		}
		do(t, c.Do, request(t, "GET", "/v1/x", ""))
		if dials != s.dials {
			t.Errorf("step %d: %d dials, want %d", i, dials, s.dials)
		}
	}
	if n := len(c.pool.idle); n != 1 {
		t.Errorf("%d connections known as idle", n)
	}
	c.Close()
	if n := len(c.pool.idle); n != 0 {
		t.Errorf("%d connections known after Close", n)
	}
}

func TestAConnectionInUseIsNotTakenForASleeper(t *testing.T) {
	t.Parallel()
	cl := newClock()
	more := make(chan struct{})
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/stream" {
			_ = http.NewResponseController(w).Flush()
			<-more
			_, _ = io.WriteString(w, "more")
		}
	}))
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}, Now: cl.Now})
	resp, err := c.Do(request(t, "GET", "/v1/stream", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cl.advance(time.Hour)
	c.Thawed(cl.Now())
	do(t, c.Do, request(t, "POST", "/v1/x", "body"))
	close(more)
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "more" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestALateReportOfIdlenessIsVoid(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{Config: config.Config{Addrs: []string{"http://vault.test"}}})
	p, cn := &c.pool, &conn{c: c}
	p.add(cn)
	first := p.take(cn)
	second := p.take(cn) // the transport gave it away before it reported the end of the first use
	p.put(cn, first)
	if len(p.idle) != 0 {
		t.Error("a busy connection counts as idle")
	}
	p.put(cn, second)
	if len(p.idle) != 1 {
		t.Error("an idle connection does not count")
	}
	p.forget(cn)
	p.put(cn, second)
	if len(p.idle) != 0 {
		t.Error("a closed connection counts as idle")
	}
}

// gone is a connection that fails reads as the kernel does when
// TCP_USER_TIMEOUT is over, from the moment die is set.
type gone struct {
	net.Conn
	die *atomic.Bool
}

func (g *gone) Write(p []byte) (int, error) {
	if g.die.Load() {
		_ = g.SetReadDeadline(time.Unix(1, 0))
		return len(p), nil
	}
	return g.Conn.Write(p)
}

func (g *gone) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
	}
	return n, err
}

func TestWhenAWokenConnectionFailsTheOthersThatSleptAreDropped(t *testing.T) {
	t.Parallel()
	cl := newClock()
	const parallel = 4
	gate := make(chan struct{})
	var inside atomic.Int64
	var quick atomic.Bool
	addr := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if quick.Load() {
			return
		}
		if inside.Add(1) == parallel {
			close(gate)
		}
		<-gate
	}))
	var dials atomic.Int64
	var die atomic.Bool
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}, Now: cl.Now, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil || dials.Add(1) > parallel {
			return nc, err
		}
		return &gone{Conn: nc, die: &die}, nil
	}})
	done := make(chan struct{})
	for range parallel {
		req := request(t, "GET", "/v1/x", "")
		go func() { do(t, c.Do, req); done <- struct{}{} }()
	}
	for range parallel {
		<-done
	}
	cl.advance(5 * time.Second)
	quick.Store(true)
	die.Store(true)
	for _, method := range []string{"LIST", "GET"} {
		if status, _ := do(t, c.Do, request(t, method, "/v1/x", "")); status != 200 {
			t.Errorf("%s: got %d", method, status)
		}
	}
	// One dead connection was tried, one fresh one made, and both requests used it.
	if n, sent := dials.Load(), c.Requests(); n != parallel+1 || sent != parallel+3 {
		t.Errorf("%d dials, %d requests", n, sent)
	}
}

func TestAFreezeBeforeTheEndOfABodyCountsAsSleep(t *testing.T) {
	t.Parallel()
	cl := newClock()
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "short") }))
	dials := 0
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}, Now: cl.Now, Dial: counting(&dials)})
	resp, err := c.Do(request(t, "GET", "/v1/x", ""))
	if err != nil {
		t.Fatal(err)
	}
	cl.advance(10 * time.Second) // the answer is here, nobody reads it
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "short" {
		t.Fatalf("%q, %v", body, err)
	}
	_ = resp.Body.Close()
	if !c.pool.slept(cl.Now(), sleptLong) {
		t.Error("the connection counts as just used")
	}
	do(t, c.Do, request(t, "POST", "/v1/x", "body"))
	if dials != 2 {
		t.Errorf("%d dials", dials)
	}
}

func TestAConnectionThatWasNeverUsedCountsAsIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t, func(w http.ResponseWriter, r *http.Request) { _ = wait.For(r.Context(), 10*time.Millisecond) })
		c := n.client(t, Options{})
		do(t, c.Do, request(t, "GET", "/v1/x", ""))
		// Two requests: the second begins to dial, then takes the first's connection.
		n.mu.Lock()
		n.stall = time.Second
		n.mu.Unlock()
		var wg sync.WaitGroup
		for range 2 {
			req := request(t, "GET", "/v1/x", "")
			wg.Go(func() { do(t, c.Do, req) })
		}
		wg.Wait()
		time.Sleep(2 * time.Second)
		c.pool.mu.Lock()
		idle := len(c.pool.idle)
		c.pool.mu.Unlock()
		if n.dialled() != 2 || idle != 2 {
			t.Errorf("%d dials, %d connections known as idle", n.dialled(), idle)
		}
	})
}
