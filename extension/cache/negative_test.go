package cache

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// keepsGone is a world that keeps 404s and was told of no mount.
func keepsGone(t *testing.T, change ...func(*Options)) *world {
	w := newWorld(t, append([]func(*Options){func(o *Options) { o.NegativeTTL, o.Recheck = time.Minute, time.Hour }}, change...)...)
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "") // says mount_type, which tells no mount
	return w
}

// mounted has the origin tell another mount than path is on, as of before a change.
func (w *world) mounted(path, mount, kind, version string) {
	w.origin.says(preflightPrefix+path, fmt.Sprintf(`{"data":{"path":%q,"type":%q,"options":{"version":%q}}}`, mount+"/", kind, version))
}

// nothing is what is said where there is nothing.
func nothing() *foreign { return &foreign{http.StatusNotFound, asJSON, `{"errors":[]}`} }

// badToken is what a token is told that is good for nothing any more.
func badToken() *foreign {
	return &foreign{http.StatusForbidden, asJSON, `{"errors":["permission denied"]}`}
}

func (w *world) reads() int {
	w.origin.mu.Lock()
	defer w.origin.mu.Unlock()
	return w.origin.reads
}

func TestA404OfKVIsKeptWhereNobodyToldItsMount(t *testing.T) {
	t.Parallel()
	w := keepsGone(t)
	before := w.reads()
	if a := w.load(key("secret/data/none"), ""); a.Status != http.StatusNotFound || !a.Stored {
		t.Errorf("status %d, stored %v", a.Status, a.Stored)
	}
	w.expect(key("secret/data/none"), "", Fresh, "")
	w.load(key("secret/data/another"), "")
	w.expect(key("secret/data/another"), "", Fresh, "")
	if n := w.reads() - before; n != 3 {
		t.Errorf("%d reads, want 2 and one preflight", n)
	}
	w.clock.add(time.Minute)
	w.expect(key("secret/data/none"), "", Absent, "")

	list := Key{Path: "secret/metadata/none", Op: List}
	w.load(list, "alice")
	w.Learned(w.Caller("alice"), Token{})
	w.expect(list, "alice", Fresh, "")
	w.expect(list, "", Absent, "")
}

func TestA404OfKV1IsKept(t *testing.T) {
	t.Parallel()
	w := keepsGone(t)
	w.origin.Mount("team/kv", 1)
	w.load(key("team/kv/data/none"), "")
	w.expect(key("team/kv/data/none"), "", Fresh, "")
	w.whole(w.clock.now())
	if got := w.Uncovered()[key("team/kv/data/none")]; len(got) != 1 || got[0] != "team/kv/data/none" {
		t.Errorf("changed by %v", got)
	}
}

func TestG3A404OfWhatIsNotKVIsNotKept(t *testing.T) {
	t.Parallel()
	w := keepsGone(t, func(o *Options) {
		o.Mounts, o.NoCache = []Mount{{Path: "told", Version: 2}}, []string{"told/data/never"}
	})
	w.origin.database("app", 60)
	w.origin.answer("database/creds/none", nothing()) // as other engines say it
	w.origin.Mount("untold", 1)
	w.origin.answer(preflightPrefix+"untold/x", badToken())
	w.origin.answer("odd/x", &foreign{404, asJSON, `[]`})
	w.origin.answer(preflightPrefix+"none", nothing())
	for _, tt := range []struct {
		path  string
		reads int // of three loads
	}{
		{"database/creds/none", 4}, // the mount is asked for once
		{"untold/x", 4},
		{"unmounted/x", 3}, // an error says enough
		{"told/x", 3},
		{"odd/x", 3},
		{"told/data/never", 3},
		{"identity/entity/id/none", 3},
		{"sys/internal/ui/mounts/none", 3},
	} {
		before := w.reads()
		for range 3 {
			if a := w.load(key(tt.path), ""); a.Status != http.StatusNotFound || a.Stored {
				t.Errorf("%s: status %d, stored %v", tt.path, a.Status, a.Stored)
			}
			w.expect(key(tt.path), "", Absent, "")
		}
		if n := w.reads() - before; n != tt.reads {
			t.Errorf("%s: %d reads, want %d", tt.path, n, tt.reads)
		}
	}
	// What the origin did not tell the mount of may come to be.
	w.origin.put("untold/x", "one")
	w.load(key("untold/x"), "")
	w.expect(key("untold/x"), "", Fresh, "one")

	// A question that failed is asked again.
	w.origin.Mount("later", 2)
	w.origin.answer(preflightPrefix+"later/data/none", trouble(503))
	w.load(key("later/data/none"), "")
	w.expect(key("later/data/none"), "", Absent, "")
	w.origin.answer(preflightPrefix+"later/data/none", nil)
	w.load(key("later/data/none"), "")
	w.expect(key("later/data/none"), "", Fresh, "")
}

