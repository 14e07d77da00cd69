// Command thaw is a secrets cache for functions that freeze: an AWS Lambda
// extension, or, outside Lambda, the same proxy as an ordinary process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/doctor"
	"github.com/thaw-project/thaw/extension/process"
	"github.com/thaw-project/thaw/extension/status"
)

// version is set by the linker.
var version = "dev"

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line or the configuration is wrong
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Environ(), os.Stdout, os.Stderr))
}

// run is the whole program.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	process.Harden()
	command := ""
	if len(args) > 1 {
		command = args[1]
	}
	flags := flag.NewFlagSet("thaw proxy", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, helpProxy) }
	file := flags.String("config", "", "")
	switch command {
	case "version", "-version", "--version":
		fmt.Fprintln(stdout, "thaw", version)
		return exitOK
	case "help", "-h", "-help", "--help":
		return help(ctx, args, stdout, stderr)
	case "proxy":
		switch err := flags.Parse(args[2:]); {
		case errors.Is(err, flag.ErrHelp):
			return exitOK
		case err != nil:
			return exitUsage
		case flags.NArg() > 0:
			fmt.Fprintf(stderr, "thaw proxy: unexpected argument %q\n", flags.Arg(0))
			return exitUsage
		}
	case "doctor":
		return doctor.Main(ctx, doctor.Program{
			Name: "thaw doctor", Version: version, Args: args[2:], Options: doctor.Options{Environ: environ}, Stdout: stdout, Stderr: stderr,
		})
	case "status":
		return status.Main(ctx, status.Program{Name: "thaw status", Args: args[2:], Environ: environ, Stdout: stdout, Stderr: stderr})
	case "":
	default:
		fmt.Fprintf(stderr, "thaw: unknown command %q\n\n", command)
		fmt.Fprintf(stderr, usage, version)
		return exitUsage
	}
	src := config.Source{Environ: environ, ConfigFile: *file}
	cfg, log, _, err := process.Open(src, stderr)
	switch {
	case command == "" && cfg.Platform.Lambda:
		return runExtension(ctx, src, cfg, err, filepath.Base(args[0]), log, stdout)
	case command == "":
		fmt.Fprintf(stderr, usage, version)
		return exitUsage
	case err != nil:
		fmt.Fprintln(stderr, "thaw:", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return runProxy(ctx, src, cfg, log, stdout)
}
