package compat

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

func TestVAULT_DEFAULT_CACHE_TTL_BoundsAnEntrysAge(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start("VAULT_DEFAULT_CACHE_TTL=2s")
	p.cached(o.data("a"))
	o.put("a", "2") // at Vault itself: without the TTL unseen for THAW_RECHECK
	harness.Eventually(t, patience, "the new value", func() bool {
		r := p.get(o.data("a"))
		if age, _ := strconv.Atoi(r.Header.Get("Age")); age > 2 {
			t.Fatalf("Age %d", age)
		}
		return r.v() == "2"
	})
	p.get(o.data("a")).is("2").hit()
}

func TestVAULT_DEFAULT_CACHE_TTL_BareNumberIsSeconds(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start("VAULT_DEFAULT_CACHE_TTL=300")
	p.cached(o.data("a"))
	contains(t, refused(t, nil, "VLE_VAULT_ADDR="+nowhere, "VAULT_DEFAULT_CACHE_TTL=soon"), "VAULT_DEFAULT_CACHE_TTL", "soon")
}

func TestVAULT_DEFAULT_CACHE_TTL_DoesNotShortenTHAW_STALE_IF_ERROR(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start("VAULT_DEFAULT_CACHE_TTL=1s")
	p.cached(o.data("a"))
	o.count.Cut()
	harness.Eventually(t, patience, "the end of the TTL", func() bool { return p.get(o.data("a")).is("1").isStale() })
	harness.Pause(t.Context(), time.Second)
	p.get(o.data("a")).is("1").stale()
}

func TestVAULT_DEFAULT_CACHE_TTL_OtherGETsThatOptInAreKeptThatLong(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start("VAULT_DEFAULT_CACHE_TTL=2s")
	const path = "sys/internal/ui/resultant-acl"
	p.get(path, "X-Vault-Cache-Control", "cache").ok().miss()
	p.get(path, "X-Vault-Cache-Control", "cache").ok().hit()
	harness.Eventually(t, patience, "the end of the TTL", func() bool {
		return p.get(path, "X-Vault-Cache-Control", "cache").ok().Header.Get("X-Cache") == "MISS"
	})
	if n := o.seen(path); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestVAULT_DEFAULT_CACHE_ENABLED(t *testing.T) {
	t.Parallel()
	const other = "sys/internal/ui/resultant-acl"
	for _, c := range []struct {
		value            string
		kv, other, asked bool // is a KV read, another GET, a KV read that asks cached?
	}{
		{"", true, false, true}, {"true", true, true, true}, {"True", true, true, true}, {"false", false, false, true},
	} {
		t.Run(c.value, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			o.put("b", "1")
			p := o.start("VAULT_DEFAULT_CACHE_ENABLED="+c.value, "VAULT_DEFAULT_CACHE_TTL=1h")
			second := func(path string, head ...string) bool {
				p.get(path, head...).ok()
				return p.get(path, head...).ok().Header.Get("X-Cache") == "HIT"
			}
			if got := second(o.data("a")); got != c.kv {
				t.Errorf("a KV read is cached: %v", got)
			}
			if got := second(other); got != c.other {
				t.Errorf("another GET is cached: %v", got)
			}
			if got := second(o.data("b"), "X-Vault-Cache-Control", "cache"); got != c.asked {
				t.Errorf("a KV read that asks is cached: %v", got)
			}
		})
	}
	contains(t, refused(t, nil, "VLE_VAULT_ADDR="+nowhere, "VAULT_DEFAULT_CACHE_ENABLED=maybe"), "VAULT_DEFAULT_CACHE_ENABLED", "maybe")
}

