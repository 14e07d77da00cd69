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

// Limits of what one reader holds in mind.
const (
	maxMethods   = 40 // of a type
	maxCognitive = 30 // of a function, as gocognit counts (https://github.com/uudashr/gocognit)
)

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
		if n > maxMethods {
			t.Errorf("%s has %d methods, the limit is %d: which of its questions can another type answer?", name, n, maxMethods)
		}
	}
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
	for line := range strings.Lines(string(out)) {
		t.Errorf("gocognit: %s: the limit is %d: part it by what it decides", strings.TrimSpace(line), maxCognitive)
	}
}
