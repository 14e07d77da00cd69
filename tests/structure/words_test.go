package structure

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCommentsNameFilesThatExist: a bare name is a file of the same folder, or
// of the root; a name with a folder of ours is a path from the root. A comment
// that names its source outside of this repository is about files there.
func TestCommentsNameFilesThatExist(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`(?:[\w.-]+/)*[\w-]+\.(?:go|md|sh|py|tf|yaml)\b`)
	address := regexp.MustCompile(`https?://\S+`)
	outside := regexp.MustCompile(`hashicorp/|github\.com|vault-plugin|go-oidc`)
	for _, s := range sources(t, "extension", "functions", "layer", "tests") {
		for _, group := range s.file.Comments {
			text := group.Text()
			foreign := outside.MatchString(text)
			for _, found := range name.FindAllString(address.ReplaceAllString(text, ""), -1) {
				first, _, nested := strings.Cut(found, "/")
				if nested && !slices.Contains([]string{"extension", "functions", "layer", "tests", "docs", "terraform", "examples"}, first) || !nested && foreign {
					continue
				}
				if !exists(found) && (nested || !exists(path.Join(path.Dir(s.path), found))) {
					t.Errorf("%s: a comment names %s, which does not exist", s.at(group.Pos()), found)
				}
			}
		}
	}
}

// exists reports whether there is a file at a path from the root.
func exists(name string) bool {
	_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
	return err == nil
}
