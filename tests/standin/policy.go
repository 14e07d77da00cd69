package standin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// policy is an ACL policy: path pattern -> capabilities. A pattern may end in
// "*" (any rest) and hold "+" as a whole segment (any one segment).
type policy struct {
	text  string
	rules map[string][]string
}

// SetPolicy writes an ACL policy: path pattern -> capabilities (create, read,
// update, patch, delete, list, sudo, deny).
func (s *Origin) SetPolicy(name string, rules map[string][]string) {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.commit(&change{entries: 1, apply: func(st *state) {
		st.policies[name] = policy{text: printPolicy(rules), rules: maps.Clone(rules)}
	}})
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
	return policy{text: printPolicy(rules), rules: rules}
}

func printPolicy(rules map[string][]string) string {
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(rules)) {
		fmt.Fprintf(&b, "path %q {\n  capabilities = [%s]\n}\n", p, `"`+strings.Join(rules[p], `", "`)+`"`)
	}
	return b.String()
}

// allows says whether a token may do op at path.
func (st *state) allows(t *token, op operation, path string) bool {
	if slices.Contains(t.policies, "root") {
		return true
	}
	return slices.Contains(st.capabilities(t, path, op == opList), string(op))
}

// capabilities are what a token may do at path, sorted; nil for nothing.
// Vault's order: an exact rule, then for lists the path without its slash,
// then the best of the patterns.
// https://developer.hashicorp.com/vault/docs/concepts/policies#priority-matching
func (st *state) capabilities(t *token, path string, list bool) []string {
	if slices.Contains(t.policies, "root") {
		return []string{"root"}
	}
	rules := map[string][]string{}
	for _, name := range t.policies {
		for p, caps := range st.policies[name].rules {
			rules[p] = append(slices.Clone(rules[p]), caps...)
		}
	}
	bare := strings.TrimSuffix(path, "/")
	caps, ok := rules[path]
	if !ok && list {
		caps, ok = rules[bare]
	}
	if !ok && list && bare != path {
		caps, ok = bestRule(rules, bare)
	}
	if !ok {
		caps, _ = bestRule(rules, path)
	}
	if slices.Contains(caps, "deny") {
		return []string{"deny"}
	}
	caps = slices.Clone(caps)
	sort.Strings(caps)
	return slices.Compact(caps)
}

// bestRule picks the pattern that matches path and has the highest priority.
func bestRule(rules map[string][]string, path string) ([]string, bool) {
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
		for p, caps := range st.policies[name].rules {
			if slices.Contains(caps, "deny") {
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

// parsePolicy reads the JSON form of a policy, or the plain part of the HCL
// form: path "p" { capabilities = ["c", ...] }.
func parsePolicy(text string) (policy, error) {
	p := policy{text: text, rules: map[string][]string{}}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		var doc struct {
			Path map[string]struct {
				Capabilities []string `json:"capabilities"`
			} `json:"path"`
		}
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			return policy{}, fmt.Errorf("failed to parse policy: %w", err)
		}
		for path, rule := range doc.Path {
			p.rules[path] = rule.Capabilities
		}
		return p, nil
	}
	words := policyWords(text)
	for len(words) > 0 {
		// path "p" { capabilities = [ "c" ... ] }
		if len(words) < 7 || words[0] != "path" || words[1][0] != '"' ||
			strings.Join(words[2:6], " ") != "{ capabilities = [" {
			return policy{}, fmt.Errorf("failed to parse policy: the stand-in reads path %q { capabilities = [...] } only, at %q", "...", words[0])
		}
		path := words[1][1:]
		words = words[6:]
		for len(words) > 0 && words[0][0] == '"' {
			p.rules[path] = append(p.rules[path], words[0][1:])
			words = words[1:]
		}
		if len(words) < 2 || words[0] != "]" || words[1] != "}" {
			return policy{}, fmt.Errorf("failed to parse policy: the rule for %q does not end", path)
		}
		words = words[2:]
	}
	return p, nil
}

// policyWords cuts HCL into words and signs; strings keep a leading quote.
// Comments and commas are dropped.
func policyWords(text string) []string {
	var words []string
	for text != "" {
		switch ch := text[0]; {
		case ch == '#':
			if i := strings.IndexByte(text, '\n'); i >= 0 {
				text = text[i:]
			} else {
				text = ""
			}
		case strings.ContainsRune(" \t\r\n,", rune(ch)):
			text = text[1:]
		case strings.ContainsRune("{}[]=", rune(ch)):
			words, text = append(words, text[:1]), text[1:]
		case ch == '"':
			end := strings.IndexByte(text[1:], '"')
			if end < 0 {
				return append(words, "?")
			}
			words, text = append(words, text[:end+1]), text[end+2:]
		default:
			end := strings.IndexAny(text, " \t\r\n,{}[]=\"#")
			if end < 0 {
				end = len(text)
			}
			words, text = append(words, text[:end]), text[end:]
		}
	}
	return words
}
