package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"golang.org/x/perf/benchmath"
)

// table is one kind of measurement.
type table struct {
	Title, Unit string
	Rows        []row
	Remarks     []string
}

// row is one thing measured. Ratio and Added compare each run with the first
// row's run beside it.
type row struct {
	Name   string
	Value  sample
	Ratio  *sample `json:"ratio_to_first_row"`
	Added  *sample `json:"added_to_first_row"`
	Target string
	Most   float64 // the target as a number; 0: there is none
	MostOf string  `json:"most_of"` // ratio or added; empty: of the value
	Note   string
}

// sample is several runs.
type sample struct {
	Median float64
	Runs   []float64
}

// confidence of the intervals, and the level below which a difference counts,
// are benchstat's defaults.
const confidence = 0.95

func (s sample) math() *benchmath.Sample {
	return benchmath.NewSample(slices.Clone(s.Runs), &benchmath.DefaultThresholds)
}

// String is the median with its confidence interval, or, where the runs are too
// few for one, with the least and the greatest.
func (s sample) String() string {
	if len(s.Runs) < 2 {
		return number(s.Median)
	}
	sum := benchmath.AssumeNothing.Summary(s.math(), confidence)
	if math.IsInf(sum.Lo, 0) || math.IsInf(sum.Hi, 0) {
		return fmt.Sprintf("%s (%s to %s)", number(sum.Center), number(slices.Min(s.Runs)), number(slices.Max(s.Runs)))
	}
	return number(sum.Center) + " ± " + sum.PctRangeString()
}

// number has three digits that count.
func number(v float64) string {
	digits := 2
	switch a := math.Abs(v); {
	case a >= 100:
		digits = 0
	case a >= 10:
		digits = 1
	case a != 0 && a < 0.1:
		digits = 4
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// alike reports whether a row's runs and the first row's may well be the same
// thing: benchstat's ~.
func (t *table) alike(r row) bool {
	if len(t.Rows) == 0 || len(r.Value.Runs) < 4 || len(t.Rows[0].Value.Runs) < 4 {
		return false
	}
	c := benchmath.AssumeNothing.Compare(r.Value.math(), t.Rows[0].Value.math())
	return c.P > c.Alpha
}

// missed reports whether a row is beyond its target.
func (r row) missed() bool {
	got := &r.Value
	switch r.MostOf {
	case "ratio":
		got = r.Ratio
	case "added":
		got = r.Added
	}
	return r.Most > 0 && got != nil && got.Median > r.Most
}

// compared is how a row differs from the first; empty: nothing is compared.
func (t *table) compared(r row) string {
	var out string
	switch {
	case r.Ratio != nil:
		out = "× " + r.Ratio.String()
	case r.Added != nil:
		out = "+ " + r.Added.String()
	default:
		return ""
	}
	if t.alike(r) {
		out += " ~"
	}
	return out
}

// print writes the table for people at a terminal.
func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %s\n", t.Title, t.Unit)
	name, value := 0, 0
	for _, r := range t.Rows {
		name, value = max(name, utf8.RuneCountInString(r.Name)), max(value, utf8.RuneCountInString(r.Value.String()))
	}
	for _, r := range t.Rows {
		line := fmt.Sprintf("  %-*s  %*s", name, r.Name, value, r.Value)
		if c := t.compared(r); c != "" {
			line += "  " + c
		}
		if r.Target != "" {
			word := "target"
			if r.missed() {
				word = "MISSED"
			}
			line += "  [" + word + ": " + r.Target + "]"
		}
		fmt.Fprintln(w, line)
		if r.Note != "" {
			fmt.Fprintf(w, "  %*s  %s\n", name, "", r.Note)
		}
	}
	for _, remark := range t.Remarks {
		fmt.Fprintf(w, "  %s\n", remark)
	}
}
