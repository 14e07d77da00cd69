package cache

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// foreign is an answer that something between us and the origin gives, or that
// the origin gives instead of what is kept.
type foreign struct {
	status int
	kind   string // Content-Type
	body   string
}

func (f *foreign) response() *http.Response {
	h := http.Header{}
	if f.kind != "" {
		h.Set("Content-Type", f.kind)
	}
	return &http.Response{StatusCode: f.status, Header: h, Body: io.NopCloser(strings.NewReader(f.body)), ContentLength: int64(len(f.body))}
}

const asJSON = "application/json"

// foreigners are answers that are not the origin's, whatever was asked.
func foreigners() []foreign {
	var all []foreign
	for _, status := range []int{200, 201, 204, 206, 302, 400, 401, 403, 404, 405, 408, 413, 421, 425, 431, 460, 499} {
		all = append(all, foreign{status, "text/html", "<html>maintenance</html>"}, foreign{status, asJSON, `{"message":"Forbidden"}`}, foreign{status, "", ""})
	}
	for _, body := range []string{
		`{"status":"maintenance"}`, `{}`, `null`, `[]`, `"x"`, `{"errors":["x"]}`, `{"errors":{}}`, `{"data":{"data":{"v":"evil"}}}`, `{"request_id":"","data":{}}`,
		`{"request_id":7,"data":{}}`, `{"request_id":"1"`, `{"request_id":"1","data":null}`, `{"request_id":"1","data":[]}`,
	} {
		all = append(all, foreign{200, asJSON, body})
	}
	for _, body := range []string{`{"errors":"permission denied"}`, `{"errors":null}`, `{"request_id":"1"}`, `{"errors":["permission denied"`} {
		all = append(all, foreign{403, asJSON, body}, foreign{404, asJSON, body})
	}
	return append(all, foreign{200, "text/plain", `{"request_id":"1","data":{"data":{"v":"evil"}}}`})
}

// kept are reads of every kind that is cached, each with "one" in its answer.
func kept(w *world) map[string]Key {
	for _, path := range []string{"secret/data/a", "secret/data/one", "kv/a", "kv/x/one"} {
		w.origin.put(path, "one")
	}
	w.origin.write("secret/metadata/a", `{"custom_metadata":{"note":"one"}}`)
	return map[string]Key{
		"data 2":     key("secret/data/a"),
		"a version":  {Path: "secret/data/a", Query: "version=1"},
		"data 1":     key("kv/a"),
		"metadata":   key("secret/metadata/a"),
		"a list":     {Path: "secret/metadata", Op: List},
		"a list, v1": {Path: "kv/x", Op: List},
	}
}

// TestG4WhatIsNotTheOriginsWordChangesNothing: whatever comes from something in
// between is kept nowhere, takes no entry and no capability, and counts as an
// origin that could not answer. It passes as it came.
func TestG4WhatIsNotTheOriginsWordChangesNothing(t *testing.T) {
	t.Parallel()
	for name, k := range kept(newWorld(t)) {
		for _, f := range foreigners() {
			for _, token := range []string{"", "alice"} {
				t.Run(fmt.Sprintf("%s, %q, %d %s %s", name, token, f.status, f.kind, f.body), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, func(o *Options) {
						o.NegativeTTL = time.Minute
						o.Mounts = []Mount{{Path: "secret", Version: 2}, {Path: "kv", Version: 1}}
					})
					kept(w)
					w.inBetween(&f)
					a := w.load(k, token)
					if body, _ := io.ReadAll(stream(a)); a.Status != f.status || string(body) != f.body || a.Failure == nil || a.Stored {
						t.Errorf("with nothing cached it is %d %q, failure: %v, stored: %v", a.Status, body, a.Failure, a.Stored)
					}
					w.expect(k, token, Absent, "")
					w.inBetween(nil)
					w.load(k, token)
					if token != "" {
						w.known(token)
					}
					w.Begin(w.clock.add(time.Minute))
					w.inBetween(&f)
					a = w.load(k, token)
					a.Close()
					if h := w.look(k, token, w.clock.now()); h.Entry == nil || h.State != Failing || !h.Stale || !strings.Contains(string(h.Entry.Body), "one") || a.Failure == nil {
						t.Errorf("what was cached: %v, stale: %v, %+v", h.State, h.Stale, h.Entry)
					}
				})
			}
		}
	}
}

