package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Exit statuses of the command.
const (
	ExitHealthy   = 0 // no problem was found
	ExitProblems  = 1 // there are, or a path of the command line was not read
	ExitUsage     = 2 // the command line or the configuration is wrong
	ExitUnchecked = 3 // no problem was found, and not everything could be looked at
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

const usage = `usage: %s [-json] [-allow-unchecked] [-no-login] [-config F] [-timeout D] [path ...]

Looks for what keeps thaw from working where it is run, in the order in which
a request meets it, and says how to mend it. It takes its settings from the
environment, as thaw does. Paths such as secret/data/app are looked at besides
the configured ones. Nothing is written to Vault but a login.
Exit status: 0 healthy; 1 problems, or a path that was named was not read;
2 wrong usage or configuration; 3 something could not be checked.

`

// Main runs the command and returns its exit status.
func Main(ctx context.Context, p Program) int {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	asJSON := flags.Bool("json", false, "print one JSON document")
	file := flags.String("config", p.Options.ConfigFile, "configuration `file` in Vault Proxy's HCL; wins over THAW_CONFIG")
	allow := flags.Bool("allow-unchecked", false, "status 0 although something could not be checked")
	noLogin := flags.Bool("no-login", false, "do not log in: for a secret id whose uses are counted, of which a login takes one")
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
	o.ConfigFile, o.Paths, o.NoLogin = *file, flags.Args(), *noLogin
	if !*asJSON {
		fmt.Fprintf(p.Stdout, "%s %s\n\n", p.Name, p.Version)
		o.Found = func(f Finding) { f.write(p.Stdout) }
	}
	r := Run(ctx, o)
	if *asJSON {
		r.writeJSON(p.Stdout, p.Version)
	} else {
		fmt.Fprintf(p.Stdout, "\n%s\n", r.verdict())
	}
	switch {
	case !r.Usable:
		return ExitUsage
	case r.Problems+len(r.Unread) > 0:
		return ExitProblems
	case r.Unchecked > 0 && !*allow:
		return ExitUnchecked
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

// write writes a line for a person, with why and fix below what wants attention.
func (f Finding) write(w io.Writer) {
	text := fmt.Sprintf("%-11s %-14s %s\n", f.Level, f.Check, f.What)
	if f.Why != "" {
		text += fmt.Sprintf("%27swhy: %s\n", "", f.Why)
	}
	if f.Fix != "" {
		text += fmt.Sprintf("%27sfix: %s\n", "", f.Fix)
	}
	_, _ = io.WriteString(w, text) // nobody is left to tell of a broken pipe
}

// verdict is the last line.
func (r Report) verdict() string {
	advice := count(r.Advice, "piece of advice")
	var names []string
	for _, f := range r.Findings {
		if f.Level == Unchecked && !slices.Contains(names, f.Check) {
			names = append(names, f.Check)
		}
	}
	unchecked := strings.Join(append(names, r.Unread...), ", ")
	switch {
	case r.Problems > 0 && unchecked != "":
		return count(r.Problems, "problem") + ", " + advice + ". Begin with the first. Because of them or besides, not checked: " + unchecked + "."
	case r.Problems > 0:
		return count(r.Problems, "problem") + ", " + advice + ". Begin with the first."
	case unchecked != "":
		return "Nothing wrong was found in what was looked at (" + advice + "), but not everything was. What was not checked: " + unchecked + "."
	case r.Advice > 0:
		return "Healthy, with " + advice + "."
	}
	return "Healthy."
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
