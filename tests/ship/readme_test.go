package ship

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of inputs and outputs anew")

const (
	tablesBegin = "<!-- tables:begin -->\n"
	tablesEnd   = "<!-- tables:end -->\n"
)

// TestReadmesListEveryInputAndOutput holds each module's README to its
// variables and outputs, and to its descriptions. With -update it writes them.
func TestReadmesListEveryInputAndOutput(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"aws", "azure", "vault"} {
		readme := filepath.Join(root(t), "terraform", name, "README.md")
		b, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, ok := strings.Cut(string(b), tablesBegin)
		got, after, ok2 := strings.Cut(rest, tablesEnd)
		if !ok || !ok2 {
			t.Fatalf("%s lacks the lines %q and %q", readme, tablesBegin, tablesEnd)
		}
		want := tables(t, module(t, name))
		switch {
		case got == want:
		case *update:
			if err := os.WriteFile(readme, []byte(before+tablesBegin+want+tablesEnd+after), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("terraform/%s/README.md is not what its variables say; write its tables anew with: go test ./tests/ship -run TestReadmesListEveryInputAndOutput -update", name)
		}
	}
}

// tables are Markdown of a module's inputs and outputs.
func tables(t *testing.T, m *block) string {
	t.Helper()
	var inputs, needed, outputs []string
	for _, b := range m.blocks {
		if b.kind != "variable" && b.kind != "output" {
			continue
		}
		name, says := b.labels[0], unquoted(b.attrs["description"])
		if says == "" || b.kind == "variable" && b.attrs["type"] == "" {
			t.Errorf("%s %s has no description, or no type", b.kind, name)
		}
		says = strings.ReplaceAll(strings.Join(strings.Fields(says), " "), "|", `\|`)
		if b.kind == "output" {
			outputs = append(outputs, "| `"+name+"` | "+says+" |\n")
			continue
		}
		kind := strings.Join(strings.Fields(b.attrs["type"]), " ")
		kind, _, _ = strings.Cut(kind, "(object") // the description tells the rest
		kind, _, _ = strings.Cut(kind, "({")
		if strings.HasPrefix(b.attrs["type"], "list(object") || strings.HasPrefix(b.attrs["type"], "map(object") {
			kind += "(object)"
		}
		if def, ok := b.attrs["default"]; ok {
			inputs = append(inputs, "| `"+name+"` | "+kind+" | `"+def+"` | "+says+" |\n")
		} else {
			needed = append(needed, "| `"+name+"` | "+kind+" | required | "+says+" |\n")
		}
	}
	slices.Sort(inputs)
	slices.Sort(needed)
	slices.Sort(outputs)
	return "\n| input | type | default | meaning |\n|---|---|---|---|\n" + strings.Join(needed, "") + strings.Join(inputs, "") +
		"\n| output | meaning |\n|---|---|\n" + strings.Join(outputs, "") + "\n"
}

// unquoted is the text of a string, or of a heredoc.
func unquoted(s string) string {
	if text, ok := strings.CutPrefix(s, "<<-EOT\n"); ok {
		return strings.TrimSuffix(strings.TrimRight(text, " "), "EOT")
	}
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`), `\"`, `"`)
}
