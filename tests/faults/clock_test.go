package faults

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// clock is an instance's clock. Its wall clock is ahead of the bubble's by an
// offset that steps and freezes change; its monotonic clock is the bubble's,
// which stands still in a freeze, as a paused virtual machine's does.
type clock struct {
	mu  sync.Mutex
	off time.Duration // guarded by mu
}

func (c *clock) offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off
}

func (c *clock) shift(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// reading is how package time lays out a Time that has a monotonic reading
// (the comment on type Time in time/time.go): a bit that says so, 33 bits of
// seconds since 1885 and 30 of nanoseconds in the first word, the monotonic
// reading in the second.
type reading struct {
	wall uint64
	mono int64
	loc  *time.Location
}

// since1885 is the Unix time of that layout's first second, negated.
const since1885 = 2682288000

// now has the shifted wall clock and the bubble's monotonic one. Nothing in
// package time makes such a value (in a bubble time.Now has no monotonic
// reading at all), and only such a value shows whether the product compares the
// right clock.
func (c *clock) now() time.Time {
	t := time.Now()
	shifted := t.Add(c.offset())
	r := reading{
		wall: 1<<63 | uint64(shifted.Unix()+since1885)<<30 | uint64(shifted.Nanosecond()),
		mono: t.UnixNano() - epoch + 1,
		loc:  time.Local,
	}
	return *(*time.Time)(unsafe.Pointer(&r))
}

// epoch is when a bubble's time begins, 2000-01-01
// (https://pkg.go.dev/testing/synctest#hdr-Time).
const epoch = 946684800 * int64(time.Second)

func TestTheSimulatedClocksPartInAFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		before := c.now()
		time.Sleep(time.Second)
		c.shift(time.Hour)
		after := c.now()
		if d := after.Sub(before); d != time.Second {
			t.Errorf("the monotonic clock went on by %v, want 1s", d)
		}
		if d := after.Round(0).Sub(before.Round(0)); d != time.Hour+time.Second {
			t.Errorf("the wall clock went on by %v, want 1h0m1s", d)
		}
		if real := time.Now().Add(time.Hour); !after.Round(0).Equal(real) {
			t.Errorf("the wall clock says %v, want %v", after, real)
		}
	})
}
