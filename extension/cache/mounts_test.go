package cache

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestG1ASecretEndsAtItsDeletionTimeWhateverIsBelievedOfItsMount: what is believed of
// a mount may be wrong or out of date. mount_type and the preflight decide what it is.
// An answer of another shape has the preflight asked again, once in an interval, and
// the deletion_time in it counts in any case.
func TestG1ASecretEndsAtItsDeletionTimeWhateverIsBelievedOfItsMount(t *testing.T) {
	t.Parallel()
	k := key("secret/data/a")
	beliefs := map[string]func(*world){
		"nothing":         func(*world) {},
		"version 1":       func(w *world) { w.Learn(Mount{Path: "secret", Version: 1}) },
		"version 2":       func(w *world) { w.Learn(Mount{Path: "secret", Version: 2}) },
		"no KV":           func(w *world) { w.Learn(Mount{Path: "secret"}) },
		"a deeper mount":  func(w *world) { w.Learn(Mount{Path: "secret/data", Version: 1}) },
		"the path itself": func(w *world) { w.Learn(Mount{Path: "secret/data/a"}) },
		"a 404's lesson": func(w *world) { // the mount was version 1 then
			w.mounted("secret/data/none", "secret", "kv", "1")
			w.load(key("secret/data/none"), "")
		},
	}
	configured := map[string][]Mount{"no": nil, "as version 1": {{Path: "secret", Version: 1}}, "as version 2": {{Path: "secret", Version: 2}}}
	preflights := map[string]func(*world){
		"version 2": func(*world) {},
		"version 1": func(w *world) { w.mounted(k.Path, "secret", "kv", "1") },
		"refused":   func(w *world) { w.origin.answer(preflightPrefix+k.Path, badToken()) },
		"none":      func(w *world) { w.origin.answer(preflightPrefix+k.Path, nothing()) },
		"elsewhere": func(w *world) { w.mounted(k.Path, "other", "kv", "1") },
	}
	for belief, believe := range beliefs {
		for config, mounts := range configured {
			for preflight, answer := range preflights {
				for _, mountType := range []bool{true, false} {
					t.Run(fmt.Sprintf("believed %s, configured %s, preflight %s, mount_type %v", belief, config, preflight, mountType), func(t *testing.T) {
						t.Parallel()
						w := worldOf(t, !mountType, func(o *Options) { o.Mounts, o.NegativeTTL, o.Recheck = mounts, time.Second, time.Hour })
						believe(w)
						answer(w)
						w.origin.write("secret/metadata/a", `{"delete_version_after":"4m"}`)
						w.origin.put(k.Path, "one")
						before := w.reads()
						for range 4 {
							w.load(k, "")
							w.clock.add(time.Second)
						}
						most := 5
						if preflight == "elsewhere" {
							most = 7 // what the path is taken for then is another mount, of which it is asked, too
						}
						if n := w.reads() - before; n > most {
							t.Errorf("%d requests for four reads: the mount is asked for once in an interval", n)
						}
						if m, known := w.Knows("", k.Path); preflight == "version 2" && (!known || m.Path != "secret" || m.Version != 2) && (!mountType || known) {
							t.Errorf("it is taken for %+v, known: %v", m, known)
						}
						if h := w.look(k, "", w.clock.now()); preflight == "version 2" && (h.Entry == nil || h.Entry.Kind != Data || h.Entry.Version != 1) {
							t.Errorf("kept as %+v", h.Entry)
						}
						w.clock.add(4 * time.Minute)
						w.expect(k, "", Absent, "")
					})
				}
			}
		}
	}
}

