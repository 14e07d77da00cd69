// Package docs holds the documentation to the product: commands are run,
// examples are run against a thaw, links and names are looked up.
//
// A fenced block of language sh, of any page, is run by bash, all blocks of a
// page in one shell and in their order, in a clean copy of the repository, with
// VAULT_ADDR and VAULT_TOKEN of a real Vault. A block that cannot run here has a
// line before it that says what it needs:
//
//	<!-- not run here: needs an AWS account -->
//
// Such a block is parsed, its programs must be ones that are known, its
// variables must come from the page, and the folders that it goes to must be
// there.
package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// block is one fenced block of a page.
type block struct {
	line     int    // of its first line
	language string // behind the fence
	needs    string // why it is not run here; empty: it is
	text     string
}

// page is one file of documentation.
type page struct {
	name   string // below the repository's root
	text   string
	blocks []block
	prose  string // the text without its blocks
}

const notRun = "<!-- not run here: needs "

// parse reads a page. A fence may be indented, as in a list.
func parse(name, text string) page {
	p := page{name: name, text: text}
	var prose strings.Builder
	var open *block
	var indent, before string
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimLeft(line, " ")
		switch {
		case open == nil && strings.HasPrefix(trimmed, "```"):
			indent = line[:len(line)-len(trimmed)]
			open = &block{line: i + 2, language: strings.TrimPrefix(trimmed, "```")}
			if rest, marked := strings.CutPrefix(before, notRun); marked {
				open.needs = strings.TrimSuffix(rest, " -->")
			}
		case open != nil && trimmed == "```":
			p.blocks = append(p.blocks, *open)
			open, before = nil, ""
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		default:
			prose.WriteString(line + "\n")
			if trimmed != "" {
				before = trimmed
			}
		}
	}
	p.prose = prose.String()
	return p
}

// root is the repository.
func root(t testing.TB) string {
	t.Helper()
	dir, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t testing.TB, name string) page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return parse(name, string(text))
}

// manual is the README and what is in docs.
func manual(t testing.TB) []page {
	t.Helper()
	pages := []page{read(t, "README.md")}
	names, err := filepath.Glob(filepath.Join(root(t), "docs", "*.md"))
	if err != nil || len(names) < 7 {
		t.Fatalf("%d pages in docs: %v", len(names), err)
	}
	for _, n := range names {
		pages = append(pages, read(t, "docs/"+filepath.Base(n)))
	}
	return pages
}

func TestPagesAreParsed(t *testing.T) {
	t.Parallel()
	p := parse("x.md", "a `b`\n\n```sh\none\n```\n\n<!-- not run here: needs an AWS account -->\n```sh\ntwo\n```\n\n1. c\n\n   ```json\n   {\n     }\n   ```\nd\n")
	want := []block{{4, "sh", "", "one\n"}, {9, "sh", "an AWS account", "two\n"}, {15, "json", "", "{\n  }\n"}}
	if len(p.blocks) != len(want) {
		t.Fatalf("%+v", p.blocks)
	}
	for i, b := range p.blocks {
		if b != want[i] {
			t.Errorf("%+v, want %+v", b, want[i])
		}
	}
	if strings.Contains(p.prose, "one") || !strings.Contains(p.prose, "d") {
		t.Errorf("%q", p.prose)
	}
}
