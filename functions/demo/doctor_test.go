package demo

import (
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
	for name, c := range map[string]struct {
		script string
		ok     bool
		want   string // in the report or the error
	}{
		"healthy":   {`echo "{\"healthy\":true,\"args\":\"$*\"}"`, true, "doctor -json -timeout 30s secret/data/app"},
		"problems":  {`echo '{"healthy":false,"problems":1}'; exit 1`, false, `"problems":1`},
		"no report": {`exit 2`, false, "gave no report"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFunction(t, DefaultURL, "secret/data/app")
			f.Examine = Doctor(program(t, c.script))
			a, err := f.Handle(t.Context(), Event{Doctor: true})
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
