package attack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// resident is a process's memory in bytes, from /proc.
func resident(t testing.TB, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Skipf("NOT TESTED: needs Linux's /proc: %v", err)
	}
	var size, pages int64
	_, err = fmt.Sscan(string(text), &size, &pages)
	harness.Must(t, err)
	return pages * int64(os.Getpagesize())
}

// descriptors is how many files a process has open; -1 where only root may know.
func descriptors(t testing.TB, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if errors.Is(err, os.ErrPermission) {
		return -1
	}
	harness.Must(t, err)
	return len(entries)
}

// most is the memory that these attacks may take beside what is needed anyway.
const most = 48 << 20

// Ten thousand connections that did one honest request each and then hold on:
// they are kept for their callers while there is room, and give way to whoever
// comes, so that nobody is locked out.
func TestTenThousandConnectionsLockNobodyOut(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "mine")
	p := o.start("VAULT_LOG_LEVEL=INFO")
	if a := p.get(o.data("a")); a.value() != "mine" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	before := resident(t, p.pid)
	const all, each = 10_000, 250
	held := make([]net.Conn, all)
	t.Cleanup(func() {
		for _, c := range held {
			if c != nil {
				c.Close()
			}
		}
	})
	dialer := net.Dialer{Timeout: patience}
	for begin := 0; begin < all; begin += each {
		var batch sync.WaitGroup
		for i := begin; i < begin+each; i++ {
			batch.Go(func() {
				c, err := dialer.DialContext(t.Context(), "tcp", p.addr)
				if errors.Is(err, syscall.EMFILE) {
					return
				} else if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				held[i] = c
				c.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(c, "GET "+o.data("a")+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200"))); err != nil {
					t.Errorf("connection %d got no answer: %v", i, err)
				}
			})
		}
		batch.Wait()
		if t.Failed() {
			return
		}
		// Somebody honest in between.
		if a := p.get(o.data("a")); a.value() != "mine" {
			t.Fatalf("after %d connections: %d %s", begin+each, a.status, a.body)
		}
	}
	if n := descriptors(t, p.pid); n > 1200 {
		t.Errorf("%d open files with THAW_MAX_CONNS=1024", n)
	}
	if grown := resident(t, p.pid) - before; grown > most {
		t.Errorf("it takes %d MiB more", grown>>20)
	}
}

