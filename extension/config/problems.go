package config

import (
	"regexp"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	place
	Value   string // the value where it may be shown, else empty
	Message string // what is wrong, what is allowed and what to do
}

// place says where a value stands.
type place struct {
	Name string // the variable, or the key in the file with its blocks ("vault.address")
	File string // empty for a variable
	Line int    // in File; 0: unknown
}

// Error says where, what and what to do, on one line.
func (p *Problem) Error() string {
	text := p.prefix() + p.Name
	if p.Value != "" {
		text += "=" + strconv.Quote(p.Value)
	}
	if p.Name != "" {
		text += ": "
	}
	return text + p.Message
}

// prefix is the file and the line of a place, for messages.
func (p place) prefix() string {
	switch {
	case p.File == "":
		return ""
	case p.Line == 0:
		return p.File + ": "
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ": "
}

// Problems is everything that is wrong with a configuration, so that a user
// mends it in one go. It holds at least one *Problem.
type Problems struct {
	list []error
}

// Error lists the problems, one a line.
func (p *Problems) Error() string {
	if len(p.list) == 1 {
		return "configuration: " + p.list[0].Error()
	}
	text := "configuration: " + strconv.Itoa(len(p.list)) + " problems"
	for _, err := range p.list {
		text += "\n  - " + err.Error()
	}
	return text
}

// Unwrap gives the problems one by one, each a *Problem.
func (p *Problems) Unwrap() []error { return p.list }

// Warning is something worth one WARN line that does not stop the start.
type Warning struct {
	Message string // what is so, what it means and what to do; never a secret
}

// longestShown bounds what is quoted of a user's input.
const longestShown = 64

// shown gives v as far as it may stand in a message. Nothing is shown of long
// values, values with control characters, with an "@" (credentials in an
// address) or with a Vault token, and nothing behind a "?" or "#": an address'
// query may hold a signature.
func shown(v string) string {
	if i := strings.IndexAny(v, "?#"); i >= 0 && i+1 < len(v) {
		v = v[:i+1] + "..."
	}
	if len(v) > longestShown || strings.Contains(v, "@") || !printable(v) || tokenIn(v) {
		return ""
	}
	return v
}

// tokenIn reports whether v holds what may be a token of Vault's, of today's
// form or that from before Vault 1.10 ("s." and 24 letters or digits).
func tokenIn(v string) bool {
	ofToday := strings.Contains(v, "hvs.") || strings.Contains(v, "hvb.") || strings.Contains(v, "hvr.")
	return ofToday || len(v) >= 26 && v[1] == '.' && strings.Contains("sbr", v[:1])
}

// shownName gives a name from the user's input, shortened and quoted where it
// is not a plain name.
func shownName(name string) string {
	cut := name
	if len(cut) > longestShown {
		cut = cut[:longestShown] + "..."
	}
	if !madeOf(cut, "_.-") {
		return strconv.Quote(cut)
	}
	return cut
}

// printable reports whether v is free of control characters.
func printable(v string) bool {
	return !strings.ContainsFunc(v, func(r rune) bool {
		return r < ' ' || r == 0x7f || r == '\ufffd' || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029
	})
}

// Named puts the names that the user wrote into a message that speaks of
// VAULT_ADDR or VAULT_AUTH_ROLE, and in thaw-azure Azure's words for AWS's.
func (c Config) Named(message string) string {
	if c.Platform.Azure.Program {
		message = strings.NewReplacer("enableDnsSupport and enableDnsHostnames, a private hosted zone that is associated with it, and its DHCP options",
			"its DNS servers, and a private DNS zone that is linked to it", "VPC's endpoint", "virtual network's private endpoint", "VPC", "virtual network",
			"security group", "network security group", "in Lambda files come with the function or a layer", "files come with the app",
			"Lambda's hosts", "Azure's hosts", "the function's role", "the app's identity", "any Lambda function", "any function app").Replace(message)
	}
	return renamed(renamed(message, "VAULT_ADDR", c.AddrsFrom), "VAULT_AUTH_ROLE", c.RoleFrom)
}

// renamed replaces a name where it stands as a word of its own.
func renamed(message, name, by string) string {
	if by == "" || by == name {
		return message
	}
	return regexp.MustCompile(`\b`+name+`\b`).ReplaceAllLiteralString(message, by)
}
