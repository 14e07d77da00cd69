// Command fetch builds or installs the components that the tests run against,
// before the tests start their clocks: `go run ./tests/harness/fetch vault
// memcached emulator python node`. What is there already is left as it is.
//
// A component that cannot be had is named, with the reason. That is an error
// where CI=true and for Vault, which most tests need; the tests of the others
// skip, and say so.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/thaw-project/thaw/tests/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, harness.FromEnv(), os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, env harness.Env, names []string, stdout, stderr io.Writer) int {
	code := 0
	for _, name := range names {
		var path string
		var err error
		switch name {
		case "vault":
			fmt.Fprintf(stdout, "vault %s: if it is not there yet it is built now, which takes minutes of two cores\n", harness.VaultVersion)
			path, err = harness.FindVault(ctx, env.VaultBin)
		case "python":
			path, err = harness.FindPython(ctx)
		case "memcached":
			path, err = harness.FindMemcached(ctx)
		case "node":
			path, err = harness.FindNodeVault(ctx)
		case "emulator":
			path, err = harness.FindEmulator(ctx)
		default:
			fmt.Fprintf(stderr, "fetch: %q is not a component; those are vault, memcached, emulator, python and node\n", name)
			return 2
		}
		if err != nil {
			fmt.Fprintf(stderr, "fetch %s: %v\n", name, err)
			if env.CI || name == "vault" {
				code = 1
			}
			continue
		}
		fmt.Fprintf(stdout, "%s: %s\n", name, path)
	}
	return code
}