// TestAMountIsUnlearned: a mount was replaced behind our back, and the next answer
// contradicts what it was taken for.
func TestAMountIsUnlearned(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		was  Mount
		key  Key
		bao  bool // the answers have no mount_type
		want int  // the version that the mount has now; 0: a database
	}{
		"2 to 1":                  {Mount{Path: "m", Version: 2}, key("m/a"), true, 1},
		"2 to 1 with a data/":     {Mount{Path: "m", Version: 2}, key("m/data/a"), true, 1},
		"2 to 1, a list":          {Mount{Path: "m", Version: 2}, Key{Path: "m/a", Op: List}, true, 1},
		"1 to 2":                  {Mount{Path: "m", Version: 1}, key("m/data/a"), true, 2},
		"1 to 2, metadata":        {Mount{Path: "m", Version: 1}, key("m/metadata/a"), true, 2},
		"KV to database":          {Mount{Path: "database", Version: 2}, key("database/creds/a"), false, 0},
		"KV to database, untyped": {Mount{Path: "database", Version: 1}, key("database/creds/a"), true, 0},
		"database to KV":          {Mount{Path: "m"}, key("m/data/a"), false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldOf(t, c.bao, func(o *Options) { o.Recheck = time.Hour })
			w.Learn(c.was)
			switch c.want {
			case 0:
				w.origin.database("a", 60)
			case 1:
				w.origin.Mount("m", 1)
				for _, path := range []string{"m/a", "m/data/a", "m/a/b"} {
					w.origin.write(path, `{"v":"x"}`)
				}
			case 2:
				w.origin.put("m/data/a", "x")
			}
			w.load(c.key, "")
			if m, known := w.Knows("", c.key.Path); !known || m.Version != c.want {
				t.Errorf("it is taken for %+v, known: %v", m, known)
			}
			if n := w.reads(); n != 2 {
				t.Errorf("%d requests, want the read and one preflight", n)
			}
		})
	}
	t.Run("what is not KV is asked for again", func(t *testing.T) { // its reads go past the cache, so that no answer could tell
		t.Parallel()
		w := newWorld(t)
		w.Learn(Mount{Path: "m"})
		if m, known := w.Knows("", "m/a"); !known || m.Version != 0 {
			t.Errorf("%+v, known: %v", m, known)
		}
		w.clock.add(w.Cache.o.RefreshInterval + 1)
		if m, known := w.Knows("", "m/a"); known {
			t.Errorf("after an interval still %+v", m)
		}
	})
}

// TestG1AClockThatLagsMayOnlyShorten: the end of a secret, by our clock and by Date
// of the origin or of what is between.
func TestG1AClockThatLagsMayOnlyShorten(t *testing.T) {
	t.Parallel()
	date := func(at time.Time) string { return at.UTC().Format(http.TimeFormat) }
	start := newClock().now()
	for name, c := range map[string]struct {
		lag   time.Duration      // of our clock
		date  func(i int) string // of the i-th answer
		after time.Duration      // when it ended at the latest, truly; it has ten minutes
	}{
		"all right":            {0, nil, 10 * time.Minute},
		"ours lags":            {time.Hour, nil, 10 * time.Minute},
		"ours is ahead":        {-5 * time.Minute, nil, 10 * time.Minute},
		"Date lags":            {0, func(int) string { return date(start.Add(-time.Hour)) }, 10 * time.Minute},
		"Date is ahead":        {0, func(int) string { return date(start.Add(5 * time.Minute)) }, 10 * time.Minute},
		"Date is ahead once":   {0, func(i int) string { return date(start.Add(time.Duration(5-5*i) * time.Minute)) }, 10 * time.Minute},
		"ours lags, Date once": {5 * time.Minute, func(i int) string { return date(start.Add(-time.Duration(i) * time.Hour)) }, 10 * time.Minute},
		"no Date":              {0, func(int) string { return "" }, 10 * time.Minute},
		"a Date that is none":  {0, func(int) string { return "yesterday" }, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *Options) { o.Recheck = time.Hour })
			w.origin.now = func() time.Time { return w.clock.now().Add(c.lag) } // ours lags, theirs is right
			w.clock.set(start.Add(-c.lag))
			k := key("secret/data/a")
			w.origin.write("secret/metadata/a", `{"delete_version_after":"10m"}`)
			w.origin.put(k.Path, "one")
			for i := range 2 {
				if c.date != nil {
					w.origin.mu.Lock()
					w.origin.header.Set("Date", c.date(i))
					w.origin.mu.Unlock()
				}
				w.load(k, "")
				w.expect(k, "", Fresh, "one")
				w.clock.add(time.Second)
			}
			w.clock.add(c.after - 2*time.Second)
			w.expect(k, "", Absent, "")
		})
	}
}

// TestALeaseCountsFromWhenItsRequestWasSent and nothing that a cache in between gave
// is kept as one: nobody knows how much of it is over.
func TestALeaseCountsFromWhenItsRequestWasSent(t *testing.T) {
	t.Parallel()
	k := key("database/creds/a")
	for _, between := range []string{"", "Age", "X-Cache"} {
		w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
		w.origin.database("a", 60)
		if between != "" {
			w.origin.header.Set(between, map[string]string{"Age": "50", "X-Cache": "HIT"}[between])
		}
		w.origin.header.Set("Date", w.clock.now().Add(-time.Hour).Format(http.TimeFormat))
		release := w.stopped(k, func() { w.loadAs(Want{Key: k, ID: w.Own(), OptIn: true}) })
		w.clock.add(20 * time.Second) // the answer takes its time
		release()
		w.clock.add(39 * time.Second)
		if between != "" {
			w.optedIn(k, "", Absent, "")
			continue
		}
		w.optedIn(k, "", Fresh, "1")
		w.clock.add(time.Second)
		w.optedIn(k, "", Absent, "")
	}
}

