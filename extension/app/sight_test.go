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
	a, err = Build(cfg, slog.New(slog.NewJSONHandler(logged, nil)), written, Hooks{Dial: refused})
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
		a.Prefetch(t.Context()) // before the reports
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
		a.Prefetch(t.Context())
		pass(time.Minute, 60, 60)
		time.Sleep(20 * time.Second)
		a.Prefetch(t.Context())
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
