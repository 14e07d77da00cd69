package lambda

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestTheStandInForLambdaAnswersAsTheEmulatorDoes holds tests/fakes/lambdaapi to the emulator.
func TestTheStandInForLambdaAnswersAsTheEmulatorDoes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, probe, initType string }{
		{"Calls", "", lambdaapi.OnDemand},
		{"InitError", "init-error", lambdaapi.OnDemand},
		{"ExitError", "exit-error", lambdaapi.OnDemand},
		{"ManagedCalls", "", lambdaapi.Managed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			real, fake := probeEmulator(t, c.probe, c.initType), probeFake(t, c.probe, c.initType)
			if len(real) < 2 {
				t.Fatalf("the probe said %q", real)
			}
			if c.probe != "" { // the emulator kills a probe that has reported an error, sooner or later
				n := min(len(real), len(fake))
				real, fake = real[:n], fake[:n]
			}
			for i := range max(len(real), len(fake)) {
				if i >= len(real) || i >= len(fake) || real[i] != fake[i] {
					t.Fatalf("line %d is not the same.\nthe emulator:\n%s\nthe stand-in:\n%s", i, strings.Join(real, "\n"), strings.Join(fake, "\n"))
				}
			}
		})
	}
}

// said are the probe's lines.
func said(out *output) (lines []string) {
	for line := range strings.Lines(out.String()) {
		if line, ok := strings.CutPrefix(line, "probe: "); ok {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func probeEmulator(t *testing.T, kind, initType string) []string {
	settings := harness.Settings{"PROBE": kind}
	if initType == lambdaapi.Managed {
		settings["AWS_LAMBDA_MAX_CONCURRENCY"] = "1"
	}
	e := start(t, setup{extensions: []string{probeName}, settings: settings})
	_, _, err := e.post(t.Context())
	if kind != "" {
		harness.Must(t, err)
		return said(e.out)
	}
	harness.Must(t, err)
	e.prints("probe: waits")
	harness.Must(t, e.cmd.Process.Signal(syscall.SIGTERM))
	e.prints("probe: done")
	return said(e.out)
}

func probeFake(t *testing.T, kind, initType string) []string {
	t.Helper()
	var out output
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	env, err := lambdaapi.Start(ctx, lambdaapi.Config{
		Binary: filepath.Join(opt(t, probeName), "extensions", probeName), Env: []string{"PROBE=" + kind},
		Function: lambdaapi.Function{InitType: initType}, Stdout: &out, Stderr: &out,
	})
	if env != nil {
		defer env.Close()
	}
	if kind != "" {
		return said(&out)
	}
	harness.Must(t, err, env.Invoke(ctx, func(context.Context, lambdaapi.Invocation) error { return nil }))
	harness.Eventually(t, 10*time.Second, "the probe waits", func() bool { return strings.Contains(out.String(), "probe: waits") })
	_, err = env.Shutdown("SandboxTerminated")
	harness.Must(t, err)
	return said(&out)
}
