package material

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestABadNewFileKeepsTheOld, is told once for each content, and good ones count.
func TestABadNewFileKeepsTheOld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func() (string, error) {
		text, err := os.ReadFile(file)
		if err == nil && len(text) > 3 {
			err = errors.New("too long")
		}
		return string(text), err
	}
	for name, watched := range map[string]string{"a file": file, "a folder": dir} {
		k := Keep(load, "", watched)
		os.Remove(file)
		if changed, err := k.Look(); changed || err != nil {
			t.Errorf("%s: before it is used: %v, %v", name, changed, err)
		}
		if _, err := k.Get(); err == nil {
			t.Errorf("%s: made of nothing", name)
		}
		write("one")
		for i, step := range []struct {
			text    string // "": the file is gone; "=": nothing happens
			changed bool
			fails   bool
			held    string
		}{
			{"=", false, false, "one"},
			{"two", true, false, "two"},
			{"=", false, false, "two"},
			{"bad one", false, true, "two"},
			{"=", false, false, "two"}, // told before
			{"bad two", false, true, "two"},
			{"two", false, false, "two"},
			{"bad two", false, true, "two"},
			{"six", true, false, "six"},
		} {
			if i == 0 {
				_, _ = k.Get()
			}
			if step.text != "=" {
				write(step.text)
			}
			changed, err := k.Look()
			held, _ := k.Get()
			if changed != step.changed || (err != nil) != step.fails || held != step.held {
				t.Errorf("%s, step %d: changed %v, %v, held %s", name, i, changed, err, held)
			}
		}
		if k.Changes() != 2 {
			t.Errorf("%s: %d changes", name, k.Changes())
		}
	}
	k := Keep(load, file)
	_, _ = k.Get()
	os.Remove(file)
	if changed, err := k.Look(); changed || !Missing(err) {
		t.Errorf("gone: %v, %v", changed, err)
	}
	if changed, err := k.Look(); changed || err != nil {
		t.Errorf("still gone: %v, %v", changed, err)
	}
}

// TestFilesThatAreBeingWrittenAreReadAgain, also where they hold at last what they held at the first look.
func TestFilesThatAreBeingWrittenAreReadAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	between := func() {}
	k := Keep(func() (string, error) {
		between()
		text, err := os.ReadFile(file)
		if err == nil && len(text) == 0 {
			err = errors.New("empty")
		}
		return string(text), err
	}, file)
	_, _ = k.Get()
	write("new")
	between = func() { write("") }
	if changed, err := k.Look(); changed || err != nil {
		t.Errorf("while it is written: %v, %v", changed, err)
	}
	between = func() {}
	write("new")
	if changed, err := k.Look(); !changed || err != nil {
		t.Errorf("when it is there: %v, %v", changed, err)
	}
	if held, _ := k.Get(); held != "new" {
		t.Errorf("held: %s", held)
	}
}

// TestOfAFolderOnlyItsFilesCount, as they are when certificates are read from it: no
// folder in it, which may lead back to it, and no pipe. The files may be links, as in a
// folder of Kubernetes, where one link to all of them is replaced.
func TestOfAFolderOnlyItsFilesCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []string{"..one", "..two"} {
		must(os.Mkdir(filepath.Join(dir, version), 0o700))
		must(os.WriteFile(filepath.Join(dir, version, "ca.crt"), []byte(version), 0o600))
	}
	must(os.Symlink("..one", filepath.Join(dir, "..data")))
	must(os.Symlink(filepath.Join("..data", "ca.crt"), filepath.Join(dir, "ca.crt")))
	must(os.Symlink(".", filepath.Join(dir, "again")))
	k := Keep(func() (string, error) {
		text, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		return string(text), err
	}, dir)
	_, _ = k.Get()
	must(os.WriteFile(filepath.Join(dir, "..two", "other"), []byte("x"), 0o600))
	if changed, err := k.Look(); changed || err != nil {
		t.Errorf("a file in a folder in it: %v, %v", changed, err)
	}
	must(os.Symlink("..two", filepath.Join(dir, "..data.new")))
	must(os.Rename(filepath.Join(dir, "..data.new"), filepath.Join(dir, "..data")))
	changed, err := k.Look()
	if held, _ := k.Get(); !changed || err != nil || held != "..two" {
		t.Errorf("the link to all of them replaced: %v, %v, %q", changed, err, held)
	}
}
