package docs

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the README's figures anew")

const (
	figuresBegin = "<!-- figures:begin -->\n"
	figuresEnd   = "<!-- figures:end -->\n"
)

// report is what is used of docs/bench.json, which tests/bench wrote.
type report struct {
	Tables []struct {
		Title string
		Rows  []struct {
			Name  string
			Value struct{ Median float64 }
		}
	}
	Plots []struct {
		Title  string
		Series []struct {
			Name   string
			Points []struct{ X, Y float64 }
		}
	}
}

// row is the median of a table's row.
func (r *report) row(t *testing.T, title, name string) float64 {
	t.Helper()
	for _, table := range r.Tables {
		for _, row := range table.Rows {
			if strings.HasPrefix(table.Title, title) && row.Name == name {
				return row.Value.Median
			}
		}
	}
	t.Fatalf("docs/bench.json has no row %q of %q", name, title)
	return 0
}

// point is a plot's value at x.
func (r *report) point(t *testing.T, title, series string, x float64) float64 {
	t.Helper()
	for _, p := range r.Plots {
		for _, s := range p.Series {
			for _, point := range s.Points {
				if p.Title == title && s.Name == series && point.X == x {
					return point.Y
				}
			}
		}
	}
	t.Fatalf("docs/bench.json has no %q of %q at %v", series, title, x)
	return 0
}

// TestFiguresComeFromTheBenchmark holds the README's figures to docs/bench.json.
// With -update it writes them anew.
func TestFiguresComeFromTheBenchmark(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	const invocation, storm = "Requests to the origin in an invocation", "Requests to the origin by "
	var starts, secrets int
	for _, table := range r.Tables {
		if strings.HasPrefix(table.Title, storm) {
			if _, err := fmt.Sscanf(table.Title, storm+"%d cold starts with %d secrets each", &starts, &secrets); err != nil {
				t.Fatal(err)
			}
		}
	}
	var b strings.Builder
	b.WriteString("| measured by `make bench` | |\n|---|---|\n")
	fmt.Fprintf(&b, "| requests to Vault in an invocation with 1,000 cached secrets, if nothing was written in Vault | %s |\n",
		whole(r.point(t, invocation, "quiet origin", 1000)))
	fmt.Fprintf(&b, "| the same, if something was written | %s |\n", whole(r.point(t, invocation, "busy origin", 1000)))
	fmt.Fprintf(&b, "| requests to Vault by %s cold starts that read %d secrets each: alone, with the shared cache, with that and `THAW_MAX_AGE=60s` | %s, %s, %s |\n",
		whole(float64(starts)), secrets, whole(r.row(t, storm, "each for itself")), whole(r.row(t, storm, "shared tier")), whole(r.row(t, storm, "shared tier, a minute old")))
	fmt.Fprintf(&b, "| the layer, zipped | %.1f MB |\n", r.row(t, "Size", "thaw, zipped"))

	readme := read(t, "README.md").text
	before, rest, ok := strings.Cut(readme, figuresBegin)
	got, after, ok2 := strings.Cut(rest, figuresEnd)
	switch {
	case !ok || !ok2:
		t.Fatal("the README lacks the marks of its figures")
	case got == b.String():
	case !*update:
		t.Fatalf("the README's figures are not those of docs/bench.json; write them anew with: go test ./tests/docs -run TestFigures -update\n%s", b.String())
	default:
		if err := os.WriteFile(filepath.Join(root(t), "README.md"), []byte(before+figuresBegin+b.String()+figuresEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// whole writes a number of things, with commas.
func whole(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
