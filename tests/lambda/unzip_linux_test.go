package lambda

import (
	"archive/zip"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// unzip unpacks the layer with the modes that it has: what Lambda starts must be
// executable for all, since extensions don't run as root.
func unzip(name, dir string) error {
	z, err := zip.OpenReader(name)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	defer z.Close()
	for _, f := range z.File {
		to := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		from, err := f.Open()
		if err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name, err)
		}
		if err := writeFile(from, to, f.Mode()); err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name, err)
		}
	}
	return nil
}

// copyFile copies an executable.
func copyFile(to, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	return writeFile(f, to, 0o755)
}

// writeFile writes what from holds to a new file, and closes both.
func writeFile(from io.ReadCloser, name string, mode os.FileMode) error {
	defer from.Close()
	to, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		return err
	}
	return to.Close()
}
