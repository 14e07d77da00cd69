package ship

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is a block of Terraform's language, with what can be said of it without
// evaluating anything: the names of its attributes and their text, and the
// blocks inside. It is enough to compare a module with a provider's schema.
// https://developer.hashicorp.com/terraform/language/syntax/configuration
type block struct {
	kind   string
	labels []string
	attrs  map[string]string // name to the expression as written
	blocks []*block
	line   int
}

// parseHCL reads a file that terraform fmt has formatted. Heredocs are known,
// as are comments with # and //.
func parseHCL(text string) (root *block, err error) {
	p := &hclParser{lines: strings.Split(text, "\n")}
	root = &block{attrs: map[string]string{}}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("line %d: %v", p.at+1, r)
		}
	}()
	p.body(root)
	return root, nil
}

type hclParser struct {
	lines []string
	at    int
}

// body reads until the block's closing brace, or the end of the file.
func (p *hclParser) body(b *block) {
	for ; p.at < len(p.lines); p.at++ {
		line := strings.TrimSpace(p.lines[p.at])
		switch {
		case line == "" || line[0] == '#' || strings.HasPrefix(line, "//"):
			continue
		case line == "}":
			return
		}
		if name, value, ok := strings.Cut(line, "="); ok && isWord(strings.TrimSpace(name)) {
			b.attrs[strings.TrimSpace(name)] = p.expression(strings.TrimSpace(value))
			continue
		}
		inner := &block{attrs: map[string]string{}, line: p.at + 1}
		head, tail, ok := strings.Cut(line, "{")
		words := strings.Fields(head)
		if !ok || len(words) == 0 {
			panic("neither an attribute nor a block: " + line)
		}
		inner.kind = words[0]
		for _, w := range words[1:] {
			inner.labels = append(inner.labels, strings.Trim(w, `"`))
		}
		b.blocks = append(b.blocks, inner)
		if one, ok := strings.CutSuffix(strings.TrimSpace(tail), "}"); ok { // on one line
			if name, value, ok := strings.Cut(one, "="); ok {
				inner.attrs[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
			continue
		}
		p.at++
		p.body(inner)
		if p.at >= len(p.lines) {
			panic("the block " + inner.kind + " has no end")
		}
	}
}

// expression reads on until every bracket is closed.
func (p *hclParser) expression(first string) string {
	text := first
	for depth(text) > 0 {
		p.at++
		if p.at >= len(p.lines) {
			panic("an expression has no end")
		}
		text += "\n" + p.lines[p.at]
	}
	if _, end, ok := strings.Cut(first, "<<"); ok {
		end = strings.TrimPrefix(end, "-")
		for strings.TrimSpace(p.lines[p.at]) != end {
			p.at++
			text += "\n" + p.lines[p.at]
		}
	}
	return text
}

// depth counts the brackets that are open, those in strings and comments left
// out.
func depth(text string) int {
	n, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '#':
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case strings.IndexByte("([{", c) >= 0:
			n++
		case strings.IndexByte(")]}", c) >= 0:
			n--
		}
	}
	return n
}

func isWord(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// module reads all files of a module.
func module(t *testing.T, name string) *block {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), "terraform", filepath.FromSlash(name), "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no module %s (%v)", name, err)
	}
	all := &block{attrs: map[string]string{}}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := parseHCL(string(text))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all.blocks = append(all.blocks, b.blocks...)
	}
	return all
}

func TestHCLIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	b, err := parseHCL("# a comment {\nresource \"a_b\" \"c\" {\n  x = \"{\" # {\n  y = [\n    1, # ]\n  ]\n  z = <<-EOT\n    }\n  EOT\n\n  in {\n    k = { a = 1 }\n  }\n  one { two = 2 }\n}\n\nvariable \"v\" {\n  type = object({\n    a = optional(string)\n  })\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	r := b.blocks[0]
	if len(b.blocks) != 2 || r.kind != "resource" || len(r.labels) != 2 || len(r.attrs) != 3 || len(r.blocks) != 2 || r.blocks[1].attrs["two"] != "2" || b.blocks[1].labels[0] != "v" {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"a {\n", "x = [\n", "x = <<EOT\n", "what is this"} {
		if _, err := parseHCL(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestModulesDeclareWhatTheyUseAndUseWhatTheyDeclare finds what validate would,
// for the modules whose providers are not at hand, and variables without effect.
func TestModulesDeclareWhatTheyUseAndUseWhatTheyDeclare(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"aws", "azure", "azure/modules/settings", "vault", "vault/modules/policies"} {
		files, err := filepath.Glob(filepath.Join(root(t), "terraform", filepath.FromSlash(name), "*.tf"))
		if err != nil {
			t.Fatal(err)
		}
		declared, effect := map[string]bool{}, map[string]bool{}
		for _, b := range module(t, name).blocks {
			switch b.kind {
			case "variable":
				declared["var."+b.labels[0]] = true
			case "module":
				declared["module."+b.labels[0]] = true
			case "resource":
				declared[b.labels[0]+"."+b.labels[1]] = true
			case "data":
				declared["data."+b.labels[0]+"."+b.labels[1]] = true
			case "locals":
				for local := range b.attrs {
					declared["local."+local] = true
				}
			}
		}
		used := regexp.MustCompile(`\b(?:data\.)?(?:var|local|module|(?:aws|azurerm|vault)_\w+)\.\w+`)
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				if code, _, _ := strings.Cut(line, " # "); !strings.HasPrefix(strings.TrimSpace(code), "#") {
					for _, u := range used.FindAllString(code, -1) {
						if !declared[u] && !strings.Contains(code, "description") {
							t.Errorf("%s: %s is not declared", filepath.Base(f), u)
						}
						effect[u] = effect[u] || !strings.HasPrefix(filepath.Base(f), "variables")
					}
				}
			}
		}
		for d := range declared {
			if strings.HasPrefix(d, "var.") && !effect[d] {
				t.Errorf("%s: %s has no effect", name, d)
			}
		}
	}
}
