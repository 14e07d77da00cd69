package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// exchange does one request on a kept connection.
func exchange(conn net.Conn, r *bufio.Reader) (status int, err error) {
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "GET "+app+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

func dialRoom(t *testing.T, w *world) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, bufio.NewReader(conn)
}

func TestG7IdleConnectionsGiveWayToWhoeverComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, co *cache.Options) { o.MaxConns, co.Recheck = 4, time.Hour })
	w.put("app", "one")
	for n := range 40 {
		if status, err := exchange(dialRoom(t, w)); err != nil || status != http.StatusOK {
			t.Fatalf("connection %d: %d, %v", n, status, err)
		}
	}
}

// With room for it, a connection is kept, however long ago it was used.
func TestIdleConnectionsAreKeptWhileThereIsRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, co *cache.Options) { co.Recheck = time.Hour })
	w.put("app", "one")
	conn, r := dialRoom(t, w)
	for range 20 {
		if status, err := exchange(conn, r); err != nil || status != http.StatusOK {
			t.Fatalf("%d, %v", status, err)
		}
		other, or := dialRoom(t, w)
		if status, err := exchange(other, or); err != nil || status != http.StatusOK {
			t.Fatalf("%d, %v", status, err)
		}
		other.Close()
		if _, err := or.ReadByte(); err == nil {
			t.Fatal("read from a closed connection")
		}
	}
}

// A request that is being answered never gives way; who comes waits for it.
func TestARequestUnderWayKeepsItsConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, co *cache.Options) { o.MaxConns = 1 })
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	w.fault(func(rw http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		io.WriteString(rw, strings.Repeat("x", 10))
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	slow, sr := dialRoom(t, w)
	done := make(chan error, 1)
	io.WriteString(slow, "GET /v1/sys/slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
	select {
	case <-arrived:
	case <-ctx.Done():
		t.Fatal("the request did not arrive")
	}
	next, nr := dialRoom(t, w)
	go func() {
		next.SetDeadline(time.Now().Add(20 * time.Second))
		_, err := io.WriteString(next, "GET /proxy/v1/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if err == nil {
			_, err = http.ReadResponse(nr, nil)
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("the second one was answered beside the first: %v", err)
	case <-time.After(50 * time.Millisecond): // if at all, it comes at once
	}
	close(release)
	slow.SetDeadline(time.Now().Add(20 * time.Second))
	res, err := http.ReadResponse(sr, nil)
	if err != nil {
		t.Fatalf("the request under way was cut off: %v", err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != strings.Repeat("x", 10) {
		t.Errorf("%q, %v", body, err)
	}
	if err := <-done; err != nil {
		t.Errorf("the one who waited: %v", err)
	}
}

func TestG7CallersGetNotAllFilesThatMayBeOpen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		most        int
		descriptors uint64
		want        int
	}{{1024, 1024, 768}, {1024, 0, 1024}, {1024, 1 << 20, 1024}, {64, 1024, 64}, {1024, 1<<64 - 1, 1024}, {10, 1, 1}} {
		if got := cap(newRoom(c.most, c.descriptors).places); got != c.want {
			t.Errorf("THAW_MAX_CONNS=%d with %d files: %d", c.most, c.descriptors, got)
		}
	}
	if descriptors() == 1 {
		t.Error("this process may open one file")
	}
}
