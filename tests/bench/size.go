package main

import (
	"archive/zip"
	"compress/flate"
	"context"
	"io"
	"os"
)

// size measures the binary as it ships: stripped, and in a zip as a layer is.
func (b *bench) size(context.Context) error {
	plain, err := os.ReadFile(b.bin.thaw)
	if err != nil {
		return err
	}
	var n counting
	w := zip.NewWriter(&n)
	w.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) { return flate.NewWriter(out, flate.BestCompression) })
	f, err := w.Create("extensions/thaw")
	if err != nil {
		return err
	}
	if _, err := f.Write(plain); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	nothing, err := os.Stat(b.bin.nothing)
	if err != nil {
		return err
	}
	t := b.report.table("Size", "MB")
	one := func(bytes float64) Sample { return sample([]float64{bytes / 1e6}) }
	t.Rows = []Row{
		{Name: "do-nothing extension", Value: one(float64(nothing.Size()))},
		{Name: "thaw, stripped", Value: one(float64(len(plain))), Target: "under 10 MB", Most: 10},
		{Name: "thaw, zipped", Value: one(float64(n)), Target: "under 4.5 MB", Most: 4.5},
	}
	return nil
}

// counting counts what is written.
type counting int

func (c *counting) Write(p []byte) (int, error) {
	*c += counting(len(p))
	return len(p), nil
}
