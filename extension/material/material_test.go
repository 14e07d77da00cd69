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
