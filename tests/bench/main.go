// Command bench measures what thaw costs, beside what it is compared with:
// `make bench`, or `go run ./tests/bench`.
//
// It measures the real binary. What is compared runs in turns, A B A B, so
// that whatever else the machine does meets both; a ratio is taken from each
// pair, and of all pairs the median is shown with the least and the greatest.
// CPU is the process's own CPU-time clock (cpu_linux.go) before and after, not
// time on the wall. The load comes from this process, over kept connections,
// with a fixed number of requests.
//
// It writes dist/bench.json, from which tests/bench/report (a module of its own)
// prints tables with the targets beside and writes dist/bench.html, with
// pictures. It exits with 0 however slow the results are: a busy machine is no
// failure. 1 means that something could not be measured. With
// BENCH_VLE=path/to/binary HashiCorp's vault-lambda-extension is measured
// beside thaw, where functions wait.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// bench is one run.
type bench struct {
	bin     binaries
	vault   string // Vault's binary; empty: found or built
	vle     string // vault-lambda-extension's binary; empty: it is left out
	noVault bool
	many    bool
	factor  float64
	report  *Report
}

// rounds scales a number of rounds by -rounds.
func (b *bench) rounds(n int) int { return max(1, int(float64(n)*b.factor)) }

// run is the program; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if slices.Equal(args, []string{apartFlag}) {
		if err := serveApart(os.Stdin, stdout); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
		return 0
	}
	b := &bench{report: &Report{Date: time.Now().UTC(), Machine: describe()}}
	var binary, only, out string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&binary, "binary", "", "thaw to measure; by default ./extension is built")
	fs.StringVar(&only, "only", "", "comma-separated parts of: size, start, ready, memory, hits, latency, features, polls, callers, storm, waits, warm-up, growth, azure; by default all")
	fs.StringVar(&out, "json", "", "file for the results; by default dist/bench.json")
	fs.Float64Var(&b.factor, "rounds", 1, "factor on the number of rounds")
	fs.BoolVar(&b.many, "many", false, "instead of the usual callers 10,000 with 100,000 capabilities and a cache of 1 GiB, which takes some minutes and 6 GB of memory")
	fs.BoolVar(&b.noVault, "no-vault", false, "leave out what needs a real Vault")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	env := harness.FromEnv()
	b.vault = env.VaultBin
	for _, e := range env.All {
		if path, ok := strings.CutPrefix(e, "BENCH_VLE="); ok {
			b.vle = path
		}
	}
	if err := b.measure(ctx, binary, only, env.All, stdout); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	if out == "" {
		root, err := harness.Root()
		if err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
		out = filepath.Join(root, "dist", "bench.json")
	}
	if err := b.report.save(out); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	if err := publish(ctx, out, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// publish has tests/bench/report print and draw what was measured.
func publish(ctx context.Context, results string, stdout, stderr io.Writer) error {
	root, err := harness.Root()
	if err != nil {
		return err
	}
	if results, err = filepath.Abs(results); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "run", "-C", filepath.Join(root, "tests", "bench", "report"), ".", results)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("report %s: %w", results, err)
	}
	return nil
}

// measure runs the parts one after the other.
func (b *bench) measure(ctx context.Context, binary, only string, environ []string, stdout io.Writer) error {
	parts := []struct {
		name string
		run  func(context.Context) error
	}{
		{"size", b.size}, {"start", b.start}, {"ready", b.ready}, {"memory", b.memory}, {"hits", b.hits}, {"latency", b.latencies},
		{"features", b.features}, {"polls", b.polls}, {"callers", b.callers}, {"storm", b.storm}, {"waits", b.waits}, {"warm-up", b.warmUp}, {"growth", b.growth}, {"azure", b.azure},
	}
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, w := range wanted {
		if !slices.ContainsFunc(parts, func(p struct {
			name string
			run  func(context.Context) error
		}) bool {
			return p.name == w
		}) {
			return fmt.Errorf("-only: there is no part %q", w)
		}
	}
	fmt.Fprintln(stdout, b.report.Machine)
	var err error
	b.bin, err = build(ctx, binary)
	defer os.RemoveAll(b.bin.dir)
	if err != nil {
		return err
	}
	if err := b.report.others(ctx); err != nil {
		return err
	}
	for _, p := range parts {
		if len(wanted) > 0 && !slices.Contains(wanted, p.name) {
			continue
		}
		began := time.Now()
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(stdout, "%s: measured in %.0f s\n", p.name, time.Since(began).Seconds())
	}
	return b.report.others(ctx)
}
