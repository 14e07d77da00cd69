package structure

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of packages in docs/architecture.md anew")

const (
	packagesBegin = "<!-- packages:begin -->\n"
	packagesEnd   = "<!-- packages:end -->\n"
	packagesHead  = "| package | what it is | imports of ours |\n|---|---|---|\n"
)

// TestArchitectureListsThePackages holds the table of docs/architecture.md to
// edges. With -update it writes the table anew: what a package is stays as it
// stands there, and a new package gets its comment's first sentence.
func TestArchitectureListsThePackages(t *testing.T) {
	t.Parallel()
	file := filepath.Join(root, "docs", "architecture.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), packagesBegin)
	table, after, ok2 := strings.Cut(rest, packagesEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks its marks", file)
	}
	what := map[string]string{}
	for row := range strings.Lines(strings.TrimPrefix(table, packagesHead)) {
		if cells := strings.Split(row, " | "); len(cells) == 3 {
			what[strings.Trim(cells[0], "| `")] = cells[1]
		}
	}
	var b strings.Builder
	b.WriteString(packagesHead)
	for _, name := range slices.Sorted(maps.Keys(edges())) {
		if what[name] == "" {
			if !*update {
				t.Errorf("docs/architecture.md does not say what %s is", name)
			}
			doc := list(t, "./"+name)[0].Doc
			what[name] = strings.TrimSuffix(strings.TrimPrefix(doc, "Package "+filepath.Base(name)+" "), ".")
		}
		b.WriteString("| `" + name + "` | " + what[name] + " | " + imports(edges()[name]) + " |\n")
	}
	if table == b.String() {
		return
	}
	if !*update {
		t.Fatal("docs/architecture.md has another table; write it anew with: go test ./tests/structure -run TestArchitecture -update")
	}
	if err := os.WriteFile(file, []byte(before+packagesBegin+b.String()+packagesEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// imports writes a list of packages for the table.
func imports(names []string) string {
	var short []string
	for _, n := range names {
		short = append(short, strings.TrimPrefix(n, "extension/"))
	}
	if len(short) == 0 {
		return "none"
	}
	return strings.Join(short, ", ")
}
