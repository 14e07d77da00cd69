package memcached

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// halfOpen is a connection that may die without a word, as one does that a NAT forgot.
type halfOpen struct {
	net.Conn
	dead atomic.Bool
}

func (h *halfOpen) Write(p []byte) (int, error) {
	if h.dead.Load() {
		return len(p), nil
	}
	return h.Conn.Write(p)
}

// A connection that was used before and stays silent may have died in a freeze: that
// says nothing of the node, and the next exchange has a new one. A node that hangs is
// out as soon as a new connection is silent, too.
func TestADeadConnectionIsNoDeadNode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		hangs      bool // new connections are silent as well
		wants, out int  // exchanges that fail; nodes that are out then
	}{
		{"one connection", false, 1, 0},
		{"a node that hangs", true, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex // guards what follows
				var conns []*halfOpen
				hangs := false
				dial := func(context.Context, string, string) (net.Conn, error) {
					near, far := net.Pipe()
					go func() { // ends with near
						for r := bufio.NewReader(far); ; {
							if _, err := r.ReadString('\n'); err != nil {
								return
							}
							_, _ = io.WriteString(far, "END\r\n")
						}
					}()
					mu.Lock()
					defer mu.Unlock()
					h := &halfOpen{Conn: near}
					h.dead.Store(hangs)
					conns = append(conns, h)
					return h, nil
				}
				m := client(t, Options{Nodes: []string{"10.0.0.1:11211"}, Timeout: 20 * time.Millisecond, Window: time.Hour, MaxWindow: time.Hour, Dial: dial})
				defer m.Close()
				ask := func() error {
					_, err := m.GetMulti(t.Context(), []string{"k"})
					return err
				}
				if err := ask(); err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				hangs = c.hangs
				for _, h := range conns {
					h.dead.Store(true)
				}
				mu.Unlock()
				failed := 0
				for range 10 {
					if ask() == nil || m.Stats().Out > 0 {
						break
					}
					failed++
				}
				if s := m.Stats(); failed+s.Out != c.wants || s.Out != c.out {
					t.Errorf("%d exchanges failed and %d nodes are out, want %d and %d", failed+s.Out, s.Out, c.wants, c.out)
				}
			})
		})
	}
}
