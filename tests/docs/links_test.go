package docs

import (
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.*?) *#*$`)
	code    = regexp.MustCompile("`[^`]*`")
)

// everyPage is each Markdown file of the repository.
func everyPage(t *testing.T) []page {
	t.Helper()
	var pages []page
	err := filepath.WalkDir(root(t), func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != root(t) && (strings.HasPrefix(d.Name(), ".") || d.Name() == "dist" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() || path.Ext(p) != ".md":
			return nil
		}
		name, err := filepath.Rel(root(t), p)
		if err == nil {
			pages = append(pages, read(t, filepath.ToSlash(name)))
		}
		return err
	})
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	return pages
}

// anchors are the names that GitHub gives to headings: lower case, without
// what is neither letter, digit, space nor hyphen, hyphens for spaces, and a
// number for the second of a name
// (https://docs.github.com/en/get-started/writing-on-github/getting-started-with-writing-and-formatting-on-github/basic-writing-and-formatting-syntax#section-links).
func anchors(p page) []string {
	var all []string
	count := map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(p.prose, -1) {
		text := link.ReplaceAllString(m[1], "]")
		var b strings.Builder
		for _, r := range strings.ToLower(text) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 0x7f:
				b.WriteRune(r)
			}
		}
		name := b.String()
		count[name]++
		if n := count[name]; n > 1 {
			name += "-" + string(rune('0'+n-1))
		}
		all = append(all, name)
	}
	return all
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, p := range everyPage(t) {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(p.prose, ""), -1) {
			seen++
			u, err := url.Parse(m[1])
			switch {
			case err != nil:
				t.Errorf("%s: %s: %v", p.name, m[1], err)
				continue
			case u.Scheme == "https" && u.Host != "":
				continue // not asked: tests use no network
			case u.Scheme != "" || u.Host != "" || strings.HasPrefix(u.Path, "/"):
				t.Errorf("%s: %s is neither https nor relative", p.name, m[1])
				continue
			}
			target := p
			if u.Path != "" {
				name := path.Join(path.Dir(p.name), u.Path)
				info, err := os.Stat(filepath.Join(root(t), name))
				if err != nil || strings.HasPrefix(name, "..") {
					t.Errorf("%s: %s leads nowhere", p.name, m[1])
					continue
				}
				if info.IsDir() || path.Ext(name) != ".md" {
					if u.Fragment != "" {
						t.Errorf("%s: %s: no page has an anchor there", p.name, m[1])
					}
					continue
				}
				target = read(t, name)
			}
			if u.Fragment != "" && !slices.Contains(anchors(target), u.Fragment) {
				t.Errorf("%s: %s: %s has no heading of that name", p.name, m[1], target.name)
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d links were found", seen)
	}
}

// TestEveryPageIsLinkedFromTheREADME: a page that nobody finds is none.
func TestEveryPageIsLinkedFromTheREADME(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md").text
	for _, p := range manual(t)[1:] {
		if !strings.Contains(readme, "]("+p.name+")") {
			t.Errorf("the README does not link to %s", p.name)
		}
	}
}
