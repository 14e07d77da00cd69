package standin

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// entity is who stands behind a token, as templated policies see it. Immutable once
// stored.
// https://developer.hashicorp.com/vault/docs/concepts/identity
type entity struct {
	name     string
	metadata map[string]string
	policies []string // that its tokens have besides their own
}

// SetEntity gives an entity, by its id, a name and metadata.
func (s *Origin) SetEntity(id, name string, metadata map[string]string) {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.commit(setEntity(id, entity{name, maps.Clone(metadata), s.state.entities[id].policies}))
}

// SetEntityPolicies has an entity's tokens, old ones as well, hold policies besides
// their own.
func (s *Origin) SetEntityPolicies(id string, policies ...string) {
	s.writer.Lock()
	defer s.writer.Unlock()
	e := s.state.entities[id]
	e.policies = slices.Clone(policies)
	s.commit(setEntity(id, e))
}

func setEntity(id string, e entity) *change {
	return &change{entries: 1, apply: func(st *state) { st.entities[id] = e }}
}

// planEntity is identity/entity/id/ for writes.
// https://developer.hashicorp.com/vault/api-docs/secret/identity/entity#update-entity-by-id
func (c *call) planEntity(st *state) (answer, *change) {
	id := strings.TrimPrefix(c.path, "identity/entity/id/")
	if c.op != opUpdate || id == "" {
		return c.unknownPath(), nil
	}
	e := st.entities[id]
	if name := c.text("name"); name != "" {
		e.name = name
	}
	if given, ok := c.body["metadata"].(map[string]any); ok {
		e.metadata = map[string]string{}
		for k, v := range given {
			e.metadata[k], _ = plainText(v)
		}
	}
	return noContent, setEntity(id, e)
}

// value is what a template's name stands for; empty: nothing.
func (st *state) value(t *token, name string) string {
	e := st.entities[t.entity]
	if key, ok := strings.CutPrefix(name, "identity.entity.metadata."); ok {
		return e.metadata[key]
	}
	switch {
	case name == "identity.entity.id":
		return t.entity
	case name == "identity.entity.name":
		return e.name
	case strings.HasPrefix(name, "identity.entity.aliases.") && strings.HasSuffix(name, ".name"):
		return t.alias
	}
	return ""
}

// fill puts the token's identity into a templated path. A rule for which it has
// none does not count.
// https://developer.hashicorp.com/vault/docs/concepts/policies#templated-policies
func (st *state) fill(t *token, path string) (string, bool) {
	if !strings.Contains(path, "{{") {
		return path, true
	}
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(path, "{{")
		b.WriteString(plain)
		if !found {
			return b.String(), true
		}
		name, after, closed := strings.Cut(rest, "}}")
		value := st.value(t, strings.TrimSpace(name))
		if !closed || value == "" {
			return "", false
		}
		b.WriteString(value)
		path = after
	}
}

// usableFrom reports whether a token may be used by a client at an address: a token
// may be bound to networks.
// https://developer.hashicorp.com/vault/docs/concepts/tokens#cidr-bound-tokens
func (t *token) usableFrom(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	at, err := netip.ParseAddr(host)
	return len(t.cidrs) == 0 || err == nil && slices.ContainsFunc(t.cidrs, func(cidr string) bool {
		network, err := netip.ParsePrefix(cidr)
		return err == nil && network.Contains(at)
	})
}
