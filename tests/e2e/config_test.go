package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// wrong is a configuration with several problems, and what the one message
// about them must say.
type wrong struct {
	name     string
	settings harness.Settings
	file     string   // HCL; empty: none
	says     []string // in the message
}

func wrongs() []wrong {
	return []wrong{
		{"misspelt, malformed and missing", harness.Settings{
			"THAW_MAX_AEG": "1s", "THAW_RECHECK": "soon", "THAW_POLL": "sometimes", "THAW_CACHE_BYTES": "-5",
		}, "", []string{"THAW_MAX_AEG", "THAW_MAX_AGE", "THAW_RECHECK", "soon", "THAW_POLL", "sometimes", "invoke", "THAW_CACHE_BYTES", "VAULT_ADDR"}},
		{"no such login", harness.Settings{
			"VAULT_ADDR": "http://127.0.0.1:1", "THAW_AUTH_METHOD": "approle", "VAULT_SECRET_PATH_A": "secret/data/a",
		}, "", []string{"THAW_ROLE_ID", "VAULT_SECRET_FILE_A"}},
		{"a file", harness.Settings{"VAULT_ADDR": "http://127.0.0.1:1"}, `
cache { cache_static_secretz = true }
auto_auth { method { type = "approl" } }
`, []string{"config.hcl:2", "cache_static_secretz", "cache_static_secrets", "config.hcl:3", "approl"}},
		{"an address of our own", harness.Settings{"VAULT_ADDR": "http://127.0.0.1:8200", "THAW_LISTEN": "127.0.0.1:8200"}, "", []string{"VAULT_ADDR"}},
	}
}

// with fills in what hides in a wrong configuration: a secret that no message
// may repeat, and the path of its file.
func (w wrong) with(t *testing.T) harness.Settings {
	t.Helper()
	s := w.settings.With(harness.Settings{"THAW_LOCAL_TOKEN": secret()})
	if w.name == "misspelt, malformed and missing" {
		s["THAW_SECRET_IDD"] = secret()
	}
	if w.file != "" {
		s["THAW_CONFIG"] = filepath.Join(t.TempDir(), "config.hcl")
		harness.Must(t, os.WriteFile(s["THAW_CONFIG"], []byte(w.file), 0o600))
	}
	return s
}

// TestBadConfigurationInLambdaIsOneInitError: Lambda shows the function's owner
// all problems at once.
func TestBadConfigurationInLambdaIsOneInitError(t *testing.T) {
	t.Parallel()
	for _, w := range wrongs() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			e, err := tryStart(t, w.with(t))
			reported := new(lambdaapi.Reported)
			failure := new(lambdaapi.Failure)
			if !errors.As(err, &reported) || reported.State != lambdaapi.InitError || !errors.As(err, &failure) {
				t.Fatalf("start: %v, want an init/error", err)
			}
			if reported.Report.Type != "Extension.ConfigInvalid" || failure.Exit.Code == 0 || !failure.Exit.InTime {
				t.Errorf("type %q, %v", reported.Report.Type, failure.Exit)
			}
			says(t, reported.Report.Message, w.says)
			says(t, e.log.String(), w.says[:1])
		})
	}
}

func says(t *testing.T, text string, words []string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("it does not say %q:\n%s", w, text)
		}
	}
}

// outside runs the binary as `thaw proxy` and returns when it has ended.
func outside(t *testing.T, s harness.Settings, args ...string) *harness.Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p, err := harness.Start(harness.Command{
		Path: suite.binary, Args: args, Env: append(s.List(), "HOME="+t.TempDir()), Stdout: suite.transcript, Stderr: suite.transcript,
	})
	harness.Must(t, err)
	t.Cleanup(p.Kill)
	select {
	case <-p.Done():
	case <-ctx.Done():
		t.Fatalf("thaw %v goes on, and wrote:\n%s", args, p.Output())
	}
	return p
}

// TestBadConfigurationOutsideLambdaIsExitStatus2 with all problems on standard
// error, and nothing on standard output.
func TestBadConfigurationOutsideLambdaIsExitStatus2(t *testing.T) {
	t.Parallel()
	for _, w := range wrongs() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			s := w.with(t)
			args := []string{"proxy"}
			if s["THAW_CONFIG"] != "" { // by the flag, which is the other way to name it
				args = append(args, "-config", s["THAW_CONFIG"])
				delete(s, "THAW_CONFIG")
			}
			p := outside(t, s, args...)
			if p.ExitCode() != 2 || p.Stdout() != "" {
				t.Errorf("exit status %d, standard output %q", p.ExitCode(), p.Stdout())
			}
			says(t, p.Stderr(), w.says)
		})
	}
	t.Run("the command line", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{{"prox"}, {"proxy", "-confg", "x"}, {"proxy", "more"}, {}} {
			if p := outside(t, nil, args...); p.ExitCode() != 2 || p.Stderr() == "" {
				t.Errorf("thaw %q: exit status %d, %q", args, p.ExitCode(), p.Stderr())
			}
		}
	})
}

// TestProxyOutsideLambdaServesUntilSIGTERM: the same cache as an ordinary
// process, which verifies by itself.
func TestProxyOutsideLambdaServesUntilSIGTERM(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	value := o.put("app")
	addr := suite.address(t)
	log := &harness.Transcript{}
	p, err := harness.Start(harness.Command{
		Path: suite.binary, Args: []string{"proxy"},
		Env:    o.login(false).With(harness.Settings{"THAW_LISTEN": addr, "VAULT_LOG_LEVEL": "TRACE"}).List(),
		Stdout: suite.transcript, Stderr: io.MultiWriter(suite.transcript, log),
	})
	harness.Must(t, err)
	t.Cleanup(p.Kill)
	e := &environment{t: t, base: "http://" + addr, client: newFunctionClient(), log: log}
	harness.Eventually(t, patience, "the listener", func() bool { return strings.Contains(log.String(), `"msg":"serving"`) })
	ctx := t.Context()
	e.get(ctx, "secret/data/app").fresh(t, value)
	if a := e.get(ctx, "secret/data/app"); a.Header.Get("X-Cache") != "HIT" {
		t.Errorf("the second read: %v", a.Header)
	}
	value = o.put("app")
	harness.Pause(ctx, recheck)
	e.get(ctx, "secret/data/app").fresh(t, value)
	token := o.tokenUsed()
	if !p.Stop(5*time.Second) || p.ExitCode() != 0 {
		t.Errorf("it ended with %d and wrote:\n%s", p.ExitCode(), p.Output())
	}
	if o.valid(token) {
		t.Error("its token is still valid")
	}
	if lines := strings.Split(strings.TrimSpace(log.String()), "\n"); slices.ContainsFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "{") }) {
		t.Errorf("a line of the log is no JSON:\n%s", log)
	}
}
