package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository is a small one, with a Makefile whose layer is a script.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"CHANGELOG.md": "# Changes\n\n## [Unreleased]\n\n- later\n\n## [v1.2.0] - 2026-11-21\n\n- A thing.\n\n## [v1.1.0] - 2026-01-01\n\n- Old.\n",
		".gitignore":   "/dist/\n",
		"Makefile": "layer:\n\t@mkdir -p $(DIST)/linux-amd64 $(DIST)/linux-arm64\n" +
			"\t@for a in amd64 arm64; do printf '#!/bin/sh\\necho thaw $(STAMP)\\n' > $(DIST)/linux-$$a/thaw; chmod +x $(DIST)/linux-$$a/thaw; echo zip > $(DIST)/thaw-layer-$$a.zip; done\n" +
			"STAMP = $(VERSION)\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"init", "-q"}, {"config", "user.email", "test@example.com"}, {"config", "user.name", "test"}, {"config", "commit.gpgsign", "false"},
		{"add", "."}, {"commit", "-q", "-m", "Start"}, {"tag", "v1.1.0"},
	} {
		git(t, dir, args...)
	}
	return dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestAReleaseIsBuiltStampedSummedAndTagged(t *testing.T) {
	t.Parallel()
	dir := repository(t)
	for _, c := range []struct {
		args []string
		tags string
	}{{[]string{"-dry-run"}, "v1.1.0\n"}, {nil, "v1.1.0\nv1.2.0\n"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append(c.args, "-root", dir, "-version", "v1.2.0"), &stdout, &stderr); code != 0 {
			t.Fatalf("exit %d: %s", code, &stderr)
		}
		if got := git(t, dir, "tag"); got != c.tags {
			t.Errorf("%v: tags %q", c.args, got)
		}
		sums, err := os.ReadFile(filepath.Join(dir, "dist", "release", "SHA256SUMS"))
		if err != nil || strings.Count(string(sums), "\n") != 2 {
			t.Errorf("%v: %q, %v", c.args, sums, err)
		}
		if !strings.Contains(stdout.String(), "git push origin v1.2.0") {
			t.Errorf("%v: %s", c.args, &stdout)
		}
		// The tag that a dry run names is the one that a release makes: headings begin with #.
		if dry := len(c.args) > 0; dry != strings.Contains(stdout.String(), "git tag -a v1.2.0 -F "+filepath.Join(dir, "dist", "release", "NOTES.md")+" --cleanup=verbatim\n") {
			t.Errorf("%v: %s", c.args, &stdout)
		}
	}
	if got := git(t, dir, "tag", "-l", "--format=%(contents)", "v1.2.0"); !strings.Contains(got, "- A thing.") || strings.Contains(got, "Old") || strings.Contains(got, "later") {
		t.Errorf("the tag says %q", got)
	}
}

func TestAReleaseStopsBeforeAnythingIsBuilt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version string
		change  func(dir string) error
		want    string
	}{
		"no version":         {"1.2", nil, "such as v1.2.3"},
		"an old version":     {"v1.1.0", nil, "not newer than the tag v1.1.0"},
		"no notes":           {"v1.3.0", nil, "no notes for v1.3.0"},
		"something unsaved":  {"v1.2.0", func(dir string) error { return os.WriteFile(filepath.Join(dir, "x"), nil, 0o600) }, "?? x"},
		"another's changes":  {"v1.2.0", func(dir string) error { return os.WriteFile(filepath.Join(dir, "Makefile"), nil, 0o600) }, "M Makefile"},
		"nothing at all":     {"", nil, "such as v1.2.3"},
		"a name with spaces": {"v1.2.0 ", nil, "such as v1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := repository(t)
			if c.change != nil {
				if err := c.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			var stderr bytes.Buffer
			if code := run(t.Context(), []string{"-root", dir, "-version", c.version}, &bytes.Buffer{}, &stderr); code != 1 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit %d: %s; want %q", code, &stderr, c.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "dist")); !os.IsNotExist(err) {
				t.Error("something was built")
			}
		})
	}
}

func TestABinaryWithoutTheVersionIsNoRelease(t *testing.T) {
	t.Parallel()
	dir := repository(t)
	text, err := os.ReadFile(filepath.Join(dir, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), bytes.ReplaceAll(text, []byte("STAMP = $(VERSION)"), []byte("STAMP = dev")), 0o600); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "commit", "-q", "-am", "Forget the version")
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"-root", dir, "-version", "v1.2.0"}, &bytes.Buffer{}, &stderr); code != 1 || !strings.Contains(stderr.String(), "does not hold the version") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
	if strings.Contains(git(t, dir, "tag"), "v1.2.0") {
		t.Error("it is tagged")
	}
}

func TestVersionsAreSemantic(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "v", "1.2.3", "v1.2", "v1.2.3.4", "v01.2.3", "v1.2.3-rc1", "v1.-2.3", "v1.2.x", "v1.2.3\n"} {
		if v, err := parseVersion(bad); err == nil {
			t.Errorf("%q is %v", bad, v)
		}
	}
	order := []string{"v0.0.1", "v0.1.0", "v0.9.9", "v0.10.0", "v1.0.0", "v1.2.3", "v10.0.0"}
	for i := range order[1:] {
		a, err := parseVersion(order[i])
		b, err2 := parseVersion(order[i+1])
		if err != nil || err2 != nil || slices.Compare(a[:], b[:]) >= 0 {
			t.Errorf("%s is not before %s", order[i], order[i+1])
		}
	}
}
