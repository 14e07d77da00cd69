package backoff

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/vault"
)

// limit is what an answer says about the rate limit. The zero value: nothing.
//
// Vault sends these with every answer where enable_rate_limit_response_headers
// is set (https://developer.hashicorp.com/vault/api-docs/system/quotas-config).
// Reset is in whole seconds there, rounded up: vault/quotas/quotas_rate_limit.go
// of hashicorp/vault v1.21.0, retryAfterSeconds.
type limit struct {
	known     bool
	most      float64       // requests in a window
	remaining float64       // of them
	reset     time.Duration // until the window ends, at most
}

const (
	headerLimit     = "X-Ratelimit-Limit"
	headerRemaining = "X-Ratelimit-Remaining"
	headerReset     = "X-Ratelimit-Reset"
)

// longest bounds every wait that is read from an answer.
const longest = 30 * 24 * time.Hour

// readLimit reads the X-Ratelimit- headers. Some servers send a moment in Unix
// seconds as the reset instead of a number of seconds.
func readLimit(h http.Header, now time.Time) limit {
	most, limited := number(h.Get(headerLimit))
	remaining, counted := number(h.Get(headerRemaining))
	reset, timed := resetIn(h, now)
	if !limited || !counted || !timed || most <= 0 || reset <= 0 {
		return limit{}
	}
	return limit{known: true, most: most, remaining: remaining, reset: reset}
}

// epoch is the least number of seconds that is taken for a moment in time.
const epoch = 1e9

func resetIn(h http.Header, now time.Time) (time.Duration, bool) {
	n, ok := number(h.Get(headerReset))
	if !ok {
		return 0, false
	}
	if n >= epoch {
		n -= float64(now.Unix())
	}
	return seconds(n), true
}

// number reads a decimal number that is not negative.
func number(v string) (float64, bool) {
	v = strings.TrimSpace(v)
	if v == "" || len(v) > 24 || strings.Trim(v, "0123456789.") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(v, 64)
	return n, err == nil
}

func seconds(n float64) time.Duration {
	return time.Duration(min(max(n, 0), longest.Seconds()) * float64(time.Second))
}

// askedWait reads how long an answer 429 asks to wait: the longest of what it
// says. ok is false when it says nothing.
func askedWait(h http.Header, body []byte, now time.Time) (wait time.Duration, ok bool) {
	take := func(d time.Duration, found bool) {
		if found {
			wait, ok = max(wait, min(d, longest)), true
		}
	}
	take(vault.RetryAfter(h, now))
	take(resetIn(h, now))
	for name, values := range h {
		if name == "Retry-After" {
			continue
		}
		for _, v := range values {
			take(releasedIn(v))
		}
	}
	take(releasedIn(string(body[:min(len(body), maxRefusal)])))
	return wait, ok
}

const released = "will be released in "

// releasedIn finds "will be released in <duration>" in a text. A duration is
// Go's ("1m30s"), or a number with a unit in words, or a bare number of
// seconds.
func releasedIn(text string) (time.Duration, bool) {
	_, rest, found := strings.Cut(strings.ToLower(text), released)
	if !found {
		return 0, false
	}
	rest = strings.TrimLeft(rest, " ")
	word := strings.TrimRight(leading(rest, "0123456789.hmsunµ"), ".")
	if d, err := time.ParseDuration(word); err == nil {
		return max(d, 0), true
	}
	digits := leading(rest, "0123456789.")
	n, ok := number(strings.TrimRight(digits, "."))
	if !ok {
		return 0, false
	}
	unit := strings.TrimLeft(rest[len(digits):], " ")
	switch {
	case strings.HasPrefix(unit, "ms"), strings.HasPrefix(unit, "millisecond"):
		return seconds(n / 1000), true
	case strings.HasPrefix(unit, "min"):
		return seconds(n * 60), true
	case strings.HasPrefix(unit, "hour"):
		return seconds(n * 3600), true
	}
	return seconds(n), true
}

// leading is what s begins with of the characters in set.
func leading(s, set string) string { return s[:len(s)-len(strings.TrimLeft(s, set))] }
