package memcached

import (
	"testing"
	"time"
)

func TestABreakerLetsOneProbeThroughPerWindow(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	b := breaker{first: time.Second, most: 4 * time.Second}
	allow := func() (bool, bool) { return b.allow(now) }
	if ok, probe := allow(); !ok || probe {
		t.Fatal("a closed breaker refuses, or probes")
	}
	if opened, _ := b.settle(now, false, bad); !opened {
		t.Fatal("a bad exchange did not open it")
	}
	if opened, _ := b.settle(now, false, bad); opened {
		t.Fatal("a straggler opened it again")
	}
	for _, window := range []time.Duration{1, 2, 4, 4} {
		now = now.Add(window*time.Second - 1)
		if ok, _ := allow(); ok {
			t.Fatalf("asked before %d s were over", window)
		}
		now = now.Add(1)
		ok, probe := allow()
		if !ok || !probe {
			t.Fatalf("no probe after %d s", window)
		}
		if ok, _ := allow(); ok {
			t.Fatal("a second probe beside the first")
		}
		if opened, _ := b.settle(now, true, bad); !opened {
			t.Fatal("a bad probe did not open it again")
		}
	}
	now = now.Add(4 * time.Second)
	allow()
	b.settle(now, true, none) // the caller left
	if ok, probe := allow(); !ok || !probe {
		t.Fatal("a probe that said nothing was the last")
	}
	if _, closed := b.settle(now, true, good); !closed || b.out() {
		t.Fatal("a good probe did not close it")
	}
	if b.settle(now, false, bad); b.window != time.Second {
		t.Fatalf("the first window after it closed is %v", b.window)
	}
}

func TestABreakerAndTheClock(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		after time.Duration
		ok    bool
	}{
		"at once":      {0, false},
		"an hour on":   {time.Hour, true}, // frozen meanwhile
		"set back":     {-time.Second, true},
		"set back far": {-time.Hour, true},
	} {
		b := breaker{first: time.Minute, most: time.Minute}
		b.settle(start, false, bad)
		if ok, _ := b.allow(start.Add(c.after)); ok != c.ok {
			t.Errorf("%s: allowed %v", name, ok)
		}
	}
}

func TestSlowAnswersOpenABreakerOnlyInARow(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	b := breaker{first: time.Second, most: time.Second}
	for _, v := range []health{slow, slow, good, slow, slow, none} {
		if opened, _ := b.settle(now, false, v); opened {
			t.Fatal("opened too early")
		}
	}
	if opened, _ := b.settle(now, false, slow); !opened {
		t.Fatal("three in a row did not open it")
	}
}

func TestWhoTookTheTime(t *testing.T) {
	t.Parallel()
	const timeout = time.Minute
	now := time.Now()
	for name, c := range map[string]struct {
		began, asked, deadline time.Time
		want                   bool
	}{
		"the node":              {now.Add(-timeout), now.Add(-timeout), now, false},
		"the node, a bit of us": {now.Add(-timeout), now.Add(-timeout * 2 / 3), now, false},
		"asked late":            {now.Add(-timeout), now.Add(-timeout / 3), now, true},
		"never asked":           {now.Add(-timeout), time.Time{}, now, true},
		"asked past the end":    {now.Add(-timeout - 1), now, now.Add(-1), true},
		"woke up much later":    {now.Add(-time.Hour), now.Add(-time.Hour), now.Add(timeout - time.Hour), true},
		// Across a freeze the monotonic clock may stand still.
		"frozen": {now.Round(0).Add(-time.Hour), now.Add(-timeout), now, true},
	} {
		if got := heldUp(c.began, c.asked, c.deadline, timeout); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
