package standin

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// planToken is auth/token/.
// https://developer.hashicorp.com/vault/api-docs/auth/token
func (c *call) planToken(st *state) (answer, *change) {
	what := strings.TrimPrefix(c.path, "auth/token/")
	write := c.op == opUpdate || c.op == opCreate
	switch {
	case what == "lookup-self" && (c.op == opRead || write):
		return c.ok("token", c.token.info(c.now)), nil
	case what == "create" && write:
		return c.planTokenCreate(false)
	case what == "create-orphan" && write:
		return c.planTokenCreate(true)
	case what == "lookup" && (c.op == opRead || write), slices.Contains(onTokens, what) && write:
		return c.planOnToken(st, what)
	case what == "lookup-self", what == "create", slices.Contains(onTokens, what):
		return unsupported(), nil
	}
	return c.unknownPath(), nil
}

// onTokens are the operations on a token: the caller's, one that is named, or
// one whose accessor is named.
var onTokens = []string{
	"lookup", "lookup-accessor", "renew-self", "renew", "renew-accessor", "revoke-self", "revoke", "revoke-accessor", "revoke-orphan",
}

// planOnToken finds the token that an operation is about, and does it.
func (c *call) planOnToken(st *state, what string) (answer, *change) {
	verb, by, _ := strings.Cut(what, "-")
	var t *token
	switch by {
	case "self":
		t = c.token
	case "accessor":
		if c.text("accessor") == "" {
			return invalid("missing accessor"), nil
		}
		if t = st.byAccessor(c.text("accessor"), c.now); t == nil {
			return invalid("1 error occurred:\n\t* invalid accessor\n\n"), nil
		}
	default:
		id := c.text("token")
		if id == "" && verb == "lookup" {
			id = c.secret
		}
		if id == "" {
			return invalid("missing token ID"), nil
		}
		t = st.lookup(id, c.now)
	}
	switch verb {
	case "lookup":
		if t == nil {
			return errorAnswer(http.StatusForbidden, "bad token"), nil
		}
		d := t.info(c.now)
		if by == "accessor" {
			d["id"] = ""
		}
		return c.ok("token", d), nil
	case "renew":
		if t == nil {
			return invalid("token not found"), nil
		}
		return c.planRenew(t, by == "accessor")
	}
	if t == nil {
		return noContent, nil
	}
	return c.planRevoke(t, by == "orphan")
}

func (c *call) planTokenCreate(orphan bool) (answer, *change) {
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
	if _, ok := c.body["entity_alias"]; ok {
		return invalid("stand-in: token creation with entity_alias is not modelled"), nil
	}
	ttl, _, err := c.seconds("ttl")
	period, _, err2 := c.seconds("period")
	maxTTL, _, err3 := c.seconds("explicit_max_ttl")
	uses, _, err4 := c.number("num_uses")
	if err := cmp.Or(err, err2, err3, err4); err != nil {
		return invalid(err.Error()), nil
	}
	if period > 0 {
		ttl = period
	}
	var warnings []string
	if maxTTL > 0 && ttl > maxTTL {
		warnings = append(warnings, fmt.Sprintf("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly", shortText(ttl), shortText(maxTTL)))
	}
	if maxTTL > 0 && (ttl == 0 || ttl > maxTTL) {
		ttl = maxTTL
	}
	policies := c.strings("policies")
	if len(policies) == 0 {
		policies = c.token.policies
	}
	t := newToken(c.now, ttl, kind, policies)
	if id := c.text("id"); id != "" {
		t.id = id
	}
	if kind == "batch" && (uses > 0 || period > 0) {
		return invalid("batch tokens cannot have limited use count"), nil
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
	t.period, t.maxTTL, t.uses = period, maxTTL, int(uses)
	t.orphan, _ = c.body["no_parent"].(bool)
	if t.orphan && !slices.Contains(c.token.policies, "root") {
		return invalid("root or sudo privileges required to create orphan token"), nil
	}
	if orphan {
		t.path = "auth/token/create-orphan"
	}
	if t.orphan = t.orphan || orphan; !t.orphan {
		t.parent = c.token.id
	}
	if meta, ok := c.body["meta"].(map[string]any); ok {
		t.meta = map[string]string{}
		for k, v := range meta {
			t.meta[k], _ = plainText(v)
		}
	}
	return c.enveloped(envelope{Auth: t.auth(c.now), Warnings: warnings, MountType: "token"}), storeToken(t)
}

// shortText is a duration without parts that are zero, as Vault's warnings
// have it: 10m for 10m0s.
func shortText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
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

func (c *call) planRenew(t *token, hidden bool) (answer, *change) {
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
	by = min(by, defaultLease*time.Second)
	if t.period > 0 {
		by = t.period
	}
	next.renewed, next.expires = c.now, c.now.Add(by)
	if end := t.created.Add(t.maxTTL); t.maxTTL > 0 && end.Before(next.expires) {
		next.expires = end
	}
	shown := c.auth(&next)
	if hidden {
		shown.ClientToken = "" // who has an accessor does not learn the token
	}
	return c.enveloped(envelope{Auth: shown, MountType: "token"}),
		&change{entries: 1, apply: func(st *state) { st.tokens[next.id] = &next }}
}

func (c *call) planRevoke(t *token, keepChildren bool) (answer, *change) {
	if t.kind == "batch" {
		return invalid("batch tokens cannot be revoked"), nil
	}
	return noContent, &change{entries: 2, apply: func(st *state) {
		if keepChildren {
			st.orphanChildren(t.id)
		}
		st.revokeTree(t.id)
	}}
}
