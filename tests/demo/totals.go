package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// totals measures what the reads cost without thaw and prints both.
func (s *stage) totals(ctx context.Context) error {
	counts := s.origin.counter.Counts()
	total := s.origin.counter.Total()
	direct, sums, err := s.measureDirect(ctx)
	if err != nil {
		return err
	}
	s.out.totals(summary{
		invocations: s.invocations, reads: s.reads, asked: total, kinds: kinds(counts), delay: s.settings.delay,
		deadReads: s.deadReads, deadServed: s.deadServed,
		perInvocation: len(stormNames()),
		directRead:    median(direct), directInvocation: median(sums),
		thawRead: median(s.stormReads), thawInvocation: median(s.stormSums),
	})
	return nil
}

// summary is what the totals say. Times are milliseconds.
type summary struct {
	invocations, reads, asked    int
	kinds                        []kind
	delay                        time.Duration
	deadReads, deadServed        int
	perInvocation                int
	directRead, directInvocation float64
	thawRead, thawInvocation     float64
}

// kind is a sort of request to the origin, and how many there were.
type kind struct {
	name string
	n    int
}

// kinds sorts the requests that the origin got into what they were for.
func kinds(counts map[string]int) []kind {
	out := []kind{{name: "cursor (sys/leader)"}, {name: "reads of secrets"}, {name: "logins"}, {name: "which mount a path is in"}, {name: "capabilities"}, {name: "state of the node"}, {name: "other"}}
	for what, n := range counts {
		_, path, _ := strings.Cut(what, " ")
		switch {
		case path == "/v1/sys/leader":
			out[0].n += n
		case strings.HasSuffix(path, "/login"):
			out[2].n += n
		case strings.HasPrefix(path, "/v1/sys/internal/ui/mounts/"): // these hold the secret's path
			out[3].n += n
		case strings.Contains(path, "/data/"):
			out[1].n += n
		case strings.HasSuffix(path, "/capabilities-self"):
			out[4].n += n
		case path == "/v1/sys/health":
			out[5].n += n
		default:
			out[6].n += n
		}
	}
	return slices.DeleteFunc(out, func(k kind) bool { return k.n == 0 })
}

// measureDirect reads the storm's secrets as a function without thaw would:
// from the origin, over a connection that is kept, by the same path (through
// the counting proxy, with its delay). The counts were taken before.
func (s *stage) measureDirect(ctx context.Context) (reads, sums []float64, err error) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	const warm = 3 // invocations that are not measured: the first opens the connection
	for i := range min(max(s.settings.storm, 20), 200) + warm {
		sum := 0.0
		for _, p := range s.paths(stormNames()) {
			began := time.Now()
			r, err := harness.Send(ctx, client, s.origin.counter.Addr(), harness.Call{Method: http.MethodGet, Path: p, Token: s.origin.token, Header: s.origin.header})
			if err == nil {
				err = r.Err()
			}
			if err != nil {
				return nil, nil, fmt.Errorf("measure a read without thaw: %w", err)
			}
			ms := float64(time.Since(began).Microseconds()) / 1000
			sum += ms
			if i >= warm {
				reads = append(reads, ms)
			}
		}
		if i >= warm {
			sums = append(sums, sum)
		}
	}
	return reads, sums, nil
}

// median of a list; 0 of an empty one.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
