package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// Plot is one picture: lines over a common axis.
type Plot struct {
	Title   string   `json:"title"`
	X       Axis     `json:"x"`
	Y       Axis     `json:"y"`
	Series  []Series `json:"series"`
	Remarks []string `json:"remarks,omitempty"`
}

// Axis says what runs along an edge of the picture.
type Axis struct {
	Label string `json:"label"`
	Log   bool   `json:"log,omitempty"`
}

// Series is one line. Points are in the order they are drawn in.
type Series struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
	Marked bool    `json:"marked,omitempty"` // each point was measured and is shown; else the line alone is
	Limit  bool    `json:"limit,omitempty"`  // a line to compare with, not a measurement
}

// Point is in the axes' units.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// print writes what was measured for people at a terminal: the marked points,
// which are few, and what is said about the lines.
func (p *Plot) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %s by %s\n", p.Title, p.Y.Label, p.X.Label)
	name := 0
	for _, s := range p.Series {
		name = max(name, utf8.RuneCountInString(s.Name))
	}
	for _, s := range p.Series {
		line := fmt.Sprintf("  %-*s ", name, s.Name)
		for _, at := range s.Points {
			digits := max(0, 3-int(math.Log10(max(1, at.Y))))
			line += fmt.Sprintf("  %g: %.*f", at.X, digits, at.Y)
		}
		fmt.Fprintln(w, line)
	}
	for _, remark := range p.Remarks {
		fmt.Fprintf(w, "  %s\n", remark)
	}
}

// measured reports whether all that the plot shows are single points.
func (p *Plot) measured() bool {
	return !slices.ContainsFunc(p.Series, func(s Series) bool { return !s.Marked })
}

func (r *Report) plot(p *Plot) { r.Plots = append(r.Plots, p) }

// distribution is the share of requests that took at least so long, in
// microseconds: its logarithmic axis shows the tail, which a histogram hides.
func distribution(name string, times []time.Duration) Series {
	s := Series{Name: name}
	sorted := slices.Sorted(slices.Values(times))
	n := len(sorted)
	for share := 1.0; share*float64(n) >= 1; share *= 0.93 {
		i := min(n-1, n-int(math.Round(share*float64(n))))
		s.Points = append(s.Points, Point{micros(sorted[i]), share})
	}
	return s
}

// percentile is the time within which that share of sorted times lies.
func percentile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// growth fits y = a * x^b through the points by least squares of logarithms
// and says so in words. Points that are not above zero have no logarithm and
// are left out.
func growth(points []Point, of, by string) string {
	var n, sx, sy, sxx, sxy float64
	for _, p := range points {
		if p.X > 0 && p.Y > 0 {
			x, y := math.Log(p.X), math.Log(p.Y)
			n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
		}
	}
	if n < 2 || n*sxx == sx*sx {
		return fmt.Sprintf("%s: too few points to say how it grows with %s", of, by)
	}
	b := (n*sxy - sx*sy) / (n*sxx - sx*sx)
	word := "grows with"
	switch {
	case math.Abs(b) < 0.1:
		word = "hardly depends on"
	case b < 0:
		word = "falls with"
	case b < 0.85:
		word = "grows slower than"
	case b > 1.15:
		word = "grows faster than"
	}
	return fmt.Sprintf("%s %s %s: %.3g * x^%.2f fits best", of, word, by, math.Exp((sy-b*sx)/n), b)
}
