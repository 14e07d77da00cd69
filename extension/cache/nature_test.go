package cache

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestWhatEndsHereEndsInTheSharedCache: what an answer under thaw's own login says of
// the entry, or of the capability, counts for every instance. So it must not come back
// from there, to this one either.
func TestWhatEndsHereEndsInTheSharedCache(t *testing.T) {
	t.Parallel()
	const page = "<html>no</html>"
	for name, c := range map[string]struct {
		answer            foreign
		entry, capability bool // it is still there
	}{
		"what it was":           {foreign{200, asJSON, `{"request_id":"2",` + v2("one", 1)[1:]}, true, true},
		"another value":         {foreign{200, asJSON, `{"request_id":"2",` + v2("two", 2)[1:]}, true, true},
		"leased":                {foreign{200, asJSON, `{"request_id":"1","lease_id":"x","lease_duration":60,"data":{"v":"two"},"mount_type":"database"}`}, false, true},
		"another engine's":      {foreign{200, asJSON, `{"request_id":"1","lease_id":"","data":{"v":"two"},"mount_type":"transit"}`}, false, true},
		"too large":             {foreign{200, asJSON, `{"request_id":"1","data":{"data":{"v":"` + strings.Repeat("x", maxBody) + `"}},"mount_type":"kv"}`}, false, true},
		"wrapped":               {foreign{200, asJSON, `{"request_id":"","wrap_info":{"token":"t","ttl":60},"data":null}`}, true, false},
		"a login":               {foreign{200, asJSON, `{"request_id":"1","auth":{"client_token":"t"},"data":null}`}, true, false},
		"forbidden":             {foreign{403, asJSON, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`}, true, false},
		"a token that is none":  {foreign{403, asJSON, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`}, true, true},
		"a locked namespace":    {foreign{503, asJSON, `{"errors":["API access to this namespace has been locked by an administrator"]}`}, true, false},
		"nothing there":         {foreign{404, asJSON, `{"errors":[]}`}, false, true},
		"bad request":           {foreign{400, asJSON, `{"errors":["upgrading from non-versioned to versioned data"]}`}, true, true},
		"a node that lags":      {foreign{412, asJSON, `{"errors":["required index state not present"]}`}, true, true},
		"sealed":                {foreign{503, asJSON, `{"errors":["Vault is sealed"]}`}, true, true},
		"refused for load":      {foreign{429, asJSON, `{"errors":["request path \"x\": rate limit quota exceeded"]}`}, true, true},
		"somebody else's 200":   {foreign{200, asJSON, `{"status":"maintenance"}`}, true, true},
		"somebody else's 403":   {foreign{403, "text/html", page}, true, true},
		"somebody else's 404":   {foreign{404, "text/html", page}, true, true},
		"somebody else's login": {foreign{302, "text/html", page}, true, true},
	} {
		shared := newTier()
		w := newWorld(t, func(o *Options) { o.Shared = shared })
		k := key("secret/data/a")
		w.origin.put(k.Path, "one")
		w.load(k, "")
		version := Key{Path: k.Path, Query: "version=1"}
		w.load(version, "")
		w.Begin(w.clock.add(time.Minute))
		w.inBetween(&c.answer)
		a := w.load(k, "")
		a.Close()
		if _, entry := shared.records[k]; entry != c.entry {
			t.Errorf("%s: the shared entry is there: %v", name, entry)
		}
		if known := shared.grants[k.Capability()]; known.Ended.IsZero() != c.capability {
			t.Errorf("%s: the shared capability is %+v", name, known)
		}
		if known := shared.grants[version.Capability()]; known.Ended.IsZero() != c.capability {
			t.Errorf("%s: with another query it is %+v", name, known)
		}
		w.FillShared(t.Context(), k)
		gone := !c.entry || !c.capability || a.Status == http.StatusForbidden && name == "a token that is none"
		if h := w.look(k, "", w.clock.now()); c.capability && h.Entry == nil != gone && name != "a token that is none" || !c.capability && h.Entry != nil {
			t.Errorf("%s: served afterwards: %+v", name, h)
		}
	}
}

// TestWhatIsNotKeptForOneStaysForOthers: an answer that is not to be kept by its nature
// takes what was kept. That nothing is kept for whoever asked, or that nobody could say
// what the path is, is not its nature.
func TestWhatIsNotKeptForOneStaysForOthers(t *testing.T) {
	t.Parallel()
	const token = "hvs.other"
	for name, c := range map[string]struct {
		bao bool // answers have no mount_type
		ask func(w *world) *Identity
	}{
		"uses are counted":      {false, func(w *world) *Identity { id := w.Caller(token); w.Learned(id, Token{Counted: true}); return id }},
		"the token is too long": {false, func(w *world) *Identity { return w.Caller(strings.Repeat("x", maxToken+1)) }},
		"the caller is forgotten": {false, func(w *world) *Identity {
			id := w.Caller(token)
			w.Forget(token)
			return id
		}},
		"nobody": {false, func(*world) *Identity { return &Identity{} }},
		"the mount is not told": {true, func(w *world) *Identity {
			w.Mounts.reset()
			w.origin.answer(preflightPrefix+"secret/data/a", trouble(502))
			return w.Own()
		}},
		"the mount is not told to this one": {true, func(w *world) *Identity {
			w.Mounts.reset()
			w.origin.answer(preflightPrefix+"secret/data/a", badToken())
			return w.Caller(token)
		}},
	} {
		w := worldOf(t, c.bao)
		k := key("secret/data/a")
		w.origin.put(k.Path, "one")
		w.load(k, "")
		w.Begin(w.clock.add(time.Minute))
		if a, err := w.Load(t.Context(), Want{Key: k, ID: c.ask(w)}); err != nil || a.Status != http.StatusOK {
			t.Fatalf("%s: %+v %v", name, a, err)
		}
		if h := w.look(k, "", w.clock.now()); h.Entry == nil || !h.Stale {
			t.Errorf("%s: what thaw itself holds is gone: %+v", name, h)
		}
	}
}

