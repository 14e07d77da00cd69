package standin

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// rule is what a policy says of one path: capabilities, and what a request
// must or must not hold besides. Immutable.
// https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
type rule struct {
	capabilities     []string
	required         []string         // parameters
	allowed, denied  map[string][]any // parameter -> values; empty: any
	minWrap, maxWrap time.Duration    // of the wrapping TTL; 0: none
	filter           string           // OpenBao: the path that a token has to see for each key of a list; empty: none
}

// merge joins the rules of two policies for one path, as addGrantingPolicy and
// NewACL of hashicorp/vault v1.21.0 (vault/acl.go) do: what is allowed adds up,
// and so do constraints; of two wrapping TTLs the more lenient holds.
func (r rule) merge(o rule) rule {
	lenient := func(a, b time.Duration, first bool) time.Duration {
		if a == 0 || b != 0 && (a < b) != first {
			return b
		}
		return a
	}
	return rule{
		capabilities: slices.Concat(r.capabilities, o.capabilities),
		required:     slices.Concat(r.required, o.required),
		allowed:      mergeValues(r.allowed, o.allowed),
		denied:       mergeValues(r.denied, o.denied),
		minWrap:      lenient(r.minWrap, o.minWrap, true),
		maxWrap:      lenient(r.maxWrap, o.maxWrap, false),
		filter:       cmp.Or(r.filter, o.filter),
	}
}

// mergeValues joins values by parameter. No values means any, which wins.
func mergeValues(a, b map[string][]any) map[string][]any {
	if a == nil && b == nil {
		return nil
	}
	out := map[string][]any{}
	for name, values := range a {
		out[name] = values
	}
	for name, values := range b {
		if old, ok := out[name]; ok && (len(old) == 0 || len(values) == 0) {
			out[name] = nil
		} else {
			out[name] = slices.Concat(old, values)
		}
	}
	return out
}

// sorted are the capabilities; nil for none. deny is above all.
func (r rule) sorted() []string {
	if slices.Contains(r.capabilities, "deny") {
		return []string{"deny"}
	}
	caps := slices.Clone(r.capabilities)
	slices.Sort(caps)
	return slices.Compact(caps)
}

// admits checks a request against the constraints, as AllowOperation of
// vault/acl.go does.
func (r rule) admits(c *call) bool {
	if r.maxWrap > 0 && (c.wrapTTL == 0 || c.wrapTTL > r.maxWrap) || r.minWrap > 0 && c.wrapTTL < r.minWrap ||
		r.maxWrap > 0 && r.maxWrap < r.minWrap {
		return false
	}
	if !slices.Contains([]operation{opRead, opCreate, opUpdate, opPatch}, c.op) {
		return true
	}
	sent := c.parameters()
	for _, name := range r.required {
		if _, ok := sent[strings.ToLower(name)]; !ok {
			return false
		}
	}
	if len(sent) == 0 {
		return true
	}
	if _, all := r.denied["*"]; all {
		return false
	}
	_, any := r.allowed["*"]
	for name, value := range sent {
		name = strings.ToLower(name)
		if values, ok := r.denied[name]; ok && holds(values, value) {
			return false
		}
		if len(r.allowed) == 0 {
			continue
		}
		values, ok := r.allowed[name]
		if !ok && !any || ok && !holds(values, value) {
			return false
		}
	}
	return true
}

// parameters are what a request sends: its body, or its query.
func (c *call) parameters() map[string]any {
	if c.op != opRead {
		return c.body
	}
	out := map[string]any{}
	for name, values := range c.query {
		out[name] = values[0]
	}
	return out
}

// holds says that a parameter's value is one of values, which may begin or end
// in "*". No values means any.
func holds(values []any, value any) bool {
	if len(values) == 0 {
		return true
	}
	text, isText := value.(string)
	for _, v := range values {
		pattern, ok := v.(string)
		if !ok || !isText {
			a, _ := json.Marshal(v)
			b, _ := json.Marshal(value)
			if string(a) == string(b) {
				return true
			}
			continue
		}
		head, open := strings.CutSuffix(pattern, "*")
		tail, front := strings.CutPrefix(head, "*")
		switch {
		case open && front && strings.Contains(text, tail), open && !front && strings.HasPrefix(text, head),
			front && !open && strings.HasSuffix(text, tail), text == pattern:
			return true
		}
	}
	return false
}
