package standin

import (
	"fmt"
	"testing"
	"time"
)

// Another auth method gives tokens as AppRole does, and refuses in its own words.
func TestOtherMethodsGiveTokens(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	o.SetPolicy("team", map[string][]string{"secret/data/app": {"read"}})
	o.Root("POST", "secret/data/app", `{"data":{"k":"v"}}`)
	check := func(in map[string]any) string {
		if in["jwt"] != "good" {
			return "error validating token"
		}
		return ""
	}
	o.AddLogin("jwt", AppRole{Policies: []string{"app"}, NoDefault: true, TTL: time.Hour, MaxTTL: 2 * time.Hour, Entity: "e"}, check)
	c := client{t: t, o: o}
	c.must(403, "POST", "/v1/auth/other/login", `{"jwt":"good"}`)
	if out := c.must(400, "POST", "/v1/auth/jwt/login", `{"jwt":"bad"}`); fmt.Sprint(out["errors"]) != "[error validating token]" {
		t.Errorf("refused: %v", out)
	}
	out := c.must(200, "POST", "/v1/auth/jwt/login", `{"jwt":"good"}`)
	if fmt.Sprint(at(out, "auth", "policies")) != "[app]" || at(out, "auth", "entity_id") != "e" || at(out, "auth", "identity_policies") != nil {
		t.Errorf("login: %v", out)
	}
	// The entity's policies count for tokens that it has.
	c.token = at(out, "auth", "client_token").(string)
	c.must(403, "GET", "/v1/secret/data/app", "")
	o.SetEntityPolicies("e", "team")
	c.must(200, "GET", "/v1/secret/data/app", "")
	out = c.must(200, "POST", "/v1/auth/jwt/login", `{"jwt":"good"}`)
	if fmt.Sprint(at(out, "auth", "policies"), at(out, "auth", "token_policies"), at(out, "auth", "identity_policies")) != "[app team] [app] [team]" {
		t.Errorf("login with policies of the entity: %v", out)
	}
}

// A role that is written again keeps the ids that are not given.
func TestARoleKeepsItsIDs(t *testing.T) {
	t.Parallel()
	o := New(Options{})
	roleID, secretID := o.AddAppRole("fn", AppRole{Policies: []string{"a"}})
	if r, s := o.AddAppRole("fn", AppRole{Policies: []string{"b"}, Batch: true}); r != roleID || s != secretID {
		t.Errorf("%s %s became %s %s", roleID, secretID, r, s)
	}
	if r, s := o.AddAppRole("fn", AppRole{RoleID: "r", SecretID: "s", Uses: 3}); r != "r" || s != "s" {
		t.Errorf("given ids are %s %s", r, s)
	}
	c := client{t: t, o: o}
	c.must(400, "POST", "/v1/auth/approle/login", fmt.Sprintf(`{"role_id":"r","secret_id":%q}`, secretID))
	if out := c.must(200, "POST", "/v1/auth/approle/login", `{"role_id":"r","secret_id":"s"}`); at(out, "auth", "num_uses") != 3.0 {
		t.Errorf("login: %v", out)
	}
}
