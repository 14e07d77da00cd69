package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Name    string // the variable, or the key in the file with its blocks ("vault.address")
	File    string // the file; empty for a variable
	Line    int    // line in File; 0: unknown
	Value   string // the value where it may be shown, else empty
	Message string // what is wrong, what is allowed and what to do
}

// Error says where, what and what to do, on one line.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			b.WriteByte(':')
			b.WriteString(strconv.Itoa(p.Line))
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Name)
	if p.Value != "" {
		b.WriteByte('=')
		b.WriteString(strconv.Quote(p.Value))
	}
	if p.Name != "" {
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems is everything that is wrong with a configuration, so that a user
// mends it in one go. It holds at least one *Problem.
type Problems struct {
	list []error
}

// Error lists the problems, one a line.
func (p *Problems) Error() string {
	var b strings.Builder
	if len(p.list) == 1 {
		b.WriteString("configuration: ")
		b.WriteString(p.list[0].Error())
		return b.String()
	}
	fmt.Fprintf(&b, "configuration: %d problems", len(p.list))
	for _, err := range p.list {
		b.WriteString("\n  - ")
		b.WriteString(err.Error())
	}
	return b.String()
}

// Unwrap gives the problems one by one, each a *Problem.
func (p *Problems) Unwrap() []error { return p.list }

// Warning is something worth one WARN line that does not stop the start.
type Warning struct {
	Message string // what is so, what it means and what to do; never a secret
}

// longestShown bounds what is quoted of a user's input.
const longestShown = 64

// shown gives v if it may stand in a message, else "". Long values, values
// with control characters, with an "@" (credentials in an address) or with
// the prefix of a Vault token may not.
func shown(v string) string {
	if len(v) > longestShown || strings.Contains(v, "@") {
		return ""
	}
	for _, prefix := range []string{"hvs.", "hvb.", "hvr."} {
		if strings.Contains(v, prefix) {
			return ""
		}
	}
	if !printable(v) {
		return ""
	}
	return v
}

// shownName gives a name from the user's input, shortened and quoted where it
// is not a plain name.
func shownName(name string) string {
	cut := name
	if len(cut) > longestShown {
		cut = cut[:longestShown] + "..."
	}
	for _, r := range cut {
		if !(r == '_' || r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
			return strconv.Quote(cut)
		}
	}
	return cut
}

// printable reports whether v is free of control characters.
func printable(v string) bool {
	for _, r := range v {
		if r < ' ' || r == 0x7f || r == '\ufffd' || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return false
		}
	}
	return true
}
