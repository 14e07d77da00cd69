package attack

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestNoAnswerNamesThawsOwnToken: callers without a token ask everything that may
// answer with the token that asks. Nothing in an answer may be that token, in any form
// that Vault takes: each text of each answer is tried at Vault.
func TestNoAnswerNamesThawsOwnToken(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	ctx := t.Context()
	policy := unique("broad")
	harness.Must(t, o.PutPolicy(ctx, policy, `
path "auth/token/*" { capabilities = ["create", "read", "update", "list", "sudo"] }
path "auth/+/login" { capabilities = ["create", "update"] }
path "sys/*" { capabilities = ["create", "read", "update", "list", "sudo"] }
`))
	harness.Must(t, o.EnableAuth(ctx, unique("approle"), "approle"))
	mount := unique("logins")
	harness.Must(t, o.EnableAuth(ctx, mount, "approle"))
	roleID, secretID, err := o.AppRole(ctx, mount, "own", harness.RoleSpec{Policies: []string{policy}, TTL: time.Hour})
	harness.Must(t, err)
	another, err := o.CreateToken(ctx, harness.TokenSpec{Policies: []string{"default"}, TTL: time.Hour})
	harness.Must(t, err)
	// who is whose accessor; empty for what is no token.
	who := func(token string) string {
		r, err := o.Do(ctx, harness.Call{Method: http.MethodGet, Path: "auth/token/lookup-self", Token: token})
		if err != nil || r.Status != http.StatusOK {
			return ""
		}
		data, err := r.Data()
		harness.Must(t, err)
		return fmt.Sprint(data["accessor"], data["creation_time"], data["expire_time"])
	}
	for _, batch := range []bool{false, true} {
		token, err := o.CreateToken(ctx, harness.TokenSpec{Policies: []string{policy}, TTL: time.Hour, Batch: batch})
		harness.Must(t, err)
		own := who(token)
		p := launch(t, "VLE_VAULT_ADDR="+o.Vault.Addr(), "VAULT_TOKEN="+token)
		lookup := func(accessor string) string { return `{"accessor":"` + accessor + `"}` }
		var accessor string
		if r, err := o.Do(ctx, harness.Call{Method: http.MethodGet, Path: "auth/token/lookup-self", Token: token}); err == nil {
			data, _ := r.Data()
			accessor, _ = data["accessor"].(string)
		}
		for _, r := range []struct{ method, path, body string }{
			{"GET", "auth/token/lookup-self", ""}, {"GET", "auth/token/lookup-self/", ""}, {"GET", "auth//token/lookup-self", ""}, {"GET", "auth/token/./lookup-self", ""},
			{"GET", "auth/token/lookup", ""}, {"POST", "auth/token/lookup", "{}"}, {"POST", "auth/token/lookup", ""}, {"PUT", "auth/token/lookup", `{"token":""}`},
			{"POST", "auth/token/lookup", `{"Token":"` + another + `"}`}, {"GET", "auth/token/lookup", `{"token":"` + another + `"}`}, {"POST", "auth/token/lookup?token=" + another, "{}"},
			{"POST", "auth/token/lookup", `{"token":null}`}, {"POST", "auth/token/lookup", `{"token":["` + another + `"]}`}, {"POST", "auth//token/lookup", "{}"}, {"GET", "auth/token/lookup/", ""},
			{"POST", "auth/token/lookup", "token=" + another},
			{"POST", "auth/token/lookup-accessor", lookup(accessor)}, {"POST", "auth/token/renew-accessor", lookup(accessor)},
			{"POST", "auth/token/renew-self", ""}, {"POST", "auth/token/renew-self", "{}"}, {"PUT", "auth/token/renew-self", `{"increment":"1h"}`},
			{"POST", "auth/token/renew", ""}, {"POST", "auth/token/renew", "{}"}, {"POST", "auth/token/create", `{"ttl":"1m"}`}, {"POST", "auth/token/create-orphan", `{"type":"batch","ttl":"1m"}`},
			{"POST", "auth/" + mount + "/login", `{"role_id":"` + roleID + `","secret_id":"` + secretID + `"}`},
			{"LIST", "auth/token/accessors", ""}, {"GET", "sys/wrapping/lookup", ""}, {"POST", "sys/wrapping/wrap", `{"a":"b"}`}, {"GET", "sys/in-flight-req", ""},
			{"POST", "sys/capabilities", `{"paths":["a"],"token":"` + another + `"}`}, {"POST", "sys/leases/lookup", `{"lease_id":"auth/token/create/x"}`},
		} {
			for _, header := range []string{"", "X-Vault-Wrap-TTL: 60s", "Accept-Encoding: gzip", "Content-Type: application/x-www-form-urlencoded"} {
				var headers []string
				if header != "" {
					headers = append(headers, header)
				}
				a := ask(t, p.addr, request(r.method, "/v1/"+r.path, r.body, headers...))
				for _, text := range texts(t, a.body) {
					if text == token || len(text) > 20 && who(text) == own {
						t.Errorf("batch %v: %s %s %s %q tells the token as %.12s...: %d", batch, r.method, r.path, r.body, header, text, a.status)
					}
				}
			}
		}
		// About another token everything is told.
		for _, r := range []string{request("POST", "/v1/auth/token/lookup", `{"token":"`+another+`"}`), request("GET", "/v1/auth/token/lookup?token="+another, "")} {
			if a := ask(t, p.addr, r); a.status != http.StatusOK || len(texts(t, a.body)) == 0 || !contains(texts(t, a.body), another) {
				t.Errorf("%.60q: %d %.200s, want what Vault says of the other token", r, a.status, a.body)
			}
		}
	}
}

// texts are all strings in a JSON text, and the text itself where it is none.
func texts(t *testing.T, body string) []string {
	t.Helper()
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return []string{body}
	}
	var out []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			out = append(out, v)
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return out
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}
