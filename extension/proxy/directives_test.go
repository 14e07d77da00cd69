package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/poll"
)

// parsed parses headers given as pairs of name and value.
func parsed(headers ...string) poll.Want {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	return parseDirectives(h)
}

func TestDirectives(t *testing.T) {
	t.Parallel()
	none := poll.Want{MaxAge: -1, StaleFor: -1}
	with := func(change func(*poll.Want)) poll.Want {
		d := none
		change(&d)
		return d
	}
	for _, c := range []struct {
		headers []string
		want    poll.Want
	}{
		{nil, none},
		{[]string{"Cache-Control", ""}, none},
		{[]string{"Cache-Control", "private, max-stale=4, no-transform"}, none},
		{[]string{"Cache-Control", "no-cache"}, with(func(d *poll.Want) { d.Again = true })},
		{[]string{"Cache-Control", "No-Cache , ONLY-IF-CACHED"}, with(func(d *poll.Want) { d.Again, d.OnlyCached = true, true })},
		{[]string{"Cache-Control", "no-store"}, with(func(d *poll.Want) { d.Again, d.NoStore = true, true })},
		{[]string{"Cache-Control", "max-age=5"}, with(func(d *poll.Want) { d.MaxAge = 5 * time.Second })},
		{[]string{"Cache-Control", ` max-age = "5" `}, with(func(d *poll.Want) { d.MaxAge = 5 * time.Second })},
		{[]string{"Cache-Control", "max-age=0"}, with(func(d *poll.Want) { d.MaxAge = 0 })},
		{[]string{"Cache-Control", "max-age"}, with(func(d *poll.Want) { d.MaxAge = 0 })},
		{[]string{"Cache-Control", "max-age=-1"}, with(func(d *poll.Want) { d.MaxAge = 0 })},
		{[]string{"Cache-Control", "max-age=1.5"}, with(func(d *poll.Want) { d.MaxAge = 0 })},
		{[]string{"Cache-Control", "max-age=99999999999"}, with(func(d *poll.Want) { d.MaxAge = 1 << 31 * time.Second })},
		{[]string{"Cache-Control", "max-age=99999999999999999999999"}, with(func(d *poll.Want) { d.MaxAge = 0 })},
		{[]string{"Cache-Control", "stale-if-error=60"}, with(func(d *poll.Want) { d.StaleFor = time.Minute })},
		{[]string{"Cache-Control", "max-age=1", "Cache-Control", "stale-if-error=2"}, with(func(d *poll.Want) { d.MaxAge, d.StaleFor = time.Second, 2*time.Second })},
		{[]string{"X-Vault-Cache-Control", "cache"}, with(func(d *poll.Want) { d.OptIn = true })},
		{[]string{"X-Vault-Cache-Control", " ReCache "}, with(func(d *poll.Want) { d.OptIn, d.Again = true, true })},
		{[]string{"X-Vault-Cache-Control", "NOCACHE"}, with(func(d *poll.Want) { d.Again, d.NoStore = true, true })},
		{[]string{"X-Vault-Cache-Control", "no-cache"}, none},
		{[]string{"X-Vault-Cache-Control", "cache", "Cache-Control", "max-age=3"}, with(func(d *poll.Want) { d.OptIn, d.MaxAge = true, 3*time.Second })},
	} {
		if got := parsed(c.headers...); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.headers, got, c.want)
		}
	}
}

// FuzzDirectives: whatever a caller says, nothing it says makes thaw less
// careful than it would be without.
func FuzzDirectives(f *testing.F) {
	for _, s := range []string{"max-age=5, no-cache", "only-if-cached,stale-if-error=\"3\"", "max-age=,=,;", "no-store=\"a,b\"", "recache"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, control, vault string) {
		d := parsed("Cache-Control", control, "X-Vault-Cache-Control", vault)
		const longest = 1 << 31 * time.Second
		if d.MaxAge < -1 || d.MaxAge > longest || d.StaleFor < -1 || d.StaleFor > longest {
			t.Errorf("%q: out of bounds: %+v", control, d)
		}
		if d.NoStore && !d.Again {
			t.Errorf("%q %q: keeps nothing and uses what is kept: %+v", control, vault, d)
		}
		lower := strings.ToLower(control)
		if d.MaxAge >= 0 && !strings.Contains(lower, "max-age") || d.StaleFor >= 0 && !strings.Contains(lower, "stale-if-error") {
			t.Errorf("%q: says what was not said: %+v", control, d)
		}
		if d.OptIn && strings.TrimSpace(vault) == "" {
			t.Errorf("%q: opts in by itself", vault)
		}
	})
}
