//go:build !race

package lambda

import "testing"

// Every read through the proxy looks, so a look must be cheap. Not under the race
// detector, where a sync.Pool drops things at random; not parallel, as
// AllocsPerRun counts the whole process.
func TestPendingAllocatesNothing(t *testing.T) {
	c := silent(t)
	if n := testing.AllocsPerRun(1000, func() { c.Pending() }); n > 0 {
		t.Errorf("%v allocations for a look", n)
	}
}
