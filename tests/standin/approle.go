package standin

import (
	"cmp"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"time"
)

// role is an AppRole, or what another method gives tokens by. Immutable once stored.
type role struct {
	AppRole
	secrets []string                         // good secret ids
	cidrs   []string                         // networks that its tokens may be used from; none: any
	check   func(body map[string]any) string // see AddLogin; nil: an AppRole
}

// AppRole describes a role of auth/approle/, and what tokens it gives.
type AppRole struct {
	Policies  []string      // besides "default"
	NoDefault bool          // not even that
	TTL       time.Duration // of its tokens; 0: 32 days
	MaxTTL    time.Duration // of its tokens with all renewals; 0: none
	Uses      int           // of each token; 0: any number
	Batch     bool          // batch tokens, which leave the log alone, instead of service tokens
	RoleID    string        // empty: a random one, as for the next two
	SecretID  string        // the one that is good
	Entity    string        // id of whoever logs in with it
}

// AddAppRole makes a role and returns a role_id and a secret_id to log in with. A role
// that is there gets what r says, and keeps its ids.
func (s *Origin) AddAppRole(name string, r AppRole) (roleID, secretID string) {
	s.writer.Lock()
	defer s.writer.Unlock()
	old := s.state.roles[name] // only a writer changes it
	if old == nil {
		old = newRole()
	}
	next := &role{AppRole: r, secrets: old.secrets, cidrs: old.cidrs}
	next.Policies = slices.Clone(r.Policies)
	next.RoleID, next.Entity = cmp.Or(r.RoleID, old.RoleID), cmp.Or(r.Entity, old.Entity)
	if r.SecretID != "" {
		next.secrets = []string{r.SecretID}
	}
	s.commit(&change{entries: 2, apply: func(st *state) { st.roles[name] = next }})
	return next.RoleID, next.secrets[0]
}

// newRole has ids of its own.
func newRole() *role {
	return &role{AppRole: AppRole{RoleID: newUUID(), Entity: newUUID()}, secrets: []string{newUUID()}}
}

// AddLogin mounts another auth method at auth/<mount>/. check is called with the body
// of a login, while nothing else is written. It returns why the method refuses it, in
// its own words, for an answer of 400; or nothing for one that gets a token as r has
// it.
func (s *Origin) AddLogin(mount string, r AppRole, check func(body map[string]any) string) {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.commit(&change{entries: 2, apply: func(st *state) { st.logins["auth/"+mount+"/login"] = &role{AppRole: r, check: check} }})
}

// planOtherLogin is a login of AddLogin's.
func (c *call) planOtherLogin(r *role) (answer, *change) {
	if c.op != opUpdate {
		return unsupported(), nil
	}
	if why := r.check(c.body); why != "" {
		return invalid(why), nil
	}
	return c.loggedIn(r, nil)
}

// loggedIn gives a token.
func (c *call) loggedIn(r *role, meta map[string]string) (answer, *change) {
	kind := "service"
	if r.Batch {
		kind = "batch"
	}
	t := newToken(c.now, r.TTL, kind, r.Policies)
	if r.NoDefault {
		t.policies = slices.Sorted(slices.Values(r.Policies))
	}
	t.path, t.display, t.orphan, t.entity, t.alias, t.cidrs = c.path, strings.Split(c.path, "/")[1], true, r.Entity, r.RoleID, r.cidrs
	t.meta, t.uses, t.maxTTL = meta, r.Uses, r.MaxTTL
	return c.enveloped(envelope{Auth: c.auth(t)}), storeToken(t)
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
		if r.RoleID != c.text("role_id") {
			continue
		}
		for _, s := range r.secrets {
			if subtle.ConstantTimeCompare([]byte(s), []byte(c.text("secret_id"))) == 1 {
				return c.loggedIn(r, map[string]string{"role_name": name})
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
		r := newRole()
		if r.secrets = nil; old != nil {
			*r = *old
		}
		r.AppRole = AppRole{Policies: c.strings("token_policies"), TTL: ttl, Batch: c.text("token_type") == "batch", RoleID: r.RoleID, Entity: r.Entity}
		r.cidrs = c.strings("token_bound_cidrs")
		return noContent, &change{entries: 2, apply: func(st *state) { st.roles[name] = r }}
	case old == nil:
		return notFound(), nil
	case what == "role-id" && c.op == opRead:
		return c.ok("approle", map[string]any{"role_id": old.RoleID}), nil
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
