package config

import (
	"strconv"
	"strings"
	"time"
)

// Setting is one variable as users see it. The table of settings in the README
// is made of these.
type Setting struct {
	Name     string // the variable
	Default  string // as a user would write it; empty: none
	Type     string // what is allowed, with its bounds
	Meaning  string // one line
	Secret   bool   // the value is never printed
	Platform bool   // set by the platform, not by the user
	Azure    bool   // read by thaw-azure only
}

// setting is a row of the table: what users see, and the parser that obeys it.
// Exactly one of options, kind and Setting.Type describes what is allowed.
type setting struct {
	Setting
	parse   func(*draft, string) error
	options []string // of a choice
	kind    boundKind
	lo, hi  int64 // bounds of kind
}

// boundKind says what lo and hi of a setting count.
type boundKind uint8

const (
	unbounded boundKind = iota
	boundDuration
	boundSize
	boundNumber
)

// Settings lists every variable that Load reads, in the order of the README,
// with those of thaw-azure if azure is given.
func Settings(azure *AzureSupport) []Setting {
	rows := table(azure)
	list := make([]Setting, len(rows))
	for i := range rows {
		list[i] = rows[i].Setting
		list[i].Type = rows[i].allowed()
	}
	return list
}

// Markdown renders the settings that users set as a table for the README.
func Markdown(azure *AzureSupport) string {
	var b strings.Builder
	b.WriteString("| Variable | Default | Allowed | Meaning |\n|---|---|---|---|\n")
	for _, s := range Settings(azure) {
		if s.Platform {
			continue
		}
		def := "none"
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		b.WriteString("| `" + s.Name + "` | " + def + " | " + cell(s.Type) + " | " + cell(s.Meaning) + " |\n")
	}
	return b.String()
}

// cell makes text safe inside a table's cell.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// allowed says what a setting takes, for messages and the README.
func (s *setting) allowed() string {
	if len(s.options) > 0 {
		return either(s.options)
	}
	switch s.kind {
	case boundDuration:
		return "duration from " + durationText(time.Duration(s.lo)) + " to " + durationText(time.Duration(s.hi))
	case boundSize:
		return "bytes from " + sizeText(s.lo) + " to " + sizeText(s.hi)
	case boundNumber:
		return "whole number from " + strconv.FormatInt(s.lo, 10) + " to " + strconv.FormatInt(s.hi, 10)
	}
	return s.Type
}

// either writes "a, b or c".
func either(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// table is every setting. It is built when asked for: nothing of it is kept.
func table(azure *AzureSupport) []setting {
	rows := make([]setting, 0, 128)
	rows = originSettings(rows)
	rows = authSettings(rows)
	rows = listenerSettings(rows)
	rows = cacheSettings(rows)
	rows = pollSettings(rows)
	rows = sharedSettings(rows)
	if azure != nil {
		rows = azure.settings(rows)
	}
	rows = fileSettings(rows)
	return platformSettings(rows)
}

// secret marks a setting whose value is never printed.
func secret(s setting) setting {
	s.Secret = true
	return s
}
