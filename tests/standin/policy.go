package standin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// policy is an ACL policy: path pattern -> rule. A pattern may end in "*" (any
// rest) and hold "+" as a whole segment (any one segment).
type policy struct {
	text  string
	rules map[string]rule
}

// SetPolicy writes an ACL policy: path pattern -> capabilities (create, read,
// update, patch, delete, list, sudo, deny).
func (s *Origin) SetPolicy(name string, rules map[string][]string) {
	if err := s.SetPolicyText(name, printPolicy(rules)); err != nil {
		panic(err) // printPolicy's own text
	}
}

// SetPolicyText writes an ACL policy as HCL or JSON, constraints included.
// Its error says what of the text is not understood.
func (s *Origin) SetPolicyText(name, text string) error {
	p, err := parsePolicy(text)
	if err != nil {
		return err
	}
	s.writer.Lock()
	defer s.writer.Unlock()
	s.commit(&change{entries: 1, apply: func(st *state) { st.policies[name] = p }})
	return nil
}

// defaultPolicy is what every token may do, as Vault's policy "default" has it.
func defaultPolicy() policy {
	rules := map[string][]string{
		"auth/token/lookup-self": {"read"}, "auth/token/renew-self": {"update"}, "auth/token/revoke-self": {"update"},
		"sys/capabilities-self": {"update"}, "sys/renew": {"update"}, "sys/leases/renew": {"update"},
		"sys/internal/ui/resultant-acl": {"read"}, "sys/leases/lookup": {"update"},
		"sys/wrapping/wrap": {"update"}, "sys/wrapping/lookup": {"update"}, "sys/wrapping/unwrap": {"update"},
		"cubbyhole/*": {"create", "read", "update", "delete", "list"},
	}
	p, err := parsePolicy(printPolicy(rules))
	if err != nil {
		panic(err) // printPolicy's own text
	}
	return p
}

func printPolicy(rules map[string][]string) string {
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(rules)) {
		fmt.Fprintf(&b, "path %q {\n  capabilities = [%s]\n}\n", p, `"`+strings.Join(rules[p], `", "`)+`"`)
	}
	return b.String()
}

// allows says whether the call's token may do what it asks.
func (st *state) allows(c *call) bool {
	if slices.Contains(c.token.policies, "root") {
		return true
	}
	r := st.ruleFor(c.token, c.path, c.op == opList || c.op == opScan)
	return slices.Contains(r.sorted(), string(c.op)) && r.admits(c)
}

// capabilities are what a token may do at path, sorted; nil for nothing.
// Constraints don't show in them.
func (st *state) capabilities(t *token, path string, list bool) []string {
	if slices.Contains(t.policies, "root") {
		return []string{"root"}
	}
	return st.ruleFor(t, path, list).sorted()
}

// ruleFor merges the rules of a token's policies and picks the one for path.
// Vault's order: an exact rule, then for lists the path without its slash, then
// the best of the patterns.
// https://developer.hashicorp.com/vault/docs/concepts/policies#priority-matching
func (st *state) ruleFor(t *token, path string, list bool) rule {
	rules := map[string]rule{}
	bare := strings.TrimSuffix(path, "/")
	for _, name := range slices.Concat(t.policies, st.entities[t.entity].policies) {
		for p, r := range st.policies[name].rules {
			if p, ok := st.fill(t, p); ok && (p == path || p == bare || strings.ContainsAny(p, "+*")) {
				rules[p] = rules[p].merge(r)
			}
		}
	}
	r, ok := rules[path]
	if !ok && list {
		r, ok = rules[bare]
	}
	if !ok && list && bare != path {
		r, ok = bestRule(rules, bare)
	}
	if !ok {
		r, _ = bestRule(rules, path)
	}
	return r
}

// bestRule picks the pattern that matches path and has the highest priority.
func bestRule(rules map[string]rule, path string) (rule, bool) {
	best, found := "", false
	for p := range rules {
		if strings.ContainsAny(p, "+*") && patternMatches(p, path) && (!found || outranks(p, best)) {
			best, found = p, true
		}
	}
	return rules[best], found
}

func patternMatches(pattern, path string) bool {
	prefix, glob := strings.CutSuffix(pattern, "*")
	if glob && !strings.Contains(prefix, "+") {
		return strings.HasPrefix(path, prefix)
	}
	want, got := strings.Split(prefix, "/"), strings.Split(path, "/")
	if len(got) < len(want) || !glob && len(got) != len(want) {
		return false
	}
	for i, w := range want {
		switch {
		case w == "+":
		case glob && i == len(want)-1:
			if !strings.HasPrefix(strings.Join(got[i:], "/"), w) {
				return false
			}
		case w != got[i]:
			return false
		}
	}
	return true
}

// outranks says that pattern a goes before b.
func outranks(a, b string) bool {
	if x, y := strings.IndexAny(a, "+*"), strings.IndexAny(b, "+*"); x != y {
		return x > y // the first wildcard comes later
	}
	if x, y := strings.HasSuffix(a, "*"), strings.HasSuffix(b, "*"); x != y {
		return y
	}
	if x, y := strings.Count(a, "+"), strings.Count(b, "+"); x != y {
		return x < y
	}
	if len(a) != len(b) {
		return len(a) > len(b)
	}
	return a > b
}

// mayTouchMount says whether any rule of the token reaches into a mount: the
// check of the mounts preflight, which looks at rules and not at capabilities
// on the path asked for.
func (st *state) mayTouchMount(t *token, mountPath string) bool {
	if slices.Contains(t.policies, "root") {
		return true
	}
	for _, name := range t.policies {
		for p, r := range st.policies[name].rules {
			if slices.Contains(r.capabilities, "deny") {
				continue
			}
			plain := p
			if i := strings.IndexAny(p, "+*"); i >= 0 {
				plain = p[:i]
				if strings.HasPrefix(mountPath, plain) {
					return true
				}
			}
			if strings.HasPrefix(plain, mountPath) {
				return true
			}
		}
	}
	return false
}
