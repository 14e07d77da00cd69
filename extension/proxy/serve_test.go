package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
)

const app = "/v1/secret/data/app"

func TestG1AReadIsServedOnlyWhileVerified(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sender.cursor = true
	w.put("app", "one")
	w.expect(w.get(app), 200, missStored, "one")
	w.expect(w.get(app), 200, hitRead, "one")

	// A new invocation: the read waits for the poll, which proves it.
	w.poll.set("proof")
	w.cache.Ledger().Begin(w.clock.add(time.Hour))
	w.expect(w.get(app), 200, hitCursor, "one")
	if waits, _ := w.poll.count(); waits != 1 {
		t.Errorf("%d waits for the poll, want 1", waits)
	}
	w.expect(w.get(app), 200, hitCursor, "one")

	// One more, and the poll proves nothing: the read asks by itself.
	w.poll.set("nothing")
	w.put("app", "two")
	w.cache.Ledger().Begin(w.clock.add(time.Minute))
	w.expect(w.get(app), 200, rechecked, "two")
	w.expect(w.get(app), 200, hitRead, "two")

	// Within the invocation a verification lasts for Recheck.
	w.clock.add(999 * time.Millisecond)
	w.expect(w.get(app), 200, hitRead, "two")
	w.put("app", "three")
	w.clock.add(2 * time.Millisecond)
	w.expect(w.get(app), 200, rechecked, "three")
}

// A hit that rests on events does not say that the secret was read.
func TestAHitSaysThatEventsVerifiedIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.Reconcile = 30 * time.Second })
	w.put("app", "one")
	since := w.clock.add(time.Second)
	w.cache.Stream().Whole(since, since)
	w.expect(w.get(app), 200, missStored, "one")
	w.expect(w.get(app), 200, hitRead, "one")
	w.cache.Stream().Uncovered()
	w.cache.Stream().Cover(map[cache.Key]bool{{Path: "secret/data/app"}: true})
	w.cache.Stream().Whole(since, w.clock.add(10*time.Second))
	w.expect(w.get(app), 200, hitEvents, "one")
	w.expect(w.get(app), 200, hitEvents, "one")
	w.cache.Stream().Whole(time.Time{}, time.Time{}) // it ended
	w.expect(w.get(app), 200, rechecked, "one")
	w.expect(w.get(app), 200, hitRead, "one")
}

func TestAHitSaysHowOldItIsAndIsVaultsAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
	w.put("app", "one")
	miss := w.get(app)
	w.clock.add(90*time.Second + 900*time.Millisecond)
	hit := w.get(app)
	w.expect(hit, 200, hitRead, "one")
	if hit.body != miss.body {
		t.Errorf("the body changed: %s, %s", miss.body, hit.body)
	}
	if got := hit.Header.Get("Age"); got != "90" || hit.Header.Get("X-Cache") != "HIT" || miss.Header.Get("X-Cache") != "MISS" || miss.Header.Get("Age") != "" {
		t.Errorf("Age %q, X-Cache %q; at the miss %q, %q", got, hit.Header.Get("X-Cache"), miss.Header.Get("Age"), miss.Header.Get("X-Cache"))
	}
	for _, h := range []string{"Date", "Content-Type", "Content-Length", "Strict-Transport-Security", "Cache-Control"} {
		if hit.Header.Get(h) != miss.Header.Get(h) || hit.Header.Get(h) == "" {
			t.Errorf("%s was %q and is %q", h, miss.Header.Get(h), hit.Header.Get(h))
		}
	}
}

func TestAheadIsCalledBeforeAVerificationEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) { o.reads.Ahead = time.Second * 3 / 4 })
	w.put("app", "one")
	w.get(app)
	w.clock.add(500 * time.Millisecond)
	w.expect(w.get(app), 200, hitRead, "one")
	if _, ahead := w.poll.count(); ahead != 0 {
		t.Error("verified ahead with half of the time left")
	}
	w.clock.add(300 * time.Millisecond)
	w.expect(w.get(app), 200, hitRead, "one")
	if _, ahead := w.poll.count(); ahead != 1 {
		t.Errorf("%d calls of Ahead with a fifth of the time left, want 1", ahead)
	}
}

