package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// parsed parses headers given as pairs of name and value.
func parsed(headers ...string) directives {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	s := gather(h)
	return parseDirectives(&s)
}

func TestDirectives(t *testing.T) {
	t.Parallel()
	none := directives{maxAge: -1, staleFor: -1}
	with := func(change func(*directives)) directives {
		d := none
		change(&d)
		return d
	}
	for _, c := range []struct {
		headers []string
		want    directives
	}{
		{nil, none},
		{[]string{"Cache-Control", ""}, none},
		{[]string{"Cache-Control", "private, max-stale=4, no-transform"}, none},
		{[]string{"Cache-Control", "no-cache"}, with(func(d *directives) { d.again = true })},
		{[]string{"Cache-Control", "No-Cache , ONLY-IF-CACHED"}, with(func(d *directives) { d.again, d.onlyCached = true, true })},
		{[]string{"Cache-Control", "no-store"}, with(func(d *directives) { d.again, d.noStore = true, true })},
		{[]string{"Cache-Control", "max-age=5"}, with(func(d *directives) { d.maxAge = 5 * time.Second })},
		{[]string{"Cache-Control", ` max-age = "5" `}, with(func(d *directives) { d.maxAge = 5 * time.Second })},
		{[]string{"Cache-Control", "max-age=0"}, with(func(d *directives) { d.maxAge = 0 })},
		{[]string{"Cache-Control", "max-age"}, with(func(d *directives) { d.maxAge = 0 })},
		{[]string{"Cache-Control", "max-age=-1"}, with(func(d *directives) { d.maxAge = 0 })},
		{[]string{"Cache-Control", "max-age=1.5"}, with(func(d *directives) { d.maxAge = 0 })},
		{[]string{"Cache-Control", "max-age=99999999999"}, with(func(d *directives) { d.maxAge = 1 << 31 * time.Second })},
		{[]string{"Cache-Control", "max-age=99999999999999999999999"}, with(func(d *directives) { d.maxAge = 0 })},
		{[]string{"Cache-Control", "stale-if-error=60"}, with(func(d *directives) { d.staleFor = time.Minute })},
		{[]string{"Cache-Control", "max-age=1", "Cache-Control", "stale-if-error=2"}, with(func(d *directives) { d.maxAge, d.staleFor = time.Second, 2*time.Second })},
		{[]string{"X-Vault-Cache-Control", "cache"}, with(func(d *directives) { d.optIn = true })},
		{[]string{"X-Vault-Cache-Control", " ReCache "}, with(func(d *directives) { d.optIn, d.again = true, true })},
		{[]string{"X-Vault-Cache-Control", "NOCACHE"}, with(func(d *directives) { d.again, d.noStore = true, true })},
		{[]string{"X-Vault-Cache-Control", "no-cache"}, none},
		{[]string{"X-Vault-Cache-Control", "cache", "Cache-Control", "max-age=3"}, with(func(d *directives) { d.optIn, d.maxAge = true, 3*time.Second })},
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
		if d.maxAge < -1 || d.maxAge > longest || d.staleFor < -1 || d.staleFor > longest {
			t.Errorf("%q: out of bounds: %+v", control, d)
		}
		if d.noStore && !d.again {
			t.Errorf("%q %q: keeps nothing and uses what is kept: %+v", control, vault, d)
		}
		lower := strings.ToLower(control)
		if d.maxAge >= 0 && !strings.Contains(lower, "max-age") || d.staleFor >= 0 && !strings.Contains(lower, "stale-if-error") {
			t.Errorf("%q: says what was not said: %+v", control, d)
		}
		if d.optIn && strings.TrimSpace(vault) == "" {
			t.Errorf("%q: opts in by itself", vault)
		}
	})
}
