package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// FuzzSplit: of an object, the members are those that encoding/json finds, and of
// each of its beginnings they are the same ones, the last of them perhaps cut off.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { "a" : 1 , "b":"x\"}{", "c":[{"d":[]},"]"],"d":null,"e":-1.5e3,"f":true } `, `{"a":1,"a":2}`, `{"":{}}`, `{"a":{"b":"\\"}}`,
		`[]`, `null`, ``, `{"a"}`, `{"a":`, `{a:1}`, `{"a":1 "b":2}`, `{"a":}}`, `{"\u0061":1}`, id + `"data":{"v":"x"}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := split(text)
		for i := range text {
			before := split(text[:i])
			for n, m := range before[:max(0, len(before)-1)] {
				if !bytes.Equal(m.name, got[n].name) || !bytes.Equal(m.value, got[n].value) {
					t.Fatalf("%q begins with %q, not with %q", text[:i], m.name, got[n].name)
				}
			}
		}
		var want map[string]json.RawMessage
		if json.Unmarshal(text, &want) != nil || strings.ToValidUTF8(string(text), "") != string(text) {
			return
		}
		if (got == nil) != (want == nil) {
			t.Fatalf("%q: %v, want %v", text, got, want)
		}
		names := map[string]bool{}
		for _, m := range got {
			names[string(m.name)] = true
		}
		for name, value := range want {
			if found := find(got, name); !bytes.Equal(found, value) && (found != nil || string(value) != "null") {
				t.Errorf("%q: %s is %q, want %q", text, name, found, value)
			}
		}
		if len(names) != len(want) {
			t.Errorf("%q: %d members, want %d", text, len(names), len(want))
		}
	})
}
