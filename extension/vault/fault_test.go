package vault

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

func TestFaultsOfTheOtherEnd(t *testing.T) {
	t.Parallel()
	const leak = "hvs.leaked-by-the-origin"
	then := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			readHead(c)
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		}
	}
	tests := map[string]struct {
		step    func(net.Conn)
		kind    Kind
		retried bool // a GET is
	}{
		"reset before an answer":    {func(c net.Conn) { readHead(c); reset(c) }, Reset, true},
		"closed before an answer":   {then(""), Reset, true},
		"closed within the status":  {then("HTTP/1.1 20"), Protocol, false},
		"closed within the head":    {then("HTTP/1.1 200 OK\r\nX-A: " + leak), Reset, true},
		"garbage":                   {then(leak + " is not HTTP\r\n\r\n"), Protocol, false},
		"a garbled header":          {then("HTTP/1.1 200 OK\r\n" + leak + "\r\n\r\n"), Protocol, false},
		"a garbled length":          {then("HTTP/1.1 200 OK\r\nContent-Length: " + leak + "\r\n\r\n"), Protocol, false},
		"an unknown encoding":       {then("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + leak + "\r\n\r\n"), Protocol, false},
		"HTTP/2 without asking":     {then("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Protocol, false},
		"a head without end":        {endless("X-" + leak + ": x\r\n"), Protocol, false},
		"a line without end":        {endless(leak), Protocol, false},
		"informational without end": {func(c net.Conn) { readHead(c); pour(c, "HTTP/1.1 103 Early Hints\r\n\r\n") }, Protocol, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, tt.step)
			c := newClient(t, Options{Config: config.Config{Addrs: []string{s.url()}, MaxRetries: 2, ClientTimeout: 20 * time.Second}, Sleep: (&pauses{}).sleep})
			for method, body := range map[string]string{"GET": "", "POST": "body"} {
				_, err := c.Do(request(t, method, "/v1/x", body))
				var e *Error
				if !errors.As(err, &e) {
					t.Fatalf("got %v", err)
				}
				// The body is left unread there, so a reset may overtake the answer.
				if e.Kind != tt.kind && (method == "GET" || e.Kind != Reset) {
					t.Errorf("%s: got kind %v (%v), want %v", method, e.Kind, e, tt.kind)
				}
				if strings.Contains(e.Error(), leak) {
					t.Errorf("the error repeats what was sent: %v", e)
				}
			}
			want := 2
			if tt.retried {
				want = 3 + 1
			}
			if got := len(s.conns); got != want {
				t.Errorf("%d connections, want %d", got, want)
			}
			if c.places.Free() != c.o.MaxInFlight {
				t.Error("a slot leaked")
			}
		})
	}
}

// endless answers with a head that does not end.
func endless(piece string) func(net.Conn) {
	return func(c net.Conn) {
		readHead(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		pour(c, piece)
	}
}

func pour(c net.Conn, piece string) {
	piece = strings.Repeat(piece, 100)
	for {
		if _, err := io.WriteString(c, piece); err != nil {
			return
		}
	}
}

func TestFaultsWithinABody(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\n"
	tests := map[string]struct {
		text string
		kind Kind
	}{
		"cut short":          {head + "Content-Length: 100\r\n\r\npart", Reset},
		"a chunk cut short":  {head + "Transfer-Encoding: chunked\r\n\r\n64\r\npart", Reset},
		"chunks without end": {head + "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", Reset},
		"garbled chunks":     {head + "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\nhvs.leak\r\n", Protocol},
	}
	for name, tt := range tests {
		s := newScript(t, func(c net.Conn) {
			readHead(c)
			_, _ = io.WriteString(c, tt.text)
			_ = c.Close()
		})
		c := newClient(t, Options{Config: config.Config{Addrs: []string{s.url()}}})
		resp, err := c.Do(request(t, "GET", "/v1/x", ""))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if e := wantKind(t, err, tt.kind); string(body) != "part" || strings.Contains(e.Error(), "leak") {
			t.Errorf("%s: %q, %v", name, body, e)
		}
		if tt.kind == Reset && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v is not io.ErrUnexpectedEOF", name, err)
		}
		if c.places.Free() != c.o.MaxInFlight {
			t.Errorf("%s: a slot leaked", name)
		}
	}
}

func TestAKeptConnectionThatTheServerClosedIsReplacedUnseen(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "LIST", "SCAN", "HEAD"} {
		// The first connection answers once, then takes a request and closes.
		s := newScript(t,
			func(c net.Conn) {
				readHead(c)
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				readHead(c)
				_ = c.Close()
			},
			say("HTTP/1.1 204 No Content\r\n\r\n"))
		c := newClient(t, Options{Config: config.Config{Addrs: []string{s.url()}}}) // no retries
		for range 2 {
			if status, _ := do(t, c.Do, request(t, method, "/v1/x", "")); status != 204 {
				t.Errorf("%s: got %d", method, status)
			}
		}
	}
}

func TestTimeoutsSayWhatToCheck(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	black := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
	}
	tests := map[string]struct {
		o        Options
		deadline time.Duration
		hint     string
	}{
		"no TLS handshake":             {Options{Config: config.Config{Addrs: []string{"https://10.255.255.1:8200"}, TLS: config.TLS{SkipVerify: true}, ConnTimeout: 20 * time.Millisecond}, Dial: mute}, 0, "security group"},
		"no connection":                {Options{Config: config.Config{Addrs: []string{"http://10.255.255.1:8200"}}, Dial: black}, 0, "security group"},
		"no connection, short budget":  {Options{Config: config.Config{Addrs: []string{"http://10.255.255.1:8200"}}, Dial: hang}, 20 * time.Millisecond, "security group"},
		"no answer in the budget":      {Options{Config: config.Config{Addrs: []string{"http://10.255.255.1:8200"}}, Dial: mute}, 20 * time.Millisecond, "no answer in time"},
		"no answer in the longest one": {Options{Config: config.Config{Addrs: []string{"http://10.255.255.1:8200"}, ClientTimeout: 20 * time.Millisecond}, Dial: mute}, 0, "VAULT_CLIENT_TIMEOUT of 20ms"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, tt.o)
				ctx, cancel := context.WithCancel(t.Context())
				if tt.deadline > 0 {
					ctx, cancel = context.WithTimeout(t.Context(), tt.deadline)
				}
				defer cancel()
				_, err := c.Do(request(t, "GET", "/v1/x", "").WithContext(ctx))
				if e := wantKind(t, err, Timeout); !strings.Contains(e.Error(), tt.hint) || StatusFor(err) != 504 || !Unavailable(err) {
					t.Errorf("got %v, want %q", e, tt.hint)
				}
			})
		})
	}
}

func TestNamesThatDoNotResolve(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{Config: config.Config{Addrs: []string{"https://vault.invalid:8200"}}, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "vault.invalid", IsNotFound: true}}
	}})
	_, err := c.Do(request(t, "GET", "/v1/x", ""))
	if e := wantKind(t, err, Unreachable); !strings.Contains(e.Error(), "DNS") {
		t.Errorf("message: %v", e)
	}
}

func TestAHeadThatDripsIsBoundedByTheClientTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t, func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for _, b := range []byte("HTTP/1.1 200 OK\r\nX-Slow: " + strings.Repeat("x", 1000)) {
				time.Sleep(time.Second)
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
		})
		c := n.client(t, Options{Config: config.Config{ClientTimeout: 10 * time.Second}})
		start := time.Now()
		_, err := c.Do(request(t, "GET", "/v1/x", ""))
		wantKind(t, err, Timeout)
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}
