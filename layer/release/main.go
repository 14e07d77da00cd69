// Command release makes a release of what is checked out:
//
//	make release VERSION=v1.2.3            checks, builds dist/release, tags
//	make release VERSION=v1.2.3 DRY_RUN=1  the same, without the tag
//
// It asks first: is the version one, and newer than every tag; is everything
// committed; does CHANGELOG.md have notes for it. Then it has `make layer`
// build into dist/release, with the version in every binary, writes the notes
// and the checksums of all files, and asks a binary for its version. Last comes
// the tag. It pushes and publishes nothing: it prints the commands that do.
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// release is one that is being made.
type release struct {
	version string
	dry     bool
	root    string // of the repository
	dist    string // where it is built
	stdout  io.Writer
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	r := release{stdout: stdout}
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&r.version, "version", "", "version, such as v1.2.3")
	flags.BoolVar(&r.dry, "dry-run", false, "build, and make no tag")
	flags.StringVar(&r.root, "root", ".", "the repository")
	flags.StringVar(&r.dist, "dist", filepath.Join("dist", "release"), "folder to build in, below the repository or absolute")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil || flags.NArg() > 0 {
		return 2
	}
	if err := r.make(ctx); err != nil {
		fmt.Fprintln(stderr, "release:", err)
		return 1
	}
	return 0
}

func (r *release) make(ctx context.Context) error {
	notes, err := r.check(ctx)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(r.dist) {
		r.dist = filepath.Join(r.root, r.dist)
	}
	if err := os.RemoveAll(r.dist); err != nil {
		return fmt.Errorf("empty %s: %w", r.dist, err)
	}
	out, err := r.command(ctx, "make", "-s", "layer", "DIST="+r.dist, "VERSION="+r.version)
	if err != nil {
		return err
	}
	fmt.Fprint(r.stdout, out)
	if err := os.WriteFile(filepath.Join(r.dist, "NOTES.md"), []byte(notes), 0o644); err != nil {
		return fmt.Errorf("write the notes: %w", err)
	}
	if err := r.stamped(ctx); err != nil {
		return err
	}
	if err := r.checksums(); err != nil {
		return err
	}
	next := []string{"git push origin " + r.version}
	tag := []string{"tag", "-a", r.version, "-F", filepath.Join(r.dist, "NOTES.md"), "--cleanup=verbatim"} // else lines that begin with # are left out
	if r.dry {
		fmt.Fprintf(r.stdout, "%s is ready in %s. This was a dry run: nothing is tagged. Without DRY_RUN this follows:\n", r.version, r.dist)
		next = append([]string{"git " + strings.Join(tag, " ")}, next...)
	} else {
		if _, err := r.command(ctx, "git", tag...); err != nil {
			return err
		}
		fmt.Fprintf(r.stdout, "%s is tagged, and ready in %s. What is left:\n", r.version, r.dist)
	}
	for _, c := range append(next, "publish the layers with the commands above, and attach the files of "+r.dist+" to the release") {
		fmt.Fprintln(r.stdout, "   ", c)
	}
	return nil
}

// check asks everything before anything is built, and reports all that is
// wrong at once.
func (r *release) check(ctx context.Context) (notes string, err error) {
	v, err := parseVersion(r.version)
	if err != nil {
		return "", err
	}
	tags, noTags := r.command(ctx, "git", "tag", "--list", "v*")
	dirty, noStatus := r.command(ctx, "git", "status", "--porcelain")
	log, noLog := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err := cmp.Or(noTags, noStatus, noLog); err != nil {
		return "", err
	}
	var problems []error
	for _, tag := range strings.Fields(tags) {
		if old, err := parseVersion(tag); err == nil && slices.Compare(v[:], old[:]) <= 0 {
			problems = append(problems, fmt.Errorf("%s is not newer than the tag %s", r.version, tag))
			break
		}
	}
	if dirty != "" {
		problems = append(problems, fmt.Errorf("not everything is committed, so nobody could build the same again; git status says:\n%s", strings.TrimRight(dirty, "\n")))
	}
	if notes = section(string(log), r.version); notes == "" {
		problems = append(problems, fmt.Errorf("CHANGELOG.md has no notes for %s: write a section \"## [%s] - YYYY-MM-DD\", from what is under [Unreleased]", r.version, r.version))
	}
	if r.dry && len(problems) > 0 {
		fmt.Fprintf(r.stdout, "a release would stop here:\n%v\nthe dry run goes on\n", errors.Join(problems...))
		return notes, nil
	}
	return notes, errors.Join(problems...)
}

// parseVersion reads vMAJOR.MINOR.PATCH (https://semver.org), without more.
func parseVersion(s string) (v [3]int, err error) {
	const form = "v%d.%d.%d"
	_, err = fmt.Sscanf(s, form, &v[0], &v[1], &v[2])
	if err != nil || slices.Min(v[:]) < 0 || fmt.Sprintf(form, v[0], v[1], v[2]) != s {
		return v, fmt.Errorf("%q is not a version such as v1.2.3", s)
	}
	return v, nil
}

// section is what a changelog says of a version, without its heading.
func section(log, version string) string {
	_, text, _ := strings.Cut("\n"+log, "\n## ["+version+"]")
	_, text, _ = strings.Cut(text, "\n") // behind the heading
	text, _, _ = strings.Cut("\n"+text, "\n## ")
	return strings.Trim(text, "\n")
}

// stamped asks the binaries that can run here for their version, and looks for
// it in the others.
func (r *release) stamped(ctx context.Context) error {
	binaries, err := filepath.Glob(filepath.Join(r.dist, "linux-*", "*"))
	if err != nil {
		return err
	}
	if len(binaries) == 0 {
		return fmt.Errorf("%s has no binaries", r.dist)
	}
	for _, name := range binaries {
		if filepath.Base(name) == "demo" {
			continue // it has no version of its own
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if !bytes.Contains(b, []byte(r.version)) {
			return fmt.Errorf("%s does not hold the version %s", name, r.version)
		}
		if filepath.Base(filepath.Dir(name)) != runtime.GOOS+"-"+runtime.GOARCH {
			continue
		}
		out, err := r.command(ctx, name, "-version")
		if err != nil {
			return err
		}
		if !strings.Contains(out, r.version) {
			return fmt.Errorf("%s says %q and not %s", name, strings.TrimSpace(out), r.version)
		}
	}
	return nil
}

// checksums writes SHA256SUMS, in sha256sum's format, of every file that is
// published.
func (r *release) checksums() error {
	names, err := filepath.Glob(filepath.Join(r.dist, "thaw-*"))
	if err != nil {
		return err
	}
	var list bytes.Buffer
	for _, name := range names {
		if strings.HasSuffix(name, ".sha256") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		fmt.Fprintf(&list, "%x  %s\n", sha256.Sum256(b), filepath.Base(name))
	}
	if err := os.WriteFile(filepath.Join(r.dist, "SHA256SUMS"), list.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the checksums: %w", err)
	}
	return nil
}

// command runs a program in the repository and returns its standard output.
func (r *release) command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
