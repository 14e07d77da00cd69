// Command demo shows thaw at work: `make demo`, or `go run ./tests/demo`.
//
// It builds the real extension and runs it under a stand-in for AWS Lambda
// (tests/fakes/lambdaapi), with the logic of functions/demo as the function
// beside it. The origin is a stand-in for Vault inside this process
// (tests/standin) or, with VAULT_ADDR and VAULT_TOKEN set, the real one. All
// of the extension's requests to the origin pass a counting proxy, which can
// also cut the line: what the table says about origin requests is what was
// seen there, not what thaw says of itself.
//
// The program goes through a script (script.go): a cold start, hits, freezes
// (SIGSTOP), rotations, a dead origin, its return, and many invocations in a
// row. In a second act (cold.go) instances start cold, first without and then
// with the shared tier, in a stand-in for memcached (tests/fakes/memcache). Each
// step has expectations. It prints tables and totals, and exits with 1 when an
// expectation was not met, 2 when it could not run.
package main

import (
	"context"
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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// settings are the command line.
type settings struct {
	binary string        // the extension; empty: built
	mount  string        // KV version 2, with a real origin
	delay  time.Duration // put before every answer of the origin
	freeze time.Duration
	storm  int      // invocations in a row
	cold   int      // cold starts with each way to share
	env    []string // added to the extension's environment
}

// errUnmet is returned when the demo ran and something was not as promised.
var errUnmet = errors.New("not all expectations were met")

// run is the program; it returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var s settings
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&s.binary, "binary", "", "extension to run; by default ./extension is built")
	fs.StringVar(&s.mount, "mount", "secret", "KV version 2 mount to write to, with VAULT_ADDR and VAULT_TOKEN set")
	fs.DurationVar(&s.delay, "delay", 5*time.Millisecond, "delay put before every answer of Vault, to stand for a network; 0: none")
	fs.DurationVar(&s.freeze, "freeze", 1500*time.Millisecond, "how long a freeze lasts")
	fs.IntVar(&s.storm, "storm", 200, "invocations in a row")
	fs.IntVar(&s.cold, "cold", 30, "cold starts without and with the shared tier (three times as many in all; 0: none)")
	fs.Func("env", "setting for the extension, such as THAW_MAX_AGE=5s; may be repeated", func(v string) error {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return errors.New("want NAME=VALUE")
		}
		s.env = append(s.env, v)
		return nil
	})
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	out := newReport(stdout, isTerminal(stdout) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb")
	err := perform(ctx, s, getenv, out)
	switch {
	case errors.Is(err, errUnmet):
		return 1
	case err != nil:
		fmt.Fprintln(stderr, "demo:", err)
		return 2
	}
	return 0
}

// perform sets everything up, plays the script, and takes everything down.
func perform(ctx context.Context, s settings, getenv func(string) string, out *report) (err error) {
	began := time.Now()
	o, err := newOrigin(ctx, s, getenv)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	out.opening(o)

	bin, cleanup, err := extensionBinary(ctx, s.binary, getenv, out)
	if err != nil {
		return err
	}
	defer cleanup()
	st := &stage{settings: s, origin: o, out: out}
	if err := st.fill(ctx); err != nil {
		return err
	}
	env, err := startEnvironment(ctx, bin, o, s.env)
	if err != nil {
		return err
	}
	defer env.close()
	out.started(env.readyAt())

	st.env = env
	if err := st.play(ctx); err != nil {
		return fmt.Errorf("%w\nthe extension printed:\n%s", err, env.log.tail(4000))
	}
	if err := st.finish(); err != nil {
		return err
	}
	if err := st.totals(ctx); err != nil {
		return err
	}
	act := &coldStarts{settings: s, origin: o, bin: bin, out: out, log: env.log}
	if err := act.play(ctx); err != nil {
		return err
	}
	out.done(time.Since(began))
	if unmet := slices.Concat(st.unmet, act.unmet); len(unmet) > 0 {
		out.failed(unmet, act.log.tail(4000))
		return errUnmet
	}
	return nil
}

// isTerminal says whether w is a character device, which a pipe or a file is not.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
