package main

import (
	"fmt"
	"math"
	"slices"
	"time"
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
