package structure

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// maxLines is the most that a file may have; about 300 is the aim.
const maxLines = 500

// source is a parsed file.
type source struct {
	path  string // below the repository's root
	fset  *token.FileSet
	file  *ast.File
	lines int
}

func (s source) at(p token.Pos) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(p).Line)
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// sources parses every Go file below the folders.
func sources(t *testing.T, folders ...string) []source {
	t.Helper()
	var all []source
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "node_modules" || d.Name() == "testdata"):
				return filepath.SkipDir
			case d.IsDir() || filepath.Ext(path) != ".go":
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			all = append(all, source{filepath.ToSlash(name), fset, file, bytes.Count(text, []byte("\n"))})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t, "extension", "functions", "layer", "tests") {
		if s.lines > maxLines {
			t.Errorf("%s has %d lines: split it by idea, the limit is %d", s.path, s.lines, maxLines)
		}
	}
}

func TestOnlyConfigurationReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t, "extension", "functions", "layer") {
		if s.isTest() || strings.HasPrefix(s.path, "extension/config/") {
			continue
		}
		isMain := s.file.Name.Name == "main"
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			from, ok := call.X.(*ast.Ident)
			if !ok || from.Name != "os" && from.Name != "syscall" || from.Obj != nil {
				return true
			}
			switch call.Sel.Name {
			case "Environ":
				if isMain {
					return true // handed to the configuration
				}
				fallthrough
			case "Getenv", "LookupEnv", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv":
				if !isMain || strings.HasPrefix(s.path, "extension/") {
					t.Errorf("%s: %s.%s: settings come from extension/config", s.at(n.Pos()), from.Name, call.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestNothingHappensBeforeMain(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t, "extension") {
		if s.isTest() {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: an init function", s.at(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, spec := range d.Specs {
					v := spec.(*ast.ValueSpec)
					if s.file.Name.Name == "main" && v.Names[0].Name == "version" {
						continue // the linker's
					}
					if !constantLike(v) {
						t.Errorf("%s: package variable %s is neither an error nor a table of constants", s.at(v.Pos()), v.Names[0].Name)
					}
				}
			}
		}
	}
}

// constantLike reports whether a package variable stays what it is and costs
// nothing at the start: an error, a table of literals, something made when it
// is first asked for, or a check of the compiler's.
func constantLike(v *ast.ValueSpec) bool {
	if len(v.Values) == 0 {
		return false
	}
	for i, value := range v.Values {
		if v.Names[i].Name == "_" {
			continue
		}
		switch value := value.(type) {
		case *ast.CallExpr:
			if !slices.Contains([]string{"errors.New", "fmt.Errorf", "sync.OnceValue", "sync.OnceValues", "timeoutError"}, callee(value)) && !isBytes(value) {
				return false
			}
		case *ast.CompositeLit:
			if !literals(value) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func callee(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		if from, ok := f.X.(*ast.Ident); ok {
			return from.Name + "." + f.Sel.Name
		}
	case *ast.Ident:
		return f.Name
	}
	return ""
}

// isBytes reports whether c is []byte("...").
func isBytes(c *ast.CallExpr) bool {
	to, ok := c.Fun.(*ast.ArrayType)
	if !ok || len(c.Args) != 1 {
		return false
	}
	elem, ok := to.Elt.(*ast.Ident)
	_, literal := c.Args[0].(*ast.BasicLit)
	return ok && elem.Name == "byte" && literal
}

func literals(c *ast.CompositeLit) bool {
	if _, isMap := c.Type.(*ast.MapType); isMap {
		return false // built at the start
	}
	for _, e := range c.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			e = kv.Value
		}
		switch e := e.(type) {
		case *ast.BasicLit, *ast.Ident:
		case *ast.CompositeLit:
			if !literals(e) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func TestPackageVariablesAreNeverAssigned(t *testing.T) {
	t.Parallel()
	byFolder := map[string][]source{}
	for _, s := range sources(t, "extension") {
		folder := filepath.Dir(s.path)
		byFolder[folder] = append(byFolder[folder], s)
	}
	for _, files := range byFolder {
		vars := map[string]bool{}
		for _, s := range files {
			for _, d := range s.file.Decls {
				if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
					for _, spec := range g.Specs {
						for _, n := range spec.(*ast.ValueSpec).Names {
							vars[n.Name] = !s.isTest()
						}
					}
				}
			}
		}
		for _, s := range files {
			ast.Inspect(s.file, func(n ast.Node) bool {
				var changed []ast.Expr
				switch n := n.(type) {
				case *ast.AssignStmt:
					if n.Tok != token.DEFINE {
						changed = n.Lhs
					}
				case *ast.IncDecStmt:
					changed = []ast.Expr{n.X}
				case *ast.UnaryExpr:
					if n.Op == token.AND {
						changed = []ast.Expr{n.X}
					}
				}
				for _, e := range changed {
					if name := base(e); name != nil && name.Name != "_" && vars[name.Name] && packageLevel(s, name) {
						t.Errorf("%s: package variable %s is changed", s.at(n.Pos()), name.Name)
					}
				}
				return true
			})
		}
	}
}

// base returns the variable that an assignment to e changes.
func base(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.IndexExpr:
		return base(e.X)
	case *ast.SelectorExpr:
		return base(e.X)
	}
	return nil
}

// packageLevel reports whether a name in s is not one of a function's own.
func packageLevel(s source, n *ast.Ident) bool {
	return n.Obj == nil || s.file.Scope.Lookup(n.Name) == n.Obj // nil: of another file
}

func TestNoNameShadowsABuiltin(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t, "extension", "functions", "layer") {
		ast.Inspect(s.file, func(n ast.Node) bool {
			for _, id := range declared(n) {
				if !s.isTest() && types.Universe.Lookup(id.Name) != nil {
					t.Errorf("%s: %s is a name of the language: choose another", s.at(id.Pos()), id.Name)
				}
			}
			return true
		})
	}
}

// declared are the names that a node declares, but for methods, which shadow nothing.
func declared(n ast.Node) []*ast.Ident {
	var names []ast.Expr
	switch n := n.(type) {
	case *ast.Field:
		return n.Names
	case *ast.ValueSpec:
		return n.Names
	case *ast.TypeSpec:
		return []*ast.Ident{n.Name}
	case *ast.FuncDecl:
		if n.Recv == nil {
			return []*ast.Ident{n.Name}
		}
	case *ast.AssignStmt:
		if n.Tok == token.DEFINE {
			names = n.Lhs
		}
	case *ast.RangeStmt:
		if n.Tok == token.DEFINE {
			names = []ast.Expr{n.Key, n.Value}
		}
	}
	var found []*ast.Ident
	for _, e := range names {
		if id, ok := e.(*ast.Ident); ok {
			found = append(found, id)
		}
	}
	return found
}

func TestExportedNamesHaveComments(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t, "extension") {
		if s.isTest() {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || receiverExported(d.Recv)) {
					t.Errorf("%s: %s has no comment", s.at(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					checkSpec(t, s, d, spec)
				}
			}
		}
	}
}

