package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/cache"
)

// TestAPanicIsAnsweredWith500, logged with its stack and without its value, and
// costs nobody else anything. After the beginning of an answer the connection is
// cut: what came is not taken for all of it.
func TestAPanicIsAnsweredWith500(t *testing.T) {
	t.Parallel()
	const planted = "planted-value"
	where := "" // the next request panics there
	trip := func(here string) {
		if here == where {
			where = ""
			panic(planted)
		}
	}
	w := newWorld(t, func(o *options, _ *cache.Options) {
		o.Gate = func(*http.Request) error { trip("gate"); return nil }
		o.Metrics = func(io.Writer) { trip("metrics") }
		o.State = func(_ context.Context, to io.Writer) error {
			_, _ = io.WriteString(to, "{")
			trip("status")
			return nil
		}
	})
	get := func(path string) (status int, body string, err error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true // else the client asks again by itself
		res, err := w.client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		return res.StatusCode, string(text), err
	}
	for place, path := range map[string]string{"gate": "/v1/sys/health", "metrics": "/proxy/v1/metrics"} {
		where = place
		if status, body, err := get(path); status != 500 || !strings.Contains(body, `"thaw: an internal error`) || strings.Contains(body, planted) || err != nil {
			t.Errorf("%s: %d %s %v", place, status, body, err)
		}
		if status, body, err := get(path); status != 200 || err != nil {
			t.Errorf("%s, the next: %d %s %v", place, status, body, err)
		}
	}
	where = "status"
	if status, body, err := get("/proxy/v1/status"); err == nil {
		t.Errorf("an answer that broke off counts as whole: %d %q", status, body)
	}
	if log := w.log.String(); strings.Count(log, "a panic with a string") != 3 || strings.Contains(log, planted) {
		t.Errorf("%s", log)
	}
}
