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
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "") // says mount_type, which tells no mount
	return w
}

// mounted has the origin tell which mount path is on.
func (w *world) mounted(path, mount, kind, version string) {
	w.origin.put(preflightPrefix+path, fmt.Sprintf(`{"data":{"path":%q,"type":%q,"options":{"version":%q}}}`, mount+"/", kind, version))
}

func (w *world) reads() int {
	w.origin.mu.Lock()
	defer w.origin.mu.Unlock()
	return w.origin.reads
}

func TestA404OfKVIsKeptWhereNobodyToldItsMount(t *testing.T) {
	t.Parallel()
	w := keepsGone(t)
	w.mounted("secret/data/none", "secret", "kv", "2")
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
	w.mounted("team/kv/data/none", "team/kv", "kv", "1")
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
	w.mounted("database/creds/none", "database", "database", "")
	w.origin.answers["unmounted/x"] = `{"errors":["no handler for route \"unmounted/x\". route entry not found."]}`
	w.origin.answers["told/x"] = `{"errors":["no handler for route \"told/x\". route entry not found."]}`
	w.origin.answers["odd/x"] = `[]`
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
	w.origin.put("untold/x", v1("one"))
	w.load(key("untold/x"), "")
	w.expect(key("untold/x"), "", Fresh, "one")

	// A question that failed is asked again.
	w.origin.mu.Lock()
	w.origin.only = map[string]int{preflightPrefix + "later/data/none": http.StatusServiceUnavailable}
	w.origin.mu.Unlock()
	w.load(key("later/data/none"), "")
	w.expect(key("later/data/none"), "", Absent, "")
	w.origin.mu.Lock()
	w.origin.only = nil
	w.origin.mu.Unlock()
	w.mounted("later/data/none", "later", "kv", "2")
	w.load(key("later/data/none"), "")
	w.expect(key("later/data/none"), "", Fresh, "")
}

func TestA404IsNotKeptUnlessAsked(t *testing.T) {
	t.Parallel()
	w := keepsGone(t, func(o *Options) { o.NegativeTTL = 0 })
	w.mounted("secret/data/none", "secret", "kv", "2")
	before := w.reads()
	w.load(key("secret/data/none"), "")
	w.expect(key("secret/data/none"), "", Absent, "")
	if _, err := w.Load(t.Context(), Want{Key: key("secret/data/none"), ID: w.Own(), Skip: true}); err != nil {
		t.Fatal(err)
	}
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
			w.origin.mu.Lock()
			w.origin.denied[" "+k.Path] = true
			w.origin.mu.Unlock()
			w.clock.add(time.Millisecond)
			w.loadAlone(k)
		},
	} {
		w := keepsGone(t)
		w.mounted(k.Path, "secret", "kv", "2")
		w.during(k, func() { meanwhile(w) })
		if s := w.state(k, ""); s != Absent {
			t.Errorf("%s: state %d, want none", name, s)
		}
	}

	w := keepsGone(t)
	w.mounted(k.Path, "secret", "kv", "2")
	w.during(k, func() {
		w.origin.put(k.Path, v2("new", 1, ""))
		w.clock.add(time.Millisecond)
		w.loadAlone(k)
	})
	w.expect(k, "", Fresh, "new")

	w = keepsGone(t)
	k = key("secret/data/a")
	w.origin.put(k.Path, "")
	w.mounted(k.Path, "secret", "kv", "2")
	w.clock.add(time.Millisecond)
	w.during(k, func() { w.expect(k, "", Absent, "") })
	w.expect(k, "", Fresh, "")
}

func (w *world) loadAlone(k Key) {
	w.t.Helper()
	if _, err := w.Load(context.Background(), Want{Key: k, ID: w.Own(), Alone: true}); err != nil {
		w.t.Fatal(err)
	}
}

// during loads k and does f while its mount is asked for.
func (w *world) during(k Key, f func()) {
	w.t.Helper()
	asked := preflightPrefix + k.Path
	hold := make(chan struct{})
	w.origin.mu.Lock()
	w.origin.hold[asked] = hold
	w.origin.mu.Unlock()
	done := make(chan error)
	go func() {
		_, err := w.Load(context.Background(), Want{Key: k, ID: w.Own()})
		done <- err
	}()
	select {
	case <-w.origin.arrived:
	case err := <-done:
		w.t.Fatalf("the mount was not asked for: %v", err)
	}
	w.origin.mu.Lock()
	delete(w.origin.hold, asked)
	w.origin.mu.Unlock()
	f()
	close(hold)
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
}

// others counts what the shared tier is told.
type others struct {
	tier
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
	shared := &others{}
	w := keepsGone(t, func(o *Options) { o.Shared = shared })
	w.mounted("secret/data/none", "secret", "kv", "2")
	w.load(key("secret/data/none"), "")
	w.expect(key("secret/data/none"), "", Fresh, "")
	if len(shared.kept) != 1 || shared.kept[0] != key("secret/data/a") || len(shared.dropped) != 1 || shared.dropped[0] != key("secret/data/none") {
		t.Errorf("kept %v, dropped %v", shared.kept, shared.dropped)
	}
}
