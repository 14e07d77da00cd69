package config

import (
	"bytes"
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

// item is a key of the file with its value, the same for HCL and JSON.
type item struct {
	key   string
	label string // of a block: listener "tcp"
	line  int
	val   value
}

// value is what an item holds.
type value struct {
	kind  valueKind
	text  string  // of a scalar
	items []item  // of an object
	list  []value // of a list
	line  int
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
	if depth > maxDepth {
		return nil, &syntaxError{what: "nested too deep"}
	}
	var items []item
	for _, o := range list.Items {
		if len(o.Keys) == 0 {
			return nil, &syntaxError{what: "not valid HCL"}
		}
		it := item{line: o.Keys[0].Token.Pos.Line}
		var err error
		if it.key, err = hclText(o.Keys[0].Token); err != nil {
			return nil, err
		}
		switch len(o.Keys) {
		case 1:
		case 2:
			if it.label, err = hclText(o.Keys[1].Token); err != nil {
				return nil, err
			}
		default:
			return nil, &syntaxError{line: it.line, what: "a block has more than one label"}
		}
		if it.val, err = hclValue(o.Val, depth); err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

func hclValue(n ast.Node, depth int) (value, error) {
	switch n := n.(type) {
	case *ast.LiteralType:
		text, err := hclText(n.Token)
		v := value{text: text, line: n.Token.Pos.Line}
		switch n.Token.Type {
		case token.NUMBER, token.FLOAT:
			v.kind = kindNumber
		case token.BOOL:
			v.kind = kindBool
		}
		return v, err
	case *ast.ObjectType:
		items, err := hclItems(n.List, depth+1)
		return value{kind: kindObject, items: items, line: n.Lbrace.Line}, err
	case *ast.ListType:
		if depth > maxDepth {
			return value{}, &syntaxError{what: "nested too deep"}
		}
		v := value{kind: kindList, line: n.Lbrack.Line}
		for _, e := range n.List {
			one, err := hclValue(e, depth+1)
			if err != nil {
				return value{}, err
			}
			v.list = append(v.list, one)
		}
		return v, nil
	}
	return value{}, &syntaxError{what: "not valid HCL"}
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

func (p *jsonReader) value(depth int) (value, error) {
	if depth > maxDepth {
		return value{}, &syntaxError{line: p.line(), what: "nested too deep"}
	}
	t, err := p.dec.Token()
	if err != nil {
		return value{}, fmt.Errorf("read a value: %w", err)
	}
	v := value{line: p.line()}
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
func (p *jsonReader) member(v *value, depth int) (err error) {
	if v.kind == kindList {
		one, err := p.value(depth)
		v.list = append(v.list, one)
		return err
	}
	key, err := p.dec.Token()
	if err != nil {
		return fmt.Errorf("read a key: %w", err)
	}
	it := item{line: p.line()}
	it.key, _ = key.(string)
	it.val, err = p.value(depth)
	v.items = append(v.items, it)
	return err
}
