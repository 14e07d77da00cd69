package proxy

import (
	"strconv"
	"strings"
	"time"
)

// directives are what a request says about caching: Cache-Control (RFC 9111
// section 5.2.1, RFC 5861 section 4) and vault-lambda-extension's
// X-Vault-Cache-Control.
type directives struct {
	optIn      bool          // cache, recache: keep the answer although it is no KV
	again      bool          // no-cache, nocache, recache: ask the origin
	noStore    bool          // no-store, nocache: keep nothing of it
	onlyCached bool          // only-if-cached
	maxAge     time.Duration // max-age; -1: not said
	staleFor   time.Duration // stale-if-error; -1: not said
}

func parseDirectives(said *said) directives {
	d := directives{maxAge: -1, staleFor: -1}
	for _, line := range said.control {
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "no-cache":
				d.again = true
			case "no-store":
				d.again, d.noStore = true, true
			case "only-if-cached":
				d.onlyCached = true
			case "max-age":
				d.maxAge = deltaSeconds(value, 0)
			case "stale-if-error":
				d.staleFor = deltaSeconds(value, 0)
			}
		}
	}
	for _, line := range said.vaultControl {
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "cache":
			d.optIn = true
		case "recache":
			d.optIn, d.again = true, true
		case "nocache":
			d.again, d.noStore = true, true
		}
	}
	return d
}

// deltaSeconds parses RFC 9111's delta-seconds; what is none means other.
func deltaSeconds(v string, other time.Duration) time.Duration {
	n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(v), `"`), 10, 63)
	if err != nil {
		return other
	}
	return time.Duration(min(n, 1<<31)) * time.Second
}
