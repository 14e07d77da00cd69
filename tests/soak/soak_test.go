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
	var samples []harness.Sample
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
	for _, problem := range harness.Growth(samples, false) {
		t.Error(problem)
	}
	if w.requests.Load() < int64(*soakRate)*int64(w.ran/time.Second)/2 {
		t.Logf("NOTE: this machine was too busy for %d requests a second", *soakRate)
	}
}
