package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// Exit statuses of the command.
const (
	ExitHealthy  = 0 // no problem was found
	ExitProblems = 1
	ExitUsage    = 2 // the command line or the configuration is wrong
)

// Program is the command of a main.
type Program struct {
	Name    string   // "thaw doctor"
	Version string   // of the program
	Args    []string // after the command's name
	Options Options  // ConfigFile and Paths come from Args
	Stdout  io.Writer
	Stderr  io.Writer
}

const usage = `usage: %s [-json] [-config F] [-timeout D] [path ...]

Looks for what keeps thaw from working where it is run, in the order in which
a request meets it, and says how to mend it. It takes its settings from the
environment, as thaw does. Paths such as secret/data/app are looked at besides
the configured ones. Nothing is written to Vault but a login.
Exit status: 0 healthy, 1 problems, 2 wrong usage or configuration.

`

// Main runs the command and returns its exit status.
func Main(ctx context.Context, p Program) int {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	asJSON := flags.Bool("json", false, "print one JSON document")
	file := flags.String("config", p.Options.ConfigFile, "configuration `file` in Vault Proxy's HCL; wins over THAW_CONFIG")
	limit := flags.Duration("timeout", 30*time.Second, "longest `time` for all")
	flags.Usage = func() {
		fmt.Fprintf(p.Stderr, usage, p.Name)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(p.Args); {
	case errors.Is(err, flag.ErrHelp):
		return ExitHealthy
	case err != nil:
		return ExitUsage
	case *limit <= 0:
		fmt.Fprintf(p.Stderr, "%s: -timeout must be above 0\n", p.Name)
		return ExitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	o := p.Options
	o.ConfigFile, o.Paths = *file, flags.Args()
	r := Run(ctx, o)
	if *asJSON {
		r.writeJSON(p.Stdout, p.Version)
	} else {
		r.writeText(p.Stdout, p.Name+" "+p.Version)
	}
	switch {
	case !r.Usable:
		return ExitUsage
	case !r.Healthy:
		return ExitProblems
	}
	return ExitHealthy
}

// writeJSON writes the report as one document.
func (r Report) writeJSON(w io.Writer, version string) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(struct { // nobody is left to tell of a broken pipe
		Version string `json:"version"`
		Report
	}{version, r})
}

// writeText writes the report for a person: a line for each finding, with why
// and fix below those that want attention.
func (r Report) writeText(w io.Writer, title string) {
	var b strings.Builder
	b.WriteString(title + "\n\n")
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-8s %-14s %s\n", f.Level, f.Check, f.What)
		if f.Level == Advice || f.Level == Problem {
			fmt.Fprintf(&b, "%24swhy: %s\n%24sfix: %s\n", "", f.Why, "", f.Fix)
		}
	}
	b.WriteString("\n")
	switch {
	case r.Problems > 0:
		fmt.Fprintf(&b, "%s, %s. Begin with the first.\n", count(r.Problems, "problem"), count(r.Advice, "piece of advice"))
	case r.Advice > 0:
		fmt.Fprintf(&b, "Healthy, with %s.\n", count(r.Advice, "piece of advice"))
	default:
		b.WriteString("Healthy.\n")
	}
	_, _ = io.WriteString(w, b.String()) // likewise
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if rest, ok := strings.CutPrefix(what, "piece"); ok {
		return fmt.Sprintf("%d pieces%s", n, rest)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
