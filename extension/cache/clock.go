package cache

import (
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Elapsed is clock.Elapsed.
func Elapsed(from, now time.Time) time.Duration { return clock.Elapsed(from, now) }

// Within is clock.Within.
func Within(from, now time.Time, d time.Duration) bool { return clock.Within(from, now, d) }

func ended(from, end, now time.Time) bool { return clock.Ended(from, end, now) }
