package warmup

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Files keeps backups in files, 0600, replaced at once.
type Files struct{}

var _ Place = Files{}

// Write copies beside the old file and renames.
func (Files) Write(_ context.Context, name string, from *os.File, _ int64, _ [sha256.Size]byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	to, err := os.CreateTemp(filepath.Dir(name), ".thaw-backup-")
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Rename(to.Name(), name)
	}
	if err != nil {
		_ = os.Remove(to.Name())
	}
	return err
}

// Read opens the file.
func (Files) Read(_ context.Context, name string) (io.ReadCloser, error) { return os.Open(name) }
