package origin

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// forbidden decides when a 403 under our own token is reason enough for another
// login: a policy that was added to the login's role counts from then on. For what
// stays forbidden that is soon given up.
type forbidden struct {
	mu        sync.Mutex // guards the fields below
	paths     map[string]backoff
	logins    []time.Time // of the last hour
	fruitless time.Time   // when such a login last brought the same policies
}

// backoff is when a path was last tried, and how long it is not tried again.
type backoff struct {
	at    time.Time
	pause time.Duration
}

// Bounds of such logins.
const (
	retryFirst    = time.Minute // for one path, after the first; then twice as long each
	retryMost     = time.Hour
	retryApart    = 10 * time.Second // for the process
	retriesHourly = 10
	maxForbidden  = 1024 // paths that are remembered
)

// may reports whether a refused request is worth a login now, and takes it down.
func (f *forbidden) may(req *http.Request, now time.Time, interval time.Duration) bool {
	if req.Method != http.MethodGet && req.Method != "LIST" || strings.HasPrefix(req.URL.Path, "/v1/sys/") || strings.HasPrefix(req.URL.Path, "/v1/auth/") {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.logins) > 0 && !clock.Within(f.logins[0], now, time.Hour) {
		f.logins = f.logins[1:]
	}
	name := req.Method + " " + req.Header.Get("X-Vault-Namespace") + " " + req.URL.Path
	b := f.paths[name]
	switch n := len(f.logins); {
	case n >= retriesHourly, n > 0 && clock.Within(f.logins[n-1], now, retryApart), b.pause > 0 && clock.Within(b.at, now, b.pause),
		clock.Within(f.fruitless, now, interval):
		return false
	}
	if f.paths == nil || len(f.paths) >= maxForbidden {
		f.paths = make(map[string]backoff)
	}
	f.paths[name] = backoff{now, min(max(2*b.pause, retryFirst), retryMost)}
	f.logins = append(f.logins, now)
	return true
}

// came takes down what a login for a refused request brought.
func (f *forbidden) came(now time.Time, same bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fruitless = (time.Time{}); same {
		f.fruitless = now
	}
}
