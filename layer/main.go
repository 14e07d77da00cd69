// Command layer packs the extension into an AWS Lambda layer: a zip file with
// the binary at extensions/thaw, which Lambda unpacks to /opt/extensions and
// starts (https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html).
//
// The same binary always gives the same bytes: one entry, a fixed time, a
// fixed mode. So a layer can be built again and compared by its checksum.
package main

import (
	"archive/zip"
	"compress/flate"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run packs each binary into the zip named before it, and writes the zip's
// checksum beside it, in sha256sum's format.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || len(args)%2 != 0 {
		fmt.Fprintln(stderr, "usage: layer ZIP BINARY [ZIP BINARY]...")
		return 2
	}
	for i := 0; i < len(args); i += 2 {
		if err := packFile(args[i], args[i+1], stdout); err != nil {
			fmt.Fprintln(stderr, "layer:", err)
			return 1
		}
	}
	return 0
}

func packFile(zipName, binary string, stdout io.Writer) error {
	b, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read the extension: %w", err)
	}
	f, err := os.Create(zipName)
	if err != nil {
		return fmt.Errorf("create the layer: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if err := pack(io.MultiWriter(f, sum), b); err != nil {
		return fmt.Errorf("write %s: %w", zipName, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", zipName, err)
	}
	line := fmt.Sprintf("%x  %s\n", sum.Sum(nil), filepath.Base(zipName))
	if err := os.WriteFile(zipName+".sha256", []byte(line), 0o644); err != nil {
		return fmt.Errorf("write the checksum: %w", err)
	}
	st, err := os.Stat(zipName)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s  %.2f MB, binary %.2f MB\n", zipName, float64(st.Size())/1e6, float64(len(b))/1e6)
	return nil
}

// pack writes the layer's zip file.
func pack(w io.Writer, binary []byte) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	header := &zip.FileHeader{
		Name:     "extensions/thaw",
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
