package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/poll"
)

// parseDirectives reads what a request says about caching: Cache-Control (RFC 9111
// section 5.2.1, RFC 5861 section 4) and vault-lambda-extension's
// X-Vault-Cache-Control.
func parseDirectives(h http.Header) poll.Want {
	d := poll.Want{MaxAge: -1, StaleFor: -1}
	for _, line := range h["Cache-Control"] {
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "no-cache":
				d.Again = true
			case "no-store":
				d.Again, d.NoStore = true, true
			case "only-if-cached":
				d.OnlyCached = true
			case "max-age":
				d.MaxAge = deltaSeconds(value)
			case "stale-if-error":
				d.StaleFor = deltaSeconds(value)
			}
		}
	}
	for _, line := range h[controlHeader] {
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "cache":
			d.OptIn = true
		case "recache":
			d.OptIn, d.Again = true, true
		case "nocache":
			d.Again, d.NoStore = true, true
		}
	}
	return d
}

// deltaSeconds parses RFC 9111's delta-seconds; what is none means 0.
func deltaSeconds(v string) time.Duration {
	n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(v), `"`), 10, 63)
	if err != nil {
		return 0
	}
	return time.Duration(min(n, 1<<31)) * time.Second
}
