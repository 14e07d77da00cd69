package standin

import (
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"time"
)

// role is an AppRole. Immutable once stored.
type role struct {
	roleID   string
	entityID string   // of whoever logs in with it
	secrets  []string // good secret ids
	policies []string
	ttl      time.Duration
	kind     string   // service or batch
	cidrs    []string // networks that its tokens may be used from; none: any
}

// AppRole describes a role of auth/approle/.
type AppRole struct {
	Policies []string      // besides "default"
	TTL      time.Duration // of its tokens; 0: 32 days
	Batch    bool          // batch tokens, which leave the log alone, instead of service tokens
}

// AddAppRole makes a role and returns a role_id and a secret_id to log in with.
func (s *Origin) AddAppRole(name string, r AppRole) (roleID, secretID string) {
	roleID, secretID = newUUID(), newUUID()
	kind := "service"
	if r.Batch {
		kind = "batch"
	}
	s.writer.Lock()
	defer s.writer.Unlock()
	s.commit(&change{entries: 2, apply: func(st *state) {
		st.roles[name] = &role{roleID: roleID, entityID: newUUID(), secrets: []string{secretID}, policies: slices.Clone(r.Policies), ttl: r.TTL, kind: kind}
	}})
	return roleID, secretID
}

// planLogin is auth/approle/login.
// https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle
func (c *call) planLogin(st *state) (answer, *change) {
	if c.path != "auth/approle/login" {
		return c.unknownPath(), nil
	}
	if c.op != opUpdate {
		return unsupported(), nil
	}
	if len(st.roles) == 0 { // as if not enabled: the path is no login path, so a token is asked for
		return noToken(), nil
	}
	if c.text("role_id") == "" {
		return errorAnswer(http.StatusInternalServerError, "failed to determine alias name from login request"), nil
	}
	if c.text("secret_id") == "" {
		return invalid("missing secret_id"), nil
	}
	for name, r := range st.roles {
		if r.roleID != c.text("role_id") {
			continue
		}
		for _, s := range r.secrets {
			if subtle.ConstantTimeCompare([]byte(s), []byte(c.text("secret_id"))) == 1 {
				t := newToken(c.now, r.ttl, r.kind, r.policies)
				t.path, t.display, t.orphan, t.entity, t.alias, t.cidrs = "auth/approle/login", "approle", true, r.entityID, r.roleID, r.cidrs
				t.meta = map[string]string{"role_name": name}
				return c.enveloped(envelope{Auth: t.auth(c.now)}), storeToken(t)
			}
		}
	}
	return invalid("invalid role or secret ID"), nil
}

// planAppRole is the part of auth/approle/role/ that a test sets up with.
func (c *call) planAppRole(st *state) (answer, *change) {
	name, what, _ := strings.Cut(strings.TrimPrefix(c.path, "auth/approle/role/"), "/")
	old := st.roles[name]
	write := c.op == opUpdate || c.op == opCreate
	switch {
	case what == "" && write:
		ttl, _, err := c.seconds("token_ttl")
		if err != nil {
			return invalid(err.Error()), nil
		}
		r := &role{roleID: newUUID(), entityID: newUUID(), policies: c.strings("token_policies"), cidrs: c.strings("token_bound_cidrs"), ttl: ttl, kind: "service"}
		if c.text("token_type") == "batch" {
			r.kind = "batch"
		}
		if old != nil {
			r.roleID, r.entityID, r.secrets = old.roleID, old.entityID, old.secrets
		}
		return noContent, &change{entries: 2, apply: func(st *state) { st.roles[name] = r }}
	case old == nil:
		return notFound(), nil
	case what == "role-id" && c.op == opRead:
		return c.ok("approle", map[string]any{"role_id": old.roleID}), nil
	case what == "secret-id" && write:
		id := newUUID()
		next := *old
		next.secrets = append(slices.Clone(old.secrets), id)
		return c.ok("approle", map[string]any{"secret_id": id, "secret_id_accessor": newUUID(), "secret_id_num_uses": 0, "secret_id_ttl": 0}),
			&change{entries: 2, apply: func(st *state) { st.roles[name] = &next }}
	}
	return c.unknownPath(), nil
}

// unknownPath refuses what the stand-in does not model. Vault's words where
// the path does not exist there either: "unsupported path".
func (c *call) unknownPath() answer {
	return errorAnswer(http.StatusNotFound, "1 error occurred:\n\t* unsupported path\n\n", "stand-in: this is not Vault, and "+c.path+" is not modelled")
}
