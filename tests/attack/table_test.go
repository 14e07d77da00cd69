package attack

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// testsOf lists the tests and fuzz targets of a folder.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	harness.Must(t, err)
	found := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		harness.Must(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) && f.Name.Name != "TestMain" {
				found[f.Name.Name] = true
			}
		}
	}
	return found
}

// SECURITY.md names for each attack the test that makes it: one row, one test,
// which exists, and no test here goes without a row.
func TestThreatModelNamesEachTestOnce(t *testing.T) {
	t.Parallel()
	root, err := harness.Root()
	harness.Must(t, err)
	text, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	harness.Must(t, err)
	_, table, ok := strings.Cut(string(text), "\n## Attacks, and the test that makes each\n")
	if !ok {
		t.Fatal("SECURITY.md has no table of attacks")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	row := regexp.MustCompile("^\\| [^|]+ \\| [^|]+<br>`([a-z0-9/]+) ((?:Test|Fuzz)\\w+)` \\|$")
	tests, rows := map[string]map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| attack |") {
			continue
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("not an attack, what stops it, a line break and one test: %s", line)
			continue
		}
		if tests[m[1]] == nil {
			tests[m[1]] = testsOf(t, filepath.Join(root, filepath.FromSlash(m[1])))
		}
		if !tests[m[1]][m[2]] {
			t.Errorf("%s has no %s", m[1], m[2])
		}
		if rows[m[1]+" "+m[2]] {
			t.Errorf("%s stands in two rows", m[2])
		}
		rows[m[1]+" "+m[2]] = true
	}
	for name := range testsOf(t, ".") {
		if name != "TestThreatModelNamesEachTestOnce" && !rows["tests/attack "+name] {
			t.Errorf("SECURITY.md has no row for %s", name)
		}
	}
	if len(rows) < 40 {
		t.Errorf("only %d rows", len(rows))
	}
}
