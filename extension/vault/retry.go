package vault

import (
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Waits between attempts: backoffFirst, doubled each time up to backoffMost,
// each 25% more or less so that a fleet that failed together does not come
// back together.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 2 * time.Second
)

// passing tells whether a status may be another one soon. 501 may not; 412
// means a node that lags and is not a matter of waiting here.
func passing(req *http.Request, status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		// There the status is the answer: 429 is a standby, 503 a sealed node.
		// https://developer.hashicorp.com/vault/api-docs/system/health
		path := strings.TrimRight(req.URL.Path, "/")
		return path != healthPath && path != leaderPath && path != "/v1/sys/seal-status"
	}
	return false
}

// wait is how long to wait after attempt n (from 0) that brought r; not less than an
// answer says. ok is false where that does not end before the deadline, whatever chance
// adds to it.
func (k *call) wait(n int, r *result) (d time.Duration, ok bool) {
	d = min(backoffFirst<<min(n, 10), backoffMost)
	more, left := rand.N(d/2+1)-d/4, time.Until(k.deadline)
	if r.Response != nil {
		if least, asked := RetryAfter(r.Header, k.c.o.Now()); asked {
			d, more = max(least, d), rand.N(backoffFirst/4+1)
		}
	}
	return min(d+more, left), k.ctx.Err() == nil && d < left
}

// RetryAfter reads the header Retry-After: seconds, or an HTTP date that is
// compared with now. A date that has passed is 0; a number too large for a
// Duration is the largest one. ok is false if the header is missing or is
// neither. https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
func RetryAfter(h http.Header, now time.Time) (d time.Duration, ok bool) {
	v := strings.Trim(h.Get("Retry-After"), " \t")
	if v != "" && strings.Trim(v, "0123456789") == "" {
		n, _ := strconv.ParseUint(v, 10, 64) // too large a number is the largest
		if n > uint64(math.MaxInt64/time.Second) {
			return math.MaxInt64, true
		}
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return max(clock.Until(at, now), 0), true
}
