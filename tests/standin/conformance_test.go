package standin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// step is one request of the script. Token, path and body may hold {name},
// which stands for what an earlier step kept under that name.
type step struct {
	method, path, token, body string
	header                    string // "Name: value"
	keep                      string // "name=dot.path": keep a value of the answer
	shapeOnly                 bool   // compare which keys there are and their types, not the values
}

// script is what is asked of the stand-in and of Vault alike. Both start with
// a root token and KV version 2 at secret/, version 1 at kv/.
func script() []step {
	at := func(token string, steps ...step) []step {
		for i := range steps {
			if steps[i].token == "" {
				steps[i].token = token
			}
		}
		return steps
	}
	return slices.Concat(at("{root}",
		// KV version 2: a life.
		step{method: "GET", path: "secret/data/app"},
		step{method: "POST", path: "secret/data/app", body: `{"data":{"user":"u","n":12345678901234567890,"html":"<a&b>"}}`},
		step{method: "GET", path: "secret/data/app"},
		step{method: "PUT", path: "secret/data/app", body: `{"options":{"cas":1},"data":{"user":"v","deep":{"a":{"b":1},"e":{}}}}`},
		step{method: "POST", path: "secret/data/app", body: `{"options":{"cas":1},"data":{"user":"w"}}`},
		step{method: "POST", path: "secret/data/app", body: `{"options":{"cas":"x"},"data":{"user":"w"}}`},
		step{method: "POST", path: "secret/data/app", body: `{"user":"w"}`},
		step{method: "POST", path: "secret/data/app", body: `{"data":`},
		step{method: "POST", path: "secret/data/app", body: "nonsense"},
		step{method: "POST", path: "secret/data/app", body: "[1]"},
		step{method: "POST", path: "secret/data/app", body: `{"data":"text"}`},
		step{method: "POST", path: "secret/data/null", body: `{"data":null}`},
		step{method: "POST", path: "secret/data/app", body: `{"data":{}} trailing`},
		step{method: "GET", path: "secret/data/null"},
		step{method: "GET", path: "secret/subkeys/null"},
		step{method: "PATCH", path: "secret/data/null", header: "Content-Type: application/merge-patch+json", body: `{"data":{"user":1}}`},
		step{method: "POST", path: "secret/data/null", body: `{"data":{"a":1},"other":1,"more":2}`},
		step{method: "POST", path: "secret/metadata/null", body: `{"max_versions":4,"other":1}`},
		step{method: "POST", path: "secret/metadata/null", body: `{"max_versions":"x"}`},
		step{method: "POST", path: "secret/metadata/null", body: `{"delete_version_after":"x"}`},
		step{method: "POST", path: "secret/metadata/null", body: `{"custom_metadata":"x"}`},
		step{method: "POST", path: "secret/undelete/null", body: `{"versions":["x"]}`},
		step{method: "POST", path: "secret/destroy/null", body: `{"versions":[1],"other":1}`},
		step{method: "POST", path: "secret/data/app"},
		step{method: "GET", path: "secret//data/app"},
		step{method: "GET", path: "secret/data/../data/app"},
		step{method: "GET", path: "secret/data/%61pp"},
		step{method: "GET", path: "secret/data/app%2F"},
		step{method: "GET", path: "secret/data/App"},
		step{method: "GET", path: "Secret/data/app"},
		step{method: "GET", path: "secret/data/app?version=x"},
		step{method: "GET", path: "secret/data/app?version=-1"},
		step{method: "GET", path: "secret/data/app?version=1&version=2"},
		step{method: "GET", path: "secret/data/app?other=1"},
		step{method: "GET", path: "secret/data/app?version=1"},
		step{method: "GET", path: "secret/data/app?version=0"},
		step{method: "GET", path: "secret/data/app?version=9"},
		step{method: "HEAD", path: "secret/data/app"},
		step{method: "OPTIONS", path: "secret/data/app"},
		step{method: "PATCH", path: "secret/data/app", header: "Content-Type: application/merge-patch+json", body: `{"data":{"user":null,"deep":{"a":{"c":2}},"new":[1,2]}}`},
		step{method: "PATCH", path: "secret/data/app", header: "Content-Type: application/json", body: `{"data":{"user":null}}`},
		step{method: "PATCH", path: "secret/data/app", header: "Content-Type: application/merge-patch+json", body: `{}`},
		step{method: "PATCH", path: "secret/data/none", header: "Content-Type: application/merge-patch+json", body: `{"data":{"user":null}}`},
		step{method: "GET", path: "secret/data/app"},
		step{method: "GET", path: "secret/subkeys/app"},
		step{method: "GET", path: "secret/subkeys/app?depth=1&version=2"},
		step{method: "GET", path: "secret/subkeys/none"},
		step{method: "POST", path: "secret/subkeys/app", body: `{"a":1}`},
		step{method: "GET", path: "secret/metadata/app"},
		step{method: "GET", path: "secret/metadata/none"},
		step{method: "POST", path: "secret/metadata/app", body: `{"max_versions":3,"custom_metadata":{"team":"a","n":1}}`},
		step{method: "PATCH", path: "secret/metadata/app", header: "Content-Type: application/merge-patch+json", body: `{"custom_metadata":{"n":null,"m":"x"}}`},
		step{method: "PATCH", path: "secret/metadata/none", header: "Content-Type: application/merge-patch+json", body: `{"custom_metadata":{"n":null}}`},
		step{method: "POST", path: "secret/metadata/app", body: `{"custom_metadata":{"":"x"}}`},
		step{method: "GET", path: "secret/data/app"},
		step{method: "DELETE", path: "secret/data/app"},
		step{method: "GET", path: "secret/data/app"},
		step{method: "GET", path: "secret/subkeys/app"},
		step{method: "GET", path: "secret/metadata/app"},
		step{method: "PATCH", path: "secret/data/app", header: "Content-Type: application/merge-patch+json", body: `{"data":{"x":1}}`},
		step{method: "POST", path: "secret/undelete/app", body: `{"versions":[3]}`},
		step{method: "POST", path: "secret/undelete/app", body: `{"versions":[]}`},
		step{method: "GET", path: "secret/data/app"},
		step{method: "POST", path: "secret/delete/app", body: `{"versions":[1,2]}`},
		step{method: "PUT", path: "secret/destroy/app", body: `{"versions":"2"}`},
		step{method: "PUT", path: "secret/destroy/app", body: `{}`},
		step{method: "GET", path: "secret/data/app?version=2"},
		step{method: "GET", path: "secret/data/app?version=1"},
		step{method: "POST", path: "secret/data/app", body: `{"data":{"k":4}}`},
		step{method: "GET", path: "secret/metadata/app"},
		step{method: "GET", path: "secret/data/app?version=1"},
		step{method: "POST", path: "secret/metadata/timed", body: `{"delete_version_after":"2h","cas_required":true}`},
		step{method: "GET", path: "secret/metadata/timed"},
		step{method: "GET", path: "secret/data/timed"},
		step{method: "POST", path: "secret/data/timed", body: `{"data":{"k":1}}`},
		step{method: "POST", path: "secret/data/timed", body: `{"options":{"cas":0},"data":{"k":1}}`},
		step{method: "GET", path: "secret/data/timed"},
		step{method: "GET", path: "secret/metadata/timed"},
		step{method: "POST", path: "secret/data/dir/one", body: `{"data":{"k":1}}`},
		step{method: "POST", path: "secret/data/dir", body: `{"data":{"k":1}}`},
		step{method: "LIST", path: "secret/metadata"},
		step{method: "LIST", path: "secret/metadata/dir"},
		step{method: "GET", path: "secret/metadata/?list=true"},
		step{method: "GET", path: "secret/metadata/dir/?list=true"},
		step{method: "GET", path: "secret/metadata/dir?list=nonsense"},
		step{method: "GET", path: "secret/metadata/dir/"},
		step{method: "LIST", path: "secret/metadata/none"},
		step{method: "LIST", path: "secret/data/dir"},
		step{method: "GET", path: "secret/data/dir/"},
		step{method: "POST", path: "secret/data/dir/", body: `{"data":{"k":1}}`},
		step{method: "DELETE", path: "secret/metadata/dir/"},
		step{method: "GET", path: "secret/metadata/dir"},
		step{method: "POST", path: "secret/data/dir", body: `{"data":{"k":1}}`},
		step{method: "GET", path: "secret/dir"},
		step{method: "LIST", path: "secret/dir"},
		step{method: "GET", path: "secret/data"},
		step{method: "GET", path: "secret/"},
		step{method: "DELETE", path: "secret/metadata/dir"},
		step{method: "GET", path: "secret/metadata/dir"},
		step{method: "DELETE", path: "secret/data/none"},
		step{method: "POST", path: "secret/config", body: `{"max_versions":5,"delete_version_after":"1h"}`},
		step{method: "GET", path: "secret/config"},
		step{method: "POST", path: "secret/config", body: `{"max_versions":0,"delete_version_after":"0s"}`},

		// KV version 1.
		step{method: "GET", path: "kv/app"},
		step{method: "POST", path: "kv/app", body: `{"k":"v","n":12345678901234567890,"html":"<a&b>"}`},
		step{method: "GET", path: "kv/app"},
		step{method: "POST", path: "kv/app", body: `{}`},
		step{method: "POST", path: "kv/dir/leased", body: `{"k":"v","ttl":"90s"}`},
		step{method: "GET", path: "kv/dir/leased"},
		step{method: "LIST", path: "kv"},
		step{method: "GET", path: "kv/dir?list=true"},
		step{method: "PATCH", path: "kv/app", header: "Content-Type: application/merge-patch+json", body: `{"k":1}`},
		step{method: "DELETE", path: "kv/app"},
		step{method: "DELETE", path: "kv/app"},
		step{method: "LIST", path: "kv/none"},

		// Around it.
		step{method: "GET", path: "sys/leader"},
		step{method: "GET", path: "sys/health", shapeOnly: true},
		step{method: "GET", path: "sys/health?activecode=299", shapeOnly: true},
		step{method: "HEAD", path: "sys/health"},
		step{method: "GET", path: "sys/seal-status", shapeOnly: true},
		step{method: "GET", path: "sys/init"},
		step{method: "POST", path: "sys/leader", body: `{}`},
		step{method: "GET", path: "sys/internal/ui/mounts/secret/data/app"},
		step{method: "GET", path: "sys/internal/ui/mounts/kv"},
		step{method: "GET", path: "sys/internal/ui/mounts/nowhere/x"},
		step{method: "GET", path: "nowhere/x"},
		step{method: "GET", path: "secret/data/app", header: "X-Vault-Forward: active-node"},
		step{method: "GET", path: "secret/data/app", header: "X-Vault-Namespace: team/"},
		step{method: "POST", path: "sys/capabilities-self", body: `{"paths":["secret/data/app","sys/x"]}`},
		step{method: "POST", path: "sys/capabilities-self", body: `{"path":"secret/data/app"}`},
		step{method: "POST", path: "sys/capabilities-self", body: `{}`},

		// Policies and tokens.
		step{method: "PUT", path: "sys/policies/acl/app", body: `{"policy":"path \"secret/data/+/shared\" { capabilities = [\"read\", \"update\"] }\npath \"secret/data/ap*\" { capabilities = [\"create\", \"read\"] }\npath \"secret/data/app/private\" { capabilities = [\"deny\"] }\npath \"secret/metadata/dir\" { capabilities = [\"list\"] }"}`},
		step{method: "GET", path: "sys/policies/acl/app"},
		step{method: "GET", path: "sys/policies/acl/none"},
		step{method: "PUT", path: "sys/policies/acl/bad", body: `{"policy":"nonsense"}`, shapeOnly: true},
		step{method: "POST", path: "auth/token/create", body: `{"policies":["app"],"ttl":"90m","display_name":"x","meta":{"a":"b"}}`, keep: "app=auth.client_token"},
		step{method: "POST", path: "auth/token/create", body: `{"policies":["app"],"ttl":"5m","type":"batch"}`, keep: "batch=auth.client_token"},
		step{method: "GET", path: "auth/token/lookup-self", shapeOnly: true},
		step{method: "POST", path: "auth/token/lookup", body: `{"token":"{app}"}`},
		step{method: "POST", path: "auth/token/lookup", body: `{"token":"hvs.none"}`},
		step{method: "POST", path: "secret/data/dir/two", body: `{"data":{"k":1}}`},
	), at("{app}",
		step{method: "GET", path: "secret/data/app"},
		step{method: "POST", path: "secret/data/app", body: `{"data":{"k":1}}`},
		step{method: "POST", path: "secret/data/apple", body: `{"data":{"k":1}}`},
		step{method: "GET", path: "secret/data/app/private"},
		step{method: "GET", path: "secret/data/other"},
		step{method: "GET", path: "secret/data/x/shared"},
		step{method: "LIST", path: "secret/metadata/dir"},
		step{method: "LIST", path: "secret/metadata"},
		step{method: "GET", path: "nowhere/x"},
		step{method: "GET", path: "kv/dir/leased"},
		step{method: "GET", path: "sys/internal/ui/mounts/secret/data/app/private"},
		step{method: "GET", path: "sys/internal/ui/mounts/kv/app"},
		step{method: "POST", path: "sys/capabilities-self", body: `{"paths":["secret/data/app","secret/data/x/shared","secret/data/app/private","secret/metadata/dir","nowhere"]}`},
		step{method: "GET", path: "auth/token/lookup-self"},
		step{method: "POST", path: "auth/token/renew-self", body: `{"increment":"60m"}`},
		step{method: "GET", path: "auth/token/lookup-self"},
		step{method: "GET", path: "auth/token/lookup-self", token: "{batch}"},
		step{method: "POST", path: "auth/token/renew-self", token: "{batch}", body: `{}`},
		step{method: "POST", path: "auth/token/revoke-self", token: "{batch}", body: `{}`},
		step{method: "GET", path: "secret/data/app", token: "{batch}"},
		step{method: "GET", path: "secret/data/app", token: "-"},
		step{method: "GET", path: "secret/data/app", token: "hvs.bad"},
		step{method: "GET", path: "secret/data/app", token: "bad"},
		step{method: "GET", path: "auth/token/lookup-self", token: "hvs.bad"},
		step{method: "GET", path: "auth/token/lookup-self", token: "-"},
		step{method: "POST", path: "sys/capabilities-self", token: "hvs.bad", body: `{"paths":["a"]}`},
		step{method: "GET", path: "sys/internal/ui/mounts/secret/data/app", token: "hvs.bad"},
		step{method: "GET", path: "sys/internal/ui/mounts/secret/data/app", token: "-"},
		step{method: "GET", path: "secret/data/app", token: "-", header: "Authorization: Bearer {app}"},
	), at("{root}",
		// AppRole.
		step{method: "POST", path: "sys/auth/approle", body: `{"type":"approle"}`},
		step{method: "POST", path: "auth/approle/role/fn", body: `{"token_policies":"app","token_ttl":"20m"}`},
		step{method: "GET", path: "auth/approle/role/fn/role-id", keep: "role=data.role_id"},
		step{method: "POST", path: "auth/approle/role/fn/secret-id", body: `{}`, keep: "secret=data.secret_id"},
		step{method: "POST", path: "auth/approle/login", token: "-", body: `{"role_id":"{role}","secret_id":"{secret}"}`, keep: "fn=auth.client_token"},
		step{method: "POST", path: "auth/approle/login", token: "-", body: `{"role_id":"{role}","secret_id":"no"}`},
		step{method: "POST", path: "auth/approle/login", token: "-", body: `{"role_id":"no","secret_id":"no"}`},
		step{method: "POST", path: "auth/approle/login", token: "-", body: `{"role_id":"{role}"}`},
		step{method: "POST", path: "auth/approle/login", token: "-", body: `{}`},
		step{method: "GET", path: "auth/token/lookup-self", token: "{fn}"},
		step{method: "POST", path: "auth/token/revoke-self", token: "{fn}"},
		step{method: "GET", path: "auth/token/lookup-self", token: "{fn}"},

		// Wrapping.
		step{method: "GET", path: "secret/data/app", header: "X-Vault-Wrap-TTL: 90", keep: "wrapped=wrap_info.token"},
		step{method: "POST", path: "sys/wrapping/lookup", body: `{"token":"{wrapped}"}`},
		step{method: "POST", path: "sys/wrapping/unwrap", token: "{wrapped}"},
		step{method: "POST", path: "sys/wrapping/unwrap", token: "{wrapped}"},
		step{method: "GET", path: "secret/data/none", header: "X-Vault-Wrap-TTL: 90"},
		step{method: "LIST", path: "secret/metadata", header: "X-Vault-Wrap-TTL: 5m", keep: "wrapped=wrap_info.token"},
		step{method: "POST", path: "sys/wrapping/unwrap", body: `{"token":"{wrapped}"}`},
		step{method: "GET", path: "secret/data/app", header: "X-Vault-Wrap-TTL: soon"},

		// Sealed.
		step{method: "PUT", path: "sys/seal"},
		step{method: "GET", path: "secret/data/app"},
		step{method: "GET", path: "sys/leader"},
		step{method: "GET", path: "sys/health", shapeOnly: true},
		step{method: "GET", path: "sys/seal-status", shapeOnly: true},
		step{method: "GET", path: "sys/init"},
		step{method: "POST", path: "auth/approle/login", token: "-", body: `{"role_id":"{role}","secret_id":"{secret}"}`},
	))
}

