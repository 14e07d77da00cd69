package files

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Writing a secret so that nobody else decides where it goes.
//
// Whoever may write to a directory above ours can put another one, or a link,
// in its place at any moment. So ours is opened once, what was opened is looked
// at, and all that follows happens inside of it, by its handle: the file is
// written under a name that nobody can guess, and renamed over the old one,
// which follows no link.

// writeFile replaces name atomically. The directory is made with mode 0700 if
// there is none; one that others own or may write to is refused, unless it is
// sticky as /tmp is.
func writeFile(name string, content []byte) error {
	dir, err := openDir(filepath.Dir(name))
	if err == nil {
		defer dir.Close()
		err = replace(dir, filepath.Base(name), content)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Try reports why a file of that name cannot be written, without touching one that
// is there. The directory is made if there is none.
func Try(name string) error {
	if there, err := os.Stat(name); err == nil && there.IsDir() {
		return errors.New(name + " is a folder, and no file")
	}
	const size = 64 << 10 // a disk without room takes an empty file
	probe := name + ".try"
	if err := writeFile(probe, make([]byte, size)); err != nil {
		return err
	}
	return os.Remove(probe)
}

// openDir opens a directory that only we and root can change.
func openDir(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	named, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !named.IsDir() {
		return nil, fmt.Errorf("%s is no directory (a symbolic link is refused)", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if err := trusted(root, named); err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// trusted refuses a directory that is not the one that its name stood for, or that
// others can change.
func trusted(root *os.Root, named fs.FileInfo) error {
	opened, err := root.Stat(".")
	if err != nil {
		return err
	}
	owner, known := ownerOf(opened)
	switch {
	case !os.SameFile(named, opened):
		return fmt.Errorf("somebody put another directory in the place of %s; choose one above which nobody else may write", root.Name())
	case known && owner != 0 && owner != os.Geteuid():
		return fmt.Errorf("%s belongs to another user, who could put another file in its place; choose another directory", root.Name())
	case opened.Mode().Perm()&0o022 != 0 && opened.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("others may write to %s; give it mode 0700", root.Name())
	}
	return nil
}

// replace puts content in the place of the file called base, if there is one.
func replace(dir *os.Root, base string, content []byte) error {
	var suffix [8]byte
	rand.Read(suffix[:])
	temp := "." + base + "." + hex.EncodeToString(suffix[:])
	// O_EXCL follows no link and takes no file that is already there.
	out, err := dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(content)
	if err = cmp.Or(err, out.Sync(), out.Close()); err == nil {
		err = dir.Rename(temp, base)
	}
	if err != nil {
		dir.Remove(temp)
	}
	return err
}
