//go:build !race

package lambda

import (
	"net/http"
	"testing"
	"time"
)

// Every read through the proxy looks, so a look must be cheap. Not under the race
// detector, where a sync.Pool drops things at random; not parallel, as
// AllocsPerRun counts the whole process.
func TestPendingAllocatesNothing(t *testing.T) {
	c := silent(t)
	if n := testing.AllocsPerRun(1000, func() { c.Pending() }); n > 0 {
		t.Errorf("%v allocations for a look", n)
	}
}

func TestAReadInARowAllocatesNothing(t *testing.T) {
	c := silent(t)
	c.invokes.Store(true)
	c.o.Now = func() time.Time { return time.Unix(1e9, 0) }
	h := http.Header{"Accept": {"*/*"}}
	c.Await(t.Context(), h)
	if n := testing.AllocsPerRun(1000, func() { c.Await(t.Context(), h) }); n > 0 {
		t.Errorf("%v allocations for a read in a row", n)
	}
}