// Heads that come a byte at a time, for ever, hold a place for
// THAW_HEADER_TIMEOUT and no longer.
func TestSlowHeadsHoldNoPlace(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "mine")
	p := o.start("THAW_HEADER_TIMEOUT=300ms", "THAW_BODY_TIMEOUT=300ms", "THAW_MAX_CONNS=32")
	p.get(o.data("a"))
	stop := make(chan struct{})
	var slow sync.WaitGroup
	for i := range 64 { // twice as many as there is room for, and each comes back
		opening := []string{"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{", "", "G"}[i%4]
		slow.Go(func() {
			for {
				c, err := net.Dial("tcp", p.addr)
				if err == nil {
					_, err = io.WriteString(c, opening)
				}
				for err == nil {
					select {
					case <-stop:
						c.Close()
						return
					case <-time.After(50 * time.Millisecond):
					}
					c.SetDeadline(time.Now().Add(patience))
					_, err = io.WriteString(c, "x")
				}
				if c != nil {
					c.Close()
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for range 20 {
		if a := p.get(o.data("a")); a.value() != "mine" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	close(stop)
	slow.Wait()
}

// A head or a body without an end is cut off at its limit, and little of it is
// kept.
func TestEndlessRequestsAreCutOff(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "mine")
	p := o.start("THAW_MAX_BODY=1MiB", "THAW_MAX_HEADER=64KiB")
	p.get(o.data("a"))
	before := resident(t, p.pid)
	const tooMuch = 64 << 20 // what no limit lets through
	for name, attack := range map[string]struct{ head, piece string }{
		"a header's value":    {"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX-A: ", "x"},
		"headers":             {"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n", "X-A: b\r\n"},
		"a request line":      {"GET /v1/", "x"},
		"empty lines":         {"", "\r\n"},
		"a chunked body":      {"PUT " + o.data("b") + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "1000\r\n" + strings.Repeat("x", 4096) + "\r\n"},
		"chunk extensions":    {"PUT " + o.data("b") + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "1;" + strings.Repeat("x", 2000) + "\r\nx\r\n"},
		"trailers":            {"PUT " + o.data("b") + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-A: b\r\n"},
		"a body of a read":    {"GET " + o.data("a") + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "1000\r\n" + strings.Repeat("x", 4096) + "\r\n"},
		"a body of no reader": {"POST /proxy/v1/cache-clear HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "1000\r\n" + strings.Repeat(" ", 4096) + "\r\n"},
		"a length beyond":     {"PUT " + o.data("b") + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775807\r\n\r\n", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", p.addr)
			harness.Must(t, err)
			defer c.Close()
			harness.Must(t, c.SetDeadline(time.Now().Add(patience)))
			io.WriteString(c, attack.head)
			piece, sent := []byte(strings.Repeat(attack.piece, 1+4096/len(attack.piece))), 0
			for err == nil && sent < tooMuch {
				var n int
				n, err = c.Write(piece)
				sent += n
			}
			var timeout net.Error
			if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("%d bytes were taken: %v", sent, err)
			}
		})
	}
	t.Cleanup(func() {
		if a := p.get(o.data("a")); a.value() != "mine" {
			t.Errorf("afterwards: %d %s", a.status, a.body)
		}
		if grown := resident(t, p.pid) - before; grown > most {
			t.Errorf("it takes %d MiB more", grown>>20)
		}
	})
}

// An answer of the origin without an end is passed on as it comes and kept by
// nobody, whoever asked for it.
func TestEndlessAnswersAreNotKept(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"request_id":"x","lease_id":"","data":{"data":{"v":"`)
		piece := []byte(strings.Repeat("x", 64<<10))
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}))
	t.Cleanup(origin.Close)
	p := launch(t, "VLE_VAULT_ADDR="+origin.URL, "VAULT_TOKEN=hvs.own", "VAULT_MAX_RETRIES=0", "THAW_KV_MOUNTS=secret=2", "VAULT_CLIENT_TIMEOUT=10m")
	before := resident(t, p.pid)
	for _, path := range []string{"/v1/secret/data/a", "/v1/sys/storage/raft/snapshot", "/v1/sys/internal/ui/mounts/secret", "/v1/auth/token/lookup-self"} {
		c, err := net.Dial("tcp", p.addr)
		harness.Must(t, err)
		harness.Must(t, c.SetDeadline(time.Now().Add(patience)))
		io.WriteString(c, request("GET", path, ""))
		n, err := io.CopyN(io.Discard, c, 96<<20)
		if path == "/v1/secret/data/a" && n < 96<<20 {
			t.Errorf("%s: ended after %d bytes: %v", path, n, err)
		}
		c.Close()
	}
	if grown := resident(t, p.pid) - before; grown > most {
		t.Errorf("it takes %d MiB more", grown>>20)
	}
	if entries := p.metric("thaw_entries"); entries != 0 {
		t.Errorf("%v entries", entries)
	}
}

// Who asks for much and takes nothing is cut off: an answer that nobody takes
// holds neither a place nor memory.
func TestReadersWhoTakeNothingAreCutOff(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("big", strings.Repeat("0123456789abcdef", 1<<15)) // 512 KiB
	p := o.start("THAW_BODY_TIMEOUT=500ms", "THAW_MAX_CONNS=16")
	if a := p.get(o.data("big")); a.status != http.StatusOK {
		t.Fatalf("%d", a.status)
	}
	before := resident(t, p.pid)
	for range 64 {
		c := p.dial()
		harness.Must(t, c.(*net.TCPConn).SetReadBuffer(4096))
		io.WriteString(c, strings.Repeat("GET "+o.data("big")+" HTTP/1.1\r\nHost: localhost\r\n\r\n", 50))
	}
	for range 5 {
		if a := p.get(o.data("big")); a.status != http.StatusOK {
			t.Errorf("%d", a.status)
		}
	}
	if grown := resident(t, p.pid) - before; grown > most {
		t.Errorf("it takes %d MiB more", grown>>20)
	}
}

// Where few files may be open, as in Lambda, connections of callers leave enough
// of them for what thaw itself needs.
func TestConnectionsLeaveFilesForTheOrigin(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "mine")
	said := &lines{}
	proc, err := harness.Start(harness.Command{
		Path: "sh", Args: []string{"-c", `ulimit -n 256; exec "$0" proxy`, suite.binary}, Dir: t.TempDir(), Stdout: said, Stderr: said,
		Env: []string{"PATH=" + harness.FromEnv().Path, "HOME=" + t.TempDir(), "VLE_VAULT_ADDR=" + o.count.Addr(), "VAULT_TOKEN=" + o.token, "THAW_LISTEN=127.0.0.1:0", "VAULT_MAX_RETRIES=0"},
	})
	harness.Must(t, err)
	t.Cleanup(proc.Kill)
	harness.Eventually(t, patience, "thaw serves", func() bool { return said.serving() != "" })
	p := &thaw{t: t, proc: proc, addr: said.serving(), pid: proc.PID()}
	for range 600 {
		c := p.dial()
		io.WriteString(c, "GET "+o.data("a")+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200"))); err != nil {
			t.Fatalf("no answer: %v", err)
		}
	}
	harness.Must(t, o.count.CloseConnections()) // the next reads need connections of their own
	for i := range 20 {
		o.put(fmt.Sprint("b", i), "new")
		if a := p.get(o.data(fmt.Sprint("b", i))); a.value() != "new" {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
}
