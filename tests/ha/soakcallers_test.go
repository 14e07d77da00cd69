package ha

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// client is that of one caller.
func (w *soak) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: w.local.Pool()}, DialContext: (&net.Dialer{Timeout: soakAnswer}).DialContext,
	}}
}

func (w *soak) metrics(ctx context.Context, client *http.Client) (string, error) {
	within, cancel := context.WithTimeout(ctx, soakAnswer)
	defer cancel()
	req, err := http.NewRequestWithContext(within, http.MethodGet, w.base+"/proxy/v1/metrics", nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return string(text), err
}

// callers is one after the other until ctx ends.
func (w *soak) callers(ctx context.Context, n int) {
	harness.Pause(ctx, time.Duration(n)*min(*soakFor/5, 20*time.Second)/soakCallers)
	for ctx.Err() == nil {
		w.live(ctx, n)
	}
}

// live is one caller, who has a token and a connection of its own, reads for a while,
// and leaves in one of three ways.
func (w *soak) live(ctx context.Context, n int) {
	batch := rand.IntN(2) == 0
	var out struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	if w.root(ctx, "auth/token/create-orphan", map[string]any{"policies": []string{"soak"}, "ttl": "3h", "type": map[bool]string{true: "batch", false: "service"}[batch]}, &out) != nil {
		return
	}
	w.came.Add(1)
	token, client := out.Auth.Token, w.client()
	defer client.CloseIdleConnections()
	length := 20*time.Second + time.Duration(rand.Int64N(int64(40*time.Second)))
	if rand.IntN(10) == 0 { // long enough for a read beside the hits, after twelve intervals
		length = 15 * soakConfirm
	}
	var known [soakSecrets]atomic.Bool
	for end := time.Now().Add(min(length, *soakFor/2)); time.Now().Before(end) && ctx.Err() == nil; {
		secret, as, seen := (n+rand.IntN(soakPaths))%soakSecrets, token, &known
		if rand.IntN(10) == 0 {
			as, seen = "", &w.own
		}
		w.read(ctx, client, as, secret, &seen[secret])
		harness.Pause(ctx, time.Duration(rand.Int64N(int64(soakPause))))
	}
	switch way := rand.IntN(3); {
	case way == 0: // in the middle of a read
		within, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		_, _ = harness.Send(within, client, w.base, harness.Call{Method: http.MethodGet, Path: fmt.Sprintf("secret/data/soak/%02d", n%soakSecrets), Token: token})
	case way == 1 && !batch:
		w.revoke(ctx, client, token, n)
	case !batch:
		_ = w.root(ctx, "auth/token/revoke", map[string]string{"token": token}, nil)
	}
}

// revoke has a caller revoke its token through thaw. Nothing is served for it after that.
func (w *soak) revoke(ctx context.Context, client *http.Client, token string, n int) {
	within, cancel := context.WithTimeout(ctx, soakAnswer)
	defer cancel()
	r, err := harness.Send(within, client, w.base, harness.Call{Method: http.MethodPost, Path: "auth/token/revoke-self", Token: token})
	if err != nil || r.Status != http.StatusNoContent {
		return
	}
	w.revoked.Add(1)
	for i := range soakPaths {
		path := fmt.Sprintf("secret/data/soak/%02d", (n+i)%soakSecrets)
		if r, err := harness.Send(within, client, w.base, harness.Call{Method: http.MethodGet, Path: path, Token: token}); err == nil && r.Status < 400 {
			w.wrong("%s: %d for a token that was revoked (%s)", path, r.Status, r.Header.Get("Cache-Status"))
		}
	}
}

// read reads a secret. seen says whether this identity has read it before, so that it is
// cached: then it must be answered.
func (w *soak) read(ctx context.Context, client *http.Client, token string, n int, seen *atomic.Bool) {
	cached, path := seen.Load(), fmt.Sprintf("secret/data/soak/%02d", n)
	within, cancel := context.WithTimeout(ctx, soakAnswer)
	defer cancel()
	began := time.Now()
	r, err := harness.Send(within, client, w.base, harness.Call{Method: http.MethodGet, Path: path, Token: token})
	took := time.Since(began)
	if ctx.Err() != nil {
		return
	}
	whose := map[bool]string{true: "thaw's own login", false: "a caller's token"}[token == ""]
	failed := err != nil || r.Status != http.StatusOK
	if !cached {
		w.fills.Add(1)
		if failed {
			w.unfilled.Add(1)
			if r != nil && r.Status < http.StatusInternalServerError {
				w.wrong("first read of %s under %s: %d %.200s", path, whose, r.Status, r.Body)
			}
			return
		}
	} else {
		w.cached.Add(1)
		if failed {
			w.failed.Add(1)
			w.wrong("cached read of %s under %s failed after %v: %v, %v", path, whose, took, r, err)
			return
		}
	}
	seen.Store(true)
	marked := r.Header.Get("Warning") != ""
	if r.Header.Get("X-Cache") == "HIT" && cached {
		w.hits.Add(1)
	}
	var out struct {
		Data struct{ Metadata struct{ Version int } }
	}
	if err := r.JSON(&out); err != nil {
		w.wrong("%s: %v", path, err)
		return
	}
	got, least := out.Data.Metadata.Version, w.secrets[n].least(began.Add(-soakMaxAge-soakRecheck))
	switch {
	case marked && w.calmFor(20*time.Second, began):
		w.needless.Add(1)
	case !marked && got < least:
		w.wrong("%s: version %d, and %d was there %v before (%s)", path, got, least, soakMaxAge+soakRecheck, r.Header.Get("Cache-Status"))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if marked {
		w.stale.Add(1)
	}
	if cached {
		w.took = append(w.took, took)
	}
}
