package vault

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// answerThen answers a connection's first request, and the next one with text.
func answerThen(text string) func(net.Conn) {
	return func(c net.Conn) {
		readHead(c)
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		if readHead(c) != "" {
			_, _ = io.WriteString(c, text)
		}
		_ = c.Close()
	}
}

func early(status string) string {
	return "HTTP/1.1 " + status + "\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"
}

// A balancer ends a connection that was idle for too long with a 408, which looks
// like the answer of the request that is just sent. 425 says that a request was
// not looked at. Either is no answer of the origin's (RFC 9110, section 15.5.9; RFC
// 8470, section 5.2).
func TestAnEarlyTimeoutIsNotTheAnswer(t *testing.T) {
	t.Parallel()
	const done = "HTTP/1.1 204 No Content\r\n\r\n"
	for name, c := range map[string]struct {
		method, body string
		steps        []func(net.Conn)
		first        bool // the request is the first on its connection
		want, conns  int
	}{
		"a read, 408":             {"GET", "", []func(net.Conn){answerThen(early("408 Request Timeout")), say(done)}, false, 204, 2},
		"a list, 408":             {"LIST", "", []func(net.Conn){answerThen(early("408 Request Timeout")), say(done)}, false, 204, 2},
		"a read, 425":             {"GET", "", []func(net.Conn){answerThen(early("425 Too Early")), say(done)}, false, 204, 2},
		"a read, twice":           {"GET", "", []func(net.Conn){answerThen(early("408 Request Timeout")), say(early("408 Request Timeout"))}, false, 408, 2},
		"a read, at once":         {"GET", "", []func(net.Conn){say(early("408 Request Timeout"))}, true, 408, 1},
		"a read, another status":  {"GET", "", []func(net.Conn){answerThen(early("409 Conflict")), say(done)}, false, 409, 1},
		"a write that was read":   {"PUT", "", []func(net.Conn){answerThen(early("408 Request Timeout")), say(done)}, false, 408, 1},
		"a write with a body":     {"POST", "x", []func(net.Conn){answerThen(early("425 Too Early")), say(done)}, false, 425, 1},
		"the origin's own answer": {"GET", "", []func(net.Conn){answerThen("HTTP/1.1 408 X\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n" + `{"errors":["x"`), say(done)}, false, 204, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, c.steps...)
			client := newClient(t, Options{Config: config.Config{Addrs: []string{s.url()}}}) // no retries
			if !c.first {
				do(t, client.Do, request(t, "GET", "/v1/x", ""))
			}
			if status, _ := do(t, client.Do, request(t, c.method, "/v1/x", c.body)); status != c.want {
				t.Errorf("got %d", status)
			}
			if n := len(s.conns); n != c.conns || client.places.Free() != client.o.MaxInFlight {
				t.Errorf("%d connections, %d places taken", n, client.o.MaxInFlight-client.places.Free())
			}
		})
	}
}

// stubConn reads what is sent to it.
type stubConn struct {
	net.Conn
	read chan string
}

func (s *stubConn) Read(p []byte) (int, error)  { return copy(p, <-s.read), nil }
func (s *stubConn) Write(p []byte) (int, error) { return len(p), nil }

// Only what came before a request was written cannot be its answer: a write is sent
// again then, and never else.
func TestWhatCameBeforeTheRequestIsNotItsAnswer(t *testing.T) {
	t.Parallel()
	stub := &stubConn{read: make(chan string, 1)}
	client := newClient(t, Options{Config: config.Config{Addrs: []string{"http://vault.test"}}})
	cn := &conn{Conn: stub, c: client}
	client.pool.add(cn)
	use := func(i int, before bool) bool {
		n := client.pool.take(cn)
		if before {
			stub.read <- "408"
			_, _ = cn.Read(make([]byte, 8))
		}
		_, _ = cn.Write([]byte("PUT"))
		stub.read <- "200"
		_, _ = cn.Read(make([]byte, 8))
		_, _ = cn.Write([]byte("body"))
		was := cn.preceded.Load()
		if i != 3 { // or the transport reports it later than the next use
			client.pool.put(cn, n)
		}
		return was
	}
	for i, before := range []bool{false, true, false, true, true, false} {
		if got := use(i, before); got != (before && i != 4) {
			t.Errorf("use %d: the answer came before the request: %t", i, got)
		}
	}
}

// Go's transport takes a write with an idempotency key for one that it may send
// again by itself. A write never goes out twice by itself.
func TestAWriteWithAnIdempotencyKeyIsSentOnce(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		for method, body := range map[string]string{"POST": "x", "DELETE": "", "PUT": ""} {
			heads := make(chan string, 4)
			next := func(c net.Conn) {
				readHead(c)
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				heads <- readHead(c)
				_ = c.Close()
			}
			s := newScript(t, next, next)
			client := newClient(t, Options{Config: config.Config{Addrs: []string{s.url()}, MaxRetries: 2}})
			do(t, client.Do, request(t, "GET", "/v1/x", ""))
			req, err := http.NewRequestWithContext(t.Context(), method, "/v1/x", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(key, "k")
			_, err = client.Do(req)
			wantKind(t, err, Reset)
			if n := len(s.conns); n != 1 {
				t.Errorf("%s with %s: %d connections", method, key, n)
			}
			if head := <-heads; !strings.Contains(strings.ToLower(head), strings.ToLower(key)+": k\r\n") {
				t.Errorf("%s: the key is not sent: %s", method, head)
			}
		}
	}
}
