package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/e2e"
	"github.com/thaw-project/thaw/tests/fakes/azurehost"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestG1FreshUnderInvocationsThatOverlap rotates secrets while up to 32
// invocations at a time read them through a function, and has the checker judge
// every answer. The login is the managed identity's, at Vault's azure method.
func TestG1FreshUnderInvocationsThatOverlap(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	v := vaultWithAzure(t, a)
	for _, plan := range []string{"consumption", "premium"} {
		for _, concurrency := range []int{1, 32} {
			t.Run(fmt.Sprintf("%s, %d at once", plan, concurrency), func(t *testing.T) {
				counter := harness.Count(t, harness.CounterConfig{Origin: v.Addr()})
				p := &app{mode: azurehost.Proxy, env: append(a.Environ(), "VAULT_ADDR="+counter.Addr(), "VAULT_AUTH_ROLE=app", "THAW_AZURE_RESOURCE="+audience, "THAW_AZURE_PLAN="+plan, "THAW_POLL_TIMEOUT=5s")}
				h := start(t, p)
				ready(t, h)
				reads, judgement := rotate(t, v, h, fmt.Sprint(plan, concurrency), concurrency, 6*time.Second)
				if f := judgement.Failures(); len(f) > 0 {
					t.Errorf("%v\n%v", judgement, f[0])
				}
				origin := counter.Total()
				t.Logf("%v; %d requests of the origin for %d invocations", judgement, origin, reads)
				if reads < 50 {
					t.Errorf("only %d reads", reads)
				}
			})
		}
	}
	if f := a.Faults(); len(f) > 0 {
		t.Error(f)
	}
}

// rotate writes and reads for a while.
func rotate(t *testing.T, v *harness.Vault, h *azurehost.Host, name string, concurrency int, length time.Duration) (int64, e2e.Judgement) {
	t.Helper()
	const secrets = 3
	checker := e2e.NewChecker()
	put := func(i, n int) {
		value := fmt.Sprintf("%s-%d-%d", name, i, n)
		began := time.Now()
		_, err := v.Put(t.Context(), "secret", fmt.Sprintf("%s/%d", name, i), map[string]any{"v": value})
		harness.Must(t, err)
		checker.Wrote(fmt.Sprint(i), value, began, time.Now())
	}
	for i := range secrets {
		put(i, 0)
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { // rotates: in bursts, with quiet between them
		for n := 1; ctx.Err() == nil; n++ {
			put(n%secrets, n)
			pause := 3 * time.Millisecond
			if n%10 == 0 {
				pause = 300 * time.Millisecond
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
	})
	var total atomic.Int64
	for w := range concurrency {
		wg.Go(func() {
			for n := w; ctx.Err() == nil; n++ {
				i := n % secrets
				r := httptest.NewRequest(http.MethodGet, fmt.Sprintf("https://app/read?path=secret/data/%s/%d", name, i), nil)
				from := time.Now()
				res, err := h.HTTP(t.Context(), "fn", r)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := all(res.Body)
				to := time.Now()
				var got struct {
					Data struct{ Data struct{ V string } }
				}
				if err == nil {
					err = json.Unmarshal(body, &got)
				}
				if err != nil || res.StatusCode != http.StatusOK {
					t.Errorf("%d %s %v", res.StatusCode, body, err)
					return
				}
				total.Add(1)
				checker.Read(e2e.Read{Resource: fmt.Sprint(i), Answer: got.Data.Data.V, From: from, To: to, Marked: res.Header.Get("Warning") != "", Note: res.Header.Get("Cache-Status")})
			}
		})
	}
	wg.Wait()
	return total.Load(), checker.Judge()
}

// TestAnIdleOriginIsAskedLittle: many invocations at once share polls.
func TestAnIdleOriginIsAskedLittle(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	v := vaultWithAzure(t, a)
	_, err := v.Put(t.Context(), "secret", "app", map[string]any{"v": "1"})
	harness.Must(t, err)
	counter := harness.Count(t, harness.CounterConfig{Origin: v.Addr()})
	p := &app{mode: azurehost.Proxy, env: append(a.Environ(), "VAULT_ADDR="+counter.Addr(), "VAULT_AUTH_ROLE=app", "THAW_AZURE_RESOURCE="+audience, "VAULT_LOG_LEVEL=DEBUG")}
	h := start(t, p)
	ready(t, h)
	read := func() {
		res, err := h.HTTP(t.Context(), "fn", httptest.NewRequest(http.MethodGet, "https://app/read?path=secret/data/app", nil))
		if err != nil {
			t.Error(err)
			return
		}
		if body, err := all(res.Body); err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"v":"1"`) {
			t.Errorf("%d %s %v", res.StatusCode, body, err)
		}
	}
	read()
	read()
	counter.Reset()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 20 {
				read()
			}
		})
	}
	wg.Wait()
	t.Logf("640 invocations, %d requests", counter.Total())
	if n := counter.Total(); n > 640 {
		t.Errorf("%d requests of the origin for 640 invocations", n)
	}
	if !strings.Contains(h.Output(), `"method":"azure"`) {
		t.Error("the login was another")
	}
}
