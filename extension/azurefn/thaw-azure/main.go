// Command thaw-azure is a secrets cache for Azure Functions: the custom handler
// that the host starts. It starts the user's own handler and serves secrets to
// it on localhost; the warm-up is a timer function of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/thaw-project/thaw/extension/azurefn"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/process"
	"github.com/thaw-project/thaw/extension/status"
)

// version is set by the linker.
var version = "dev"

// Exit statuses. The host starts a handler again after any but 0, and stops
// itself at the third within half an hour.
const (
	exitOK    = 0
	exitUsage = 2 // the command line or the configuration is wrong
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Environ(), os.Stdout, os.Stderr))
}

const usage = `thaw-azure %s: a secrets cache for Azure Functions (Linux plans)

  thaw-azure [-config F] -- COMMAND ARGS...   the custom handler; COMMAND is the
                                              function's own handler
  thaw-azure [-config F]                      the handler of an app that has the
                                              warm-up's timer and nothing else
  thaw-azure doctor                           finds what keeps it from working
  thaw-azure status                           shows what the running one knows
  thaw-azure version

host.json starts it: customHandler.description.defaultExecutablePath and
arguments. Settings come from the app settings (VAULT_ADDR, VAULT_AUTH_ROLE,
THAW_AZURE_RESOURCE, ...) and from a file in Vault Proxy's HCL (-config,
THAW_CONFIG). docs/settings.md lists them.
`

// run is the whole program.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	process.Harden()
	if len(args) > 1 {
		switch args[1] {
		case "version", "-version", "--version":
			fmt.Fprintln(stdout, "thaw-azure", version)
			return exitOK
		case "help", "-h", "-help", "--help":
			fmt.Fprintf(stdout, usage, version)
			return exitOK
		case "doctor":
			return runDoctor(ctx, args[2:], environ, stdout, stderr)
		case "status":
			return status.Main(ctx, status.Program{Name: "thaw-azure status", Args: args[2:], Environ: environ, Azure: config.ForAzure(), Stdout: stdout, Stderr: stderr})
		}
	}
	flags := flag.NewFlagSet("thaw-azure", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprintf(stderr, usage, version) }
	file := flags.String("config", "", "")
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	command := flags.Args()
	// Without a handler of the user's nobody asks for secrets: only the
	// warm-up's timer comes.
	src := config.Source{Environ: environ, ConfigFile: *file, Azure: config.ForAzure(), NoListener: len(command) == 0}
	cfg, log, _, err := process.Open(src, stderr)
	if err != nil {
		process.Problems(log, err)
		return exitUsage
	}
	process.Procs(cfg.MaxProcs, false) // every invocation goes through here
	process.Memory(&cfg)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p := &program{src: src, cfg: cfg, log: log, environ: environ, command: command, stdout: stdout, stderr: stderr}
	if err := p.run(ctx); err != nil {
		log.Error("thaw-azure ends", "error", err)
		return azurefn.ExitStatus(err)
	}
	return exitOK
}
