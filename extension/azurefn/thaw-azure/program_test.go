package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestMetricLinesAreWritten on plans that freeze and on those that don't, the
// last at the end.
func TestMetricLinesAreWritten(t *testing.T) {
	t.Parallel()
	for _, plan := range []string{"consumption", "premium"} {
		for _, emf := range []string{"true", "false"} {
			cfg, _, err := config.Load(config.Source{Azure: config.ForAzure(), Environ: []string{
				"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=t", "VAULT_MAX_RETRIES=0", "THAW_LISTEN=127.0.0.1:0",
				"THAW_AZURE_PLAN=" + plan, "WEBSITE_SITE_NAME=my-app", "THAW_PREFETCH=secret/data/app", "THAW_INIT=off", "THAW_EMF=" + emf,
			}})
			harness.Must(t, err)
			var stdout harness.Transcript
			p := &program{cfg: cfg, log: slog.New(slog.DiscardHandler), stdout: &stdout, stderr: &stdout}
			p.outside, err = newPlatform(cfg, p.log)
			harness.Must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			harness.Must(t, p.serve(ctx))
			p.app.Prepare(ctx) // to nobody, and counted
			p.invoked(time.Now())
			cancel()
			p.work.Wait()
			p.shutdown()
			if got := strings.Count(stdout.String(), `"function":"my-app"`); (got == 1) != (emf == "true") {
				t.Errorf("%s, THAW_EMF=%s: %d lines: %s", plan, emf, got, stdout.String())
			}
		}
	}
}
