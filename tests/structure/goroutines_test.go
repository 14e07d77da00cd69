package structure

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// bare are goroutines that need no rescue, by where they start.
var bare = map[string]string{
	"extension/azurefn/azurefn.go Run":        "net/http rescues its handlers",
	"extension/azurefn/child.go startChild":   "it waits and no more",
	"extension/proxy/proxy.go Serve":          "net/http rescues its handlers",
	"extension/doctor/nodes.go":               "a command that a person runs",
	"extension/azurefn/rounds.go beginLocked": "it waits for a poll, which is rescued",
	"extension/serve.go runExtension":         "App rescues what it does",
	"extension/rescue/rescue.go Each":         "it is rescue's own: each call is a Do",
}

// TestEveryGoroutineIsRescued: a panic in one would end the process, and with it what
// everybody has cached. That goes for timers and for what follows a context's end, too.
func TestEveryGoroutineIsRescued(t *testing.T) {
	t.Parallel()
	all := sources(t, "extension", "functions")
	known := functionsOf(all)
	used := map[string]bool{}
	for _, s := range all {
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
				if body == nil || known.safe(path.Dir(s.path), body) {
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

// TestTheRuleOfGoroutinesSeesWhatItIsFor: by what stands in another goroutine.
func TestTheRuleOfGoroutinesSeesWhatItIsFor(t *testing.T) {
	t.Parallel()
	const decls = `package p
import ("context"; "rescue")
type x struct { stop context.CancelFunc; end context.CancelCauseFunc }
func (x *x) guarded() { rescue.Do(nil, "", x.work) }
func (x *x) work() { x.list[7]++ }
func (x *x) over() { x.mu.Lock(); defer x.mu.Unlock(); x.end(x.late()) }
func (x *x) late() error { return nil }
func (x *x) round() { x.again() }
func (x *x) again() { x.round() }
func (x *x) handsOn(f func()) { f() }
`
	for body, safe := range map[string]bool{
		"go x.work()": false, "go func() { x.work() }()": false, "wg.Go(x.work)": false, "wg.Go(func() { x.work() })": false,
		"time.AfterFunc(d, x.work)": false, "time.AfterFunc(d, func() { x.work() })": false, "context.AfterFunc(ctx, x.work)": false,
		"runtime.AddCleanup(p, func(x *x) { x.work() }, x)": false, "go unknown()": false, "go func() { f() }()": false,
		"go func() { done <- x.work() }()": false, "time.AfterFunc(d, func() { cancel(); x.work() })": false, "go x.handsOn(x.work)": false,
		"go x.guarded()": true, "wg.Go(func() { x.guarded() })": true, "time.AfterFunc(d, func() { rescue.Do(nil, \"\", x.work) })": true,
		"ctx, cancel := context.WithCancel(ctx); context.AfterFunc(ctx, cancel)": true, "context.AfterFunc(ctx, x.stop)": true,
		"time.AfterFunc(d, x.over)": true, "time.AfterFunc(d, func() { x.over() })": true, "go func() { wg.Wait(); close(done) }()": true,
		"context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })": true, "go func() { done <- struct{}{} }()": true, "go x.round()": true,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "p.go", decls+"func tested() {\n"+body+"\n}", 0)
		if err != nil {
			t.Fatal(err)
		}
		known, seen := functionsOf([]source{{path: "p/p.go", file: file}}), false
		ast.Inspect(file.Decls[len(file.Decls)-1], func(n ast.Node) bool {
			if b := started(n); b != nil {
				if seen = true; known.safe("p", b) != safe {
					t.Errorf("%s: safe is %v", body, !safe)
				}
			}
			return true
		})
		if !seen {
			t.Errorf("%s: not seen", body)
		}
	}
}

// started is what a node runs in another goroutine; nil: nothing.
func started(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.GoStmt:
		return n.Call
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		switch {
		case !ok:
		case f.Sel.Name == "Go" && len(n.Args) == 1:
			return n.Args[0]
		case (f.Sel.Name == "AfterFunc" || f.Sel.Name == "AddCleanup") && len(n.Args) >= 2:
			return n.Args[1]
		}
	}
	return nil
}

// harmless are calls that wait, cancel, close, log or look and do no more, by name.
var harmless = []string{
	"Wait", "Lock", "Unlock", "Broadcast", "Done", "Close", "close", "Stop", "Shutdown", "SetDeadline", "AfterFunc", "WithTimeout",
	"Cause", "Err", "Is", "As", "Now", "Sub", "Unix", "String", "min", "max", "append", "len",
	"Debug", "Info", "Warn", "Error",
}

// functions are those of the product, by name: which must be known to be safe, whichever is meant.
type functions struct {
	of    map[string][]function
	ends  map[string]bool // folder and name of what ends a context
	types map[string]bool // folder and name of types, which are no calls
}

type function struct {
	folder string
	body   ast.Node
}

// functionsOf finds the functions of the product.
func functionsOf(all []source) *functions {
	k := &functions{map[string][]function{}, map[string]bool{}, map[string]bool{}}
	for _, s := range all {
		if s.isTest() {
			continue
		}
		folder := path.Dir(s.path)
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				k.of[n.Name.Name] = append(k.of[n.Name.Name], function{folder, n.Body})
			case *ast.TypeSpec:
				k.types[folder+" "+n.Name.Name] = true
			case *ast.Field:
				if e, ok := n.Type.(*ast.SelectorExpr); ok && (e.Sel.Name == "CancelFunc" || e.Sel.Name == "CancelCauseFunc") {
					for _, name := range n.Names {
						k.ends[folder+" "+name.Name] = true
					}
				}
			case *ast.AssignStmt:
				if _, ok := n.Rhs[0].(*ast.FuncLit); ok && len(n.Lhs) == 1 {
					k.of[name(n.Lhs[0])] = append(k.of[name(n.Lhs[0])], function{folder, n.Rhs[0]})
				}
				if call, ok := n.Rhs[0].(*ast.CallExpr); ok && len(n.Lhs) == 2 {
					if f, ok := call.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(f.Sel.Name, "With") && name(f.X) == "context" {
						k.ends[folder+" "+name(n.Lhs[1])] = true
					}
				}
			}
			return true
		})
	}
	return k
}

