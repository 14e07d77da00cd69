package clock

import (
	"math"
	"testing"
	"time"
	"unsafe"
)

// later returns the moment at which the wall clock is so much later than at
// from, and the monotonic clock so much. Nothing in package time makes the two
// differ, but a frozen sandbox does.
func later(t *testing.T, from time.Time, onWall, monotonic time.Duration) time.Time {
	t.Helper()
	now := from.Add(onWall)
	reading := (*struct {
		wall uint64
		ext  int64 // the monotonic reading, where wall's highest bit is set
		loc  *time.Location
	})(unsafe.Pointer(&now))
	reading.ext += int64(monotonic - onWall)
	if now.Sub(from) != monotonic || now.Round(0).Sub(from.Round(0)) != onWall {
		t.Skip("package time keeps its readings another way")
	}
	return now
}

func TestWithinAndElapsedTakeTheLongerTimeAndDoubtSteps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		wall, monotonic time.Duration
		elapsed         time.Duration
		limit           time.Duration
		within          bool
	}{
		{"at once", 0, 0, 0, 0, true},
		{"at the limit", time.Minute, time.Minute, time.Minute, time.Minute, true},
		{"past the limit", time.Minute + 1, time.Minute + 1, time.Minute + 1, time.Minute, false},
		{"a freeze stops the monotonic clock", time.Hour, time.Second, time.Hour, time.Minute, false},
		{"the wall clock is slow", 30 * time.Second, time.Minute, time.Minute, time.Minute - 1, false},
		{"a coarse clock", -time.Millisecond + 1, time.Second, time.Second, time.Second, true},
		{"a small step back", -time.Millisecond, time.Second, time.Second, time.Hour, false},
		{"set back by hours", -5 * time.Hour, time.Second, time.Second, 10 * time.Hour, false},
		{"both run backwards", -time.Minute, -time.Second, -time.Second, time.Hour, false},
	} {
		from := time.Now()
		now := later(t, from, c.wall, c.monotonic)
		if got := Elapsed(from, now); got != c.elapsed {
			t.Errorf("%s: %v elapsed, %v wanted", c.name, got, c.elapsed)
		}
		if got := Within(from, now, c.limit); got != c.within {
			t.Errorf("%s: within is %v", c.name, got)
		}
		// What others told, or a record says, has no monotonic reading.
		if got := Elapsed(Wall(from), now); got != c.wall {
			t.Errorf("%s: %v elapsed on the wall clock", c.name, got)
		}
		if got := Within(Wall(from), now, c.wall-1); got {
			t.Errorf("%s: within less than passed on the wall clock", c.name)
		}
	}
	if got := Elapsed(time.Time{}, time.Now()); got < 200*365*24*time.Hour {
		t.Errorf("since the zero time only %v passed", got)
	}
}

func TestEndedByEitherClock(t *testing.T) {
	t.Parallel()
	from := time.Now()
	for _, c := range []struct {
		name     string
		end, now time.Time
		want     bool
	}{
		{"never", time.Time{}, from.Add(1000 * time.Hour), false},
		{"not yet", from.Add(time.Minute), from.Add(59 * time.Second), false},
		{"just now", from.Add(time.Minute), from.Add(time.Minute), true},
		{"on the wall clock alone", Wall(from).Add(time.Minute), Wall(from).Add(time.Minute), true},
		{"frozen", from.Add(time.Minute), later(t, from, time.Minute, 0), true},
		{"the clock was set back", from.Add(time.Minute), later(t, from, time.Minute-time.Hour, 2*time.Minute), true},
		{"set back, and not yet", from.Add(time.Minute), later(t, from, -time.Hour, time.Second), false},
		{"before it began", from.Add(-time.Second), from, true},
	} {
		if got := Ended(from, c.end, c.now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestUntilIsTheWallClocks(t *testing.T) {
	t.Parallel()
	from := time.Now()
	now := later(t, from, time.Hour, time.Second)
	for _, d := range []time.Duration{2 * time.Hour, time.Hour, 0} {
		for _, end := range []time.Time{from.Add(d), Wall(from).Add(d), from.Add(d).UTC()} {
			if got := Until(end, now); got != d-time.Hour {
				t.Errorf("%v until %v", got, d)
			}
		}
	}
}

func TestFrozeIsPastTheSlackOnEitherClock(t *testing.T) {
	t.Parallel()
	due := time.Now()
	for _, c := range []struct {
		wall, monotonic time.Duration
		want            bool
	}{
		{-time.Second, -time.Second, false},
		{0, 0, false},
		{Slack, Slack, false},
		{Slack + 1, Slack, true},
		{Slack, Slack + 1, true},
		{time.Hour, 0, true},
		{-time.Hour, 0, false}, // set back: no freeze
	} {
		if got := Froze(due, later(t, due, c.wall, c.monotonic)); got != c.want {
			t.Errorf("%v late on the wall clock, %v on the other: %v", c.wall, c.monotonic, got)
		}
	}
}

func TestStepIsWhatTheClocksDisagreeBy(t *testing.T) {
	t.Parallel()
	from := time.Now()
	for _, c := range []struct{ wall, monotonic, want time.Duration }{
		{time.Hour, time.Hour, 0},
		{time.Hour, time.Second, time.Hour - time.Second},
		{-time.Hour, time.Second, -time.Hour - time.Second},
	} {
		now := later(t, from, c.wall, c.monotonic)
		if got := Step(from, now); got != c.want {
			t.Errorf("%v and %v: %v, %v wanted", c.wall, c.monotonic, got, c.want)
		}
		if got := Step(Wall(from), now); got != 0 {
			t.Errorf("a step of %v without a monotonic reading", got)
		}
	}
}

func TestWhatNeverWasIsNotWithin(t *testing.T) {
	for _, now := range []time.Time{{}, time.Unix(0, 0), time.Now()} {
		if Within(time.Time{}, now, math.MaxInt64) {
			t.Errorf("a zero time is within at %v", now)
		}
	}
}
