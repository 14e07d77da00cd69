package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
)

func TestRequestsOfWebPagesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "one")
	for _, headers := range [][]string{
		{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Origin", "http://127.0.0.1.evil.example"}, {"Origin", "file://"},
		{"Origin", "http://localhost", "Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://[::1"},
	} {
		w.refused(w.do(http.MethodPost, "/v1/secret/data/app", `{"data":{}}`, headers...), http.StatusForbidden, "web pages")
		w.refused(w.get(app, headers...), http.StatusForbidden, "web pages")
		w.refused(w.do(http.MethodPost, "/proxy/v1/cache-clear", `{"type":"all"}`, headers...), http.StatusForbidden, "web pages")
	}
	w.expect(w.get(app), 200, missStored, "one") // none of the writes came through
	for _, headers := range [][]string{{"Origin", "http://localhost:3000"}, {"Origin", "http://127.0.0.1:8200"}, {"Sec-Fetch-Site", "none"}} {
		w.expect(w.get(app, headers...), 200, hitRead, "one")
	}
}

// Nothing may be kept for a revocation that a gateway says nothing of.
func TestG2ARevocationOfUnknownOutcomeCounts(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]http.HandlerFunc{
		"bad gateway": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) },
		"timeout":     func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusGatewayTimeout) },
		"cut":         func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
			token := w.origin.AddToken(0, "root")
			w.put("app", "one")
			w.get(app, "X-Vault-Token", token)
			w.expect(w.get(app, "X-Vault-Token", token), 200, hitRead, "one")
			w.fault(fault)
			w.do(http.MethodPost, "/v1/auth/token/revoke-self", "", "X-Vault-Token", token)
			w.origin.SetFault(nil)
			w.expect(w.get(app, "X-Vault-Token", token), 200, missStored, "one")
		})
	}
}

func TestG2RevokingTheOwnTokenDropsItsGrants(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })
	w.put("app", "one")
	w.get(app)
	w.expect(w.get(app), 200, hitRead, "one")
	w.fault(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) })
	w.do(http.MethodPost, "/v1/auth/token/revoke-self", "")
	w.origin.SetFault(nil)
	w.expect(w.get(app), 200, missStored, "one")
}

func TestWhatIsOfTheMomentIsNeverKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, co *cache.Options) { o.CacheDefault, co.TTL = config.CacheAll, time.Hour })
	token := w.origin.AddToken(0, "root")
	w.fault(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Write([]byte(`{"request_id":"1","sealed":false}`))
	})
	for _, path := range []string{"/v1/sys/health", "/v1/sys/leader", "/v1/sys/seal-status", "/v1/sys/metrics"} {
		for range 2 {
			w.expect(w.get(path, "X-Vault-Token", token), 200, bypassed, "sealed")
		}
	}
	w.expect(w.get("/v1/sys/mounts", "X-Vault-Token", token), 200, missStored, "")
	w.expect(w.get("/v1/sys/mounts", "X-Vault-Token", token, "Connection", "Upgrade", "Upgrade", "websocket"), 200, bypassed, "")
}

// silentConfirmer never answers by itself.
type silentConfirmer struct{ c *cache.Cache }

func (s *silentConfirmer) Confirm(ctx context.Context, id *cache.Identity, _ cache.Capability) {
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		s.c.Access().ConfirmFailed(id, time.Now().Add(time.Hour), 0)
	}
}

