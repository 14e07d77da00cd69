package standin

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// parsePolicy reads the JSON form of a policy, or the HCL form: a list of
// path "p" { name = value ... }.
func parsePolicy(text string) (policy, error) {
	p := policy{text: text, rules: map[string]rule{}}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		var doc struct {
			Path map[string]map[string]any `json:"path"`
		}
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			return policy{}, fmt.Errorf("failed to parse policy: %w", err)
		}
		for path, fields := range doc.Path {
			r, err := newRule(fields)
			if err != nil {
				return policy{}, fmt.Errorf("failed to parse policy: %s: %w", path, err)
			}
			p.rules[path] = r
		}
		return p, nil
	}
	words := policyWords(text)
	for len(words) > 0 {
		if len(words) < 4 || words[0] != "path" || words[1][0] != '"' || words[2] != "{" {
			return policy{}, fmt.Errorf("failed to parse policy: the stand-in reads path %q { ... } only, at %q", "...", words[0])
		}
		path := words[1][1:]
		fields, rest, err := readBlock(words[3:])
		if err != nil {
			return policy{}, fmt.Errorf("failed to parse policy: the rule for %q: %w", path, err)
		}
		r, err := newRule(fields)
		if err != nil {
			return policy{}, fmt.Errorf("failed to parse policy: the rule for %q: %w", path, err)
		}
		p.rules[path] = p.rules[path].merge(r)
		words = rest
	}
	return p, nil
}

// unknown refuses a capability that another product has: Vault knows no "scan".
func (p policy) unknown(capability string) error {
	for path, r := range p.rules {
		if slices.Contains(r.capabilities, capability) {
			return fmt.Errorf("failed to parse policy: path %q: invalid capability %q", path, capability)
		}
	}
	return nil
}

// readBlock reads NAME = VALUE up to the brace that ends the block.
func readBlock(words []string) (map[string]any, []string, error) {
	fields := map[string]any{}
	for len(words) > 0 && words[0] != "}" {
		if len(words) < 3 || words[1] != "=" {
			return nil, nil, fmt.Errorf("no value at %q", words[0])
		}
		v, rest, err := readValue(words[2:])
		if err != nil {
			return nil, nil, err
		}
		fields[strings.TrimPrefix(words[0], `"`)], words = v, rest
	}
	if len(words) == 0 {
		return nil, nil, errOpen
	}
	return fields, words[1:], nil
}

var errOpen = errors.New("it does not end")

// readValue reads a text, a bare word, a list or a block.
func readValue(words []string) (any, []string, error) {
	switch first := words[0]; {
	case first == "[":
		list := []any{}
		words = words[1:]
		for len(words) > 0 && words[0] != "]" {
			v, rest, err := readValue(words)
			if err != nil {
				return nil, nil, err
			}
			list, words = append(list, v), rest
		}
		if len(words) == 0 {
			return nil, nil, errOpen
		}
		return list, words[1:], nil
	case first == "{":
		fields, rest, err := readBlock(words[1:])
		return fields, rest, err
	case strings.Contains("]}=?", first):
		return nil, nil, fmt.Errorf("no value at %q", first)
	default:
		return strings.TrimPrefix(first, `"`), words[1:], nil
	}
}

// newRule makes a rule of its fields.
func newRule(fields map[string]any) (rule, error) {
	var r rule
	var err error
	note := func(e error) {
		if err == nil {
			err = e
		}
	}
	for name, v := range fields {
		switch name {
		case "capabilities":
			r.capabilities = textsOf(v, note)
		case "required_parameters":
			r.required = textsOf(v, note)
		case "allowed_parameters":
			r.allowed = valuesOf(v, note)
		case "denied_parameters":
			r.denied = valuesOf(v, note)
		case "min_wrapping_ttl":
			r.minWrap = durationOf(v, note)
		case "max_wrapping_ttl":
			r.maxWrap = durationOf(v, note)
		case "list_scan_response_keys_filter_path":
			r.filter = fmt.Sprint(v)
		default:
			note(fmt.Errorf("the stand-in does not model %s", name))
		}
	}
	for _, c := range r.capabilities {
		if !slices.Contains([]string{"create", "read", "update", "patch", "delete", "list", "scan", "sudo", "deny", "subscribe"}, c) {
			note(fmt.Errorf("invalid capability %q", c))
		}
	}
	return r, err
}

func textsOf(v any, note func(error)) []string {
	list, ok := v.([]any)
	if !ok {
		note(fmt.Errorf("expected a list, got %v", v))
	}
	var out []string
	for _, e := range list {
		text, ok := e.(string)
		if !ok {
			note(fmt.Errorf("expected a text, got %v", e))
		}
		out = append(out, text)
	}
	return out
}

func valuesOf(v any, note func(error)) map[string][]any {
	fields, ok := v.(map[string]any)
	if !ok {
		note(fmt.Errorf("expected a block, got %v", v))
	}
	out := map[string][]any{}
	for name, values := range fields {
		list, ok := values.([]any)
		if !ok {
			note(fmt.Errorf("expected a list, got %v", values))
		}
		out[strings.ToLower(name)] = list
	}
	return out
}

func durationOf(v any, note func(error)) time.Duration {
	d, err := parseSeconds(fmt.Sprint(v))
	if err != nil {
		note(err)
	}
	return d
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
