package main

import (
	"context"
	"io"

	"github.com/thaw-project/thaw/extension/doctor"
)

// runDoctor finds what keeps thaw-azure from working in this app.
func runDoctor(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	return doctor.Main(ctx, doctor.Program{
		Name: "thaw-azure doctor", Version: version, Args: args, Stdout: stdout, Stderr: stderr,
		Options: doctor.Options{Environ: environ},
	})
}