// stream is what a caller reads of an answer.
func stream(a Answer) io.Reader {
	if a.Stream != nil {
		return a.Stream
	}
	return strings.NewReader(string(a.Body))
}

// TestWhatMayNotBeKeptAnyMoreTakesWhatWasKept: the origin itself answers with
// what by its nature is kept nowhere.
func TestWhatMayNotBeKeptAnyMoreTakesWhatWasKept(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer foreign
		skip   bool // the request says no-store
		other  State
	}{
		"leased":                 {foreign{200, asJSON, `{"request_id":"1","lease_id":"x","lease_duration":60,"data":{"v":"two"},"mount_type":"database"}`}, false, Absent},
		"another engine's":       {foreign{200, asJSON, `{"request_id":"1","lease_id":"","data":{"v":"two"},"mount_type":"transit"}`}, false, Absent},
		"wrapped":                {foreign{200, asJSON, `{"request_id":"","wrap_info":{"token":"t","ttl":60},"data":null}`}, false, Unverified},
		"a login":                {foreign{200, asJSON, `{"request_id":"1","auth":{"client_token":"t"},"data":null}`}, false, Unverified},
		"too large":              {foreign{200, asJSON, `{"request_id":"1","data":{"data":{"v":"` + strings.Repeat("x", maxBody) + `"}},"mount_type":"kv"}`}, false, Absent},
		"a request's wish alone": {foreign{200, asJSON, `{"request_id":"1","data":{"data":{"v":"two"},"metadata":{"version":2}},"mount_type":"kv"}`}, true, Unverified},
	} {
		for _, optIn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, %v", name, optIn), func(t *testing.T) {
				t.Parallel()
				w, a := heldBy(t, func(*Options) {}, "alice", "bob")
				w.Begin(w.clock.add(time.Minute))
				w.inBetween(&c.answer)
				got, err := w.Load(t.Context(), Want{Key: a, ID: w.identity("alice"), Skip: c.skip, OptIn: optIn})
				if err != nil || got.Failure != nil || got.Stored {
					t.Fatalf("%+v %v", got, err)
				}
				got.Close()
				want := Absent
				if c.skip {
					want = Unverified
				}
				w.expect(a, "alice", want, map[bool]string{true: "one"}[c.skip])
				w.expect(a, "bob", c.other, map[bool]string{true: "one"}[c.other != Absent]) // a wrapped answer is about her
			})
		}
	}
}

// TestG2ARestyledRefusalKeepsACapabilityForTwoIntervals: something in between gives the
// origin's own refusals another look. Where the origin answers others, that is no
// outage for good.
func TestG2ARestyledRefusalKeepsACapabilityForTwoIntervals(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "alice"} {
		for _, others := range []string{"others", "itself", "nobody"} { // what the origin answers meanwhile
			for _, status := range []int{401, 403, 400, 404, 502} {
				t.Run(fmt.Sprintf("token %q, %s, %d", token, others, status), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, func(o *Options) { o.Recheck, o.StaleIfError = 24*time.Hour, 24*time.Hour })
					k := key("secret/data/a")
					w.origin.put(k.Path, "one")
					w.load(k, token)
					if token != "" {
						w.known(token)
					}
					ends := others != "nobody" && (status == 401 || status == 403)
					for i := range 5 {
						w.clock.add(w.Cache.o.RefreshInterval - time.Second)
						switch others {
						case "others":
							answers(w)
						case "itself":
							w.Ledger.Heard().OfItself(w.clock.now())
						}
						w.ConfirmFailed(w.identity(token), w.clock.now().Add(time.Second), status)
						h := w.look(k, token, w.clock.now())
						if late := i >= 2; h.Overdue != (late && ends) || h.Entry == nil || h.Lately != !late {
							t.Errorf("after %d intervals: overdue %v, confirmed lately %v, want the read sent: %v", i+1, h.Overdue, h.Lately, late && ends)
						}
					}
					w.inBetween(&foreign{status, "text/html", "<html>no</html>"})
					a := w.load(k, token)
					a.Close()
					if a.Failure == nil || errors.Is(a.Failure, ErrRestyled) != (status == 401 || status == 403) {
						t.Errorf("the read: %v", a.Failure)
					}
					w.inBetween(nil)
					w.load(k, token) // it may be read all the same: all is as it was
					w.expect(k, token, Fresh, "one")
				})
			}
		}
	}
}
