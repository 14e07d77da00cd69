package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// latencies measures what a caller waits, and how many requests a server
// answers in a second, over 1 and 32 connections: of the servers of hits, and
// of the origin itself.
func (b *bench) latencies(ctx context.Context) error {
	return b.withServers(ctx, func(ctx context.Context, servers []*server) error {
		return errors.Join(b.latencyRounds(ctx, servers, 1), b.latencyRounds(ctx, servers, 32))
	})
}

func (b *bench) latencyRounds(ctx context.Context, servers []*server, conns int) error {
	const perRound = 1500
	times := make([][]time.Duration, len(servers))
	rates := make([][]float64, len(servers))
	p50 := make([][]float64, len(servers))
	p99 := make([][]float64, len(servers))
	for round := range b.rounds(12) {
		for turn := range servers {
			i := (turn + round) % len(servers)
			got, took, err := timed(ctx, servers[i], conns, perRound)
			if err != nil {
				return fmt.Errorf("%s: %w", servers[i].name, err)
			}
			times[i] = append(times[i], got...)
			sorted := slices.Sorted(slices.Values(got))
			rates[i] = append(rates[i], float64(len(got))/took.Seconds())
			p50[i] = append(p50[i], micros(percentile(sorted, 0.50)))
			p99[i] = append(p99[i], micros(percentile(sorted, 0.99)))
		}
	}
	title := plural(conns, "connection")
	p := &Plot{Title: "Latency of a hit, " + title, X: Axis{"µs", true}, Y: Axis{"share that took longer", true}}
	for _, k := range []struct {
		name, unit string
		of         [][]float64
	}{{"Requests", "1/s", rates}, {"Latency, median", "µs", p50}, {"Latency, 99th percentile", "µs", p99}} {
		t := b.report.table(k.name+", "+title, k.unit)
		for i, s := range servers {
			row := Row{Name: s.name, Value: sample(k.of[i]), Note: s.note}
			if i > 0 {
				r := sample(ratios(k.of[i], k.of[0]))
				row.Ratio = &r
			}
			t.Rows = append(t.Rows, row)
		}
	}
	for i, s := range servers {
		p.Series = append(p.Series, distribution(s.name, times[i]))
	}
	b.report.plot(p)
	return nil
}

func plural(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// timed makes n requests over conns connections and returns how long each took.
func timed(ctx context.Context, s *server, conns, n int) ([]time.Duration, time.Duration, error) {
	l, err := dial(ctx, s.address, hitPath, s.header, conns)
	if err != nil {
		return nil, 0, err
	}
	defer l.close()
	if err := l.run(ctx, 2*conns); err != nil {
		return nil, 0, err
	}
	times := make([][]time.Duration, conns)
	errs := make(chan error, conns)
	began := time.Now()
	for i, c := range l.conns {
		go func() {
			for range max(1, n/conns) {
				if ctx.Err() != nil {
					break
				}
				start := time.Now()
				if _, err := c.ask(l.request); err != nil {
					errs <- err
					return
				}
				times[i] = append(times[i], time.Since(start))
			}
			errs <- ctx.Err()
		}()
	}
	var all []error
	for range l.conns {
		all = append(all, <-errs)
	}
	return slices.Concat(times...), time.Since(began), errors.Join(all...)
}
