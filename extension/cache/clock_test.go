package cache

import (
	"testing"
	"time"
	"unsafe"

	"github.com/thaw-project/thaw/extension/clock"
)

// thawed returns t after a freeze of d in which the monotonic clock stood
// still. Nothing in package time makes such a reading, but a frozen sandbox does.
func thawed(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	later := at.Add(d)
	reading := (*struct {
		wall uint64
		ext  int64 // the monotonic reading, where wall's highest bit is set
		loc  *time.Location
	})(unsafe.Pointer(&later))
	reading.ext -= int64(d)
	if later.Sub(at) != 0 || later.Round(0).Sub(at.Round(0)) != d {
		t.Skip("package time keeps its readings another way")
	}
	return later
}

func TestAFreezeEndsWhatATimerWouldHave(t *testing.T) {
	t.Parallel()
	opted := func(o *Options) { o.TTL = 24 * time.Hour }
	lease := func(w *world) {
		w.Learn(Mount{Path: "database"})
		w.origin.database("a", 60)
	}
	for _, c := range []struct {
		name   string
		change func(*Options)
		key    Key
		set    func(w *world)
		token  string
		end    time.Duration // of the token
	}{
		{"a lease", opted, key("database/creds/a"), lease, "", 0},
		{"a caller's token", func(o *Options) { o.Recheck = 24 * time.Hour }, key("secret/data/a"), func(w *world) { w.origin.put("secret/data/a", "1") }, "alice", time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.change, func(o *Options) { o.RefreshInterval = 24 * time.Hour })
			w.clock.t = time.Now() // with a monotonic reading
			c.set(w)
			id := w.Own()
			if c.token != "" {
				id = w.Caller(c.token)
			}
			w.loadAs(Want{Key: c.key, ID: id, OptIn: true})
			if c.end > 0 {
				w.Learned(id, Token{Expires: w.clock.now().Add(c.end)})
			}
			w.optedIn(c.key, c.token, Fresh, "1")
			w.clock.t = thawed(t, w.clock.now(), time.Hour)
			w.optedIn(c.key, c.token, Absent, "")
		})
	}
}

func TestEnded(t *testing.T) {
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
		{"on the wall clock alone", from.Round(0).Add(time.Minute), from.Round(0).Add(time.Minute), true},
		{"frozen", from.Add(time.Minute), thawed(t, from, time.Minute), true},
		{"the clock was set back", from.Add(time.Minute), thawed(t, from.Add(2*time.Minute), -time.Hour), true},
		{"before it began", from.Add(-time.Second), from, true},
	} {
		if got := clock.Ended(from, c.end, c.now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
