package harness

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
)

// EmulatorVersion is the version of AWS's Runtime Interface Emulator that the
// tests are about, as tests/emulatorbin pins it.
const EmulatorVersion = "v0.0.0-20261030222936-bef5c4ba774d"

// FindEmulator returns the path of AWS's Runtime Interface Emulator, which is
// built first, in seconds, if it is missing. Errors wrap ErrMissing.
// Source: https://github.com/aws/aws-lambda-runtime-interface-emulator
func FindEmulator(ctx context.Context) (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "aws-lambda-rie-"+EmulatorVersion)
	build := func(ctx context.Context) error {
		return buildTool(ctx, "emulatorbin", "github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie", bin)
	}
	if err := once(ctx, "emulator", isFile(bin), build); err != nil {
		return "", fmt.Errorf("%w: AWS's Runtime Interface Emulator %s: %w", ErrMissing, EmulatorVersion, err)
	}
	return bin, nil
}

// Emulator returns the binary of AWS's Runtime Interface Emulator.
func Emulator(t testing.TB) string { t.Helper(); return find(t, FindEmulator) }
