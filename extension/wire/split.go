package wire

import (
	"bytes"
	"encoding/json"
	"strings"
)

// member is a member of an object, as it stands in a body: nothing is copied, since
// every answer is looked at, and a secret may be large.
type member struct {
	name  []byte
	value json.RawMessage
}

const space = " \t\r\n"

// split gives the members of the object that text is, or is the beginning of; nil: it
// is none. Text that ends early, or is no JSON, gives what stands before that.
func split(text []byte) []member {
	rest := bytes.TrimLeft(text, space)
	if len(rest) == 0 || rest[0] != '{' {
		return nil
	}
	out := make([]member, 0, 12)
	for {
		rest = bytes.TrimLeft(rest[1:], space)
		name := first(rest)
		rest = bytes.TrimLeft(rest[len(name):], space)
		if len(name) < 2 || name[0] != '"' || len(rest) == 0 || rest[0] != ':' {
			return out
		}
		rest = bytes.TrimLeft(rest[1:], space)
		value := first(rest)
		out = append(out, member{plain(name), value})
		rest = bytes.TrimLeft(rest[len(value):], space)
		if len(rest) == 0 || rest[0] != ',' {
			return out
		}
	}
}

// plain is the text of a name in quotes.
func plain(name []byte) []byte {
	if bytes.IndexByte(name, '\\') >= 0 {
		var text string
		if json.Unmarshal(name, &text) == nil {
			return []byte(text)
		}
	}
	return name[1 : len(name)-1]
}

// first gives the value that text begins with, as far as it goes.
func first(text []byte) []byte {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			depth++
		case depth == 0 && strings.IndexByte(",:}]"+space, c) >= 0: // behind a number or a word
			return text[:i]
		case c == '}', c == ']':
			depth--
		default:
			continue
		}
		if depth == 0 && !quoted {
			return text[:i+1]
		}
	}
	return text
}

// find gives the last member of a name; nil: there is none, or it is null.
func find(members []member, name string) json.RawMessage {
	for i := len(members) - 1; i >= 0; i-- {
		if m := members[i]; string(m.name) == name {
			if string(m.value) == "null" {
				return nil
			}
			return m.value
		}
	}
	return nil
}
