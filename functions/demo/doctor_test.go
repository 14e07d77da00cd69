package demo

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// program writes a script that stands for the extension's binary.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "thaw")
	// A child that another test starts meanwhile would inherit the open file,
	// and what is open for writing cannot be run.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheEventDoctorReturnsTheReport(t *testing.T) {
	t.Parallel()
	const args = `echo "{\"healthy\":true,\"args\":\"$*\"}"`
	for name, c := range map[string]struct {
		script string
		login  bool
		ok     bool
		want   string // in the report or the error
	}{
		"healthy":      {args, false, true, "doctor -json -timeout 30s secret/data/app"},
		"with a login": {args, true, true, "doctor -json -timeout 30s -login secret/data/app"},
		"problems":     {`echo '{"healthy":false,"problems":1}'; exit 1`, false, false, `"problems":1`},
		"no report":    {`exit 2`, false, false, "gave no report"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFunction(t, DefaultURL, "secret/data/app")
			f.Examine = Doctor(program(t, c.script))
			a, err := f.Handle(t.Context(), Event{Doctor: true, Login: c.login})
			text := string(a.Doctor)
			if err != nil {
				text += err.Error()
			}
			if a.OK != c.ok || !strings.Contains(text, c.want) || a.Secrets != nil {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

func TestTheEventDoctorSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	f := newFunction(t, DefaultURL, "a")
	if _, err := f.Handle(t.Context(), Event{Doctor: true}); err == nil || !strings.Contains(err.Error(), "does not run the doctor") {
		t.Error(err)
	}
	f.Examine = Doctor(filepath.Join(t.TempDir(), "none"))
	if _, err := f.Handle(t.Context(), Event{Doctor: true}); err == nil || !strings.Contains(err.Error(), "layer") {
		t.Error(err)
	}
}

func TestTheEventStatusReturnsWhatThawKnows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // in the error; empty: none
	}{
		"there":   {200, `{"version":"1"}`, ""},
		"refused": {403, `{"errors":["thaw: the local token is wrong"]}`, "the local token is wrong"},
		"a page":  {200, `<html>`, "200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/proxy/v1/status" || r.Header.Get("X-Thaw-Token") != "local" || r.Header.Get("X-Vault-Request") != "true" {
					t.Errorf("%s %v", r.URL, r.Header)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			f, err := FromEnv(func(name string) string {
				return map[string]string{"SECRETS_URL": base, "SECRET_PATH": "secret/data/app", "THAW_LOCAL_TOKEN": "local"}[name]
			})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			a, err := f.Handle(t.Context(), Event{Thaw: "status"})
			switch {
			case c.want == "" && (err != nil || !a.OK || string(a.Status) != c.body):
				t.Errorf("%+v, %v", a, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%+v, %v, want %s", a, err, c.want)
			}
		})
	}
	f := newFunction(t, "http://127.0.0.1:1", "secret/data/app")
	if _, err := f.Handle(t.Context(), Event{Thaw: "status"}); err == nil || !strings.Contains(err.Error(), "extension") {
		t.Errorf("no thaw: %v", err)
	}
	if _, err := f.Handle(t.Context(), Event{Thaw: "state"}); err == nil || !strings.Contains(err.Error(), `"status"`) {
		t.Errorf("another word: %v", err)
	}
}