// safe reports whether what runs in a goroutine of its own is rescued, or can do no
// harm: it sends, or calls what is safe itself, and looks into nothing by an index.
func (k *functions) safe(folder string, body ast.Node) bool {
	return k.safeBelow(folder, body, map[ast.Node]bool{})
}

func (k *functions) safeBelow(folder string, body ast.Node, seen map[ast.Node]bool) bool {
	if body == nil || rescued(body) || seen[body] { // what calls itself is looked at once
		return body != nil
	}
	seen[body] = true
	if _, literal := body.(*ast.FuncLit); !literal {
		if e, ok := body.(ast.Expr); ok && name(e) != "" { // a function by its name
			return k.harmless(folder, e, seen)
		}
	}
	safe := true
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			_, literal := n.Fun.(*ast.FuncLit) // is looked at below
			safe = safe && (literal || k.harmless(folder, n.Fun, seen))
		case *ast.FuncType: // may have an index of its own: a type's parameters
			return false
		case *ast.IndexExpr, *ast.SliceExpr, *ast.TypeAssertExpr:
			safe = false
		}
		return safe
	})
	return safe
}

// harmless reports whether a call of this function can do no harm.
func (k *functions) harmless(folder string, called ast.Expr, seen map[ast.Node]bool) bool {
	what := name(called)
	if slices.Contains(harmless, what) || k.ends[folder+" "+what] || k.types[folder+" "+what] {
		return true
	}
	var meant []function
	for _, f := range k.of[what] {
		if f.folder == folder {
			meant = append(meant, f)
		}
	}
	if _, other := called.(*ast.SelectorExpr); other && meant == nil {
		meant = k.of[what]
	}
	return len(meant) > 0 && !slices.ContainsFunc(meant, func(f function) bool { return !k.safeBelow(f.folder, f.body, seen) })
}

// name is the last part of a name; empty: it is none.
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
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
