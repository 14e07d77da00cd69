package e2e

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestG5NothingThatIsWrittenHoldsASecret provokes what could make the extension
// say too much: every kind of refusal, answers that are garbage and hold a
// secret, a login that fails, cut connections, and at last a crash. Everything
// that it wrote, at the most talkative level, is searched, as is everything
// that all other tests of this package made it write (TestMain).
func TestG5NothingThatIsWrittenHoldsASecret(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	value := o.put("app")
	callers := o.token(harness.TokenSpec{Policies: []string{"app"}, TTL: time.Hour})
	denied := o.token(harness.TokenSpec{Policies: []string{"default"}, TTL: time.Hour})
	forged := "hvs." + strings.Repeat("F0rged", 8)
	local := secret()
	file := filepath.Join(t.TempDir(), "secret.json")
	e := start(t, o.login(false).With(harness.Settings{
		"THAW_EMF": "true", "THAW_LOCAL_TOKEN": local, "VAULT_CLIENT_TIMEOUT": "2s", "VAULT_MAX_RETRIES": "0",
		"VAULT_SECRET_PATH": "secret/data/app", "VAULT_SECRET_FILE": file,
		"VAULT_HEADERS": `{"X-Gateway-Key":"` + secret() + `"}`,
	}))
	var own bytes.Buffer // what thaw itself answered
	send := func(ctx context.Context, c harness.Call) answer {
		if c.Header == nil {
			c.Header = http.Header{}
		}
		if c.Header["X-Thaw-Token"] == nil {
			c.Header.Set("X-Thaw-Token", local)
		}
		a := e.send(ctx, c)
		own.WriteString(a.own() + "\n")
		for name, values := range a.Header {
			own.WriteString(name + ": " + strings.Join(values, ",") + "\n")
		}
		return a
	}
	get := func(ctx context.Context, path, token string) answer {
		return send(ctx, harness.Call{Method: http.MethodGet, Path: path, Token: token})
	}
	e.invoke(func(ctx context.Context) {
		get(ctx, "secret/data/app", "").fresh(t, value)
		get(ctx, "secret/data/app", callers).fresh(t, value)
		for _, token := range []string{denied, forged, mark + "as-a-token", "\tblank"} {
			get(ctx, "secret/data/app", token)
		}
		e.send(ctx, harness.Call{Method: http.MethodGet, Path: "secret/data/app", Header: http.Header{"X-Thaw-Token": {secret()}}})
		send(ctx, harness.Call{Method: http.MethodGet, Path: "secret/data/app", Header: http.Header{"Authorization": {"Bearer " + forged}}})
		send(ctx, harness.Call{Method: http.MethodGet, Path: "secret/data/app", Header: http.Header{"Authorization": {"Basic " + secret()}}})
		send(ctx, harness.Call{Method: http.MethodPost, Path: "secret/data/app", Body: map[string]any{"data": map[string]string{"password": secret()}, "options": map[string]int{"cas": 99}}})
		send(ctx, harness.Call{Method: http.MethodPost, Path: "secret/data/app", Body: []byte(`{"data": "` + secret())})
		send(ctx, harness.Call{Method: http.MethodPost, Path: "auth/approle/login", Body: map[string]string{"role_id": "x", "secret_id": secret()}})
		send(ctx, harness.Call{Method: http.MethodGet, Path: "auth/token/lookup-self"})
		send(ctx, harness.Call{Method: http.MethodPut, Path: "auth/token/renew-self", Body: map[string]any{}})
		send(ctx, harness.Call{Method: http.MethodPost, Path: "proxy/v1/nothing", Body: []byte(secret())})
		send(ctx, harness.Call{Method: http.MethodGet, Path: "secret/data/app", Header: http.Header{"X-Forwarded-For": {secret()}}})
	})
	garbage := []harness.Fault{
		{Status: http.StatusInternalServerError, Body: `{"errors":["` + secret() + `"]}`},
		{Status: http.StatusBadGateway, Body: "<html>" + secret()},
		{Status: http.StatusOK, Body: `{"data":{"password":"` + secret()},
		{Status: http.StatusOK, Body: `{"data":"` + secret() + `","lease_duration":"` + secret() + `"}`},
		{Status: http.StatusOK, Body: secret(), Header: http.Header{"Content-Type": {"text/plain"}}},
		{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"http://user:" + secret() + "@203.0.113.1:8200/v1/secret/data/app?x=" + secret()}}},
		{Status: http.StatusForbidden, Body: `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token ` + secret() + `\n\n"]}`},
		{Status: http.StatusForbidden, Body: `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`},
	}
	for _, fault := range garbage {
		harness.Must(t, e.Freeze())
		o.counter.Inject(fault)
		e.invoke(func(ctx context.Context) {
			for _, path := range []string{"secret/data/app", "secret/data/uncached", "sys/internal/ui/mounts/secret/x"} {
				get(ctx, path, "")
				get(ctx, path, callers)
			}
			send(ctx, harness.Call{Method: http.MethodPost, Path: "secret/data/app", Body: map[string]any{"data": map[string]string{"password": secret()}}})
		})
		harness.Must(t, o.counter.Mend())
	}
	o.counter.Cut()
	e.invoke(func(ctx context.Context) {
		get(ctx, "secret/data/uncached", callers)
		send(ctx, harness.Call{Method: http.MethodPost, Path: "secret/data/app", Body: map[string]any{"data": map[string]string{"password": secret()}}})
	})
	harness.Must(t, o.counter.Mend())
	metrics := e.metrics(t, local)
	if !strings.Contains(metrics, "thaw_requests_total") {
		t.Errorf("metrics:\n%s", metrics)
	}
	core, err := os.ReadFile("/proc/" + strconv.Itoa(e.PID()) + "/limits")
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(core)), " "), "Max core file size 0 0 ") {
		t.Errorf("a crash of the extension may leave a core dump: %v\n%s", err, core)
	}
	// A goroutine dump: Go writes one for each crash.
	harness.Must(t, syscall.Kill(e.PID(), syscall.SIGQUIT))
	harness.Eventually(t, patience, "the goroutine dump", func() bool { return strings.Contains(e.log.String(), "SIGQUIT") })
	harness.Must(t, e.Kill())
	text := e.log.String() + own.String() + metrics
	for _, found := range leaks(text) {
		t.Errorf("a secret was written: %s", found)
	}
	if !strings.Contains(text, `"level":"DEBUG"`) || !strings.Contains(text, "CloudWatchMetrics") {
		t.Error("the extension was not as talkative as this test needs it")
	}
	t.Logf("searched %d bytes", len(text))
}

// metrics is what /proxy/v1/metrics says.
func (e *environment) metrics(t testing.TB, local string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.base+"/proxy/v1/metrics", nil)
	harness.Must(t, err)
	if local != "" {
		req.Header.Set("X-Thaw-Token", local)
	}
	resp, err := e.client.Do(req)
	harness.Must(t, err)
	defer resp.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(resp.Body)
	harness.Must(t, err)
	return text.String()
}
