package azure

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestTheDoctorLooksAtAzureToo runs thaw-azure doctor in an app as it should
// be, and in some that are not.
func TestTheDoctorLooksAtAzureToo(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	v := vaultWithAzure(t, a)
	root, err := harness.Root()
	harness.Must(t, err)
	settings := append(append(a.Environ(), trust(t, a)...), "VAULT_ADDR="+v.Addr(), "THAW_AZURE_RESOURCE="+audience, "WEBSITE_SKU=FlexConsumption")
	for _, c := range []struct {
		name   string
		env    []string
		status int
		want   []string
	}{
		{"healthy", []string{"VAULT_AUTH_ROLE=app"}, 0, []string{
			"hosting plan flex (WEBSITE_SKU=FlexConsumption), which may freeze", "host.json starts thaw-azure", "object id aaaaaaaa-0000-0000-0000-00000000000a",
			"sites/thaw-app", "thaw can log in by azure at auth/azure, role app",
		}},
		{"a role with bound_locations", []string{"VAULT_AUTH_ROLE=located"}, 1, []string{"no function app can ever meet", "Remove bound_locations"}},
		{"another identity", []string{"VAULT_AUTH_ROLE=app", "THAW_AZURE_CLIENT_ID=dddd"}, 1, []string{"THAW_AZURE_CLIENT_ID (dddd) must be the client id"}},
		{"no container for backups", []string{"VAULT_AUTH_ROLE=app", "THAW_DUMP=https://thawtest.blob.core.windows.net/nothing/x"}, 1, []string{"the container does not exist"}},
		{"no timer", []string{"VAULT_AUTH_ROLE=app", "PROACTIVE_CACHE_ENABLE=true", "CACHE_ENABLE=true", "THAW_MEMCACHED=127.0.0.1:1", "THAW_CACHE_KEY=" + strings.Repeat("QUJD", 10) + "QUI=", "THAW_AUDIENCE=x", "THAW_WARM_PATHS=secret/", "THAW_WARM_FUNCTION=Other"}, 1,
			[]string{"the app has no timer function Other"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), suite.binary, "doctor")
			cmd.Dir = filepath.Join(root, "functions", "azure")
			cmd.Env = append(append([]string{"PATH=" + harness.FromEnv().Path}, settings...), c.env...)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d\n%s", got, c.status, out)
			}
			for _, w := range c.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("no %q in:\n%s", w, out)
				}
			}
			if strings.Contains(string(out), a.Header()) || strings.Contains(string(out), "eyJ0") {
				t.Error("a secret in the report")
			}
		})
	}
}
