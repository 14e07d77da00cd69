// Command report tells what tests/bench measured: it reads bench.json, prints
// tables, and writes bench.html with pictures beside it. `make bench` runs it;
// again it runs with
//
//	go run -C tests/bench/report . ../../../dist/bench.json
//
// The statistics are benchstat's (golang.org/x/perf/benchmath), without
// assumptions about distributions: the median, and ± its confidence interval.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// results are what bench.json has; see tests/bench.
type results struct {
	Date    time.Time
	Machine machine
	Others  []float64
	Notes   []string
	Tables  []*table
	Plots   []*picture
}

type machine struct {
	CPU    string
	Cores  int
	Memory float64 `json:"memory_gb"`
	Kernel string
	Go     string
	Arch   string
	Load   string `json:"load_average_at_start"`
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.1f GB, Linux %s, %s %s, load %s", m.CPU, m.Cores, m.Memory, m.Kernel, m.Go, m.Arch, m.Load)
}

// run writes the report of one file, or draws one picture. Exit status 2: how to use it.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 2 && strings.HasSuffix(args[1], ".svg") {
		if err := drawFile(args[0], args[1]); err != nil {
			fmt.Fprintln(stderr, "report:", err)
			return 1
		}
		return 0
	}
	if len(args) != 1 || !strings.HasSuffix(args[0], ".json") {
		fmt.Fprintln(stderr, "usage: report BENCH.json | report PICTURE.json PICTURE.svg")
		return 2
	}
	html := strings.TrimSuffix(args[0], ".json") + ".html"
	if err := write(args[0], html, stdout); err != nil {
		fmt.Fprintln(stderr, "report:", err)
		return 1
	}
	fmt.Fprintf(stdout, "\n%s and %s\n", args[0], html)
	return 0
}

// drawFile draws the picture that a file has, to stand by itself.
func drawFile(from, to string) error {
	text, err := drawn(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, []byte(text), 0o644)
}

func drawn(from string) (string, error) {
	raw, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	var p picture
	if err := json.Unmarshal(raw, &p); err != nil {
		return "", fmt.Errorf("read %s: %w", from, err)
	}
	return p.alone()
}

func write(from, to string, stdout io.Writer) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	fmt.Fprintf(stdout, "\n%s\n%s\n", r.Machine, r.quiet())
	for _, t := range r.Tables {
		t.print(stdout)
	}
	for _, p := range r.Plots {
		if p.marked() {
			p.print(stdout)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintln(stdout, "  "+n)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(r.page(f), f.Close())
}

// busyFrom is the share of the machine from which other processes make it busy.
const busyFrom = 0.1

// quiet says whether other processes disturbed the measurements.
func (r *results) quiet() string {
	if len(r.Others) == 0 {
		return "It is not known what else the machine did."
	}
	worst := 0.0
	var shares []string
	for _, s := range r.Others {
		worst = max(worst, s)
		shares = append(shares, fmt.Sprintf("%.0f %%", 100*s))
	}
	what := "Quiet machine: other processes used %s of it before and after."
	if worst > busyFrom {
		what = "Busy machine: other processes used %s of it before and after. Times on the clock are longer than they would be, above all the greatest; ratios, CPU and counts hold better."
	}
	return fmt.Sprintf(what, strings.Join(shares, " and "))
}
