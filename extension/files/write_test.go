package files

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestG5NoLinkIsFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "secret.json")
	if err := os.Symlink(victim, file); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(file, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "untouched" {
		t.Errorf("the link's target holds %q, %v", b, err)
	}
	if info, err := os.Lstat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the link was not replaced by a file: %v, %v", info.Mode(), err)
	}

	elsewhere := t.TempDir()
	linked := filepath.Join(dir, "linked")
	if err := os.Symlink(elsewhere, linked); err != nil {
		t.Fatal(err)
	}
	err := writeFile(filepath.Join(linked, "secret.json"), []byte("secret"))
	if err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("through a linked directory: %v", err)
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 0 {
		t.Errorf("left there: %v, %v", left, err)
	}
}

func TestG5ADirectoryOfOthersIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(dir string) error
		says string // empty: allowed
	}{
		{"writable by all", func(dir string) error { return os.Chmod(dir, 0o777) }, "others may write"},
		{"writable by the group", func(dir string) error { return os.Chmod(dir, 0o770) }, "others may write"},
		{"sticky", func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, ""},
		{"readable", func(dir string) error { return os.Chmod(dir, 0o755) }, ""},
		{"owned by another", func(dir string) error { return os.Chown(dir, 12345, 12345) }, "belongs to another user"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := c.make(dir); os.IsPermission(err) {
				t.Skip("only root may give directories away")
			} else if err != nil {
				t.Fatal(err)
			}
			err := writeFile(filepath.Join(dir, "secret.json"), []byte("secret"))
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
			left, err := os.ReadDir(dir)
			if err != nil || (len(left) == 0) != (c.says != "") {
				t.Errorf("left there: %v, %v", left, err)
			}
		})
	}
}

func TestAWriteThatFailsLeavesTheOldFileAndNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "secret.json")
	if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o700); err != nil {
		t.Fatal(err) // a directory that is not empty cannot be renamed over
	}
	if err := writeFile(file, []byte("secret")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left there: %v, %v", left, err)
	}
}

// Between the look at a directory and the write somebody may put another in its
// place, where the directory above is theirs to write to.
func TestG5WhatIsWrittenToIsTheDirectoryThatWasLookedAt(t *testing.T) {
	t.Parallel()
	above, elsewhere := t.TempDir(), t.TempDir()
	dir, aside := filepath.Join(above, "dir"), filepath.Join(above, "aside")
	victim := filepath.Join(elsewhere, "secret.json")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := errors.Join(os.Rename(dir, aside), os.Symlink(elsewhere, dir)); err != nil {
		t.Fatal(err)
	}
	if err := replace(root, "secret.json", []byte("secret")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "untouched" {
		t.Errorf("the file elsewhere holds %q, %v", b, err)
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 1 {
		t.Errorf("left elsewhere: %v, %v", left, err)
	}
	if b, err := os.ReadFile(filepath.Join(aside, "secret.json")); err != nil || string(b) != "secret" {
		t.Errorf("the directory that was looked at holds %q, %v", b, err)
	}
	if _, err := openDir(dir); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("the next look: %v", err)
	}
}
