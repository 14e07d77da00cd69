package config

import (
	"slices"
	"strings"
)

// refuseAzure refuses what a user set for thaw-azure, where this is another
// program.
func (l *loader) refuseAzure() {
	if l.azure != nil {
		return
	}
	const needs = "needs thaw-azure, the program for Azure Functions; "
	for _, s := range l.rows {
		l.check(place{Name: s.Name}, "", errIf(s.Azure && !s.Platform && l.isSet(s.Name), needs+"remove the variable here"))
	}
	l.check(place{Name: "THAW_DUMP"}, "", errIf(strings.HasPrefix(l.d.Warm.Dump, "https://"), needs+"give a file or s3://bucket/key"))
}

// checkNames reports names that look like ours and aren't: an error for THAW_
// ones, which nobody else uses, unless THAW_UNKNOWN says that they may be a newer
// version's, and a warning for Vault's, which other programs
// in the same function may have.
func (l *loader) checkNames() {
	known := make([]string, len(l.rows))
	for i := range l.rows {
		known[i] = l.rows[i].Name
	}
	for _, name := range l.names {
		head, _, ok := strings.Cut(strings.ToUpper(name), "_")
		switch {
		case !ok || slices.Contains(known, name) || isPairName(name):
		case head == "THAW":
			why := "thaw has no such setting" + meant(name, known) + "; remove it or correct its name"
			l.warnIf(l.d.WarnUnknown, shownName(name)+": "+why)
			l.wrongIf(!l.d.WarnUnknown, shownName(name), why+", or set THAW_UNKNOWN=warn for a rollback")
		case distance(head, "VAULT") <= 1 || distance(head, "VLE") <= 1 || distance(head, "THAW") == 1: // a slip in the prefix is worth a warning at most
			near := misspelt(name, known)
			l.warnIf(near != "", shownName(name)+" is not a variable that thaw reads"+didYouMean(near))
		}
	}
}

// meant is a hint at the nearest known name of ours, or "".
func meant(name string, known []string) string {
	upper := strings.ToUpper(name)
	if slices.Contains(known, upper) {
		return " (names are case-sensitive: write " + upper + ")"
	}
	ours := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return !strings.HasPrefix(k, "THAW_") })
	return didYouMean(closest(upper, ours, max(2, len(name)/4)))
}

// didYouMean is a hint at a name, if there is one.
func didYouMean(name string) string {
	if name == "" {
		return ""
	}
	return "; did you mean " + name + "?"
}

// misspelt gives the known name that name is a slip of, or "". It is strict: a
// function may well have a VAULT_PATH of its own.
func misspelt(name string, known []string) string {
	upper := strings.ToUpper(name)
	if slices.Contains(known, upper) {
		return upper
	}
	limit := min(2, 1+len(name)/14)
	// Names of file mode go on after their prefix.
	for _, prefix := range []string{pairPath + "_", pairFile + "_"} {
		if len(upper) > len(prefix) && upper[len(prefix)-1] == '_' && distance(upper[:len(prefix)], prefix) == 1 {
			return prefix + name[len(prefix):]
		}
	}
	for _, k := range known {
		if d := distance(upper, k); d <= limit {
			return k
		}
		if rest, ok := strings.CutPrefix(upper, k); ok && len(rest) <= 3 && !strings.Contains(rest, "_") {
			return k // VAULT_ADDRESS
		}
	}
	return ""
}

// nearest gives the word of words that v is a slip of, or "".
func nearest(v string, words []string) string { return closest(v, words, max(1, len(v)/3)) }

// closest gives the word that takes the fewest letters to v, at most so many, or "".
func closest(v string, words []string, most int) string {
	best, at := "", most+1
	for _, w := range words {
		if d := distance(v, w); d < at {
			best, at = w, d
		}
	}
	return best
}

// farAway is what distance gives for words it need not compare.
const farAway = 1 << 10

// distance counts the letters to insert, drop, change or swap with their
// neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	if n := len(a) - len(b); n > 12 || n < -12 || len(a) > longestShown || len(b) > longestShown {
		return farAway
	}
	var d [longestShown + 1][longestShown + 1]uint8 // between the first letters of a and those of b
	for i := range len(a) + 1 {
		for j := range len(b) + 1 {
			switch d[i][j] = uint8(i + j); {
			case i == 0 || j == 0:
				continue
			case a[i-1] == b[j-1]:
				d[i][j] = d[i-1][j-1]
			case i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1]:
				d[i][j] = d[i-2][j-2] + 1
			}
			d[i][j] = min(d[i][j], d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+1)
		}
	}
	return int(d[len(a)][len(b)])
}
