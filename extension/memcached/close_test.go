package memcached

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestG6CloseEndsCallsThatHang: a shutdown waits for no memcached that is
// silent, however patient its calls are.
func TestG6CloseEndsCallsThatHang(t *testing.T) {
	t.Parallel()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	c := client(t, Options{Nodes: []string{m.Addr()}, Timeout: time.Hour})
	must(t, c.Set(t.Context(), "k", []byte("v"), time.Minute))
	must(t, m.Freeze(t.Context()))
	over := make(chan error, 2)
	go func() {
		_, err := c.GetMulti(context.Background(), []string{"k"})
		over <- err
	}()
	go func() { over <- c.Set(context.Background(), "k", []byte("w"), time.Minute) }()
	for len(c.top.Load().nodes[0].idle) > 0 { // until the connection there is is in use
		must(t, t.Context().Err())
	}
	c.Close()
	for range 2 {
		if err := <-over; err == nil {
			t.Error("a call of a frozen node succeeded")
		} else if errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	must(t, m.Thaw())
}
