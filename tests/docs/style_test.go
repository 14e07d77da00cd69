package docs

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Limits of the pages.
const (
	longestReadme = 2300 // words, tables and commands included: a reading of ten minutes at most
	longestLine   = 160  // characters, but for tables and links
)

func TestTheReadmeIsShort(t *testing.T) {
	t.Parallel()
	p := read(t, "README.md")
	if n := len(strings.Fields(p.text)); n >= longestReadme {
		t.Errorf("the README has %d words; the limit is %d: move what few need to docs/", n, longestReadme)
	}
	if n := strings.Count(p.text, "\n"); n > 200 {
		t.Errorf("the README has %d lines", n)
	}
}

func TestLinesAreShort(t *testing.T) {
	t.Parallel()
	for _, p := range everyPage(t) {
		for i, line := range strings.Split(p.text, "\n") {
			table := strings.HasPrefix(strings.TrimSpace(line), "|")
			picture := strings.HasPrefix(line, "<img ")
			if utf8.RuneCountInString(link.ReplaceAllString(line, "]")) > longestLine && !table && !picture {
				t.Errorf("%s:%d has more than %d characters", p.name, i+1, longestLine)
			}
		}
	}
}

// TestTheGlossarysOldWordsAreGone looks for words that CONTRIBUTING.md says not
// to use, where no other meaning is likely.
func TestTheGlossarysOldWordsAreGone(t *testing.T) {
	t.Parallel()
	old := regexp.MustCompile(`(?i)\b(anchors?|spoil(s|ed|t)?|grants?|proven)\b|nothing cached: nothing`)
	for _, p := range manual(t) {
		for i, line := range strings.Split(code.ReplaceAllString(p.prose, ""), "\n") {
			if m := old.FindString(line); m != "" && !strings.Contains(line, "older versions of this page") {
				t.Errorf("%s, line %d of its prose: %q: see the table in CONTRIBUTING.md", p.name, i+1, m)
			}
		}
	}
}

// moved is each heading of the README before it was split, and where its text
// went. The README keeps an anchor for each, beside a link to that place.
func moved() map[string]string {
	return map[string]string{
		"60-seconds":                        "README.md#quick-start",
		"what-you-can-rely-on-and-what-not": "docs/guarantees.md",
		"what-an-answer-says":               "docs/examples.md#what-an-answer-says",
		"what-a-request-can-say":            "docs/examples.md#what-a-request-can-say",
		"settings":                          "README.md#settings",
		"vault-proxys-file":                 "docs/settings.md#vault-proxys-file",
		"how-it-fails":                      "README.md#how-it-fails",
		"operations":                        "docs/operations.md",
		"what-vault-has-to-do":              "docs/operations.md#what-vault-has-to-do",
		"security":                          "SECURITY.md",
		"sharing-one-cache-among-instances": "docs/warm-up.md",
		"azure-functions":                   "docs/azure.md",
		"reading-what-was-written":          "docs/nodes.md#reading-what-was-written",
		"several-nodes":                     "docs/nodes.md",
	}
}

func TestOldAnchorsOfTheReadmeLeadToTheirText(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	for old, now := range moved() {
		name, anchor, _ := strings.Cut(now, "#")
		if anchor != "" && !slices.Contains(anchors(read(t, name)), anchor) {
			t.Errorf("#%s: %s is not there", old, now)
		}
		if slices.Contains(anchors(readme), old) {
			continue
		}
		at := `<a id="` + old + `"></a>`
		_, rest, ok := strings.Cut(readme.text, at)
		if !ok {
			t.Errorf("the README lacks the anchor %s", at)
			continue
		}
		want := "](" + strings.TrimPrefix(now, "README.md") + ")"
		if next := link.FindString(rest); next != want {
			t.Errorf("#%s: the next link is %s, want %s", old, next, want)
		}
	}
}

var image = regexp.MustCompile(`<img src="([^"]+)"[^>]* alt="[^"]{20,}">`)

// TestPicturesAreThere: each has a text that says what it shows.
func TestPicturesAreThere(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, p := range everyPage(t) {
		if n := strings.Count(p.prose, "<img "); n != len(image.FindAllString(p.prose, -1)) {
			t.Errorf("%s: a picture has no alt text, or not where it is expected", p.name)
		}
		for _, m := range image.FindAllStringSubmatch(p.prose, -1) {
			name := path.Join(path.Dir(p.name), m[1])
			used[name] = true
			if _, err := os.Stat(filepath.Join(root(t), name)); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		}
	}
	all, err := filepath.Glob(filepath.Join(root(t), "docs", "pictures", "*.svg"))
	if err != nil || len(all) < 4 {
		t.Errorf("%d pictures: %v", len(all), err)
	}
	for _, a := range all {
		if name := "docs/pictures/" + filepath.Base(a); !used[name] {
			t.Errorf("no page shows %s", name)
		}
	}
}