func TestG4WhatCannotBeVerifiedIsServedMarked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fail   func(w *world)
		status int    // of an answer that may not be stale
		says   string // likewise
	}{
		"the poll says so": {func(w *world) { w.poll.set("failure") }, 200, "one"},
		"the read finds out: no connection": {func(w *world) {
			w.sender.fail(errors.New("connection refused"))
		}, 502, "thaw: connection refused"},
		"the read finds out: sealed": {func(w *world) { w.origin.Seal() }, 503, "Vault is sealed"},
		"the read finds out: 429": {func(w *world) {
			w.origin.SetFault(func(rw http.ResponseWriter, _ *http.Request) bool {
				http.Error(rw, `{"errors":["quota"]}`, http.StatusTooManyRequests)
				return true
			})
		}, 429, "quota"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.put("app", "one")
			w.get(app)
			c.fail(w)
			w.cache.Ledger().Begin(w.clock.add(10 * time.Minute))
			a := w.get(app)
			w.expect(a, 200, staleStatus, "one")
			if a.Header.Get("Age") != "600" || a.Header.Get("X-Cache") != "HIT" || !strings.HasPrefix(a.Header.Get("Warning"), "110") {
				t.Errorf("stale answer without its marks: %v", a.Header)
			}
			w.expect(w.get(app, "Cache-Control", "stale-if-error=601"), 200, staleStatus, "one")
			if got := w.Counts(); got.Stale != 2 {
				t.Errorf("%d counted as stale, want 2", got.Stale)
			}
			// What the caller refuses, and what is too old, is asked for.
			w.expect(w.get(app, "Cache-Control", "stale-if-error=599"), c.status, "", c.says)
			w.clock.add(61 * time.Minute)
			w.expect(w.get(app), c.status, "", c.says)
			if got := w.Counts(); got.Stale != 2 {
				t.Errorf("%d counted as stale, want 2", got.Stale)
			}
		})
	}
}

func TestG4PessimisticServesNothingUnverified(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.Pessimistic = true })
	w.put("app", "one")
	w.get(app)
	w.poll.set("failure")
	w.sender.fail(errors.New("connection refused"))
	w.cache.Ledger().Begin(w.clock.add(time.Minute))
	w.refused(w.get(app), http.StatusBadGateway, "connection refused")
}

func TestG4ARefusalIsAnAnswerAndNoOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "one")
	w.get(app)
	w.cache.Ledger().Begin(w.clock.add(time.Minute))
	w.origin.Root(http.MethodDelete, "secret/metadata/app", "")
	w.expect(w.get(app), 404, missOnly, "errors")
	w.origin.Seal()
	w.expect(w.get(app), 503, missOnly, "sealed")
}

func TestG2GrantsAreConfirmedBeforeAHit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
	w.origin.SetPolicy("p", map[string][]string{"secret/data/app": {"read"}})
	token := w.origin.AddToken(0, "p")
	w.put("app", "one")

	w.expect(w.get(app), 200, missStored, "one") // thaw's own right is nobody else's
	w.expect(w.get(app, "X-Vault-Token", token), 200, missStored, "one")
	w.expect(w.get(app, "Authorization", "Bearer "+token), 200, hitRead, "one")
	w.expect(w.get(app, "X-Vault-Token", "hvs.another"), 403, missOnly, "permission denied")

	w.clock.add(6 * time.Minute)
	w.expect(w.get(app, "X-Vault-Token", token), 200, hitRead, "one")
	w.origin.SetPolicy("p", map[string][]string{})
	w.expect(w.get(app, "X-Vault-Token", token), 200, hitRead, "one") // until the next confirmation
	w.clock.add(6 * time.Minute)
	w.expect(w.get(app, "X-Vault-Token", token), 403, missOnly, "permission denied")
	w.expect(w.get(app), 200, hitRead, "one") // thaw's own is untouched
}

