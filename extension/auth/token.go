package auth

import (
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// token is a Vault token and what is known of its lease. It is immutable:
// renewals replace it.
type token struct {
	value     string
	at        time.Time     // when the request that told life was sent; with its monotonic reading
	life      time.Duration // what it had left then; 0: no end is known
	ttl       time.Duration // its whole lease, which the third and half of the grace are taken of
	renewable bool
	batch     bool   // cannot be renewed or revoked
	login     bool   // got by a login of ours, so ours to revoke
	known     bool   // life and identity come from the origin
	uses      int64  // how often it can be used; 0: nothing limits that
	identity  string // see identityOf; "" if unknown
}

// text is the token as it is sent; empty for none.
func (t *token) text() string {
	if t == nil {
		return ""
	}
	return t.value
}

// maxTTL bounds what an origin may claim, so that no sum overflows.
const maxTTL = 100 * 365 * 24 * time.Hour

// seconds turns a number of seconds from the origin into a duration.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), int64(maxTTL/time.Second))) * time.Second
}

// since is the time that passed from t to now, and never negative.
func since(now, t time.Time) time.Duration { return max(clock.Elapsed(t, now), 0) }

// rest is what remains of the lease; ends is false if it has no known end.
func (t *token) rest(now time.Time) (rest time.Duration, ends bool) {
	return max(t.life-since(now, t.at), 0), t.life > 0
}

// end is when it ends; zero: it has no known end.
func (t *token) end() time.Time {
	if t.life > 0 {
		return t.at.Add(t.life)
	}
	return time.Time{}
}

// alive reports whether the token has not ended.
func (t *token) alive(now time.Time) bool {
	rest, ends := t.rest(now)
	return !ends || rest > 0
}

// renews reports whether the token can be renewed.
func (t *token) renews() bool { return t.renewable && !t.batch }

// renewFrom is what a lease has left when two thirds of it are over.
func renewFrom(ttl time.Duration) time.Duration { return ttl / 3 }

// patience is how long traffic waits with another try to renew a token that has
// so much left.
func patience(rest time.Duration) time.Duration { return max(rest/10, time.Second) }

// duty is what Maintain should do about a token.
type duty int

// Duties.
const (
	dutyNone duty = iota
	dutyRenew
	dutyLogin
)

// duty decides: renew from two thirds of the life on; log in when the token
// cannot be renewed and is inside its grace period, or has ended. The grace period is
// the configured one, but at most half of the lease, so that short tokens don't lead to
// a login per request.
func (t *token) duty(now time.Time, grace time.Duration) duty {
	switch rest, ends := t.rest(now); {
	case !ends:
		return dutyNone
	case rest <= 0:
		return dutyLogin
	case t.renews() && rest <= renewFrom(t.ttl):
		return dutyRenew
	case !t.renews() && rest < min(grace, t.ttl/2):
		return dutyLogin
	}
	return dutyNone
}

// revocable reports whether the token is ours to revoke: a service token that a
// login of ours created.
func (t *token) revocable() bool { return t != nil && t.login && !t.batch }

// isBatch tells a batch token by its type, or by its prefix where the server
// doesn't say ("hvb." since Vault 1.10, "b." before:
// https://developer.hashicorp.com/vault/docs/concepts/tokens#token-prefixes).
func isBatch(value, kind string) bool {
	return kind == "batch" || kind == "" && (strings.HasPrefix(value, "hvb.") || strings.HasPrefix(value, "b."))
}

// headerSafe reports whether a token can be sent in a header: visible ASCII.
func headerSafe(value string) bool {
	return value != "" && !strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' })
}
