package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGrowthIsFitted(t *testing.T) {
	t.Parallel()
	of := func(f func(x float64) float64) (out []Point) {
		for x := 10.0; x <= 1e5; x *= 10 {
			out = append(out, Point{x, f(x)})
		}
		return out
	}
	for _, c := range []struct {
		points []Point
		want   string
	}{
		{of(func(float64) float64 { return 7 }), "it hardly depends on n: 7 * x^0.00 fits best"},
		{of(func(x float64) float64 { return 3 * x }), "it grows with n: 3 * x^1.00 fits best"},
		{of(math.Sqrt), "it grows slower than n: 1 * x^0.50 fits best"},
		{of(func(x float64) float64 { return x * x }), "it grows faster than n: 1 * x^2.00 fits best"},
		{of(func(x float64) float64 { return 1 / x }), "it falls with n: 1 * x^-1.00 fits best"},
		{[]Point{{0, 0}, {1, 1}}, "it: too few points to say how it grows with n"},
	} {
		if got := growth(c.points, "it", "n"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestADistributionEndsAtTheSlowest(t *testing.T) {
	t.Parallel()
	var times []time.Duration
	for i := range 1000 {
		times = append(times, time.Duration(i+1)*time.Microsecond)
	}
	s := distribution("x", times)
	first, last := s.Points[0], s.Points[len(s.Points)-1]
	if first.X != 1 || first.Y != 1 || last.X < 995 || last.Y > 0.0011 {
		t.Errorf("from %v to %v", first, last)
	}
	if p := percentile(times, 0.99); p != 991*time.Microsecond {
		t.Errorf("99th percentile: %v", p)
	}
}

// TestThePageIsWellFormed draws what is awkward: no spread, no points, names
// with angle brackets.
func TestThePageIsWellFormed(t *testing.T) {
	t.Parallel()
	r := &Report{Machine: describe(), Notes: []string{"a <note>"}}
	row := r.table("T & <b>", "ms")
	row.Rows = []Row{{Name: "<script>alert(1)</script>", Value: sample([]float64{0})}, {Name: "b", Value: sample([]float64{1, 2})}}
	for _, log := range []bool{false, true} {
		r.plot(&Plot{Title: `"<x>"`, X: Axis{"n", log}, Y: Axis{"y", log}, Series: []Series{
			{Name: "<one>", Points: []Point{{1, 5}, {10, 5}}, Marked: true}, {Name: "limit", Points: []Point{{1, 5}}, Limit: true},
		}})
		r.plot(&Plot{Title: "empty", X: Axis{"n", log}, Y: Axis{"y", log}, Series: []Series{{Name: "none"}}})
	}
	file := filepath.Join(t.TempDir(), "x.html")
	if err := r.savePage(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	if strings.Contains(page, "<script") || strings.Contains(page, "NaN") || strings.Contains(page, "Inf") || strings.Contains(page, "ZgotmplZ") || strings.Contains(page, "http") {
		t.Errorf("%s", page)
	}
	pictures := 0
	for rest := page; ; {
		_, after, ok := strings.Cut(rest, "<svg ")
		if !ok {
			break
		}
		picture, tail, _ := strings.Cut(after, "</svg>")
		rest = tail
		pictures++
		d := xml.NewDecoder(strings.NewReader("<svg " + picture + "</svg>"))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in\n%s", err, picture)
			}
		}
	}
	if pictures != 2 {
		t.Errorf("%d pictures, want 2", pictures)
	}
}

func TestMeasuredPointsArePrinted(t *testing.T) {
	t.Parallel()
	p := &Plot{Title: "Cost", X: Axis{"secrets", true}, Y: Axis{"µs", true}, Remarks: []string{"a remark"}, Series: []Series{
		{Name: "quiet", Marked: true, Points: []Point{{1, 1.25}, {10000, 12345.6}}}, {Name: "a busy one", Marked: true, Points: []Point{{1, 0}}},
	}}
	var out strings.Builder
	p.print(&out)
	want := "\nCost, µs by secrets\n  quiet        1: 1.250  10000: 12346\n  a busy one   1: 0.000\n  a remark\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if p.Series[0].Marked = false; p.measured() {
		t.Error("a line of many points is printed")
	}
}
