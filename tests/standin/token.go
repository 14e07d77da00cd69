package standin

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// token is a client token. Immutable once stored.
type token struct {
	id, accessor string
	policies     []string // sorted
	path         string   // that made it
	display      string
	entity       string // entity id; empty: none
	kind         string // service or batch
	meta         map[string]string
	created      time.Time
	ttl          time.Duration // as granted first; 0: does not expire
	expires      time.Time     // zero: never
	renewed      time.Time
	renewable    bool
	orphan       bool
}

// AddToken makes a service token with the given policies (and "default") that
// lives for ttl, 0 for the default of 32 days, and returns it.
func (s *Origin) AddToken(ttl time.Duration, policies ...string) string {
	s.writer.Lock()
	defer s.writer.Unlock()
	t := newToken(s.now(), ttl, "service", policies)
	s.commit(&change{entries: 2, apply: func(st *state) { st.tokens[t.id] = t }})
	return t.id
}

// RevokeToken makes a token unknown, as an operator would elsewhere.
func (s *Origin) RevokeToken(id string) {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.commit(&change{entries: 2, apply: func(st *state) { delete(st.tokens, id) }})
}

func newToken(now time.Time, ttl time.Duration, kind string, policies []string) *token {
	if ttl == 0 {
		ttl = defaultLease * time.Second
	}
	prefix := map[string]string{"service": "hvs.", "batch": "hvb."}[kind]
	t := &token{
		id: prefix + randomText(90), policies: withDefault(policies), path: "auth/token/create", display: "token",
		kind: kind, created: now, ttl: ttl, expires: now.Add(ttl), renewable: kind == "service",
	}
	if kind == "service" {
		t.accessor = randomText(24)
	}
	return t
}

