package doctor

import (
	"cmp"
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

const usage = `%s [-config FILE] [-json] [-allow-unchecked] [-login | -no-login] [-timeout TIME] [PATH ...]

Run it with the environment of the function. It checks each step of a request:
settings, names, connections, TLS, clocks, Vault's nodes, the login, policies,
the secrets that the settings and the command line name, what polls cost, and
the shared cache. For each problem it says what is wrong, why that matters and
what to do. It writes nothing to Vault but a login.

  -config FILE   configuration file of Vault Proxy; wins over THAW_CONFIG
  -json          one document; docs/operations.md says what is in it
  -login         log in by a secret id, too: a login takes one of its uses, if they
                 are counted, so by default there is none
  -no-login      do not log in at all
  -timeout TIME  longest time for everything, 30s by default
  PATH           secrets that the function reads, such as secret/data/app

The exit status is 0 if all is well, 1 if there are problems or a PATH was not
read, 2 for a wrong command line or configuration, and 3 if there are no problems
but something was not checked (0 with -allow-unchecked).
`

// Main runs the command and returns its exit status.
func Main(ctx context.Context, p Program) int {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	o := p.Options
	flags.StringVar(&o.ConfigFile, "config", o.ConfigFile, "")
	flags.BoolVar(&o.UseUp, "login", false, "")
	flags.BoolVar(&o.NoLogin, "no-login", false, "")
	asJSON := flags.Bool("json", false, "")
	allow := flags.Bool("allow-unchecked", false, "")
	limit := flags.Duration("timeout", 30*time.Second, "")
	flags.Usage = func() { fmt.Fprintf(p.Stderr, usage, p.Name) }
	err := flags.Parse(p.Args)
	o.Paths = flags.Args()
	switch {
	case errors.Is(err, flag.ErrHelp):
		return ExitHealthy
	case err != nil:
		return ExitUsage
	case o.UseUp && o.NoLogin:
		fmt.Fprintf(p.Stderr, "%s: say either -login or -no-login\n", p.Name)
		return ExitUsage
	case *limit <= 0:
		fmt.Fprintf(p.Stderr, "%s: -timeout must be above 0\n", p.Name)
		return ExitUsage
	case slices.ContainsFunc(o.Paths, func(path string) bool { return barePath(path) == "" }):
		fmt.Fprintf(p.Stderr, "%s: a PATH is empty; name secrets, such as secret/data/app\n", p.Name)
		return ExitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if !*asJSON {
		fmt.Fprintf(p.Stdout, "%s %s\n\n", p.Name, p.Version)
		told := "" // the last fix: for all that one fault left unchecked it stands once
		o.Found = func(f Finding) {
			if f.Level == Unchecked && f.Fix == told {
				f.Fix = ""
			}
			told = cmp.Or(f.Fix, told)
			f.write(p.Stdout)
		}
	}
	r := Run(ctx, o)
	r.Version = p.Version
	if *asJSON {
		e := json.NewEncoder(p.Stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		_ = e.Encode(r) // nobody is left to tell of a broken pipe
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
	advice := count(r.Advice, "piece of advice", "pieces of advice")
	problems := count(r.Problems, "problem", "problems") + ", " + advice + ". Begin with the first."
	var names []string
	for _, f := range r.Findings {
		if f.Level == Unchecked && !slices.Contains(names, f.Check) {
			names = append(names, f.Check)
		}
	}
	unchecked := strings.Join(append(names, r.Unread...), ", ")
	switch {
	case r.Problems > 0 && unchecked != "":
		return problems + " Because of them or besides, not checked: " + unchecked + "."
	case r.Problems > 0:
		return problems
	case unchecked != "":
		return "Nothing wrong was found in what was looked at (" + advice + "), but not everything was. What was not checked: " + unchecked + "."
	case r.Advice > 0:
		return "Healthy, with " + advice + "."
	}
	return "Healthy."
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
