package main

import (
	"archive/zip"
	"compress/flate"
	"io"
	"path"
	"time"
)

// pack writes a zip file with the binary as its only entry.
func pack(w io.Writer, entry string, binary []byte) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	header := &zip.FileHeader{
		Name:     entry,
		Method:   zip.Deflate,
		Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), // the first time that zip knows
	}
	header.SetMode(0o755)
	f, err := z.CreateHeader(header)
	if err != nil {
		return err
	}
	if _, err := f.Write(binary); err != nil {
		return err
	}
	return z.Close()
}

// isExtension reports whether Lambda starts what lies there as an extension.
func isExtension(entry string) bool { return path.Dir(entry) == "extensions" }