func withDefault(policies []string) []string {
	out := slices.Clone(policies)
	if !slices.Contains(out, "root") {
		out = append(out, "default")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lookup finds a token that is good now.
func (st *state) lookup(id string, now time.Time) *token {
	t := st.tokens[id]
	if t == nil || !t.expires.IsZero() && !now.Before(t.expires) {
		return nil
	}
	return t
}

func (t *token) left(now time.Time) time.Duration {
	if t.expires.IsZero() {
		return 0
	}
	return t.expires.Sub(now).Truncate(time.Second)
}

func (t *token) auth(now time.Time) *authInfo {
	return &authInfo{
		ClientToken: t.id, Accessor: t.accessor, Policies: t.policies, TokenPolicies: t.policies, Metadata: t.meta,
		LeaseDuration: int(t.left(now).Seconds()), Renewable: t.renewable, EntityID: t.entity, TokenType: t.kind, Orphan: t.orphan,
	}
}

// info is the data of a lookup.
func (t *token) info(now time.Time) map[string]any {
	d := map[string]any{
		"id": t.id, "accessor": t.accessor, "policies": t.policies, "path": t.path, "meta": nil, "display_name": t.display,
		"num_uses": 0, "orphan": t.orphan, "creation_time": t.created.Unix(), "creation_ttl": int64(t.ttl.Seconds()),
		"expire_time": nil, "ttl": int64(t.left(now).Seconds()), "explicit_max_ttl": 0, "entity_id": t.entity, "type": t.kind,
	}
	if t.meta != nil {
		d["meta"] = t.meta
	}
	if t.expires.IsZero() {
		return d
	}
	d["expire_time"] = t.expires.Format(time.RFC3339Nano)
	d["issue_time"] = t.created.Format(time.RFC3339Nano)
	d["renewable"] = t.renewable
	if !t.renewed.IsZero() {
		d["last_renewal"] = t.renewed.Format(time.RFC3339Nano)
		d["last_renewal_time"] = t.renewed.Unix()
	}
	return d
}

// planToken is auth/token/.
// https://developer.hashicorp.com/vault/api-docs/auth/token
func (c *call) planToken(st *state) (answer, *change) {
	what := strings.TrimPrefix(c.path, "auth/token/")
	write := c.op == opUpdate || c.op == opCreate
	switch {
	case what == "lookup-self" && (c.op == opRead || write):
		return c.ok("token", c.token.info(c.now)), nil
	case what == "lookup" && write:
		t := st.lookup(c.text("token"), c.now)
		if t == nil {
			return errorAnswer(http.StatusForbidden, "bad token"), nil
		}
		return c.ok("token", t.info(c.now)), nil
	case what == "create" && write:
		return c.planTokenCreate()
	case what == "renew-self" && write:
		return c.planRenew(c.token)
	case what == "renew" && write:
		t := st.lookup(c.text("token"), c.now)
		if t == nil {
			return invalid("token not found"), nil
		}
		return c.planRenew(t)
	case what == "revoke-self" && write:
		return c.planRevoke(c.token)
	case (what == "revoke" || what == "revoke-orphan") && write:
		if c.text("token") == "" {
			return invalid("missing token ID"), nil
		}
		t := st.lookup(c.text("token"), c.now)
		if t == nil {
			return noContent, nil
		}
		return c.planRevoke(t)
	case slices.Contains([]string{"lookup-self", "lookup", "create", "renew-self", "renew", "revoke-self", "revoke", "revoke-orphan"}, what):
		return unsupported(), nil
	}
	return c.unknownPath(), nil
}

func (c *call) planTokenCreate() (answer, *change) {
	kind := c.text("type")
	if kind == "" {
		kind = "service"
	}
	if kind != "service" && kind != "batch" {
		return invalid("invalid 'token_type' value"), nil
	}
	if c.token.kind == "batch" {
		return invalid("batch tokens cannot create more tokens"), nil
	}
	for _, name := range []string{"num_uses", "period", "explicit_max_ttl", "entity_alias"} {
		if _, ok := c.body[name]; ok {
			return invalid("stand-in: token creation with " + name + " is not modelled"), nil
		}
	}
	ttl, _, err := c.seconds("ttl")
	if err != nil {
		return invalid(err.Error()), nil
	}
	policies := c.strings("policies")
	if len(policies) == 0 {
		policies = c.token.policies
	}
	t := newToken(c.now, ttl, kind, policies)
	if id := c.text("id"); id != "" {
		t.id = id
	}
	if slices.Contains(t.policies, "root") && ttl == 0 {
		t.ttl, t.expires, t.renewable = 0, time.Time{}, false
	}
	if skip, _ := c.body["no_default_policy"].(bool); skip {
		t.policies = slices.DeleteFunc(t.policies, func(p string) bool { return p == "default" && !slices.Contains(policies, p) })
	}
	if v, ok := c.body["renewable"].(bool); ok && !v {
		t.renewable = false
	}
	if n := c.text("display_name"); n != "" {
		t.display = "token-" + n
	}
	t.orphan, _ = c.body["no_parent"].(bool)
	if meta, ok := c.body["meta"].(map[string]any); ok {
		t.meta = map[string]string{}
		for k, v := range meta {
			t.meta[k], _ = plainText(v)
		}
	}
	return c.enveloped(envelope{Auth: t.auth(c.now), MountType: "token"}), storeToken(t)
}

// storeToken stores a token. A batch token lives in itself: nothing is
// written to the log for it.
func storeToken(t *token) *change {
	entries := uint64(2)
	if t.kind == "batch" {
		entries = 0
	}
	return &change{entries: entries, apply: func(st *state) { st.tokens[t.id] = t }}
}

func (c *call) planRenew(t *token) (answer, *change) {
	if t.kind == "batch" {
		return invalid("batch tokens cannot be renewed"), nil
	}
	if !t.renewable {
		return invalid("lease is not renewable"), nil
	}
	by, ok, err := c.seconds("increment")
	if err != nil {
		return invalid(err.Error()), nil
	}
	if !ok || by <= 0 {
		by = t.ttl
	}
	next := *t
	next.meta = maps.Clone(t.meta)
	next.renewed, next.expires = c.now, c.now.Add(min(by, defaultLease*time.Second))
	return c.enveloped(envelope{Auth: next.auth(c.now), MountType: "token"}),
		&change{entries: 1, apply: func(st *state) { st.tokens[next.id] = &next }}
}

func (c *call) planRevoke(t *token) (answer, *change) {
	if t.kind == "batch" {
		return invalid("batch tokens cannot be revoked"), nil
	}
	return noContent, &change{entries: 2, apply: func(st *state) { delete(st.tokens, t.id) }}
}