func TestX_Vault_Cache_Control(t *testing.T) {
	t.Parallel()
	const header = "X-Vault-Cache-Control"
	t.Run("nocache asks Vault and keeps nothing", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		p := o.start()
		p.get(o.data("a"), header, "nocache").is("1").miss()
		p.get(o.data("a"), header, " NoCache ").is("1").miss()
		p.get(o.data("a")).is("1").miss()
		p.get(o.data("a")).hit()
		o.put("a", "2")
		p.get(o.data("a"), header, "nocache").is("2").miss()
	})
	t.Run("recache asks Vault and keeps the answer", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		p := o.start()
		p.cached(o.data("a"))
		o.put("a", "2")
		p.get(o.data("a"), header, " RECACHE").is("2").miss()
		p.get(o.data("a")).is("2").hit()
	})
	t.Run("cache is served from the cache", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		p := o.start("VAULT_DEFAULT_CACHE_ENABLED=false")
		p.get(o.data("a"), header, "Cache").is("1").miss()
		p.get(o.data("a"), header, "cache").is("1").hit()
	})
	t.Run("nocache while Vault is away is answered stale", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		p := o.start()
		p.cached(o.data("a"))
		o.count.Cut()
		p.get(o.data("a"), header, "nocache").is("1").stale()
	})
	t.Run("it is not sent to Vault", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		p := o.start()
		for _, v := range []string{"cache", "recache", "nocache", "nonsense"} {
			p.get(o.data("a"), header, v).ok()
			p.get("sys/health", header, v).ok()
		}
		for _, r := range o.count.Requests() {
			if len(r.Header[header]) != 0 {
				t.Errorf("%s %s carries %s", r.Method, r.Path, header)
			}
		}
	})
}

// #145, #146: what differs in every request must not make every request a miss.
func TestVLEIssue145And146_TraceHeadersDoNotDefeatTheCache(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.get(o.data("a")).is("1")
	for i, name := range []string{
		"Traceparent", "Tracestate", "X-Amzn-Trace-Id", "X-Datadog-Trace-Id", "X-Datadog-Parent-Id", "X-Datadog-Sampling-Priority",
		"B3", "X-B3-Traceid", "Baggage", "Sentry-Trace", "Newrelic", "Lambda-Runtime-Aws-Request-Id", "User-Agent", "Accept", "Accept-Encoding", "X-Request-Id", "Cookie", "If-None-Match",
	} {
		p.get(o.data("a"), name, "value-"+strconv.Itoa(i)).is("1").hit()
	}
	p.get(o.data("a"), "X-Vault-Request", "true").is("1").hit()
	if n := o.seen(o.data("a")); n != 1 {
		t.Errorf("%d reads reached Vault", n)
	}
}

func TestCacheKeySortsTheQuery(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	o.put("a", "2")
	p := o.start()
	p.get(o.data("a")).is("2")
	p.get(o.data("a") + "?version=2").is("2").miss() // the latest is version 2, but a policy may look at the query
	p.get(o.data("a") + "?version=2").is("2").hit()
	p.get(o.data("a") + "?version=0").is("2").miss() // 0 is the latest, but a policy may tell it from none
	p.get(o.data("a") + "?version=0").is("2").hit()
	p.get(o.data("a") + "?version=1").is("1").miss()
	p.get(o.data("a") + "?version=1").is("1").hit()
	p.do("LIST", o.kv+"/metadata/", "", nil).ok().miss()
	p.get(o.kv + "/metadata/?list=true").ok().hit()
	p.get(o.kv + "/metadata?list=true").ok().hit()
}

func TestCallersOwnTokenIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	mine := o.newToken(o.policy("p", reads(o.data("a"))))
	sent := func() (string, string) {
		var last harness.Request
		for _, r := range o.count.Requests() {
			if strings.HasPrefix(r.Path, "/v1/"+o.kv+"/data/") {
				last = r
			}
		}
		return last.Header.Get("X-Vault-Token"), last.Header.Get("Authorization")
	}
	p.as(mine, o.data("a")).is("1")
	if token, _ := sent(); token != mine {
		t.Error("another token was sent")
	}
	p.get(o.data("b"), "Authorization", "Bearer "+mine).status(http.StatusForbidden)
	if token, auth := sent(); token != mine && auth != "Bearer "+mine {
		t.Error("Authorization: Bearer: another token was sent")
	}
	p.get(o.data("a"), "Authorization", "bearer "+mine).is("1").hit() // the same identity
	p.as("hvs.wrong", o.data("a")).status(http.StatusForbidden)
	p.get(o.data("b")).status(http.StatusNotFound) // without one: ours, which may look
}
