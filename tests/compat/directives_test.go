package compat

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

const cacheControl = "Cache-Control"

func TestCacheControlNoCacheAsksTheOriginAndKeepsTheAnswer(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.cached(o.data("a"))
	o.put("a", "2")
	p.get(o.data("a")).is("1").hit() // within THAW_RECHECK
	p.get(o.data("a"), cacheControl, "no-cache").is("2").miss()
	p.get(o.data("a")).is("2").hit()
}

func TestCacheControlNoStoreKeepsNothing(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.get(o.data("a"), cacheControl, "no-store").is("1").miss()
	p.get(o.data("a")).is("1").miss()
	p.get(o.data("a")).is("1").hit()
	if n := p.metric("thaw_entries"); n != 1 {
		t.Errorf("%v entries", n)
	}
}

func TestCacheControlMaxAgeBoundsTheVerification(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.cached(o.data("a"))
	p.get(o.data("a"), cacheControl, "max-age=3600").is("1").hit()
	harness.Pause(t.Context(), 1100*time.Millisecond)
	p.get(o.data("a"), cacheControl, "max-age=3600").is("1").hit()
	p.get(o.data("a"), cacheControl, "max-age=1").is("1").miss()
	if r := p.get(o.data("a"), cacheControl, "max-age=1").is("1").hit(); r.Header.Get("Age") != "0" { // read again just now
		t.Errorf("Age %q", r.Header.Get("Age"))
	}
	p.get(o.data("a"), cacheControl, "private, Max-Age=0").is("1").miss()
	// What is too old for the request is still better than nothing, and says so.
	o.count.Cut()
	p.get(o.data("a"), cacheControl, "max-age=0").is("1").stale()
}

func TestCacheControlOnlyIfCached(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start("THAW_INIT=off")
	before := o.count.Total()
	r := p.get(o.data("a"), cacheControl, "only-if-cached").status(http.StatusGatewayTimeout).says("only-if-cached")
	if cs := r.Header.Get("Cache-Status"); !strings.HasPrefix(cs, "thaw; fwd=miss") {
		t.Errorf("Cache-Status %q", cs)
	}
	if n := o.count.Total() - before; n != 0 {
		t.Errorf("%d requests to Vault", n)
	}
	p.cached(o.data("a"))
	p.get(o.data("a"), cacheControl, "only-if-cached").is("1").hit()
	o.count.Cut()
	p.get(o.data("a"), cacheControl, "only-if-cached").is("1").hit()
}

func TestCacheControlStaleIfErrorBoundsWhatIsServedWhileTheOriginFails(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start("THAW_RECHECK=100ms", "VAULT_MAX_RETRIES=0")
	p.cached(o.data("a"))
	o.count.Cut()
	harness.Eventually(t, patience, "the outage", func() bool { return p.get(o.data("a")).is("1").isStale() })
	p.get(o.data("a"), cacheControl, "stale-if-error=3600").is("1").stale()
	harness.Pause(t.Context(), 1100*time.Millisecond)
	p.get(o.data("a"), cacheControl, "stale-if-error=1").status(http.StatusBadGateway)
	p.get(o.data("a"), cacheControl, "stale-if-error=0").status(http.StatusBadGateway)
	p.get(o.data("a")).is("1").stale()
}

func TestTHAW_STALE_IF_ERROR(t *testing.T) {
	t.Parallel()
	for value, served := range map[string]bool{"0": false, "24h": true, "": true} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			p := o.start("THAW_RECHECK=100ms", "VAULT_MAX_RETRIES=0", "THAW_STALE_IF_ERROR="+value)
			p.cached(o.data("a"))
			o.count.Cut()
			harness.Eventually(t, patience, "the outage", func() bool {
				r := p.get(o.data("a"))
				return r.isStale() || r.Status != http.StatusOK
			})
			if got := p.get(o.data("a")).Status == http.StatusOK; got != served {
				t.Errorf("served: %v", got)
			}
		})
	}
}

// Other GETs are kept only for who asked, only when they opt in, only with a
// TTL.
func TestOptInCachingOfOtherGETs(t *testing.T) {
	t.Parallel()
	o := shared(t)
	const path = "sys/internal/ui/resultant-acl"
	optIn := []string{"X-Vault-Cache-Control", "cache"}
	t.Run("without a TTL nothing", func(t *testing.T) {
		t.Parallel()
		p := o.in(t).start()
		p.get(path, optIn...).ok().miss()
		p.get(path, optIn...).ok().miss()
	})
	t.Run("with a TTL, for who asked", func(t *testing.T) {
		t.Parallel()
		p := o.in(t).start("VAULT_DEFAULT_CACHE_TTL=1h")
		p.get(path).ok().miss()
		p.get(path).ok().miss()
		p.get(path, optIn...).ok().miss()
		p.get(path, optIn...).ok().hit()
		other := o.newToken("default")
		mine := p.as(other, path, optIn...).ok().miss()
		if own := p.get(path, optIn...).ok().hit(); string(own.Body) == string(mine.Body) {
			t.Error("two tokens have one answer")
		}
		p.as(other, path, optIn...).ok().hit()
		p.as("hvs.none", path, optIn...).status(http.StatusForbidden)
	})
	t.Run("a read with side effects is asked for by whoever opts in", func(t *testing.T) {
		t.Parallel()
		p := o.in(t).start("VAULT_DEFAULT_CACHE_TTL=1h")
		token := o.newToken("default")
		p.do(http.MethodPost, "cubbyhole/x", token, map[string]string{"v": "mine"}).status(http.StatusNoContent)
		p.as(token, "cubbyhole/x").ok().miss()
		p.as(token, "cubbyhole/x").ok().miss()
		p.as(token, "cubbyhole/x", optIn...).ok().miss()
		p.as(token, "cubbyhole/x", optIn...).ok().hit().says("mine")
		p.as(o.newToken("default"), "cubbyhole/x", optIn...).status(http.StatusNotFound)
		p.do(http.MethodPost, "cubbyhole/x", token, map[string]string{"v": "changed"}).status(http.StatusNoContent)
		p.as(token, "cubbyhole/x", optIn...).ok().says("changed")
	})
}

// A token that is looked up by itself must not be remembered beyond its use.
func TestTHAW_NO_CACHE_PATHS(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("app/a", "1")
	o.put("pay/a", "1")
	o.put("pay/b/c", "1")
	p := o.start("THAW_NO_CACHE_PATHS=" + o.kv + "/data/pay/*," + o.kv + "/+/app/none")
	for range 2 {
		p.get(o.data("pay/a")).is("1").miss()
		p.get(o.data("pay/b/c")).is("1").miss()
	}
	p.cached(o.data("app/a"))
	p.get(o.data("pay/a"), "X-Vault-Cache-Control", "cache").is("1").miss()
	p.get(o.data("pay/a"), "X-Vault-Cache-Control", "cache").is("1").miss()
	o.count.Cut()
	if r := p.get(o.data("pay/a")); r.Status == http.StatusOK {
		t.Errorf("served without Vault: %s", r.Body)
	}
}