// volatile are keys whose values are never the same twice: only their type,
// and whether they are empty, is compared.
func volatile(key string) bool {
	switch key {
	case "request_id", "accessor", "uuid", "client_token", "token", "id", "client_id", "entity_id", "role_id", "secret_id",
		"secret_id_accessor", "creation_time", "created_time", "updated_time", "deletion_time", "expire_time", "issue_time",
		"last_renewal", "last_renewal_time", "active_time", "leader_address", "leader_cluster_address", "raft_committed_index",
		"raft_applied_index", "ttl", "cluster_id", "cluster_name", "wrapped_accessor":
		return true
	}
	return false
}

// shape reduces an answer to what must be alike.
func shape(v any, typesOnly bool) any {
	kind := func(v any) string {
		if v == "" {
			return "string, empty"
		}
		return fmt.Sprintf("%T", v)
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			_, isMap := e.(map[string]any)
			if volatile(k) && !isMap {
				out[k] = kind(e)
			} else {
				out[k] = shape(e, typesOnly)
			}
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, shape(e, typesOnly))
		}
		return out
	}
	if typesOnly {
		return kind(v)
	}
	return v
}

// run asks one origin the whole script and gives back what each step showed.
func run(t *testing.T, addr, root string) []string {
	t.Helper()
	kept := map[string]string{"root": root}
	fill := func(s string) string {
		for k, v := range kept {
			s = strings.ReplaceAll(s, "{"+k+"}", v)
		}
		return s
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(client.CloseIdleConnections)
	var out []string
	for _, s := range script() {
		call := harness.Call{Method: s.method, Path: fill(s.path), Header: http.Header{}}
		if s.token != "-" {
			call.Token = fill(s.token)
		}
		if s.body != "" {
			call.Body = []byte(fill(s.body))
		}
		if name, value, ok := strings.Cut(s.header, ": "); ok {
			call.Header.Set(name, fill(value))
		}
		r, err := harness.Send(t.Context(), client, addr, call)
		if err != nil {
			t.Fatalf("%s %s: %v", s.method, s.path, err)
		}
		show := fmt.Sprintf("%d %s %s", r.Status, r.Header.Get("Content-Type"), r.Header.Get("Cache-Control"))
		var body any
		if err := json.Unmarshal(r.Body, &body); err == nil {
			if name, path, ok := strings.Cut(s.keep, "="); ok {
				kept[name] = dig(body, path)
			}
			text, err := json.Marshal(shape(body, s.shapeOnly))
			if err != nil {
				t.Fatal(err)
			}
			show += " " + string(text)
		} else {
			show += fmt.Sprintf(" %q", r.Body)
		}
		if len(r.Body) > 0 && r.Body[len(r.Body)-1] == '\n' {
			show += "\\n"
		}
		for name, v := range kept { // error texts repeat what was sent
			if name != "root" && v != "" {
				show = strings.ReplaceAll(show, v, "{"+name+"}")
			}
		}
		out = append(out, show)
	}
	return out
}

func dig(v any, path string) string {
	for p := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	s, _ := v.(string)
	return s
}

// TestTheStandInAnswersAsVaultDoes asks a real Vault with integrated storage
// and the stand-in the same things and compares the answers, values included
// where they are not ids or times.
func TestTheStandInAnswersAsVaultDoes(t *testing.T) {
	t.Parallel()
	env := harness.FromEnv()
	bin, err := harness.FindVault(t.Context(), env.VaultBin)
	if errors.Is(err, harness.ErrMissing) && !env.CI {
		t.Skip("no Vault to compare with:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := harness.StartRaft(t.Context(), harness.VaultConfig{Binary: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	for mount, version := range map[string]int{"secret": 2, "kv": 1} {
		if err := v.EnableKV(t.Context(), mount, version); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewServer(standin.New(standin.Options{}))
	t.Cleanup(s.Close)

	real, ours := run(t, v.Addr(), v.RootToken()), run(t, s.URL, "root")
	for i, st := range script() {
		if real[i] != ours[i] {
			t.Errorf("%s %s %s %s\n   Vault: %s\nstand-in: %s", st.method, st.path, st.body, st.header, real[i], ours[i])
		}
	}
}
