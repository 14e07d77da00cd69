package main

import (
	"slices"
	"time"
)

// Sample is several runs, in their order, and their median. What more there is
// to say of them tests/bench/report does.
type Sample struct {
	Median float64   `json:"median"`
	Runs   []float64 `json:"runs"`
}

// sample sums up runs, of which there must be one at least.
func sample(runs []float64) Sample {
	s := slices.Sorted(slices.Values(runs))
	n := len(s)
	return Sample{Median: (s[(n-1)/2] + s[n/2]) / 2, Runs: runs}
}

// ratios divides run by run: both of a pair met the same moment of the machine.
func ratios(a, b []float64) []float64 {
	out := make([]float64, 0, len(a))
	for i := range min(len(a), len(b)) {
		out = append(out, a[i]/b[i])
	}
	return out
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
