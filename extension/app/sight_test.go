package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

// quiet is a thaw without a network, and what it logs and writes.
func quiet(t *testing.T) (a *App, logged, written *harness.Transcript) {
	t.Helper()
	cfg, _, err := config.Load(config.Source{Environ: []string{
		"VAULT_ADDR=http://vault", "VAULT_TOKEN=t", "VAULT_MAX_RETRIES=0", "THAW_EMF=true", "THAW_PREFETCH=secret/data/app", "THAW_KV_MOUNTS=secret=2",
	}})
	if err != nil {
		t.Fatal(err)
	}
	logged, written = new(harness.Transcript), new(harness.Transcript)
	refused := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
	a, err = Build(cfg, slog.New(slog.NewJSONHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug})), written, Hooks{Dial: refused})
	if err != nil {
		t.Fatal(err)
	}
	return a, logged, written
}

// told is the seconds of each line of activity, in order.
func told(t *testing.T, logged string) []float64 {
	t.Helper()
	var all []float64
	for d := json.NewDecoder(strings.NewReader(logged)); ; {
		var line struct {
			Msg     string
			Seconds float64
		}
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		case line.Msg == "activity":
			all = append(all, line.Seconds)
		}
	}
}

// TestReportsTellOfEachMinuteInWhichSomethingHappened, and of the rest at the
// end; of the start in the first, whenever that is.
func TestReportsTellOfEachMinuteInWhichSomethingHappened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, logged, written := quiet(t)
		defer a.Shutdown(t.Context())
		a.prefetch(t.Context()) // before the reports
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { a.Reports(ctx); close(ended) }()
		pass := func(d time.Duration, want ...float64) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := told(t, logged.String()); !slices.Equal(got, want) || strings.Count(written.String(), "CloudWatchMetrics") != len(want) {
				t.Errorf("lines of %v seconds, want %v; and\n%s", got, want, written)
			}
		}
		pass(59 * time.Second)
		pass(time.Second, 60)
		pass(10*time.Minute, 60) // idle
		a.prefetch(t.Context())
		pass(time.Minute, 60, 60)
		time.Sleep(20 * time.Second)
		a.prefetch(t.Context())
		end()
		<-ended
		pass(time.Hour, 60, 60, 20)
	})
}

func TestAnIdleEndIsNotReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, logged, written := quiet(t)
		defer a.Shutdown(t.Context())
		ctx, end := context.WithCancel(t.Context())
		end()
		a.Reports(ctx)
		if got := told(t, logged.String()); len(got) != 0 || written.String() != "" {
			t.Errorf("lines of %v seconds, and %s", got, written)
		}
	})
}

// infos are the messages at INFO and above, with the minute they were written in.
func infos(t *testing.T, logged string) map[int64][]string {
	t.Helper()
	all := map[int64][]string{}
	for d := json.NewDecoder(strings.NewReader(logged)); ; {
		var line struct {
			Msg, Level string
			Time       time.Time
		}
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		case line.Level != "DEBUG":
			all[line.Time.Unix()/60] = append(all[line.Time.Unix()/60], line.Msg)
		}
	}
}

// TestAHealthyEnvironmentLogsALineAMinute, however many invocations there are, and
// each one that is unusual.
func TestAHealthyEnvironmentLogsALineAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, logged, written := quiet(t)
		defer a.Shutdown(t.Context())
		a.Started()
		var now, before Tally
		for range 600 { // ten minutes
			time.Sleep(time.Second)
			before, now = now, Tally{hits: now.hits + 3, misses: now.misses, origin: now.origin + 1, entries: 3}
			a.Report("id", before, now, time.Second)
			a.SumUp(now)
		}
		lines := 0
		for minute, all := range infos(t, logged.String()) {
			if lines += len(all); len(all) > 1 {
				t.Errorf("minute %d: %q", minute, all)
			}
		}
		if lines != 11 { // the start, and ten sums
			t.Errorf("%d lines:\n%s", lines, logged)
		}
		if n := strings.Count(written.String(), "CloudWatchMetrics"); n != 600 {
			t.Errorf("%d lines of metrics", n)
		}
		*logged, *written = harness.Transcript{}, harness.Transcript{}
		for range 100 { // idle
			a.Report("id", now, now, time.Second)
		}
		if logged.String()+written.String() != "" {
			t.Errorf("idle invocations are told of: %s%s", logged, written)
		}
		for name, odd := range map[string]Tally{
			"stale": {stale: 1}, "errors": {errors: 1}, "refused": {refused: 1}, "foreign": {foreign: 1}, "failed polls": {failed: 1}, "slow": {slow: 1, hits: 1},
		} {
			*logged = harness.Transcript{}
			a.Report("id", Tally{}, odd, time.Second)
			if !strings.Contains(logged.String(), `"level":"INFO","msg":"invocation","request_id":"id"`) {
				t.Errorf("%s: %s", name, logged)
			}
		}
	})
}

// TestTheStartupLineTellsHowToTryIt: its command works on every kind of listener.
func TestTheStartupLineTellsHowToTryIt(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		listener config.Listener
		addr     string
		token    config.Secret
	}{
		"curl -sf http://127.0.0.1:8200/proxy/v1/status":                                   {config.Listener{Network: "tcp"}, "127.0.0.1:8200", ""},
		"curl -sf http://127.0.0.1:9/proxy/v1/status":                                      {config.Listener{Network: "tcp"}, "[::]:9", ""},
		"curl -sf -k https://[::1]:9/proxy/v1/status":                                      {config.Listener{Network: "tcp", CertFile: "c"}, "[::1]:9", ""},
		"curl -sf --unix-socket /run/t http://localhost/proxy/v1/status":                   {config.Listener{Network: "unix", Address: "/run/t"}, "/run/t", ""},
		"curl -sf -H 'X-Vault-Request: true' http://127.0.0.1:9/proxy/v1/status":           {config.Listener{Network: "tcp", RequireRequestHeader: true}, "127.0.0.1:9", ""},
		`curl -sf -H "X-Thaw-Token: $THAW_LOCAL_TOKEN" http://127.0.0.1:9/proxy/v1/status`: {config.Listener{Network: "tcp"}, "127.0.0.1:9", "planted"},
	} {
		if got := curl(config.Config{Listeners: []config.Listener{c.listener}, LocalToken: c.token}, []string{c.addr}); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
