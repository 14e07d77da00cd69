package doctor

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/functions/demo"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestTheDemoFunctionRunsTheDoctorInItsOwnSandbox: with the environment that
// Lambda gives a function, the binary's argument decides that it is not the
// extension.
func TestTheDemoFunctionRunsTheDoctorInItsOwnSandbox(t *testing.T) {
	s := newSite(t)
	env := newAWS(s, "us-east-1", nil).env("AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "AWS_LAMBDA_FUNCTION_NAME=fn", "SECRET_PATH=secret/data/"+s.name+"/app",
		"SECRETS_URL=http://127.0.0.1:8200", "VLE_VAULT_ADDR="+s.vault.Addr(), "VAULT_ADDR=http://127.0.0.1:8200")
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	f, err := demo.FromEnv(os.Getenv)
	harness.Must(s.t, err)
	defer f.Close()
	f.Examine = demo.Doctor(suite.thaw)
	a, err := f.Handle(t.Context(), demo.Event{Doctor: true})
	harness.Must(s.t, err)
	var r report
	harness.Must(s.t, json.Unmarshal(a.Doctor, &r))
	if !a.OK || !r.Healthy {
		t.Errorf("%s", a.Doctor)
	}
	read := false
	for _, g := range r.Findings {
		read = read || g.Check == "kv" && g.Level == "ok"
	}
	if !read {
		t.Errorf("the function's paths were not looked at:\n%s", a.Doctor)
	}
}