func TestG7AConfirmationIsWaitedForNoLongerThanARead(t *testing.T) {
	t.Parallel()
	confirmer := &silentConfirmer{}
	w := newWorld(t, func(o *options, _ *cache.Options) {
		o.reads.StaleWait, o.reads.Permissions = 10*time.Millisecond, confirmer
	})
	confirmer.c = w.cache
	w.put("app", "one")
	w.get(app)
	w.clock.add(6 * time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.addr+app, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.client.Do(req)
	if err != nil {
		t.Fatalf("a silent origin held up what is cached: %v", err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestG4AReadWhoseTimeAFreezeTookIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, frozen := range []bool{true, false} {
		wait := 20 * time.Millisecond
		if frozen {
			wait = 2 * time.Second // which the second read has as well, on a busy machine too
		}
		w := newWorld(t, func(o *options, _ *cache.Options) { o.reads.StaleWait = wait })
		w.put("app", "one")
		w.get(app)
		w.put("app", "two")
		w.cache.Ledger().Begin(w.clock.add(time.Minute))
		silent := make(chan struct{})
		first := true
		w.origin.SetFault(func(http.ResponseWriter, *http.Request) bool {
			if !first {
				return false
			}
			first = false
			if frozen {
				w.clock.add(3 * time.Second)
			}
			<-silent
			return false
		})
		a := w.get(app)
		close(silent)
		if frozen {
			w.expect(a, 200, rechecked, "two")
		} else {
			w.expect(a, 200, staleStatus, "one")
		}
	}
}

func TestG5TokensInPathsAreNotLogged(t *testing.T) {
	t.Parallel()
	const secret, old = "s3cr3t-t0ken", "abcdefghijklmnopqrstuvwx"
	for path, want := range map[string]string{
		"/v1/auth/token/lookup/" + secret:      "/v1/auth/token/lookup/...",
		"/v1/team/auth/token/revoke/" + secret: "/v1/team/auth/token/revoke/...",
		"/v1/auth/token/lookup-self":           "/v1/auth/token/lookup-self",
		"/v1/auth/token/renew/":                "/v1/auth/token/renew/",
		"/v1/cubbyhole/hvs." + secret:          "/v1/cubbyhole/...",
		"/v1/cubbyhole/s." + old:               "/v1/cubbyhole/...",
		"/v1/x/b." + old + old + "/y":          "/v1/x/...",
		"/v1/x/r." + old + ".ns1":              "/v1/x/...",
		"/v1/secret/data/s.short":              "/v1/secret/data/s.short",
		"/v1/secret/data/a." + old:             "/v1/secret/data/a." + old,
		"/v1/secret/data/hvx." + old:           "/v1/secret/data/hvx." + old,
		"/v1/secret/data/app":                  "/v1/secret/data/app",
	} {
		if got := Loggable(path); got != want {
			t.Errorf("%s is logged as %s", path, got)
		}
	}
	w := newWorld(t)
	w.do(http.MethodPost, "/v1/auth/token/lookup/"+secret, "")
	w.sender.fail(errors.New("away"))
	w.do(http.MethodPost, "/v1/auth/token/lookup/"+secret, "")
	if strings.Contains(w.log.String(), secret) {
		t.Error(w.log.String())
	}
}

func TestCacheClearMeansTheNamespaceThatRequestsMean(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		own     string
		prepend bool
		read    []string // headers of the read
		clear   string   // its body's namespace
		headers []string
	}{
		{"", false, nil, "", nil},
		{"team", false, nil, "", nil},
		{"team", false, nil, "team/", nil},
		{"team", false, []string{"X-Vault-Namespace", "other"}, "other", nil},
		{"team", true, []string{"X-Vault-Namespace", "sub"}, "sub", nil},
		{"team", true, []string{"X-Vault-Namespace", "sub"}, "", []string{"X-Vault-Namespace", "sub"}},
	} {
		w := newWorld(t, func(o *options, _ *cache.Options) { o.Namespace, o.PrependNamespace = c.own, c.prepend })
		w.put("app", "one")
		w.expect(w.get(app, c.read...), 200, missStored, "one")
		w.expect(w.get(app, c.read...), 200, hitRead, "one")
		w.do(http.MethodPost, "/proxy/v1/cache-clear", `{"type":"request_path","value":"`+app+`","namespace":"`+c.clear+`"}`, c.headers...)
		w.expect(w.get(app, c.read...), 200, missStored, "one")
	}
}
