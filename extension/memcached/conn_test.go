package memcached

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// scripted is a connection whose other side answers with fixed bytes, a few at
// a time.
type scripted struct {
	net.Conn
	answer string
	chunk  int
	max    time.Time // the latest deadline that was set
}

func (s *scripted) Read(p []byte) (int, error) {
	if s.answer == "" {
		return 0, io.EOF
	}
	n := min(len(p), s.chunk, len(s.answer))
	copy(p, s.answer[:n])
	s.answer = s.answer[n:]
	return n, nil
}
func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s *scripted) Close() error                { return nil }
func (s *scripted) SetDeadline(t time.Time) error {
	if t.After(s.max) {
		s.max = t
	}
	return nil
}

func exchange(t *testing.T, answer string, chunk, items int, f func(*memcache.Client) error) (*conn, error) {
	t.Helper()
	l := newConn(&scripted{answer: answer, chunk: chunk}, time.Now(), 0)
	return l, l.run(t.Context(), items, f)
}

func TestAnswersAreTakenOnlyAsTheyWereAskedFor(t *testing.T) {
	t.Parallel()
	value := func(key string, n int) string {
		return fmt.Sprintf("VALUE %s 0 %d 7\r\n%s\r\n", key, n, strings.Repeat("v", n))
	}
	for _, c := range []struct {
		name, answer string
		items, found int
		keep         bool // the connection is used again
		strange      bool // errAnswer
	}{
		{"nothing found", "END\r\n", 2, 0, true, false},
		{"one found", value("a", 5) + "END\r\n", 2, 1, true, false},
		{"both found", value("a", 5) + value("b", 0) + "END\r\n", 2, 2, true, false},
		{"the largest", value("a", maxReceived) + "END\r\n", 1, 1, true, false},
		{"a value that looks like an answer", "VALUE a 0 5 7\r\nEND\r\n\r\nEND\r\n", 1, 1, true, false},
		{"larger than an item can be", value("a", maxReceived+1) + "END\r\n", 1, 0, false, true},
		{"a length of 4 GiB", "VALUE a 0 4294967295 7\r\n", 1, 0, false, true},
		{"a length that overflows", "VALUE a 0 99999999999999999999 7\r\n", 1, 0, false, true},
		{"a negative length", "VALUE a 0 -1 7\r\n", 1, 0, false, true},
		{"more items than keys", value("a", 1) + value("b", 1) + value("c", 1) + "END\r\n", 2, 2, false, true},
		{"the same item for ever", strings.Repeat(value("a", 1), 1000), 2, 1, false, true},
		{"bytes after the end", "END\r\nEND\r\n", 1, 0, false, true},
		{"an endless line", strings.Repeat("x", 5000), 1, 0, false, true},
		{"a cut value", "VALUE a 0 5 7\r\nab", 1, 0, false, false},
		{"a cut line", "VALUE a 0", 1, 0, false, false},
		{"a web server", "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 1, 0, false, false},
		{"an error", "SERVER_ERROR out of memory\r\n", 1, 0, false, false},
		{"no length", "VALUE a\r\nEND\r\n", 1, 0, false, true},
		{"nothing at all", "", 1, 0, false, false},
	} {
		for _, chunk := range []int{1, 7, 1 << 21} {
			if chunk == 1 && (len(c.answer) > 1<<16 || c.name == "bytes after the end") {
				continue // bytes that come later are the next exchange's: they answer nothing that it asks
			}
			found := 0
			l, err := exchange(t, c.answer, chunk, c.items, func(mc *memcache.Client) error {
				m, err := mc.GetMulti([]string{"a", "b"})
				found = len(m)
				return err
			})
			if kept := !l.closed; kept != c.keep || (err == nil) != c.keep {
				t.Errorf("%s, %d bytes at a time: kept %v, %v", c.name, chunk, kept, err)
			}
			// What comes with the bad bytes may be lost with them.
			if found > c.found || chunk == 1 && found != c.found && c.name != "a cut value" {
				t.Errorf("%s, %d bytes at a time: %d items, want %d", c.name, chunk, found, c.found)
			}
			if c.strange && chunk == 1 && !errors.Is(err, errAnswer) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
}

func TestAnAnswerIsBoundedInAll(t *testing.T) {
	t.Parallel()
	one := "VALUE a 0 1048576 7\r\n" + strings.Repeat("v", 1<<20) + "\r\n"
	l, err := exchange(t, strings.Repeat(one, 17)+"END\r\n", 1<<16, 100, func(mc *memcache.Client) error {
		_, err := mc.GetMulti([]string{"a"})
		return err
	})
	if !errors.Is(err, errAnswer) || !l.closed {
		t.Fatal(err)
	}
}

func TestGomemcacheCannotExtendTheDeadline(t *testing.T) {
	t.Parallel()
	s := &scripted{answer: strings.Repeat("VALUE a 0 1 7\r\nv\r\n", 50) + "END\r\n", chunk: 10}
	deadline := time.Now().Add(20 * time.Millisecond)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	if err := newConn(s, time.Now(), 0).run(ctx, 100, func(mc *memcache.Client) error {
		_, err := mc.GetMulti([]string{"a"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if s.max.After(deadline) {
		t.Fatalf("the deadline was moved by %v", s.max.Sub(deadline))
	}
}

func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		"END\r\n", "VALUE a 0 1 7\r\nv\r\nEND\r\n", "STORED\r\n", "VALUE a 0 99 7\r\nEND\r\n", "VALUE  \r\n", "\n\n\n", "VALUE a 0 0 0\r\n\r\nVALUE b 0 0 0\r\n\r\nEND\r\n",
		"HTTP/1.1 200 OK\r\n\r\n", "EXISTS\r\n", "VALUE b 1 2\r\nxx\r\nEND\r\n",
	} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, answer string, chunk int) {
		chunk = max(1, chunk&0xff)
		ends := []func(*memcache.Client) error{
			func(mc *memcache.Client) error {
				m, err := mc.GetMulti([]string{"a", "b"})
				for _, it := range m {
					if len(it.Value) > len(answer) {
						t.Fatal("a value longer than the answer")
					}
				}
				return err
			},
			func(mc *memcache.Client) error { return mc.Set(&memcache.Item{Key: "a"}) },
			func(mc *memcache.Client) error { return mc.CompareAndSwap(&memcache.Item{Key: "a"}) },
			func(mc *memcache.Client) error { return mc.Delete("a") },
		}
		for _, end := range ends {
			l, err := exchange(t, answer, chunk, 2, end)
			if !l.closed {
				if err != nil && !answered(err) {
					t.Fatalf("a connection is used again after %v", err)
				}
				if rest := l.Conn.(*scripted).answer; l.block > 0 || len(l.line) > 0 || rest == answer {
					t.Fatalf("a connection is used again in the middle of %q", answer)
				}
			}
		}
	})
}
