package compat

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

func TestVaultProxy_cache_clear(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (*origin, *thaw, string) {
		o := shared(t)
		o.put("app/a", "1")
		o.put("b", "1")
		p := o.start()
		other := o.newToken(o.policy("p", o.all()))
		for _, name := range []string{"app/a", "b"} {
			p.cached(o.data(name))
			p.as(other, o.data(name)).ok()
			p.as(other, o.data(name)).hit()
		}
		return o, p, other
	}
	clear := func(p *thaw, body string) *answer {
		return p.local(http.MethodPost, "cache-clear", body, "Content-Type", "application/json")
	}
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		o, p, other := setup(t)
		clear(p, `{"type":"all"}`).ok()
		p.get(o.data("b")).ok().miss()
		p.as(other, o.data("app/a")).ok().miss()
	})
	t.Run("request_path is a prefix", func(t *testing.T) {
		t.Parallel()
		o, p, _ := setup(t)
		clear(p, `{"type":"request_path","value":"/v1/`+o.kv+`/data/app"}`).ok()
		p.get(o.data("app/a")).ok().miss()
		p.get(o.data("b")).ok().hit()
	})
	t.Run("request_path of another namespace", func(t *testing.T) {
		t.Parallel()
		o, p, _ := setup(t)
		clear(p, `{"type":"request_path","value":"/v1/`+o.kv+`/data","namespace":"team/"}`).ok()
		p.get(o.data("app/a")).ok().hit()
	})
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		o, p, other := setup(t)
		clear(p, `{"type":"token","value":"`+other+`"}`).ok()
		p.as(other, o.data("b")).ok().miss()
		p.get(o.data("b")).ok()
	})
	for _, kind := range []string{"token_accessor", "lease"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o, p, other := setup(t)
			clear(p, `{"type":"`+kind+`","value":"x"}`).ok()
			p.as(other, o.data("b")).ok().miss()
		})
	}
	t.Run("what cannot be understood is refused", func(t *testing.T) {
		t.Parallel()
		o, p, _ := setup(t)
		for _, body := range []string{``, `x`, `{}`, `{"type":"everything"}`, `{"type":"request_path"}`, `{"type":"token"}`} {
			clear(p, body).status(http.StatusBadRequest).says(`{"errors":["thaw: `)
		}
		if r := p.local(http.MethodGet, "cache-clear", ""); r.Status != http.StatusMethodNotAllowed || r.Header.Get("Allow") == "" {
			t.Errorf("GET: %d, Allow %q", r.Status, r.Header.Get("Allow"))
		}
		p.get(o.data("b")).ok().hit()
	})
}

func TestVaultProxy_metrics(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.cached(o.data("a"))
	p.do(http.MethodPost, o.data("b"), "", map[string]any{"data": map[string]string{"v": "2"}}).ok()
	r := p.local(http.MethodGet, "metrics", "").ok()
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain; version=0.0.4") {
		t.Errorf("Content-Type %q", ct)
	}
	for name, want := range map[string]float64{
		"thaw_requests_total": 3, "thaw_hits_total": 1, "thaw_misses_total": 1, "thaw_writes_total": 1, "thaw_entries": 1, "thaw_stored_total": 1,
	} {
		if got := p.metric(name); got != want {
			t.Errorf("%s %v, not %v", name, got, want)
		}
	}
	if got := p.metric("thaw_origin_requests_total"); int(got) != o.count.Total() {
		t.Errorf("thaw_origin_requests_total %v, the origin saw %d", got, o.count.Total())
	}
	for line := range strings.Lines(string(r.Body)) {
		if f := strings.Fields(line); !strings.HasPrefix(line, "# ") && len(f) != 2 {
			t.Errorf("not Prometheus text: %q", line)
		}
	}
	lacks(t, string(r.Body), o.token, o.kv)
}

// On a hit Date is the answer's own, in GMT, and Age counts from there.
func TestVaultProxy_DateAndAgeOnAHit(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	first := p.get(o.data("a")).is("1").miss()
	if age := first.Header.Get("Age"); age != "" {
		t.Errorf("Age %q on a miss", age)
	}
	date, err := time.Parse(http.TimeFormat, first.Header.Get("Date"))
	harness.Must(t, err)
	harness.Pause(t.Context(), 2*time.Second)
	second := p.get(o.data("a")).is("1").hit()
	if got := second.Header.Get("Date"); got != first.Header.Get("Date") {
		t.Errorf("Date %q, not %q", got, first.Header.Get("Date"))
	}
	age, err := strconv.Atoi(second.Header.Get("Age"))
	harness.Must(t, err)
	if real := time.Since(date); age < 1 || time.Duration(age)*time.Second > real+time.Second {
		t.Errorf("Age %d after %v", age, real)
	}
	if got := second.Header["Date"]; len(got) != 1 {
		t.Errorf("%d Date lines", len(got))
	}
	if string(first.Body) != string(second.Body) {
		t.Error("a hit's body is not the answer's, byte for byte")
	}
}

func TestVaultProxy_OwnTokenIsHiddenInLookupSelfAndRenewSelf(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start()
	for _, c := range []struct{ method, path, part string }{
		{http.MethodGet, "auth/token/lookup-self", "data"},
		{http.MethodPost, "auth/token/renew-self", "auth"},
		{http.MethodGet, "auth/token/lookup-self?x=y", "data"},
		{http.MethodPut, "auth/token/renew-self", "auth"},
		{http.MethodGet, "auth/token//lookup-self", ""},
		{http.MethodGet, "auth/token/lookup%2dself", ""},
	} {
		r := p.do(c.method, c.path, "", nil)
		if c.part != "" {
			r.ok()
			if r.field(c.part) == nil || r.field(c.part, "accessor") != nil {
				t.Errorf("%s %s: %s", c.method, c.path, r.Body)
			}
		}
		if strings.Contains(string(r.Body), o.token) {
			t.Errorf("%s %s gives the extension's token away", c.method, c.path)
		}
		if n := r.Header.Get("Content-Length"); n != "" && n != strconv.Itoa(len(r.Body)) {
			t.Errorf("Content-Length %s of %d", n, len(r.Body))
		}
	}
	// A caller's own answer is the caller's own.
	mine := o.newToken("default")
	if got := p.as(mine, "auth/token/lookup-self").ok().field("data", "id"); got != mine {
		t.Errorf("a caller's lookup-self has id %v", got)
	}
}

func TestVaultProxy_XCacheIsMISSForWhatTheOriginAnswered(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	for _, r := range []*answer{
		p.get(o.data("a")).ok(), p.get(o.data("none")).status(404), p.get("sys/health").ok(),
		p.do(http.MethodPost, o.data("b"), "", map[string]any{"data": map[string]string{}}).ok(),
	} {
		if r.Header.Get("X-Cache") != "MISS" || r.Header.Get("Cache-Status") == "" {
			t.Errorf("X-Cache %q, Cache-Status %q", r.Header.Get("X-Cache"), r.Header.Get("Cache-Status"))
		}
	}
}
