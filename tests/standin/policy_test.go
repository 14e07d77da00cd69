package standin

import (
	"reflect"
	"testing"
)

func TestPoliciesAreReadInBothForms(t *testing.T) {
	t.Parallel()
	want := map[string][]string{"secret/data/*": {"read", "list"}, "kv/a": {"deny"}}
	for name, text := range map[string]string{
		"HCL":  "# a comment\npath \"secret/data/*\" {\n  capabilities = [\"read\", \"list\"]\n}\npath \"kv/a\" { capabilities = [\"deny\"] }",
		"JSON": `{"path":{"secret/data/*":{"capabilities":["read","list"]},"kv/a":{"capabilities":["deny"]}}}`,
		"ours": printPolicy(want),
	} {
		if p, err := parsePolicy(text); err != nil || !reflect.DeepEqual(capabilities(p), want) {
			t.Errorf("%s: %v, %v", name, p.rules, err)
		}
	}
	for _, text := range []string{"nonsense", `path "a" {`, `path "a" { capabilities = ["read" }`, `path a { capabilities = [] }`, `{"path":[]}`, `path "a`} {
		if p, err := parsePolicy(text); err == nil {
			t.Errorf("%q was read as %v", text, p.rules)
		}
	}
}

// capabilities are a policy's, by path.
func capabilities(p policy) map[string][]string {
	out := map[string][]string{}
	for path, r := range p.rules {
		out[path] = r.capabilities
	}
	return out
}

// FuzzPolicy: whatever the text, reading it ends without a panic, and so does
// matching what was read.
func FuzzPolicy(f *testing.F) {
	f.Add(`path "secret/data/*" { capabilities = ["read", "list"] }`)
	f.Add(`{"path":{"a":{"capabilities":["deny"]}}}`)
	f.Add("path \"a\" { capabilities = [] } # x")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePolicy(text)
		if err != nil {
			return
		}
		for path := range p.rules {
			patternMatches(path, text)
			outranks(path, text)
		}
	})
}