func TestG2AConfirmationThatFailsKeepsTheLastAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
	w.put("app", "one")
	w.get(app)
	w.clock.add(6 * time.Minute)
	w.grants.silent = true
	for range 3 {
		w.expect(w.get(app), 200, hitRead, "one")
	}
	if w.grants.asked != 1 {
		t.Errorf("asked %d times for a confirmation that fails, want 1", w.grants.asked)
	}
}

func TestRequestsSayWhatTheyWant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
	w.put("app", "one")
	w.refused(w.get(app, "Cache-Control", "only-if-cached"), http.StatusGatewayTimeout, "only-if-cached")
	w.expect(w.get(app, "Cache-Control", "only-if-cached"), 504, onlyCachedGot, "")
	w.get(app)
	w.expect(w.get(app, "Cache-Control", "only-if-cached"), 200, hitRead, "one")

	w.put("app", "two") // behind thaw's back, in the same invocation
	w.expect(w.get(app), 200, hitRead, "one")
	w.expect(w.get(app, "Cache-Control", "no-store"), 200, requested, "two")
	w.expect(w.get(app), 200, hitRead, "one")
	w.expect(w.get(app, "Cache-Control", "no-cache"), 200, forced, "two")
	w.expect(w.get(app), 200, hitRead, "two")
	w.expect(w.get(app, "X-Vault-Cache-Control", "nocache"), 200, requested, "two")
	w.expect(w.get(app, "X-Vault-Cache-Control", "recache"), 200, forced, "two")

	w.clock.add(10 * time.Second)
	w.expect(w.get(app, "Cache-Control", "max-age=10"), 200, hitRead, "two")
	w.put("app", "three")
	w.expect(w.get(app, "Cache-Control", "max-age=9"), 200, forced, "three")
	w.expect(w.get(app, "Cache-Control", "max-age=0"), 200, hitRead, "three") // verified in this very second
	w.clock.add(time.Millisecond)
	w.expect(w.get(app, "Cache-Control", "max-age=0"), 200, forced, "three")
	w.expect(w.get(app), 200, hitRead, "three")

	w.clock.add(10 * time.Second)
	w.sender.fail(errors.New("connection refused"))
	for _, wants := range []string{"no-cache", "no-store", "max-age=5"} {
		w.expect(w.get(app, "Cache-Control", wants), 200, staleStatus, "three")
	}
	w.refused(w.get(app, "Cache-Control", "no-cache, stale-if-error=0"), http.StatusBadGateway, "refused")
	w.expect(w.get(app), 200, hitRead, "three")
}

// A refresh says fwd=request where the request forced it, and fwd=stale where it was due.
func TestWhatForcedARefreshIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "one")
	w.expect(w.get(app, "Cache-Control", "no-cache"), 200, missStored, "one") // there was nothing
	w.clock.add(time.Millisecond)
	w.expect(w.get(app, "Cache-Control", "max-age=0"), 200, forced, "one")
	w.clock.add(2 * time.Second)
	w.expect(w.get(app, "Cache-Control", "max-age=1"), 200, rechecked, "one") // not verified, either
	w.clock.add(2 * time.Second)
	w.expect(w.get(app, "Cache-Control", "no-cache"), 200, forced, "one")
	w.clock.add(time.Millisecond)
	w.origin.Root(http.MethodDelete, "secret/metadata/app", "")
	w.expect(w.get(app, "Cache-Control", "max-age=0"), 404, requested, "errors")
}

func TestOnlyIfCachedNeverReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "one")
	w.get(app)
	w.cache.Ledger().Begin(w.clock.add(time.Minute))
	w.asked()
	w.expect(w.get(app, "Cache-Control", "only-if-cached"), 504, onlyCachedGot, "")
	w.expect(w.get(app, "Cache-Control", "only-if-cached, no-cache"), 504, onlyCachedGot, "")
	if n := w.asked(); n != 0 {
		t.Errorf("the origin was asked %d times", n)
	}
	w.poll.set("failure")
	w.expect(w.get(app, "Cache-Control", "only-if-cached"), 200, staleStatus, "one")
}

