package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestSampleIsTheMedianOfItsRuns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		runs []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 2, 8}, 3},
	} {
		runs := slices.Clone(c.runs)
		if got := sample(c.runs); got.Median != c.want || !slices.Equal(got.Runs, runs) {
			t.Errorf("sample(%v) = %v, want %v and the runs in their order", runs, got, c.want)
		}
	}
	if got := ratios([]float64{2, 9}, []float64{1, 3}); got[0] != 2 || got[1] != 3 {
		t.Errorf("ratios pair up wrong: %v", got)
	}
}

func TestTheCPUClockCountsThisProcess(t *testing.T) {
	t.Parallel()
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	// However little of the machine this process gets, what it got counts.
	for after, end := before, time.Now().Add(30*time.Second); after-before < time.Millisecond; {
		if after, err = cpuTime(os.Getpid()); err != nil || time.Now().After(end) {
			t.Fatalf("30s of work counted as %v (%v)", after-before, err)
		}
	}
}

func TestTheLoadMakesJustSoManyRequests(t *testing.T) {
	t.Parallel()
	var served, broken atomic.Int64
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) > 10 && broken.Load() != 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		w.Write([]byte("body"))
	})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	l, err := dial(t.Context(), ln.Addr().String(), "/", "", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.run(t.Context(), 10); err != nil || served.Load() != 10 {
		t.Errorf("%d requests served, want 10: %v", served.Load(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.run(ctx, 10); err == nil || served.Load() != 10 {
		t.Errorf("ran although its context had ended: %v", err)
	}
	broken.Store(1)
	if err := l.run(t.Context(), 3); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("an answer 503 is no error: %v", err)
	}
}

func TestTheReportIsReadBackAsItWasSaved(t *testing.T) {
	t.Parallel()
	r := Report{
		Notes:  []string{"a [note]", "two\nlines", "one]", "[more"},
		Tables: []*Table{{Title: "t [s]", Rows: []Row{{Name: "n", Value: Sample{Median: 2, Runs: []float64{1, 2, 3}}}}}},
	}
	file := filepath.Join(t.TempDir(), "bench.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"runs": [1,2,3]`) {
		t.Errorf("a list is not on one line:\n%s", text)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, r) {
		t.Errorf("read back:\n%+v\nwant\n%+v", back, r)
	}
}
