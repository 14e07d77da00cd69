// Package soak runs the real extension for long, under load, with rotations and
// freezes, and looks at what it takes from its host: memory, goroutines and open
// files must stay as they are.
//
//	go test ./tests/soak                                             20 s, 200 requests a second
//	go test ./tests/soak -timeout 1h -thaw.soak 20m -thaw.rate 2000  in full
//
// Every answer is checked as well: no secret is older than its invocation.
package soak

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

var (
	soakFor  = flag.Duration("thaw.soak", 20*time.Second, "how long the soak runs")
	soakRate = flag.Int("thaw.rate", 200, "requests a second while an invocation runs")
)

// suite is what the tests share. It is set before they run.
var suite struct{ binary string }

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, func(dir string) error {
		suite.binary = filepath.Join(dir, "thaw") // Lambda knows an extension by its file's name
		return harness.Build(context.Background(), suite.binary, "./extension")
	}))
}

func TestG7MemoryGoroutinesAndFilesStayFlat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), *soakFor)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.rotate(ctx) }()
	var samples []sample
	began := time.Now()
	every := *soakFor / 100
	for next := began; ctx.Err() == nil; {
		w.invoke(*soakRate)
		if t.Failed() {
			break
		}
		if now := time.Now(); !now.Before(next) {
			samples, next = append(samples, w.settled(now.Sub(began), samples)), now.Add(every)
		}
		w.freeze()
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("rotate: %v", err)
	}
	t.Logf("%d invocations, %d requests (%.0f a second), %d hits, %d rotations, %d writes through the proxy, %d strangers, %v frozen",
		w.invocations, w.requests.Load(), float64(w.requests.Load())/w.ran.Seconds(), w.hits.Load(), w.rotations.Load(), w.writes.Load(), w.strangers.Load(), w.frozen.Round(time.Second))
	for i, s := range samples {
		if i%max(1, len(samples)/10) == 0 || i == len(samples)-1 {
			t.Log(s)
		}
	}
	for _, problem := range growth(samples) {
		t.Error(problem)
	}
	if w.requests.Load() < int64(*soakRate)*int64(w.ran/time.Second)/2 {
		t.Logf("NOTE: this machine was too busy for %d requests a second", *soakRate)
	}
}

// sample is what the process takes at one moment between two invocations.
type sample struct {
	at         time.Duration // since the beginning
	resident   float64       // bytes
	goroutines float64
	files      float64 // open ones; negative where only root may know
	identities float64 // callers' tokens remembered
	cache      float64 // bytes, as thaw counts them
}

// String implements fmt.Stringer.
func (s sample) String() string {
	return fmt.Sprintf("%8v  %6.1f MiB resident  %3.0f goroutines  %3.0f files  %5.0f identities  %7.1f KiB of entries",
		s.at.Round(time.Second), s.resident/(1<<20), s.goroutines, s.files, s.identities, s.cache/1024)
}

// growth compares the second fifth of the run, when everything has been used
// once, with the last. Of what comes and goes with the load, connections and
// their goroutines, the last fifth's mean is compared with the most that there
// was in the first two.
func growth(samples []sample) []string {
	n := len(samples)
	if n < 10 {
		return []string{fmt.Sprintf("%d samples tell nothing", n)}
	}
	early, late := samples[n/5:2*n/5], samples[n-n/5:]
	var problems []string
	for _, q := range []struct {
		name        string
		of          func(sample) float64
		part, fixed float64 // how much more there may be: of what it was, and besides
		loaded      bool    // it follows the load
	}{
		{"memory in bytes", func(s sample) float64 { return s.resident }, 0.15, 4 << 20, false},
		{"goroutines", func(s sample) float64 { return s.goroutines }, 0.1, 8, true},
		{"open files", func(s sample) float64 { return s.files }, 0.1, 8, true},
	} {
		before, after := mean(early, q.of), mean(late, q.of)
		if q.loaded {
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

func mean(samples []sample, of func(sample) float64) float64 {
	sum := 0.0
	for _, s := range samples {
		sum += of(s)
	}
	return sum / float64(len(samples))
}

func TestGrowthIsNoticed(t *testing.T) {
	t.Parallel()
	grow := func(change func(i int, s *sample)) []sample {
		out := make([]sample, 100)
		for i := range out {
			out[i] = sample{resident: 30 << 20, goroutines: 20, files: 12}
			change(i, &out[i])
		}
		return out
	}
	for name, c := range map[string]struct {
		samples []sample
		want    int
	}{
		"flat":                {grow(func(int, *sample) {}), 0},
		"up at the start":     {grow(func(i int, s *sample) { s.resident += float64(min(i, 15)) * (1 << 20) }), 0},
		"a sawtooth":          {grow(func(i int, s *sample) { s.resident += float64(i%7) * (1 << 20) }), 0},
		"200 KiB each sample": {grow(func(i int, s *sample) { s.resident += float64(i) * 200 * 1024 }), 1},
		"a goroutine each":    {grow(func(i int, s *sample) { s.goroutines += float64(i) }), 1},
		"a file each":         {grow(func(i int, s *sample) { s.files += float64(i) }), 1},
		"too short":           {grow(func(int, *sample) {})[:5], 1},
	} {
		if got := growth(c.samples); len(got) != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