func TestWhatIsNotKVIsCachedOnlyWhereARequestOptsIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.TTL = time.Minute })
	const path = "/v1/identity/entity/name/me"
	w.fault(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		io.WriteString(rw, `{"request_id":"1","lease_id":"","data":{"name":"me"},"wrap_info":null,"auth":null,"mount_type":"identity"}`)
	})
	one, other := []string{"X-Vault-Token", "one"}, []string{"X-Vault-Token", "other"}
	optIn := []string{"X-Vault-Cache-Control", "cache"}
	w.expect(w.get(path, one...), 200, bypassed, "me")
	w.expect(w.get(path, append(one, optIn...)...), 200, missStored, "me")
	w.expect(w.get(path, append(one, optIn...)...), 200, hitRead, "me")
	w.expect(w.get(path, one...), 200, bypassed, "me")
	w.expect(w.get(path, append(other, optIn...)...), 200, missStored, "me")
	w.clock.add(time.Minute + time.Second)
	w.expect(w.get(path, append(one, optIn...)...), 200, rechecked, "me")
}

// Each plain read of dynamic credentials makes its own, whatever was kept for
// who opted in.
func TestG3WhatARequestOptedInToIsForThoseAlone(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "alice"} {
		w := newWorld(t, func(_ *options, o *cache.Options) { o.TTL = time.Minute })
		var n atomic.Int64
		credentials := func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(rw, `{"request_id":"1","lease_id":"database/creds/app/x","lease_duration":3600,"data":{"username":"u%d"},"wrap_info":null,"auth":null,"mount_type":"database"}`, n.Add(1))
		}
		w.fault(credentials)
		get := func(headers ...string) answer {
			t.Helper()
			if token != "" {
				headers = append(headers, "X-Vault-Token", token)
			}
			return w.get("/v1/database/creds/app", headers...)
		}
		optedIn := []string{"X-Vault-Cache-Control", "cache"}
		w.expect(get(), 200, missOnly, "u1")
		w.expect(get(optedIn...), 200, missStored, "u2")
		w.expect(get(), 200, missOnly, "u3")
		w.expect(get("Cache-Control", "max-age=3600"), 200, missOnly, "u4")
		w.expect(get("Cache-Control", "no-cache"), 200, requested, "u5")
		w.expect(get("Cache-Control", "only-if-cached"), 504, onlyCachedGot, "")
		w.expect(get(optedIn...), 200, hitRead, "u2") // the plain answers replaced nothing
		w.expect(get("X-Vault-Cache-Control", "cache", "Cache-Control", "only-if-cached"), 200, hitRead, "u2")

		w.clock.add(2 * time.Minute) // older than the TTL
		w.fault(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) })
		w.expect(get(), 503, missOnly, "")
		w.expect(get("Cache-Control", "stale-if-error=3600"), 503, missOnly, "")
		w.expect(get(optedIn...), 200, staleStatus, "u2")
		w.fault(credentials)
		w.expect(get(), 200, missOnly, "u6")
		w.clock.add(2 * time.Second)
		w.expect(get(optedIn...), 200, rechecked, "u7")
		w.expect(get(optedIn...), 200, hitRead, "u7")
		w.do(http.MethodPut, "/v1/sys/leases/revoke", `{"lease_id":"database/creds/app/x"}`)
		w.clock.add(time.Millisecond)
		w.expect(get(optedIn...), 200, missStored, "u9") // the write was answered u8
	}
}

func TestCachingCanBeTurnedOffAndOn(t *testing.T) {
	t.Parallel()
	none := newWorld(t, func(o *options, _ *cache.Options) { o.CacheDefault = config.CacheNone })
	none.put("app", "one")
	for range 2 {
		none.expect(none.get(app), 200, bypassed, "one")
	}
	none.expect(none.get(app, "X-Vault-Cache-Control", "cache"), 200, missStored, "one")
	none.expect(none.get(app, "X-Vault-Cache-Control", "cache"), 200, hitRead, "one")

	off := newWorld(t, func(o *options, _ *cache.Options) { o.StaticCache = false })
	off.put("app", "one")
	for range 2 {
		off.expect(off.get(app), 200, bypassed, "one")
	}

	all := newWorld(t, func(o *options, c *cache.Options) { o.CacheDefault, c.TTL = config.CacheAll, time.Minute })
	all.expect(all.get("/v1/sys/host-info"), 404, missOnly, "")
	all.put("app", "one")
	all.expect(all.get(app), 200, missStored, "one")
	all.expect(all.get("/v1/sys/internal/ui/mounts/secret"), 200, missStored, "secret")
	all.expect(all.get("/v1/sys/internal/ui/mounts/secret/app"), 200, hitRead, "secret")
}