// TestG4OptingInMakesNothingElseTheOriginsWord: for what is not KV the shape of its answers
// is not known, but of KV it is, whatever a request asks for.
func TestG4OptingInMakesNothingElseTheOriginsWord(t *testing.T) {
	t.Parallel()
	more := []foreign{
		{200, asJSON, `{"request_id":"1","message":"maintenance"}`}, {200, asJSON, `{"request_id":"1","data":null}`}, {200, asJSON, `{"request_id":"1","data":[]}`},
		{200, asJSON, `{"request_id":"1","message":"maintenance","mount_type":"kv"}`},
	}
	for name, k := range kept(newWorld(t)) {
		for _, f := range append(foreigners(), more...) {
			for _, configured := range []bool{true, false} {
				w := newWorld(t, func(o *Options) {
					o.TTL = time.Hour
					if configured {
						o.Mounts = []Mount{{Path: "secret", Version: 2}, {Path: "kv", Version: 1}}
					}
				})
				kept(w)
				load := func() Answer {
					a := w.loadAs(Want{Key: k, ID: w.Own(), OptIn: true})
					a.Close()
					return a
				}
				w.inBetween(&f)
				if a := load(); configured && (a.Stored || a.Failure == nil) {
					t.Errorf("%s, %d %s, configured %v: with nothing cached it is stored: %v, failure: %v", name, f.status, f.body, configured, a.Stored, a.Failure)
				}
				w.inBetween(nil)
				load()
				w.Begin(w.clock.add(time.Minute))
				w.inBetween(&f)
				a := load()
				if h := w.Lookup(k, w.Own(), true, w.clock.now()); a.Failure == nil || h.Entry == nil || h.State != Failing || !h.Stale || !strings.Contains(string(h.Entry.Body), "one") {
					t.Errorf("%s, %d %s, configured %v: what was cached is %v, %v; failure: %v", name, f.status, f.body, configured, h.State, h.Entry, a.Failure)
				}
			}
		}
	}
}

// TestACacheInBetweenPutsNothingOlderInPlace: its answer may be older than what the
// origin said meanwhile.
func TestACacheInBetweenPutsNothingOlderInPlace(t *testing.T) {
	t.Parallel()
	for age, want := range map[int]string{5: "old", 59: "old", 61: "new", 3600: "new"} {
		w := newWorld(t)
		k := key("secret/data/a")
		w.origin.put(k.Path, "new")
		w.load(k, "")
		w.Begin(w.clock.add(time.Minute))
		w.origin.says(k.Path, v2("old", 1))
		w.origin.header.Set("Age", fmt.Sprint(age))
		w.load(k, "")
		w.expect(k, "", Unverified, want)
	}
}

// TestACacheInBetweenTellsNoMount: a mount may have been another when it was asked.
func TestACacheInBetweenTellsNoMount(t *testing.T) {
	t.Parallel()
	for _, asked := range []string{"secret/data/a", preflightPrefix + "secret/data/a"} { // by thaw, and by a caller
		w := baoWorld(t)
		w.origin.put("secret/data/a", "one")
		w.mounted("secret/data/a", "secret", "kv", "1")
		w.origin.header.Set("Age", "5")
		w.load(key(asked), "")
		if m, known := w.Knows("", "secret/data/a"); known {
			t.Errorf("%s: %+v", asked, m)
		}
	}
}

// TestAWriteInVainForgetsNoMount: anybody can send one to the mount table.
func TestAWriteInVainForgetsNoMount(t *testing.T) {
	t.Parallel()
	for _, inVain := range []bool{true, false} {
		w := newWorld(t)
		w.Learn(Mount{Path: "secret", Version: 2})
		write := NewWrite("", "sys/mounts/secret")
		w.BeginWrite(write)
		w.EndWrite(write, inVain)
		if _, known := w.Knows("", "secret/data/a"); known != inVain {
			t.Errorf("in vain %v, known %v", inVain, known)
		}
	}
}

// TestG2A404OpensNothingThatIsThereLater: a capability is born of a read that Vault
// answered with 200. With one of a 404 only that 404 may be served.
func TestG2A404OpensNothingThatIsThereLater(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]Key{"a secret": key("secret/data/a"), "a version": {Path: "secret/data/a", Query: "version=1"}} {
		shared := newTier()
		w := newWorld(t, func(o *Options) {
			o.NegativeTTL, o.Recheck, o.Shared = time.Minute, time.Hour, shared
			o.Mounts = []Mount{{Path: "secret", Version: 2}}
		})
		w.load(k, "")
		w.load(k, "alice")
		w.known("alice")
		w.clock.add(1)
		for _, token := range []string{"", "alice"} {
			w.expect(k, token, Fresh, "")
			w.Confirm(w.identity(token), w.clock.now(), []Capability{k.Capability()}, nil)
		}
		if len(shared.grants) > 0 {
			t.Errorf("%s: others are told %v", name, shared.grants)
		}
		w.origin.put(k.Path, "one")
		w.load(k, "bob")
		w.expect(k, "bob", Fresh, "one")
		w.expect(k, "", Absent, "")
		w.expect(k, "alice", Absent, "")
		w.load(k, "alice")
		w.expect(k, "alice", Fresh, "one")
		w.origin.put(k.Path, "")
		w.clock.add(1)
		w.load(k, "bob") // a 404 takes nothing of what was read before
		w.origin.put(k.Path, "two")
		w.clock.add(1)
		w.load(k, "bob")
		w.expect(k, "alice", Fresh, "two")
	}
}
