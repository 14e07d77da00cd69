package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// TestBodiesStream: each half is sent when the other end has seen the one
// before, so nothing of a long body is held back until the end.
func TestBodiesStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := make(chan string)
	w.fault(func(rw http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(rw)
		if err := control.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		io.CopyN(io.Discard, r.Body, shortBody)
		piece := make([]byte, 5)
		for range 2 {
			if _, err := io.ReadFull(r.Body, piece); err != nil {
				t.Error(err)
				return
			}
			got <- string(piece)
		}
		io.Copy(io.Discard, r.Body) // its end; net/http breaks down if a full-duplex handler leaves it
		for _, p := range []string{"three", "four!"} {
			io.WriteString(rw, p)
			control.Flush()
			got <- p
		}
	})
	conn, r := w.dial("POST /v1/sys/storage/raft/snapshot-force HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
		fmt.Sprintf("%x\r\n%s\r\n5\r\none!!\r\n", shortBody, strings.Repeat("x", shortBody)))
	if p := <-got; p != "one!!" {
		t.Fatalf("got %q", p)
	}
	if _, err := io.WriteString(conn, "5\r\ntwo!!\r\n0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if p := <-got; p != "two!!" {
		t.Fatalf("got %q", p)
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	piece := make([]byte, 5)
	for _, want := range []string{"three", "four!"} {
		if _, err := io.ReadFull(res.Body, piece); err != nil || string(piece) != want {
			t.Fatalf("got %q, %v, want %q before the origin goes on", piece, err, want)
		}
		if p := <-got; p != want {
			t.Fatalf("the origin sent %q", p)
		}
	}
}

func TestG7ABodyOverTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) { o.MaxBody = 100 << 10 })
	var arrived atomic.Int64 // of a whole body; one that is cut off may end at any time
	w.fault(func(_ http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err == nil {
			arrived.Store(n)
		}
	})
	_, r := w.dial(fmt.Sprintf("POST /v1/sys/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", 100<<10+1, strings.Repeat("x", 100<<10+1)))
	w.refused(w.response(r, "POST"), http.StatusRequestEntityTooLarge, "more than 102400 bytes (THAW_MAX_BODY)")
	if n := w.asked(); n != 0 {
		t.Error("a body that says it is too long was sent on")
	}
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 100<<10+1, strings.Repeat("x", 100<<10+1))
	_, r = w.dial("POST /v1/sys/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
	w.refused(w.response(r, "POST"), http.StatusRequestEntityTooLarge, "THAW_MAX_BODY")
	if a := w.do("POST", "/v1/sys/x", strings.Repeat("x", 100<<10)); a.StatusCode != 200 || arrived.Load() != 100<<10 {
		t.Errorf("a body of just the limit: %d, %d bytes arrived", a.StatusCode, arrived.Load())
	}
}

// TestG7ABodyThatNeverComesHoldsNothing: not where the request is passed on,
// and not where it is answered without its body.
func TestG7ABodyThatNeverComesHoldsNothing(t *testing.T) {
	t.Parallel()
	for path, status := range map[string]int{
		app: 400, "/proxy/v1/cache-clear": 400, "/proxy/v1/metrics": 405, "/ui": 404, "/v1/a/../b": 400, "/v1/secret/data/long": 413,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *options, _ *cache.Options) { o.BodyTimeout = 300 * time.Millisecond })
			if status == 413 {
				w.Server.o.MaxBody = 10
			}
			_, r := w.dial("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{")
			a := w.response(r, "POST")
			w.refused(a, status, "")
			if !a.Close {
				t.Error("the connection is kept although its body is on its way")
			}
		})
	}
}

// TestASlowOriginIsWaitedForBeyondTheBodysTimeout: BodyTimeout is about the
// caller.
func TestASlowOriginIsWaitedForBeyondTheBodysTimeout(t *testing.T) {
	t.Parallel()
	for _, chunked := range []bool{false, true} {
		for _, size := range []int{0, 10, shortBody + 1} {
			t.Run(fmt.Sprintf("%d bytes, chunked %v", size, chunked), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(o *options, _ *cache.Options) { o.BodyTimeout = 200 * time.Millisecond })
				w.fault(func(rw http.ResponseWriter, r *http.Request) {
					if n, err := io.Copy(io.Discard, r.Body); n != int64(size) || err != nil {
						t.Errorf("%d bytes, %v", n, err)
					}
					select {
					case <-time.After(500 * time.Millisecond):
						rw.WriteHeader(http.StatusNoContent)
					case <-r.Context().Done():
						t.Error("given up")
					}
				})
				var body io.Reader = strings.NewReader(strings.Repeat("x", size))
				if chunked {
					body = struct{ io.Reader }{body}
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.addr+app, body)
				if err != nil {
					t.Fatal(err)
				}
				res, err := w.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != http.StatusNoContent {
					t.Errorf("answered %d", res.StatusCode)
				}
			})
		}
	}
}

func TestAShortBodyCanBeSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for body, want := range map[string]bool{"short": true, strings.Repeat("x", shortBody): true, strings.Repeat("x", shortBody+1): false} {
		again := false
		w.Server.o.Sender = senderFunc(func(req *http.Request, id *cache.Identity, retry bool) (*http.Response, error) {
			if req.GetBody != nil {
				second, err := req.GetBody()
				if err != nil {
					t.Error(err)
				}
				text, err := io.ReadAll(second)
				again = err == nil && string(text) == body
			}
			return w.sender.Send(req, id, retry)
		})
		w.do("POST", "/v1/sys/x", body)
		if again != want {
			t.Errorf("%d bytes: can be sent again: %v", len(body), again)
		}
	}
}

type senderFunc func(*http.Request, *cache.Identity, bool) (*http.Response, error)

func (f senderFunc) Send(r *http.Request, id *cache.Identity, retry bool) (*http.Response, error) {
	return f(r, id, retry)
}

func TestTrailersPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fault(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Trailer", "X-Sum")
		io.WriteString(rw, "body")
		rw.Header().Set("X-Sum", "1")
	})
	a := w.get("/v1/sys/storage/raft/snapshot")
	if a.body != "body" || a.Trailer.Get("X-Sum") != "1" {
		t.Errorf("%q, trailer %v", a.body, a.Trailer)
	}
}

func TestAnUpgradePasses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) {
		o.Waiting.Invoke(o.Now(), o.Now().Add(time.Millisecond)) // no bound on a stream of events
	})
	w.fault(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("X-Vault-Token") != ownToken {
			t.Errorf("arrived with %v", r.Header)
		}
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, err := buf.ReadString('\n')
		if err == nil {
			_, err = io.WriteString(conn, "you said "+line)
		}
		if err != nil {
			t.Error(err)
		}
	})
	conn, r := w.dial("GET /v1/sys/events/subscribe/kv* HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	io.WriteString(conn, "hello\n")
	if line, err := r.ReadString('\n'); line != "you said hello\n" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
}

// An h2c upgrade would be a tunnel past everything here.
func TestG3NoOtherUpgradePasses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fault(func(rw http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Upgrade", "Connection", "Http2-Settings"} {
			if v := r.Header.Values(name); len(v) > 0 {
				t.Errorf("%s: %q arrived", name, v)
			}
		}
		rw.WriteHeader(http.StatusNoContent)
	})
	for _, head := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
		"Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
	} {
		_, r := w.dial("GET /v1/sys/x HTTP/1.1\r\nHost: localhost\r\n" + head + "\r\n")
		if res := w.response(r, "GET"); res.StatusCode != http.StatusNoContent {
			t.Errorf("%q: %d", head, res.StatusCode)
		}
	}
}
