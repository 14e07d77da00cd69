package main

import (
	"archive/zip"
	"compress/flate"
	"io"
	"path"
	"time"

	"github.com/thaw-project/thaw/layer/deflate"
)

// pack writes a zip file with the binary as its only entry. An extension is
// compressed as hard as DEFLATE allows, in seconds: Lambda loads it at each cold
// start of each function.
func pack(w io.Writer, entry string, binary []byte) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		if isExtension(entry) {
			return deflate.NewWriter(w), nil
		}
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