// TestWhatAnotherInstanceReadEndsOnOurClockToo although ours lags.
func TestWhatAnotherInstanceReadEndsOnOurClockToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Recheck, o.Shared = 2*time.Hour, newTier() })
	k, ahead := key("secret/data/a"), w.clock.now().Add(time.Hour) // the other's clock is right
	w.Access.grant(w.Own(), 0, k.Capability(), w.clock.now(), false)
	w.Cache.mu.Lock()
	taken := w.takeLocked(Record{Entry: Entry{Key: k, Kind: Data, Status: 200, Body: []byte(v2("one", 1)), FetchedAt: ahead, Expires: ahead.Add(10 * time.Minute)}, SentAt: ahead})
	w.Cache.mu.Unlock()
	if !taken {
		t.Fatal("not taken")
	}
	w.clock.add(10 * time.Minute)
	w.expect(k, "", Absent, "")
}

func TestServersWithoutMountTypeAreAskedOnce(t *testing.T) {
	t.Parallel()
	w := baoWorld(t)
	w.origin.put("secret/data/a", "one")
	w.origin.put("secret/data/b", "two")
	w.load(key("secret/data/a"), "")
	w.load(key("secret/data/b"), "")
	w.expect(key("secret/data/a"), "", Fresh, "one")
	w.expect(key("secret/data/b"), "", Fresh, "two")
	if w.origin.reads != 3 {
		t.Errorf("%d reads, want 2 and one preflight", w.origin.reads)
	}
}

// A token that is good for one use was used up by the read itself.
func TestG4ARefusedQuestionForAMountIsNobodyElses(t *testing.T) {
	t.Parallel()
	w := baoWorld(t)
	const preflight = "sys/internal/ui/mounts/secret/data/a"
	a := key("secret/data/a")
	w.origin.put(a.Path, "one")
	w.origin.answer("once "+preflight, badToken())
	w.origin.answer(" "+preflight, badToken())
	asked := func(token string, want int, stored bool) {
		t.Helper()
		before := w.origin.reads
		if got := w.load(a, token); got.Stored != stored {
			t.Errorf("token %q: stored %v", token, got.Stored)
		}
		if n := w.origin.reads - before; n != want {
			t.Errorf("token %q: %d requests, want %d", token, n, want)
		}
	}
	asked("once", 3, false) // under thaw's own token first
	asked("once", 1, false) // it is not asked for at each read
	w.clock.add(6 * time.Minute)
	asked("once", 3, false)
	w.EndWrite(NewWrite("", "sys/mounts/other"), false)
	asked("once", 3, false)
	if _, known := w.Knows("", a.Path); known {
		t.Error("a refusal was taken for what the mount is")
	}
	w.origin.answer(" "+preflight, nil)
	w.clock.add(6 * time.Minute)
	asked("", 2, true)
	w.expect(a, "", Fresh, "one")
	asked("once", 1, true) // now it is known
}

// TestAQuestionForAMountSpendsNoUseOfACallersToken where another may ask it.
func TestAQuestionForAMountSpendsNoUseOfACallersToken(t *testing.T) {
	t.Parallel()
	const preflight = "sys/internal/ui/mounts/secret/data/a"
	for name, c := range map[string]struct {
		token   string
		learned *Token
		denied  string // who may not ask
		want    bool   // the mount is known afterwards
	}{
		"nothing is known of it":                   {"alice", nil, "alice", true},
		"nothing is known, and thaw may not ask":   {"alice", nil, "", true},
		"its uses are not counted":                 {"alice", &Token{}, "alice", false},
		"its uses are not counted, thaw's own may": {"alice", &Token{}, "", true},
		"a batch token":                            {"hvb.a", nil, "hvb.a", false},
	} {
		w := baoWorld(t)
		a := key("secret/data/a")
		w.origin.put(a.Path, "one")
		w.origin.answer(c.denied+" "+preflight, badToken())
		if id := w.Caller(c.token); c.learned != nil {
			w.Learned(id, *c.learned)
		}
		if got := w.load(a, c.token); got.Stored != c.want {
			t.Errorf("%s: stored %v", name, got.Stored)
		}
	}
}
