package origin

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestAPolicyAddedToTheRoleIsSeenAtTheNextRead: by one login and the read again.
func TestAPolicyAddedToTheRoleIsSeenAtTheNextRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const path = "/v1/secret/data/other"
	w.server.grant("a")
	if status, _ := w.send("GET", "/v1/secret/data/a", "", false); status != http.StatusOK {
		t.Fatal(status)
	}
	w.server.grant("a", "app")
	if status, _ := w.send("GET", path, "", false); status != http.StatusOK {
		t.Errorf("status %d after the policy was added", status)
	}
	if _, logins := w.server.requests(); logins != 2 {
		t.Errorf("%d logins, want one more", logins)
	}
}

// TestWhatStaysForbiddenCostsNothing: at most one login in ten seconds and ten an hour,
// for one path ever less often, and none within an interval of one that brought the
// same policies.
func TestWhatStaysForbiddenCostsNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, path string
		every        time.Duration
		hours        int
		most         int // logins beside the first
		changes      bool
	}{
		"one path, all the time":            {"GET", "/v1/secret/data/other", time.Second, 1, 6, false},   // after 0, 5 (interval), then as the backoff says
		"one path, for a day":               {"GET", "/v1/secret/data/other", time.Minute, 24, 54, false}, // half of them since a token lasts an hour,
		"ever other paths":                  {"GET", "/v1/secret/data/other%d", time.Second, 1, 10, false},
		"ever other paths and new policies": {"GET", "/v1/secret/data/other%d", time.Second, 1, 10, true},
		"a list":                            {"LIST", "/v1/secret/metadata/other", time.Second, 1, 6, false},
		"a write":                           {"POST", "/v1/secret/data/other", time.Second, 1, 0, false},
		"sys":                               {"GET", "/v1/sys/other", time.Second, 1, 0, false},
	} {
		w := newWorld(t)
		w.server.grant("a")
		began, n := w.clock(), 0
		for w.clock().Sub(began) < time.Duration(c.hours)*time.Hour {
			path := c.path
			if n++; c.path[len(c.path)-2:] == "%d" {
				path = fmt.Sprintf(c.path, n)
			}
			if c.changes {
				w.server.grant(fmt.Sprint("p", n))
			}
			if status, body := w.send(c.method, path, "", false); status != http.StatusForbidden || body != denial {
				t.Fatalf("%s: %d %q", name, status, body)
			}
			if seen, _ := w.server.requests(); len(seen) > 2 {
				t.Fatalf("%s: %d requests for one read", name, len(seen))
			}
			w.add(c.every)
		}
		if _, logins := w.server.requests(); logins-1 > c.most || c.most > 0 && logins < 2 {
			t.Errorf("%s: %d logins besides the first, want at most %d", name, logins-1, c.most)
		}
	}
}
