package lambda

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
)

// stub is the other end of Next's connection, with nothing between the test's
// write and the socket: no server, no buffer.
type stub struct {
	t    *testing.T
	l    net.Listener
	conn net.Conn
	in   *bufio.Reader
}

func newStub(t *testing.T) *stub {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &stub{t: t, l: l}
}

// next waits for a Next; the connection stays the same.
func (s *stub) next() {
	s.t.Helper()
	if s.conn == nil {
		conn, err := s.l.Accept()
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = conn.Close() })
		s.conn, s.in = conn, bufio.NewReader(conn)
	}
	req, err := http.ReadRequest(s.in)
	if err != nil {
		s.t.Fatal(err)
	}
	if req.URL.Path != "/2020-01-01/extension/event/next" || req.Header.Get(headerID) != "id" || len(req.TransferEncoding) != 0 {
		s.t.Fatalf("Next is %s %v", req.URL, req.Header)
	}
}

func (s *stub) write(text string) {
	s.t.Helper()
	if _, err := s.conn.Write([]byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func answerOf(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func invokeOf(n int64) string {
	return answerOf(fmt.Sprintf(`{"eventType":"INVOKE","requestId":"%d","deadlineMs":1}`, n))
}

const shutdownAnswer = `{"eventType":"SHUTDOWN","shutdownReason":"spindown"}`

// counter is the Handler: which invocation the process believes to be in.
type counter struct {
	epoch atomic.Int64
	hold  chan struct{} // not nil: Invoke says on it that it has begun, and waits for leave to end
}

func (c *counter) Invoke(Event) {
	if c.hold != nil {
		c.hold <- struct{}{} // it has begun
		<-c.hold             // and may end
	}
	c.epoch.Add(1)
}

func (c *counter) Shutdown(context.Context, string) {}

func startLoop(t *testing.T, s *stub, h Handler) (*Client, chan error) {
	t.Helper()
	c := New(Options{API: s.l.Addr().String(), Name: "thaw"})
	c.id.Store("id")
	c.invokes.Store(true)
	done := make(chan error, 1)
	go func() { done <- c.Run(t.Context(), h) }()
	s.next()
	return c, done
}

// The race of the package comment, 2,000 times: the API writes INVOKE, and at
// once the function's read comes. It must find the event pending or handled, and
// after Settled it must be in the new epoch.
func TestG1ReadAfterInvokeNeverSeesTheOldEpoch(t *testing.T) {
	t.Parallel()
	s, h := newStub(t), &counter{}
	c, done := startLoop(t, s, h)
	pending := 0
	for n := int64(1); n <= 2000; n++ {
		if n%3 == 0 {
			runtime.Gosched() // let the loop come to rest, or not
		}
		s.write(invokeOf(n))
		seen := c.Pending()
		if seen {
			pending++
		} else if h.epoch.Load() != n {
			t.Fatalf("invocation %d: nothing pending in epoch %d", n, h.epoch.Load())
		}
		c.Settled(t.Context())
		if e := h.epoch.Load(); e != n {
			t.Fatalf("invocation %d: settled in epoch %d", n, e)
		}
		s.next()
	}
	t.Logf("pending at the read in %d of 2000", pending)
	s.write(answerOf(shutdownAnswer))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Many readers wait at once, and the event comes in pieces.
func TestSettledHoldsEveryReaderUntilTheHandlerIsDone(t *testing.T) {
	t.Parallel()
	s, h := newStub(t), &counter{hold: make(chan struct{})}
	c, done := startLoop(t, s, h)
	text := invokeOf(1)
	for i := range len(text) {
		if c.Pending() != (i > 0) {
			t.Fatalf("pending is %v after %d bytes", i == 0, i)
		}
		s.write(text[i : i+1])
	}
	<-h.hold
	settled := make(chan int64, 20)
	for range cap(settled) {
		go func() {
			c.Settled(t.Context())
			settled <- h.epoch.Load()
		}()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Settled(ctx) // returns although the event is pending
	if !c.Pending() {
		t.Error("not pending while the Handler works")
	}
	h.hold <- struct{}{}
	for range cap(settled) {
		if e := <-settled; e != 1 {
			t.Errorf("a reader got through in epoch %d", e)
		}
	}
	s.next()
	if c.Pending() {
		t.Error("pending with a Next outstanding")
	}
	s.write(answerOf(shutdownAnswer))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// tellTale is a connection that knows what the flag was when it was read.
type tellTale struct {
	net.Conn
	read func()
}

func (c tellTale) Read(p []byte) (int, error) {
	c.read()
	return c.Conn.Read(p)
}

// readyConn is always readable.
type readyConn struct{}

func (readyConn) Control(func(uintptr)) error    { return nil }
func (readyConn) Read(func(uintptr) bool) error  { return nil }
func (readyConn) Write(func(uintptr) bool) error { return nil }

// There is no moment in which the bytes have left the socket and the flag is
// not set.
func TestFlagIsSetBeforeTheBytesAreTaken(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	e := &eventConn{raw: readyConn{}}
	reads := 0
	e.Conn = tellTale{near, func() {
		reads++
		if !e.arrived.Load() {
			t.Error("bytes are taken before the flag is set")
		}
	}}
	go func() { _, _ = far.Write([]byte("x")) }()
	if _, err := e.Read(make([]byte, 1)); err != nil || reads != 1 {
		t.Errorf("read: %v, %d reads", err, reads)
	}
}

// Pending looks at the socket itself: here nobody reads it.
func TestPendingSeesBytesNobodyHasRead(t *testing.T) {
	t.Parallel()
	if !canPeek {
		t.Skip("this system cannot peek")
	}
	s := newStub(t)
	c := New(Options{})
	if c.Pending() {
		t.Error("pending without a connection")
	}
	c.Settled(t.Context())
	conn, err := c.dial(t.Context(), "tcp", s.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if s.conn, err = s.l.Accept(); err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	if c.Pending() {
		t.Error("pending on a silent connection")
	}
	s.write("H")
	for look := range 2 {
		if !c.Pending() {
			t.Errorf("look %d does not see the byte in the socket", look)
		}
	}
	if c.conn.Load().arrived.Load() {
		t.Error("the flag is set though nobody has read")
	}
	_ = conn.Close()
	if c.Pending() {
		t.Error("pending on a closed connection")
	}
	c.hangUp()
	if c.Pending() {
		t.Error("pending after the end")
	}
}

// A connection that is cut ends what was pending on it: nobody waits for ever.
func TestCutConnectionSettles(t *testing.T) {
	t.Parallel()
	s, h := newStub(t), &counter{}
	c, done := startLoop(t, s, h)
	s.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
	if !c.Pending() {
		t.Error("half an event is not pending")
	}
	_ = s.conn.Close()
	s.conn = nil
	c.Settled(t.Context())
	if e := h.epoch.Load(); e != 1 {
		t.Errorf("epoch %d: the lost event may have been an INVOKE", e)
	}
	s.next()
	s.write(answerOf(shutdownAnswer))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// silent is a client with a connection on which nothing comes.
func silent(t testing.TB) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c := New(Options{})
	conn, err := c.dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return c
}

func BenchmarkPending(b *testing.B) {
	c := silent(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Pending()
	}
}
