package cache

import "time"

// Elapsed returns the time between from and now, the longer of what the wall
// clock and the monotonic clock say.
//
// Neither is enough alone. The monotonic clock may stand still while the
// sandbox is frozen; the wall clock may be set back. The result is negative
// only when the wall clock stepped back and no monotonic reading says better.
func Elapsed(from, now time.Time) time.Duration {
	wall := now.Round(0).Sub(from.Round(0))
	return max(wall, now.Sub(from))
}

// Within reports whether from lies at most d before now. A from in the future
// of the wall clock, or any doubt about the order, is not within: the clock
// was set back, and nothing is known about the time between.
func Within(from, now time.Time, d time.Duration) bool {
	wall := now.Round(0).Sub(from.Round(0))
	// Same reading of a coarse clock, or a step back of less than what anybody
	// could have rotated a secret in, is not a step.
	return wall > -time.Millisecond && max(wall, now.Sub(from)) <= d
}

// ended reports whether end has come at now, for a span that began at from: on
// the wall clock, or because more time passed than the span had. The first
// alone fails when the clock is set back, and comparing the readings as they
// are would ask the monotonic clock, which may stand still in a freeze. A zero
// end never comes.
func ended(from, end, now time.Time) bool {
	if end.IsZero() {
		return false
	}
	return !now.Round(0).Before(end.Round(0)) || Elapsed(from, now) >= end.Round(0).Sub(from.Round(0))
}
