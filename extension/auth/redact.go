package auth

import (
	"strings"
	"unicode/utf8"
)

// Parts of a secret this long are hidden too: an answer may quote it cut off.
// Shorter secrets are hidden whole.
const secretPart = 12

const hidden = "[hidden]"

// redact makes a text from outside fit for a message: on one line, of at most
// maxReason bytes, with every part of a secret hidden.
func redact(text string, secrets ...string) string {
	const most = 2 << 10 // enough to fill maxReason after hiding, and little to search
	if len(text) > most {
		// What is cut off here is at most a part of a secret; the rest of that
		// part is hidden below if it is long enough to matter.
		text = text[:most]
	}
	for _, s := range secrets {
		text = hide(text, s)
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, r < ' ', r == 0x7f, r == '\u2028', r == '\u2029':
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxReason {
		cut := maxReason
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "..."
	}
	return text
}

// hide replaces every occurrence of a secret, or of a part of it that is at
// least secretPart bytes long.
func hide(text, secret string) string {
	secret = strings.TrimSpace(secret)
	n := min(len(secret), secretPart)
	if n < 4 || len(text) < n {
		return text // too short to be a secret; hiding it would shred the text
	}
	var b strings.Builder
	from := 0 // text before it is written
	for i := 0; i+n <= len(text); i++ {
		if !strings.Contains(secret, text[i:i+n]) {
			continue
		}
		end := i + n
		for end < len(text) && strings.Contains(secret, text[end-n+1:end+1]) {
			end++
		}
		b.WriteString(text[from:i])
		b.WriteString(hidden)
		from, i = end, end-1
	}
	if from == 0 {
		return text
	}
	b.WriteString(text[from:])
	return b.String()
}
