package structure

import (
	"bytes"
	"go/ast"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"testing"
)

// Limits of what one reader holds in mind. What is above them today is written
// down with its number, and may only shrink.
const (
	maxMethods   = 40 // of a type
	maxCognitive = 30 // of a function, as gocognit counts (https://github.com/uudashr/gocognit)
)

// manyMethods are the types above the limit.
func manyMethods() map[string]int {
	return map[string]int{}
}

// hardFunctions are the functions above the limit.
func hardFunctions() map[string]int {
	return map[string]int{}
}

func TestTypesHaveFewMethods(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	for _, s := range sources(t, "extension", "functions", "layer") {
		if s.isTest() {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil {
				count[path.Dir(s.path)+"."+receiver(f.Recv.List[0].Type)]++
			}
		}
	}
	for name, n := range count {
		if limit := max(maxMethods, manyMethods()[name]); n > limit {
			t.Errorf("%s has %d methods, the limit is %d: which of its questions can another type answer?", name, n, limit)
		}
	}
	shrunk(t, manyMethods(), count)
}

// receiver is the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

func TestNoFunctionIsTooHard(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=tests/tools/go.mod", "gocognit", "-over", strconv.Itoa(maxCognitive), "-ignore", "_test", "extension", "functions", "layer")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output() // it fails when there are any
	if err != nil && len(out) == 0 {
		t.Fatalf("gocognit: %v\n%s", err, stderr.String())
	}
	found := map[string]int{}
	for line := range strings.Lines(string(out)) {
		// 55 vault (*call).visit extension/vault/visit.go:42:1
		fields := strings.Fields(line)
		if len(fields) < 4 {
			t.Fatalf("gocognit says %q", line)
		}
		n, err := strconv.Atoi(fields[0])
		if err != nil {
			t.Fatalf("gocognit says %q", line)
		}
		file, _, _ := strings.Cut(fields[len(fields)-1], ":")
		name := path.Dir(file) + " " + strings.Join(fields[2:len(fields)-1], " ")
		found[name] = n
		if limit := max(maxCognitive, hardFunctions()[name]); n > limit {
			t.Errorf("%s: %d by gocognit, the limit is %d: part it by what it decides", name, n, limit)
		}
	}
	shrunk(t, hardFunctions(), found)
}

// shrunk tells what may be taken off a list.
func shrunk(t *testing.T, listed, found map[string]int) {
	t.Helper()
	for name, n := range listed {
		if found[name] < n {
			t.Logf("%s: now %d, listed with %d: lower it, or take it off the list", name, found[name], n)
		}
	}
}
