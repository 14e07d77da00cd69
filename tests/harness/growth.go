package harness

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Sample is what a process takes from its host at one moment.
type Sample struct {
	At         time.Duration // since the beginning
	Resident   float64       // bytes
	Goroutines float64
	Files      float64 // open ones; negative where only root may know
	Identities float64 // callers' tokens remembered
	Cache      float64 // bytes, as thaw counts them
}

// TakeSample looks at a process of thaw: at its metrics, as text, and at /proc, which only
// Linux has.
func TakeSample(at time.Duration, pid int, metrics string) (Sample, error) {
	s := Sample{At: at, Files: -1}
	for line := range strings.Lines(metrics) {
		for name, to := range map[string]*float64{"thaw_goroutines ": &s.Goroutines, "thaw_identities ": &s.Identities, "thaw_cache_bytes ": &s.Cache} {
			if value, ok := strings.CutPrefix(line, name); ok {
				if _, err := fmt.Sscan(value, to); err != nil {
					return s, fmt.Errorf("read %s: %w", line, err)
				}
			}
		}
	}
	if s.Goroutines == 0 {
		return s, fmt.Errorf("no thaw_goroutines in\n%s", metrics)
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return s, err
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		return s, fmt.Errorf("read statm: %w", err)
	}
	s.Resident = float64(pages * int64(os.Getpagesize()))
	// Only root may look into a process that is not dumpable.
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if errors.Is(err, os.ErrPermission) {
		return s, nil
	}
	s.Files = float64(len(entries))
	return s, err
}

// String implements fmt.Stringer.
func (s Sample) String() string {
	return fmt.Sprintf("%8v  %6.1f MiB resident  %3.0f goroutines  %3.0f files  %5.0f identities  %7.1f KiB of entries",
		s.At.Round(time.Second), s.Resident/(1<<20), s.Goroutines, s.Files, s.Identities, s.Cache/1024)
}

// Growth compares the second fifth of a run, when everything has been used once, with
// the last, and says what grew by more than it may: memory by 15 % and 4 MiB, the others
// by a tenth and 8. Under a steady load medians are compared. Else what comes and goes
// with the load, connections and their goroutines, has the last fifth's mean compared
// with the most that there was in the first two.
func Growth(samples []Sample, steady bool) []string {
	n := len(samples)
	if n < 10 {
		return []string{fmt.Sprintf("%d samples tell nothing", n)}
	}
	early, late := samples[n/5:2*n/5], samples[n-n/5:]
	var problems []string
	for _, q := range []struct {
		name        string
		of          func(Sample) float64
		part, fixed float64 // how much more there may be: of what it was, and besides
		loaded      bool    // it follows the load
	}{
		{"memory in bytes", func(s Sample) float64 { return s.Resident }, 0.15, 4 << 20, false},
		{"goroutines", func(s Sample) float64 { return s.Goroutines }, 0.1, 8, true},
		{"open files", func(s Sample) float64 { return s.Files }, 0.1, 8, true},
	} {
		before, after := mean(early, q.of), mean(late, q.of)
		switch {
		case steady:
			before, after = median(early, q.of), median(late, q.of)
		case q.loaded:
			for _, s := range samples[:2*n/5] {
				before = max(before, q.of(s))
			}
		}
		if after > before*(1+q.part)+q.fixed {
			problems = append(problems, fmt.Sprintf("%s grew from %.0f to %.0f", q.name, before, after))
		}
	}
	return problems
}

func median(samples []Sample, of func(Sample) float64) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func mean(samples []Sample, of func(Sample) float64) float64 {
	sum := 0.0
	for _, s := range samples {
		sum += of(s)
	}
	return sum / float64(len(samples))
}
