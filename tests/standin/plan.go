package standin

import (
	"net/http"
	"slices"
	"sort"
	"strings"
)

// plan answers the call from the state and says what it would change.
// It is called with the state locked for reading and must not change it.
func (c *call) plan(st *state) (answer, *change) {
	if a, ok := c.planUnforwarded(st); ok {
		return a, nil
	}
	if c.forward != "" { // community servers refuse it
		return invalid("forwarding via header X-Vault-Forward disabled in configuration"), nil
	}
	if st.sealed {
		return errorAnswer(http.StatusServiceUnavailable, "Vault is sealed"), nil
	}
	c.state = st
	if strings.HasPrefix(c.path, "auth/approle/login") {
		return c.wrapIfAsked(func() (answer, *change) { return c.planLogin(st) })
	}
	if r := st.logins[c.path]; r != nil {
		return c.wrapIfAsked(func() (answer, *change) { return c.planOtherLogin(r) })
	}
	switch c.path {
	case "sys/wrapping/unwrap":
		return c.planUnwrap(st)
	case "sys/wrapping/lookup":
		return c.planWrapLookup(st), nil
	}
	if c.secret == "" {
		return noToken(), nil
	}
	c.token = st.lookup(c.secret, c.now)
	if c.token == nil {
		return invalidToken(), nil
	}
	if !c.token.usableFrom(c.remote) {
		return noToken(), nil
	}
	if c.token.uses == 0 {
		return c.planWithToken(st)
	}
	// A use is taken whatever comes of the request, and it shows in the answer.
	left := *c.token
	left.uses--
	c.token = &left
	a, ch := c.planWithToken(st)
	if ch == nil {
		ch = &change{apply: func(*state) {}}
	}
	used, inner := left.id, ch.apply
	return a, &change{entries: ch.entries + 1, apply: func(st *state) {
		inner(st)
		st.use(used)
	}}
}

// planWithToken is plan for a request whose token is good.
func (c *call) planWithToken(st *state) (answer, *change) {
	m, prefix := st.mountOf(c.path)
	rel := strings.TrimPrefix(c.path, prefix)
	if m != nil && (c.op == opUpdate || c.op == opCreate) {
		c.op = m.writeOperation(rel)
	}
	// The mounts preflight makes its own check.
	if !strings.HasPrefix(c.path+"/", "sys/internal/ui/mounts/") && !st.allows(c) {
		return denied(), nil
	}
	return c.wrapIfAsked(func() (answer, *change) {
		switch {
		case m != nil && m.kind == "database":
			return c.planDatabase(m, prefix, rel)
		case m != nil && m.version == 2:
			return c.planKV2(m, rel)
		case m != nil:
			return c.planKV1(m, rel)
		case strings.HasPrefix(c.path, "auth/token/"):
			return c.planToken(st)
		case strings.HasPrefix(c.path, "auth/approle/role/"):
			return c.planAppRole(st)
		case strings.HasPrefix(c.path, "identity/entity/id/"):
			return c.planEntity(st)
		case strings.HasPrefix(c.path, "sys/"):
			return c.planSys(st)
		}
		return errorAnswer(http.StatusNotFound, "no handler for route \""+c.path+"\". route entry not found."), nil
	})
}

// mountOf finds the mount with the longest prefix of path, nil for none.
func (st *state) mountOf(path string) (*mount, string) {
	var best string
	for p := range st.mounts {
		if strings.HasPrefix(path, p) && len(p) > len(best) {
			best = p
		}
	}
	return st.mounts[best], best
}

// mount is a secrets engine. Its config and its secrets are replaced, never
// edited.
type mount struct {
	kind        string
	version     int
	description string
	uuid        string
	accessor    string
	config      kv2Config
	plain       map[string][]byte  // version 1, and roles of a database: the body as JSON
	users       map[string]int     // a database's, by role: how many were made
	secrets     map[string]*secret // version 2
}

func newMount(kind string, version int, description string) *mount {
	return &mount{
		kind: kind, version: version, description: description, uuid: newUUID(), accessor: kind + "_" + randomText(8),
		plain: map[string][]byte{}, users: map[string]int{}, secrets: map[string]*secret{},
	}
}

// writeOperation says whether a write to a path creates or updates, which
// need different capabilities.
func (m *mount) writeOperation(rel string) operation {
	if m.version == 1 {
		if _, ok := m.plain[rel]; ok {
			return opUpdate
		}
		return opCreate
	}
	for _, p := range []string{"data/", "metadata/"} {
		if key, ok := strings.CutPrefix(rel, p); ok {
			if _, there := m.secrets[key]; !there {
				return opCreate
			}
		}
	}
	return opUpdate
}

// listKeys gives the names directly below prefix, folders with a slash, in
// order. Prefix is empty or ends in a slash.
func listKeys[V any](all map[string]V, prefix string) []string {
	seen := map[string]bool{}
	for k := range all {
		rest, ok := strings.CutPrefix(k, prefix)
		if !ok || rest == "" {
			continue
		}
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			rest = rest[:i+1]
		}
		seen[rest] = true
	}
	keys := make([]string, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// visible are the keys of a list that the token may read, or list for a folder,
// where the rule that allows the list says which path to look at.
func (c *call) visible(keys []string) []string {
	filter := c.state.ruleFor(c.token, c.path, true).filter
	if filter == "" {
		return keys
	}
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		path := strings.NewReplacer("{{ .path }}", c.path, "{{.path}}", c.path, "{{ .key }}", key, "{{.key}}", key).Replace(filter)
		caps := c.state.capabilities(c.token, path, strings.HasSuffix(path, "/"))
		return !slices.Contains(caps, "read") && !slices.Contains(caps, "list")
	})
}

// list answers a list: 404 when there is nothing.
func (c *call) list(mountType string, keys []string) answer {
	if c.bao && !slices.Contains(c.token.policies, "root") {
		keys = c.visible(keys)
	}
	if len(keys) == 0 {
		return notFound()
	}
	return c.ok(mountType, map[string]any{"keys": keys})
}
