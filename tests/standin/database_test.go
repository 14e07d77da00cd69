package standin

import (
	"strings"
	"testing"
)

func TestEachReadOfADatabaseMakesAUserWithALease(t *testing.T) {
	t.Parallel()
	for role, seconds := range map[string]float64{`{"db_name":"d","default_ttl":"1h"}`: 3600, `{"db_name":"d","default_ttl":60}`: 60, `{"db_name":"d"}`: defaultLease} {
		c := client{t, New(Options{}), "root"}
		c.must(204, "POST", "/v1/sys/mounts/database", `{"type":"database"}`)
		c.must(204, "POST", "/v1/database/roles/app", role)
		leases := map[any]bool{}
		for _, password := range []string{"1", "2"} {
			a := c.must(200, "GET", "/v1/database/creds/app", "")
			lease, _ := a["lease_id"].(string)
			if data, _ := a["data"].(map[string]any); data["password"] != password || a["lease_duration"] != seconds || !strings.HasPrefix(lease, "database/creds/app/") {
				t.Errorf("role %s: %v; want user %s for %v seconds", role, a, password, seconds)
			}
			leases[lease] = true
		}
		if len(leases) != 2 {
			t.Errorf("role %s: one lease for two users", role)
		}
	}
}
