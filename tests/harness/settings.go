package harness

import (
	"maps"
	"slices"
)

// Settings are variables of a process's environment.
type Settings map[string]string

// With returns a copy of s with more in it; where both have a variable, more wins.
func (s Settings) With(more Settings) Settings {
	out := maps.Clone(s)
	if out == nil {
		out = Settings{}
	}
	maps.Copy(out, more)
	return out
}

// List returns NAME=value of each, sorted by name, as a Command wants it.
func (s Settings) List() []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		out = append(out, k+"="+s[k])
	}
	return out
}
