package main

import (
	"math"
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
