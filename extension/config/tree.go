package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	hclstrconv "github.com/hashicorp/hcl/hcl/strconv"
	"github.com/hashicorp/hcl/hcl/token"
)

// item is a key of the file with its value, the same for HCL and JSON; or one of a
// list, which has no key.
type item struct {
	key   string
	label string // of a block: listener "tcp"
	line  int    // of the key, if there is one
	kind  valueKind
	text  string // of a scalar
	items []item // of an object or a list
}

type valueKind uint8

const (
	kindText valueKind = iota // or a number
	kindBool
	kindObject
	kindList
)

// Bounds of a file. The HCL parser calls itself once a bracket, and Go's stack
// is not endless.
const (
	maxFile     = 256 << 10
	maxBrackets = 500
	maxDepth    = 50
)

// parseTree reads HCL 1, or JSON if the first letter is a brace, as Vault does.
// HashiCorp's parser panics on some malformed input; that is a problem like any
// other. None quotes the file: any of its words may be a secret.
func parseTree(src []byte) (items []item, err *Problem) {
	if len(src) > maxFile {
		return nil, &Problem{Message: "longer than 256 KiB: this is no configuration of Vault Proxy"}
	}
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	if bytes.Count(src, []byte("{"))+bytes.Count(src, []byte("[")) > maxBrackets {
		return nil, &Problem{Message: "more than 500 brackets: this is no configuration of Vault Proxy"}
	}
	defer func() {
		switch bad := recover().(type) {
		case nil:
		case *Problem: // asHCL and hclItems do so
			items, err = nil, bad
		default:
			items, err = nil, &Problem{Message: "not valid HCL"}
		}
	}()
	if bytes.HasPrefix(bytes.TrimLeft(src, " \t\r\n"), []byte("{")) {
		src = asHCL(src)
	}
	f, bad := parser.ParseDontErrorOnDuplicateKeys(src) // they are told with both lines
	if bad != nil {
		err = &Problem{Message: `not valid HCL from here on: look for a missing quote, brace or "=" here or before`}
		if pos, ok := errors.AsType[*parser.PosError](bad); ok {
			err.Line = pos.Pos.Line
		}
		return nil, err
	}
	return hclItems(f.Node.(*ast.ObjectList), 0), nil
}

// asHCL writes JSON as HCL with everything on the line where it was:
// HashiCorp's own parser for JSON loses the lines. HCL has no braces around the
// whole, "=" for the colon, no null, and other escapes in its texts. It panics with a
// Problem, as those below do.
func asHCL(src []byte) []byte {
	if err := json.Unmarshal(src, new(json.RawMessage)); err != nil {
		bad := &Problem{Message: "not valid JSON from here on"}
		if at, ok := errors.AsType[*json.SyntaxError](err); ok {
			bad.Line = 1 + bytes.Count(bytes.TrimRight(src[:at.Offset], " \t\r\n"), []byte("\n"))
		}
		panic(bad)
	}
	first, last := bytes.IndexByte(src, '{'), bytes.LastIndexByte(src, '}')
	out, rest := bytes.Clone(src[:first]), src[first+1:last]
	for len(rest) > 0 {
		// The only word with an n in it is null.
		i := bytes.IndexAny(rest, `":n`)
		if i < 0 {
			return append(out, rest...)
		}
		out, rest = append(out, rest[:i]...), rest[i:]
		switch rest[0] {
		case ':':
			out, rest = append(out, '='), rest[1:]
		case 'n': // as good as not given
			out, rest = append(out, `""`...), rest[len("null"):]
		default:
			var text string
			dec := json.NewDecoder(bytes.NewReader(rest))
			if err := dec.Decode(&text); err != nil {
				panic(&Problem{Message: "not valid JSON"})
			}
			// "${" would begin a template, which may hold quotes.
			out = append(out, strings.ReplaceAll(strconv.Quote(text), "${", `\u0024{`)...)
			rest = rest[dec.InputOffset():]
		}
	}
	return out
}

func hclItems(list *ast.ObjectList, depth int) (items []item) {
	for _, o := range list.Items {
		key := hclText(o.Keys[0].Token)
		it := hclValue(o.Val, depth)
		it.key, it.line = key, o.Pos().Line
		if len(o.Keys) > 1 {
			it.label = hclText(o.Keys[1].Token)
		}
		if len(o.Keys) > 2 {
			panic(&Problem{place: place{Line: it.line}, Message: "a block has more than one label"})
		}
		items = append(items, it)
	}
	return items
}

func hclValue(n ast.Node, depth int) item {
	v := item{line: n.Pos().Line}
	if depth > maxDepth {
		panic(&Problem{place: place{Line: v.line}, Message: "nested too deep"})
	}
	switch n := n.(type) {
	case *ast.LiteralType:
		if n.Token.Type == token.BOOL {
			v.kind = kindBool
		}
		v.text = hclText(n.Token)
	case *ast.ObjectType:
		v.kind = kindObject
		v.items = hclItems(n.List, depth+1)
	case *ast.ListType:
		v.kind = kindList
		for _, e := range n.List {
			v.items = append(v.items, hclValue(e, depth+1))
		}
	}
	return v
}

// hclText is what a token says, as text.
func hclText(t token.Token) string {
	switch t.Type {
	case token.STRING:
		text, err := hclstrconv.Unquote(t.Text)
		if err != nil {
			panic(&Problem{place: place{Line: t.Pos.Line}, Message: "a text in quotes is malformed"})
		}
		return text
	case token.HEREDOC:
		text, _ := t.Value().(string) // which may panic, too
		return strings.TrimSuffix(text, "\n")
	}
	return t.Text
}
