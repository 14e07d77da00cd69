package standin

import (
	"cmp"
	"slices"
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
	alias        string // name of its entity's alias; empty: none
	parent       string // id of the token that made it; empty: none
	uses         int    // requests that are left; 0: any number
	period       time.Duration
	maxTTL       time.Duration // explicit_max_ttl; 0: none
	cidrs        []string      // networks that it may be used from; none: any
}

// TokenOptions describe a token that AddTokenWith makes. The zero value is a
// service token of 32 days without a parent.
type TokenOptions struct {
	ID       string        // empty: a random one
	TTL      time.Duration // 0: 32 days
	Period   time.Duration // each renewal grants so much again; 0: not periodic
	Policies []string      // besides "default"
	Parent   string        // a token whose revocation or end revokes this one; empty: none
	Uses     int           // requests that it is good for; 0: any number
	Batch    bool          // a batch token instead of a service token
	Entity   string        // entity id, for templated policies; empty: none
	CIDRs    []string      // networks that it may be used from; none: any
}

// AddTokenWith makes a token and returns it.
func (s *Origin) AddTokenWith(o TokenOptions) string {
	s.writer.Lock()
	defer s.writer.Unlock()
	kind := "service"
	if o.Batch {
		kind = "batch"
	}
	t := newToken(s.now(), max(o.TTL, o.Period), kind, o.Policies)
	t.id = cmp.Or(o.ID, t.id)
	t.parent, t.orphan, t.uses, t.period, t.entity, t.cidrs = o.Parent, o.Parent == "", o.Uses, o.Period, o.Entity, o.CIDRs
	s.commit(storeToken(t))
	return t.id
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

// RevokeToken revokes a token and all that descend from it, as an operator
// would elsewhere.
func (s *Origin) RevokeToken(id string) {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.commit(&change{entries: 2, apply: func(st *state) { st.revokeTree(id) }})
}

// revokeTree forgets a token and its descendants.
func (st *state) revokeTree(id string) {
	delete(st.tokens, id)
	for child, t := range st.tokens {
		if t.parent == id && child != id {
			st.revokeTree(child)
		}
	}
}

// orphanChildren lets a token's children live without it.
func (st *state) orphanChildren(id string) {
	for child, t := range st.tokens {
		if t.parent == id {
			next := *t
			next.parent, next.orphan = "", true
			st.tokens[child] = &next
		}
	}
}

// byAccessor finds a token by its accessor; nil for none.
func (st *state) byAccessor(accessor string, now time.Time) *token {
	for _, t := range st.tokens {
		if accessor != "" && t.accessor == accessor {
			return st.lookup(t.id, now)
		}
	}
	return nil
}

// use takes one of a token's uses. The last one revokes it.
func (st *state) use(id string) {
	t := st.tokens[id]
	switch {
	case t == nil || t.uses == 0:
	case t.uses == 1:
		st.revokeTree(id)
	default:
		next := *t
		next.uses--
		st.tokens[id] = &next
	}
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
	if t.parent != "" && st.lookup(t.parent, now) == nil {
		return nil // a token does not outlive its parent
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
		NumUses: t.uses,
	}
}

// auth is what a login or a renewal tells of a token, its entity's policies included.
func (c *call) auth(t *token) *authInfo {
	a := t.auth(c.now)
	if a.OfIdentity = c.state.entities[t.entity].policies; len(a.OfIdentity) > 0 {
		a.Policies = slices.Concat(a.Policies, a.OfIdentity)
		slices.Sort(a.Policies)
		a.Policies = slices.Compact(a.Policies)
	}
	return a
}

// info is the data of a lookup.
func (t *token) info(now time.Time) map[string]any {
	d := map[string]any{
		"id": t.id, "accessor": t.accessor, "policies": t.policies, "path": t.path, "meta": nil, "display_name": t.display,
		"num_uses": t.uses, "orphan": t.orphan, "creation_time": t.created.Unix(), "creation_ttl": int64(t.ttl.Seconds()),
		"expire_time": nil, "ttl": int64(t.left(now).Seconds()), "explicit_max_ttl": int64(t.maxTTL.Seconds()), "entity_id": t.entity, "type": t.kind,
	}
	if t.meta != nil {
		d["meta"] = t.meta
	}
	if t.period > 0 {
		d["period"] = int64(t.period.Seconds())
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
