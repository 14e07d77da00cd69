package proxy

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/cache"
)

// TestTheAccessLogHasEachRequestAndNoSecret: hits too, which Vault's audit log
// never sees.
func TestTheAccessLogHasEachRequestAndNoSecret(t *testing.T) {
	t.Parallel()
	lines := &transcript{}
	w := newWorld(t, func(o *options, _ *cache.Options) { o.Access = slog.New(slog.NewJSONHandler(lines, nil)) })
	w.put("app", "planted-canary")
	w.get("/v1/secret/data/app")
	w.get("/v1/secret/data/app")
	w.get("/v1/secret/data/app", "X-Vault-Token", "callers.own.token")
	w.get("/v1/sys/health")
	w.do(http.MethodPost, "/v1/secret/data/app", `{"data":{"v":"planted-canary-2"}}`)
	w.Shutdown(t.Context()) // a line is written after its answer

	var got []string
	for line := range strings.Lines(lines.String()) {
		var l struct {
			Msg, Method, Path, Token, Result string
			Status                           int
			Seconds                          *float64
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Msg != "access" || l.Seconds == nil {
			t.Fatalf("%v: %s", err, line)
		}
		got = append(got, l.Method+" "+l.Path+" "+l.Token+" "+l.Result)
	}
	want := []string{
		"GET /v1/secret/data/app own miss", "GET /v1/secret/data/app own hit", "GET /v1/secret/data/app caller miss",
		"GET /v1/sys/health none bypass", "POST /v1/secret/data/app own write",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	for _, secret := range []string{"planted-canary", "callers.own.token", ownToken} {
		if strings.Contains(lines.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

func TestNoAccessLogUnlessItIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.get("/v1/secret/data/app")
	if strings.Contains(w.log.String(), "msg=access") {
		t.Error(w.log.String())
	}
}
