// Command lambda is the warm-up: on AWS Lambda (runtime provided.al2023,
// handler file "bootstrap") a function for a schedule, anywhere else a command.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/process"
	"github.com/thaw-project/thaw/functions/warmup"
	"github.com/thaw-project/thaw/functions/warmup/bucket"
	"github.com/thaw-project/thaw/functions/warmup/job"
)

// version is set by the linker.
var version = "dev"

// Exit statuses.
const (
	exitOK         = 0 // complete, or another instance is at it
	exitIncomplete = 1 // the next run goes on
	exitUsage      = 2 // the command line or the configuration is wrong
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Environ(), os.Stdout, os.Stderr))
}

const usage = `warmup %s: fills thaw's shared cache ahead of reads

  warmup                    in AWS Lambda: the function, for a schedule (THAW_WARM_FOR as -for)
  warmup -once [-full]      one cycle; -full: a full one, whatever is due
  warmup -for 55s [-full]   cycles, and young stamps, for that long
  warmup -purge PATH        removes one secret for the whole fleet
  warmup -revoke ROLE       ends what a role may read from the shared cache; for approle, its role id
  warmup -version

One line of JSON on standard output says what was done, everything else goes to
standard error. Status 0: complete, or another instance is at it; 1: incomplete,
the next run goes on; 2: the settings are wrong. Settings come from the
environment, as the extension's.
`

// command is what the command line asks for.
type command struct {
	order   warmup.Order
	purge   string
	revoke  string
	version bool
}

var errUsage = errors.New("usage")

func parse(args []string, stderr io.Writer) (command, error) {
	var c command
	var once bool
	flags := flag.NewFlagSet("warmup", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprintf(stderr, usage, version) }
	flags.BoolVar(&once, "once", false, "")
	flags.BoolVar(&c.order.Full, "full", false, "")
	flags.DurationVar(&c.order.For, "for", 0, "")
	flags.StringVar(&c.purge, "purge", "", "")
	flags.StringVar(&c.revoke, "revoke", "", "")
	flags.BoolVar(&c.version, "version", false, "")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	asked := map[bool]int{}
	for _, b := range []bool{once, c.order.For != 0, c.purge != "", c.revoke != "", c.version} {
		asked[b]++
	}
	if asked[true] != 1 || flags.NArg() > 0 || c.order.For < 0 || c.order.Full && (c.purge+c.revoke != "" || c.version) {
		flags.Usage()
		return c, errUsage
	}
	return c, nil
}

// lambdaAPI is set where Lambda starts the program.
const lambdaAPI = "AWS_LAMBDA_RUNTIME_API="

// run is the whole program.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	process.Harden()
	inLambda := len(args) < 2 && slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, lambdaAPI) && v != lambdaAPI })
	var c command
	if !inLambda {
		var err error
		if c, err = parse(args[1:], stderr); errors.Is(err, flag.ErrHelp) {
			return exitOK
		} else if err != nil {
			return exitUsage
		}
		if c.version {
			fmt.Fprintln(stdout, "thaw warmup", version)
			return exitOK
		}
	}
	cfg, log, terminal, err := process.Open(config.Source{Environ: environ, NoListener: true}, stderr)
	if err == nil {
		err = job.Check(cfg, c.purge+c.revoke != "")
	}
	o := job.Options{Log: log, Bucket: bucket.Of, Metrics: stderr}
	if inLambda {
		o.Metrics = stdout
	} else if terminal {
		o.Progress = stderr
	}
	var a *job.Job
	if err == nil {
		a, err = job.Build(cfg, o)
	}
	if err != nil {
		fmt.Fprintln(stderr, "warmup:", err)
		return exitUsage
	}
	defer a.Close()
	if inLambda {
		lambda.StartWithOptions(func(ctx context.Context, raw json.RawMessage) (sum warmup.Summary, err error) {
			order, err := ordered(raw, cfg.Warm.For)
			if err == nil {
				sum = a.Run(ctx, order)
			}
			return sum, err
		}, lambda.WithContext(ctx))
		return exitOK
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var done any
	status, what := exitOK, "purge"
	switch {
	case c.purge != "":
		done, err = warmup.Purge(ctx, a.Audiences, c.purge, time.Now())
	case c.revoke != "":
		what = "revoke"
		done, err = warmup.Revoke(ctx, a.Audiences, c.revoke, time.Now())
	default:
		sum := a.Run(ctx, c.order)
		if done = sum; (sum.Leader || sum.Leaderless) && !sum.Complete {
			status = exitIncomplete
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "warmup: %s: %v\n", what, err)
		if errors.Is(err, warmup.ErrUntaken) {
			return exitIncomplete
		}
		return exitUsage
	}
	if err := json.NewEncoder(stdout).Encode(done); err != nil {
		return exitIncomplete
	}
	return status
}

// event is what a schedule may send. EventBridge's own events have neither.
type event struct {
	Full bool   `json:"full"`
	For  string `json:"for"` // as -for; empty: THAW_WARM_FOR
}

// ordered is what an event asks for; goesOn is THAW_WARM_FOR.
func ordered(raw json.RawMessage, goesOn time.Duration) (warmup.Order, error) {
	var e event
	switch {
	case json.Unmarshal(raw, &e) != nil:
		return warmup.Order{For: goesOn}, nil
	case e.For == "":
		return warmup.Order{Full: e.Full, For: goesOn}, nil
	}
	d, err := time.ParseDuration(e.For)
	if err != nil || d < 0 {
		return warmup.Order{}, errors.New(`the event's "for" is not a duration such as 55s`)
	}
	return warmup.Order{Full: e.Full, For: d}, nil
}
