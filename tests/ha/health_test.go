package ha

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestEveryHealthPassesUnchanged: a load balancer's question is for the node,
// whatever the answer
// (https://developer.hashicorp.com/vault/api-docs/system/health).
func TestEveryHealthPassesUnchanged(t *testing.T) {
	t.Parallel()
	states := map[int]string{
		200: `"initialized":true,"sealed":false,"standby":false`, 429: `"initialized":true,"sealed":false,"standby":true`,
		472: `"initialized":true,"sealed":false,"standby":false,"replication_dr_mode":"secondary"`,
		473: `"initialized":true,"sealed":false,"standby":true,"performance_standby":true`,
		474: `"initialized":true,"sealed":false,"standby":true`, 501: `"initialized":false,"sealed":true,"standby":true`,
		503: `"initialized":true,"sealed":true,"standby":true`, 530: `"initialized":true,"sealed":true,"standby":true,"removed_from_cluster":true`,
	}
	for status, fields := range states {
		for _, several := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d several=%v", status, several), func(t *testing.T) {
				t.Parallel()
				answer := func(query string) (int, []byte) {
					code := status
					if query == "standbyok=true" && status == 429 || query == "perfstandbyok=true" && status == 473 {
						code = 200
					}
					return code, []byte(`{` + fields + `,"version":"1.21.0+ent","cluster_id":"c1","server_time_utc":1767917506,"of":"` + query + `"}` + "\n")
				}
				node := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/v1/sys/health" {
						http.Error(w, `{"errors":["Vault is sealed"]}`, http.StatusServiceUnavailable)
						return
					}
					if r.Header.Get("X-Vault-Token") != "" {
						t.Error("a token went along")
					}
					code, body := answer(r.URL.RawQuery)
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(code)
					_, _ = w.Write(body)
				})
				settings := harness.Settings{"VAULT_TOKEN": "hvs.of-thaw"}
				server := httptest.NewServer(node)
				t.Cleanup(server.Close)
				settings["THAW_VAULT_ADDRS"] = server.URL
				if several {
					second := httptest.NewServer(node)
					t.Cleanup(second.Close)
					settings["THAW_VAULT_ADDRS"] += "," + second.URL
				}
				p := start(t, settings)
				for _, query := range []string{"", "standbyok=true", "perfstandbyok=true"} {
					for _, method := range []string{http.MethodGet, http.MethodHead} {
						r, err := p.send(t.Context(), harness.Call{Method: method, Path: "sys/health?" + query})
						harness.Must(t, err)
						code, body := answer(query)
						if method == http.MethodHead {
							body = nil
						}
						if r.Status != code || !bytes.Equal(r.Body, body) {
							t.Errorf("%s ?%s: %d %s, want %d %s", method, query, r.Status, r.Body, code, body)
						}
					}
				}
			})
		}
	}
}
