package cache

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ending is a secret of KV version 2 that ends then, with or without mount_type.
func ending(at time.Time, mountType bool) string {
	body := v2("one", 1, fmt.Sprintf(`"deletion_time":%q`, at.Format(time.RFC3339Nano)))
	if !mountType {
		body = strings.Replace(body, `,"mount_type":"kv"`, "", 1)
	}
	return body
}

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
		"version 2": func(w *world) { w.mounted(k.Path, "secret", "kv", "2") },
		"version 1": func(w *world) { w.mounted(k.Path, "secret", "kv", "1") },
		"refused":   func(w *world) { w.deny("", preflightPrefix+k.Path) },
		"none":      func(*world) {},
		"elsewhere": func(w *world) { w.mounted(k.Path, "other", "kv", "1") },
	}
	for belief, believe := range beliefs {
		for config, mounts := range configured {
			for preflight, answer := range preflights {
				for _, mountType := range []bool{true, false} {
					t.Run(fmt.Sprintf("believed %s, configured %s, preflight %s, mount_type %v", belief, config, preflight, mountType), func(t *testing.T) {
						t.Parallel()
						w := newWorld(t, func(o *Options) { o.Mounts, o.NegativeTTL, o.Recheck = mounts, time.Second, time.Hour })
						believe(w)
						answer(w)
						w.origin.put(k.Path, ending(w.clock.now().Add(4*time.Minute), mountType))
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
	const creds = `{"request_id":"1","lease_id":"x","lease_duration":60,"data":{"v":"two"}%s}`
	for name, c := range map[string]struct {
		was     Mount
		key     Key
		body    string
		kind    string
		version string
		want    int
	}{
		"2 to 1":                  {Mount{Path: "m", Version: 2}, key("m/a"), `{"data":{"v":"x"}}`, "kv", "1", 1},
		"2 to 1 with a data/":     {Mount{Path: "m", Version: 2}, key("m/data/a"), `{"data":{"v":"x"}}`, "kv", "1", 1},
		"2 to 1, a list":          {Mount{Path: "m", Version: 2}, Key{Path: "m/a", Op: List}, `{"data":{"keys":["x"]}}`, "kv", "1", 1},
		"1 to 2":                  {Mount{Path: "m", Version: 1}, key("m/data/a"), `{"data":{"data":{},"metadata":{"version":3}}}`, "kv", "2", 2},
		"1 to 2, metadata":        {Mount{Path: "m", Version: 1}, key("m/metadata/a"), `{"data":{"current_version":3,"versions":{}}}`, "kv", "2", 2},
		"KV to database":          {Mount{Path: "m", Version: 2}, key("m/data/a"), fmt.Sprintf(creds, `,"mount_type":"database"`), "database", "", 0},
		"KV to database, untyped": {Mount{Path: "m", Version: 1}, key("m/creds/a"), fmt.Sprintf(creds, ""), "database", "", 0},
		"database to KV":          {Mount{Path: "m"}, key("m/data/a"), `{"data":{"data":{},"metadata":{"version":3}},"mount_type":"kv"}`, "kv", "2", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *Options) { o.Recheck = time.Hour })
			w.Learn(c.was)
			w.put(c.key, c.body)
			w.mounted(c.key.Path, "m", c.kind, c.version)
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
		w.clock.add(w.o.RefreshInterval + 1)
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
			w.origin.put(k.Path, ending(start.Add(10*time.Minute), true))
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
	lease := `{"lease_id":"x","lease_duration":60,"data":{"v":"one"},"mount_type":"database"}`
	for _, between := range []string{"", "Age", "X-Cache"} {
		w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
		w.origin.put(k.Path, lease)
		if between != "" {
			w.origin.header.Set(between, map[string]string{"Age": "50", "X-Cache": "HIT"}[between])
		}
		w.origin.header.Set("Date", w.clock.now().Add(-time.Hour).Format(http.TimeFormat))
		hold := make(chan struct{})
		w.origin.hold[k.Path] = hold
		done := make(chan error)
		go func() {
			_, err := w.Load(t.Context(), Want{Key: k, ID: w.Own(), OptIn: true})
			done <- err
		}()
		<-w.origin.arrived
		w.clock.add(20 * time.Second) // the answer takes its time
		close(hold)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.clock.add(39 * time.Second)
		if between != "" {
			w.optedIn(k, "", Absent, "")
			continue
		}
		w.optedIn(k, "", Fresh, "one")
		w.clock.add(time.Second)
		w.optedIn(k, "", Absent, "")
	}
}

// TestWhatAnotherInstanceReadEndsOnOurClockToo although ours lags.
func TestWhatAnotherInstanceReadEndsOnOurClockToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Recheck, o.Shared = 2*time.Hour, &tier{} })
	k, ahead := key("secret/data/a"), w.clock.now().Add(time.Hour) // the other's clock is right
	w.Access.grant(w.Own(), 0, k.Capability(), w.clock.now(), false)
	w.Cache.mu.Lock()
	taken := w.takeLocked(Record{Key: k, Kind: Data, Status: 200, Body: []byte(ending(ahead, true)), FetchedAt: ahead, SentAt: ahead, Expires: ahead.Add(10 * time.Minute)}, 0)
	w.Cache.mu.Unlock()
	if !taken {
		t.Fatal("not taken")
	}
	w.clock.add(10 * time.Minute)
	w.expect(k, "", Absent, "")
}

func TestServersWithoutMountTypeAreAskedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("sys/internal/ui/mounts/secret/data/a", `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`)
	w.origin.put("secret/data/a", strings.Replace(v2("one", 1, ""), `,"mount_type":"kv"`, "", 1))
	w.origin.put("secret/data/b", strings.Replace(v2("two", 1, ""), `,"mount_type":"kv"`, "", 1))
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
	w := newWorld(t)
	const preflight = "sys/internal/ui/mounts/secret/data/a"
	a := key("secret/data/a")
	w.origin.put(preflight, `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`)
	w.origin.put(a.Path, strings.Replace(v2("one", 1, ""), `,"mount_type":"kv"`, "", 1))
	w.deny("once", preflight)
	w.deny("", preflight)
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
	delete(w.origin.denied, " "+preflight)
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
		w := newWorld(t)
		a := key("secret/data/a")
		w.origin.put(preflight, `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`)
		w.origin.put(a.Path, strings.Replace(v2("one", 1, ""), `,"mount_type":"kv"`, "", 1))
		w.deny(c.denied, preflight)
		if id := w.Caller(c.token); c.learned != nil {
			w.Learned(id, *c.learned)
		}
		if got := w.load(a, c.token); got.Stored != c.want {
			t.Errorf("%s: stored %v", name, got.Stored)
		}
	}
}
