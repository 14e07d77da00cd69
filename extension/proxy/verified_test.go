package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAgeAndMaxAgeCountFromTheLastVerification: a read that finds the same moves
// Date and Age along, as if it had stored the answer anew; max-age is met by any
// verification that is young enough, whatever the age of the answer.
func TestAgeAndMaxAgeCountFromTheLastVerification(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, put string
		header          []string
	}{
		{"a secret", app, "secret/data/app", nil},
		{"a version", app + "?version=1", "secret/data/app", nil},
		{"its metadata", "/v1/secret/metadata/app", "secret/data/app", nil},
		{"a list", "/v1/secret/metadata?list=true", "secret/data/app", nil},
		{"version 1", "/v1/kv/app", "kv/app", nil},
		{"a caller's", app, "secret/data/app", []string{"X-Vault-Token", ownToken}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.sender.cursor = true
			w.origin.Root(http.MethodPost, c.put, `{"data":{"v":"one"},"v":"one"}`)
			get := func(control string) answer {
				if control == "" {
					return w.get(c.path, c.header...)
				}
				return w.get(c.path, append([]string{"Cache-Control", control}, c.header...)...)
			}
			says := func(a answer, status, verified, age string) {
				t.Helper()
				w.expect(a, 200, status, "")
				if got := a.Header.Get("Cache-Status"); !strings.HasSuffix(got, "; verified-age="+verified) || a.Header.Get("Age") != age {
					t.Errorf("Cache-Status %q and Age %q, want verified %s seconds ago and %s", got, a.Header.Get("Age"), verified, age)
				}
			}
			w.expect(get(""), 200, missStored, "")
			w.poll.set("proof")
			w.clock.add(90 * time.Second)
			says(get("max-age=0"), hitCursor, "0", "90") // by the index, in this invocation
			w.clock.add(900 * time.Millisecond)
			says(get("max-age=1"), hitCursor, "0", "90")
			w.expect(get("max-age=0"), 200, forced, "") // verified 0.9s ago
			says(get("max-age=1"), hitRead, "0", "0")
			w.clock.add(5 * time.Second)
			fresh := get("no-cache")
			w.expect(fresh, 200, forced, "")
			says(get(""), hitRead, "0", "0")
			w.poll.set("")
			w.clock.add(5 * time.Second)
			w.expect(get("max-age=1"), 200, rechecked, "") // its own read
			now := get("max-age=1")
			says(now, hitRead, "0", "0")
			if was, is := fresh.Header.Get("Date"), now.Header.Get("Date"); was == "" || is == "" || is < was {
				t.Errorf("Date was %q and is %q", was, is)
			}
			w.clock.add(2 * time.Second)
			w.sender.fail(errors.New("connection refused"))
			says(get("max-age=1"), staleStatus, "2", "2")
		})
	}
}

// TestG2ARestyledRefusalPassesAfterTwoIntervals, as it came, while the origin answers
// others. Until then it is an outage, as any answer is that is not the origin's.
func TestG2ARestyledRefusalPassesAfterTwoIntervals(t *testing.T) {
	t.Parallel()
	for i := range 6 {
		status, itself := []int{401, 403, 404}[i%3], i > 2 // what it answers meanwhile is a poll's question alone
		w := newWorld(t)
		w.put("app", "one")
		w.put("other", "two")
		w.origin.SetPolicy("p", map[string][]string{"secret/data/*": {"read"}})
		token := w.origin.AddToken(0, "p")
		w.get(app, "X-Vault-Token", token)
		w.grants.silent = true
		w.origin.SetFault(func(rw http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != app {
				return false
			}
			rw.Header().Set("Content-Type", "text/html")
			rw.WriteHeader(status)
			io.WriteString(rw, "<html>no</html>")
			return true
		})
		for i := range 4 {
			now := w.clock.add(4 * time.Minute) // an interval is five
			w.cache.Ledger().Begin(now)
			if itself {
				w.cache.Ledger().Heard().OfItself(now)
			} else {
				w.get("/v1/secret/data/other", "Cache-Control", "no-cache")
			}
			a := w.get(app, "X-Vault-Token", token)
			if i >= 2 && status != 404 {
				w.expect(a, status, "", "<html>no</html>")
			} else {
				w.expect(a, 200, staleStatus, "one")
			}
		}
	}
}