func checkSpec(t *testing.T, s source, d *ast.GenDecl, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
			t.Errorf("%s: %s has no comment", s.at(spec.Pos()), spec.Name.Name)
		}
	case *ast.ValueSpec:
		for _, n := range spec.Names {
			if n.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
				t.Errorf("%s: %s has no comment", s.at(spec.Pos()), n.Name)
			}
		}
	}
}

func receiverExported(r *ast.FieldList) bool {
	e := r.List[0].Type
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	name, ok := e.(*ast.Ident)
	return ok && name.IsExported()
}

// TestPackagesHaveOneComment: it is in the file that is opened first.
func TestPackagesHaveOneComment(t *testing.T) {
	t.Parallel()
	where := map[string][]string{}
	for _, s := range sources(t, "extension", "functions") {
		folder := filepath.Dir(s.path)
		if _, ok := where[folder]; !ok {
			where[folder] = nil
		}
		if s.file.Doc != nil && !s.isTest() {
			where[folder] = append(where[folder], filepath.Base(s.path))
		}
	}
	for folder, files := range where {
		first := filepath.Base(folder) + ".go"
		if len(files) == 1 && (files[0] == first || files[0] == "main.go") {
			continue
		}
		t.Errorf("%s: want one package comment, in %s or main.go, got %v", folder, first, files)
	}
}

func TestNoWordsThatSayNothing(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t, "extension", "functions", "layer") {
		switch s.file.Name.Name {
		case "util", "utils", "common", "helpers", "types", "models", "mock", "mocks":
			t.Errorf("%s: package %s", s.path, s.file.Name.Name)
		}
		for _, group := range s.file.Comments {
			if text := group.Text(); strings.Contains(text, "TODO") || strings.Contains(text, "FIXME") {
				t.Errorf("%s: do it, or write down why not", s.at(group.Pos()))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && !s.isTest() && l.Kind == token.STRING && strings.Contains(strings.ToLower(l.Value), "failed to ") {
				t.Errorf("%s: %s: name the operation and the cause", s.at(l.Pos()), l.Value)
			}
			return true
		})
	}
}
