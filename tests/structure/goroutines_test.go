package structure

import (
	"go/ast"
	"strings"
	"testing"
)

// bare are goroutines that need no rescue, by where they start.
var bare = map[string]string{
	"extension/azurefn/azurefn.go Run":              "net/http rescues its handlers",
	"extension/azurefn/azurefn.go idle":             "it waits and no more",
	"extension/azurefn/child.go startChild":         "it waits and no more",
	"extension/azurefn/rounds.go beginLocked":       "it waits for a poll, which is rescued",
	"extension/azurefn/thaw-azure/program.go serve": "App rescues what it does",
	"extension/coalesce/coalesce.go start":          "run has a rescue of its own",
	"extension/coalesce/coalesce.go Close":          "it waits and no more",
	"extension/doctor/tls.go":                       "a command that a person runs",
	"extension/proxy/proxy.go Serve":                "net/http rescues its handlers",
	"extension/proxy/proxy.go Shutdown":             "net/http rescues its handlers",
	"extension/serve.go runExtension":               "App rescues what it does",
	"extension/serve.go runProxy":                   "App and the warm-up rescue what they do",
	"extension/serve.go prepare":                    "App rescues what it does",
	"extension/serve.go invoke":                     "the writer of files rescues what it does",
	"extension/vault/hedge.go race":                 "ride has a rescue of its own",
	"extension/vault/learn.go survey":               "it waits and no more",
}

// TestEveryGoroutineIsRescued: a panic in one would end the process, and with it
// what everybody has cached.
func TestEveryGoroutineIsRescued(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, s := range sources(t, "extension", "functions") {
		if s.isTest() || strings.HasPrefix(s.path, "functions/demo/") {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				body := started(n)
				if body == nil || rescued(body) {
					return true
				}
				where := s.path + " " + f.Name.Name
				if bare[where] == "" {
					where = s.path
				}
				if used[where] = true; bare[where] == "" {
					t.Errorf("%s: a goroutine without a rescue (package rescue) in %s", s.at(n.Pos()), f.Name.Name)
				}
				return true
			})
		}
	}
	for where := range bare {
		if !used[where] {
			t.Errorf("%s starts no goroutine without a rescue any more: take it off the list", where)
		}
	}
}

// started is what a node runs in another goroutine; nil: nothing.
func started(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.GoStmt:
		return n.Call
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Go" && len(n.Args) == 1 {
			return n.Args[0]
		}
	}
	return nil
}

// rescued reports whether a call of package rescue stands in it.
func rescued(body ast.Node) (found bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if e, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := e.X.(*ast.Ident); ok && id.Name == "rescue" {
				found = true
			}
		}
		return !found
	})
	return found
}