func TestG3WhatIsNotWrittenPlainlyNeverTouchesTheCache(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "one")
	w.get(app)
	for _, c := range [][]string{
		{"/v1/secret/data%2fapp"}, {"/v1/secret/data/%61pp"}, {"/v1/secret//data/app"}, {app + "/"}, {app + "?"}, {app + "?version=01"},
		{app + "?version=1&version=2"}, {app + "?list=false"}, {app + "?x=;"},
		{app, "X-Vault-Wrap-TTL", "60s"}, {app, "X-Vault-Wrap-Format", "jwt"}, {app, "X-Vault-Index", "x"},
		{app, "X-Vault-Inconsistent", "x"}, {app, "X-Vault-Anything", ""},
	} {
		if a := w.get(c[0], c[1:]...); a.Header.Get("Cache-Status") != bypassed || a.Header.Get("X-Cache") != "MISS" {
			t.Errorf("%q: Cache-Status %q, X-Cache %q", c, a.Header.Get("Cache-Status"), a.Header.Get("X-Cache"))
		}
	}
	if a := w.do(http.MethodGet, app, "a body"); a.Header.Get("Cache-Status") != bypassed {
		t.Errorf("a GET with a body: %q", a.Header.Get("Cache-Status"))
	}
	// Headers of tracing and the like change nothing.
	w.expect(w.get(app, "Traceparent", "00-1", "X-Amzn-Trace-Id", "r", "X-Datadog-Trace-Id", "1", "Cookie", "a=b", "User-Agent", "x"), 200, hitRead, "one")
}

func TestG3NamespacesTellReadsApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) { o.Namespace = "team" })
	w.put("app", "one")
	w.expect(w.get(app), 200, missStored, "one")
	w.expect(w.get(app, "X-Vault-Namespace", "/team/"), 200, hitRead, "one")
	w.expect(w.get(app, "X-Vault-Namespace", "team/b"), 200, missStored, "one")
	w.expect(w.get(app, "X-Vault-Namespace", "b"), 200, missStored, "one")

	prepend := newWorld(t, func(o *options, _ *cache.Options) { o.Namespace, o.PrependNamespace = "team", true })
	prepend.put("app", "one")
	for given, want := range map[string]string{"": "team", "b": "team/b", "/b/": "team/b", "team": "team/team"} {
		a := prepend.get(app, "X-Vault-Namespace", given)
		if got := a.Header.Get("X-Vault-Namespace"); got != want { // the stand-in echoes it
			t.Errorf("namespace %q was sent as %q, want %q", given, got, want)
		}
		a = prepend.do(http.MethodPost, "/v1/secret/data/x", `{"data":{}}`, "X-Vault-Namespace", given)
		if got := a.Header.Get("X-Vault-Namespace"); got != want {
			t.Errorf("in a write, namespace %q was sent as %q, want %q", given, got, want)
		}
	}
}

func TestTheGateRefusesBeforeAnythingElse(t *testing.T) {
	t.Parallel()
	closed := newWorld(t, func(o *options, _ *cache.Options) {
		o.Gate = func(*http.Request) error { return errors.New("no secret is read before the snapshot") }
	})
	closed.refused(closed.get(app), http.StatusServiceUnavailable, "before the snapshot")
	closed.refused(closed.do(http.MethodPost, app, "{}"), http.StatusServiceUnavailable, "before the snapshot")
	if a := closed.get("/proxy/v1/metrics"); a.StatusCode != 200 {
		t.Errorf("metrics: %d", a.StatusCode)
	}
	if n := closed.asked(); n != 0 {
		t.Errorf("the origin was asked %d times", n)
	}
}
