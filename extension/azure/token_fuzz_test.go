package azure

import (
	"strings"
	"testing"
	"time"
)

// FuzzParseToken: whatever the endpoint answers, a token that is taken fits into
// a header, and is asked for again before it ends, within a bounded time.
func FuzzParseToken(f *testing.F) {
	for _, s := range []string{
		`{"access_token":"eyJ0.a.b","expires_on":"1767917506","resource":"https://vault.azure.net","token_type":"Bearer"}`,
		`{"access_token":"t","expires_on":1767917506}`, `{"access_token":"t","expires_on":"99999999999999999999"}`, `{"access_token":"t","expires_on":-1}`,
		`{"access_token":"t","expires_on":9223372036854775807}`, `{"access_token":"t","expires_on":null}`, `{"access_token":"a\r\nb"}`, `{"access_token":""}`, `{"access_token":7}`, `[]`, ``,
	} {
		f.Add([]byte(s), int64(1767913906))
	}
	f.Fuzz(func(t *testing.T, body []byte, at int64) {
		now := time.Unix(at%(1<<34), 0)
		k, err := parseToken(body, now)
		if err != nil {
			if k != (token{}) {
				t.Fatalf("%+v beside %v", k, err)
			}
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("%q", err)
			}
			return
		}
		if k.value == "" || strings.ContainsFunc(k.value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("token %q", k.value)
		}
		if k.until.Before(now) || k.until.Sub(now) > longestLife || k.renew.After(k.until) || k.renew.Before(now) {
			t.Fatalf("at %v: until %v, renewed at %v", now, k.until, k.renew)
		}
	})
}
