// Package clock reckons with time in a process that may be frozen.
//
// A sandbox is frozen between two invocations. Then neither of the process's
// clocks is enough alone: the monotonic clock may stand still, so the time
// since an event looks too short, and the wall clock may be set back. A timer
// counts on the monotonic clock, so after a freeze it fires too late. Every
// question about time is answered here, from both clocks, and every answer
// errs on the side of "too much time has passed".
//
// Times are taken from time.Now, with their monotonic reading. Those that come
// from elsewhere (a header, a record in the shared cache) have only a wall
// clock's, and all functions work with them as well.
package clock

import "time"

// Slack is how much later than it should a timer fires in a process that was
// frozen, and not only busy.
const Slack = time.Second / 4

// Of returns now or, where that is nil, the clock of the system.
func Of(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

// Wall returns t without its monotonic reading, as it is kept in records that
// outlive a freeze or leave the process.
func Wall(t time.Time) time.Time { return t.Round(0) }

// Elapsed returns the time between from and now: the longer of what the wall
// clock and the monotonic clock say. It is negative only when the wall clock
// stepped back and no monotonic reading says better.
func Elapsed(from, now time.Time) time.Duration {
	return max(wall(from, now), now.Sub(from))
}

// Within reports whether from lies at most d before now. What never was, a zero
// from, is not. Nor is a from in the future of the wall clock, or one whose order
// is in doubt: the clock was set back, and nothing is known about the time between.
func Within(from, now time.Time, d time.Duration) bool {
	// Same reading of a coarse clock, or a step back of less than what anybody
	// could have rotated a secret in, is not a step.
	return !from.IsZero() && wall(from, now) > -time.Millisecond && Elapsed(from, now) <= d
}

// Ended reports whether end has come at now, for a span that began at from: on
// the wall clock, or because more time passed than the span had. The first
// alone fails when the clock is set back. A zero end never comes.
func Ended(from, end, now time.Time) bool {
	return !end.IsZero() && (Until(end, now) <= 0 || Elapsed(from, now) >= wall(from, end))
}

// Until returns the time from now to end on the wall clock; negative: end has
// passed. It is for an end that somebody else set.
func Until(end, now time.Time) time.Duration { return wall(now, end) }

// Froze reports whether a timer that was due at due and fired at now was held
// by a freeze.
func Froze(due, now time.Time) bool { return Elapsed(due, now) > Slack }

// Step returns how much farther the wall clock went than the monotonic one
// between from and now: the time that a freeze took, or a snapshot lay on disk,
// or the clock was set forward by. Negative: the clock was set back. It is zero
// where one of the two has no monotonic reading.
func Step(from, now time.Time) time.Duration { return wall(from, now) - now.Sub(from) }

func wall(from, to time.Time) time.Duration { return to.Round(0).Sub(from.Round(0)) }
