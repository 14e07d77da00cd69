package vault

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
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
	c := newClient(t, Options{Addrs: []string{addr}, Now: cl.Now, IdleConn: 30 * time.Second, Dial: counting(&dials)})
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
	c := newClient(t, Options{Addrs: []string{addr}, Now: cl.Now})
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
	var p pool
	now := time.Now()
	cn := &conn{pool: &p}
	_, first := p.take(cn, now)
	_, second := p.take(cn, now) // the transport gave it away before it reported the end of the first use
	p.put(cn, first, now)
	if len(p.idle) != 0 {
		t.Error("a busy connection counts as idle")
	}
	p.put(cn, second, now)
	if len(p.idle) != 1 {
		t.Error("an idle connection does not count")
	}
	p.forget(cn)
	p.put(cn, second, now)
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
	c := newClient(t, Options{Addrs: []string{addr}, Now: cl.Now, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
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
