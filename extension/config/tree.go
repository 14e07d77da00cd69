package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	kindText valueKind = iota
	kindNumber
	kindBool
	kindObject
	kindList
)

// syntaxError is a file that cannot be read. It never quotes the file: any of
// its words may be a secret.
type syntaxError struct {
	line int
	what string
}

func (e *syntaxError) Error() string { return e.what }

// Bounds of a file. The HCL parser calls itself once a bracket, and Go's stack
// is not endless.
const (
	maxFile     = 256 << 10
	maxBrackets = 500
	maxDepth    = 50
)

// parseTree reads HCL 1, or JSON if the first letter is a brace, as Vault does.
func parseTree(src []byte) ([]item, error) {
	if len(src) > maxFile {
		return nil, &syntaxError{what: "longer than 256 KiB: this is no configuration of Vault Proxy"}
	}
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	if bytes.Count(src, []byte("{"))+bytes.Count(src, []byte("[")) > maxBrackets {
		return nil, &syntaxError{what: "more than 500 brackets: this is no configuration of Vault Proxy"}
	}
	if trimmed := bytes.TrimLeft(src, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		return parseJSON(src)
	}
	return parseHCL(src)
}

// parseHCL turns HashiCorp's syntax tree into ours. Their parser panics on some
// malformed input; that is a syntax error like any other.
func parseHCL(src []byte) (items []item, err error) {
	defer func() {
		if recover() != nil {
			items, err = nil, &syntaxError{what: "not valid HCL"}
		}
	}()
	f, err := parser.ParseDontErrorOnDuplicateKeys(src) // they are told with both lines
	if err != nil {
		bad := &syntaxError{what: `not valid HCL from here on: look for a missing quote, brace or "=" here or before`}
		if pos, ok := errors.AsType[*parser.PosError](err); ok {
			bad.line = pos.Pos.Line
		}
		return nil, bad
	}
	root, ok := f.Node.(*ast.ObjectList)
	if !ok {
		return nil, &syntaxError{what: "not valid HCL"}
	}
	return hclItems(root, 0)
}

func hclItems(list *ast.ObjectList, depth int) ([]item, error) {
	var items []item
	for _, o := range list.Items {
		var names []string
		for _, k := range o.Keys {
			name, err := hclText(k.Token)
			if err != nil {
				return nil, err
			}
			names = append(names, name)
		}
		it, err := hclValue(o.Val, depth)
		switch {
		case err != nil:
			return nil, err
		case len(names) == 0:
			return nil, &syntaxError{what: "not valid HCL"}
		case len(names) > 2:
			return nil, &syntaxError{line: o.Keys[0].Token.Pos.Line, what: "a block has more than one label"}
		case len(names) == 2:
			it.label = names[1]
		}
		it.key, it.line = names[0], o.Keys[0].Token.Pos.Line
		items = append(items, it)
	}
	return items, nil
}

func hclValue(n ast.Node, depth int) (item, error) {
	if depth > maxDepth {
		return item{}, &syntaxError{what: "nested too deep"}
	}
	switch n := n.(type) {
	case *ast.LiteralType:
		text, err := hclText(n.Token)
		v := item{text: text, line: n.Token.Pos.Line}
		switch n.Token.Type {
		case token.NUMBER, token.FLOAT:
			v.kind = kindNumber
		case token.BOOL:
			v.kind = kindBool
		}
		return v, err
	case *ast.ObjectType:
		items, err := hclItems(n.List, depth+1)
		return item{kind: kindObject, items: items, line: n.Lbrace.Line}, err
	case *ast.ListType:
		v := item{kind: kindList, line: n.Lbrack.Line}
		for _, e := range n.List {
			one, err := hclValue(e, depth+1)
			if err != nil {
				return item{}, err
			}
			v.items = append(v.items, one)
		}
		return v, nil
	}
	return item{}, &syntaxError{what: "not valid HCL"}
}

// hclText is what a token says, as text.
func hclText(t token.Token) (string, error) {
	switch t.Type {
	case token.STRING:
		text, err := hclstrconv.Unquote(t.Text)
		if err != nil {
			return "", &syntaxError{line: t.Pos.Line, what: "a text in quotes is malformed"}
		}
		return text, nil
	case token.HEREDOC:
		text, _ := t.Value().(string) // a panic is caught in parseHCL
		return strings.TrimSuffix(text, "\n"), nil
	}
	return t.Text, nil
}

// parseJSON reads the JSON form, with line numbers, which HashiCorp's own
// parser for it loses.
func parseJSON(src []byte) ([]item, error) {
	p := &jsonReader{dec: json.NewDecoder(bytes.NewReader(src)), src: src, at: 1}
	p.dec.UseNumber()
	v, err := p.value(0)
	if err == nil {
		if _, more := p.dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		if s, ok := errors.AsType[*syntaxError](err); ok {
			return nil, s
		}
		return nil, &syntaxError{line: p.line(), what: "not valid JSON from here on"}
	}
	return v.items, nil
}

type jsonReader struct {
	dec     *json.Decoder
	src     []byte
	counted int64 // bytes whose line ends are in at
	at      int
}

// line is where the decoder is.
func (p *jsonReader) line() int {
	if end := p.dec.InputOffset(); end > p.counted {
		p.at += bytes.Count(p.src[p.counted:end], []byte("\n"))
		p.counted = end
	}
	return p.at
}

func (p *jsonReader) value(depth int) (item, error) {
	if depth > maxDepth {
		return item{}, &syntaxError{line: p.line(), what: "nested too deep"}
	}
	t, err := p.dec.Token()
	if err != nil {
		return item{}, fmt.Errorf("read a value: %w", err)
	}
	v := item{line: p.line()}
	switch t := t.(type) {
	case json.Delim:
		v.kind = kindList
		if t == '{' {
			v.kind = kindObject
		}
		for err == nil && p.dec.More() {
			err = p.member(&v, depth+1)
		}
		if err == nil {
			_, err = p.dec.Token() // the closing bracket
		}
	case string:
		v.text = t
	case json.Number:
		v.kind, v.text = kindNumber, t.String()
	case bool:
		v.kind, v.text = kindBool, strconv.FormatBool(t)
	} // null: as good as not given
	return v, err
}

// member reads one of a list or an object.
func (p *jsonReader) member(v *item, depth int) error {
	key, line := "", 0
	if v.kind == kindObject {
		t, err := p.dec.Token()
		if err != nil {
			return fmt.Errorf("read a key: %w", err)
		}
		key, _ = t.(string)
		line = p.line()
	}
	one, err := p.value(depth)
	one.key, one.line = key, cmp.Or(line, one.line)
	v.items = append(v.items, one)
	return err
}