func TestA404IsNotKeptUnlessAsked(t *testing.T) {
	t.Parallel()
	w := keepsGone(t, func(o *Options) { o.NegativeTTL = 0 })
	before := w.reads()
	w.load(key("secret/data/none"), "")
	w.expect(key("secret/data/none"), "", Absent, "")
	w.loadAs(Want{Key: key("secret/data/none"), ID: w.Own(), Skip: true})
	if n := w.reads() - before; n != 2 {
		t.Errorf("%d reads, want 2: the mount is of no use", n)
	}
}

// While the mount is asked for, the 404 may become outdated. What is cached ends
// before that.
func TestA404ThatIsOutdatedWhenItsMountIsKnownIsNotKept(t *testing.T) {
	t.Parallel()
	k := key("secret/data/none")
	for name, meanwhile := range map[string]func(w *world){
		"a write through thaw": func(w *world) {
			write := NewWrite("", k.Path)
			w.BeginWrite(write)
			w.EndWrite(write, false)
		},
		"an event":        func(w *world) { w.Changed(NewWrite("", k.Path)) },
		"a purge":         func(w *world) { w.Purge("", "secret/") },
		"it was revoked":  func(w *world) { w.Own().Reset() },
		"a mount changed": func(w *world) { w.BeginWrite(NewWrite("", "sys/mounts/secret")) },
		"a later refusal": func(w *world) {
			w.deny("", k.Path)
			w.clock.add(time.Millisecond)
			w.loadAlone(k)
		},
	} {
		w := keepsGone(t)
		w.during(k, func() { meanwhile(w) })
		if s := w.state(k, ""); s != Absent {
			t.Errorf("%s: state %d, want none", name, s)
		}
	}

	w := keepsGone(t)
	w.during(k, func() {
		w.origin.put(k.Path, "new")
		w.clock.add(time.Millisecond)
		w.loadAlone(k)
	})
	w.expect(k, "", Fresh, "new")

	w = keepsGone(t)
	k = key("secret/data/a")
	w.origin.put(k.Path, "")
	w.clock.add(time.Millisecond)
	w.during(k, func() { w.expect(k, "", Absent, "") })
	w.expect(k, "", Fresh, "")
}

func (w *world) loadAlone(k Key) { w.loadAs(Want{Key: k, ID: w.Own(), Alone: true}) }

// during loads k and does f while its mount is asked for.
func (w *world) during(k Key, f func()) {
	w.t.Helper()
	release := w.stopped(key(preflightPrefix+k.Path), func() { w.load(k, "") })
	f()
	release()
}

// others counts what the shared tier is told.
type others struct {
	*tier
	kept, dropped []Key
}

func (s *others) Keep(_ context.Context, records []Record, _ map[Capability]Confirmation) {
	for _, r := range records {
		s.kept = append(s.kept, r.Key)
	}
}

func (s *others) Drop(_ context.Context, keys []Key, _ []Capability, _ time.Time) {
	s.dropped = append(s.dropped, keys...)
}

func TestA404StaysInMemory(t *testing.T) {
	t.Parallel()
	shared := &others{tier: newTier()}
	w := keepsGone(t, func(o *Options) { o.Shared = shared })
	w.load(key("secret/data/none"), "")
	w.expect(key("secret/data/none"), "", Fresh, "")
	if len(shared.kept) != 1 || shared.kept[0] != key("secret/data/a") || len(shared.dropped) != 1 || shared.dropped[0] != key("secret/data/none") {
		t.Errorf("kept %v, dropped %v", shared.kept, shared.dropped)
	}
}
