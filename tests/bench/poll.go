package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// polls measures what an invocation costs the extension: one that reads
// nothing, and one that reads a secret, with more and more secrets cached,
// while the origin is quiet and while another client writes to it before each
// invocation.
func (b *bench) polls(ctx context.Context) error {
	var cpu, requests, waits [2][]Point
	names := [2]string{"quiet origin", "busy origin"}
	for _, n := range b.upTo(1, 10_000) {
		for busy := range 2 {
			c, err := b.pollCost(ctx, n, busy == 1)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", plural(n, "secret"), names[busy], err)
			}
			x := float64(n)
			cpu[busy] = append(cpu[busy], Point{x, c.cpu})
			requests[busy] = append(requests[busy], Point{x, c.requests})
			waits[busy] = append(waits[busy], Point{x, c.wait})
		}
	}
	for _, k := range []struct {
		title, unit, of string
		points          [2][]Point
	}{
		{"CPU of an invocation by cached secrets", "µs", "CPU", cpu},
		{"Requests to the origin in an invocation", "requests", "the number of requests", requests},
		{"Wait of an invocation's first read", "µs", "the wait", waits},
	} {
		p := &Plot{Title: k.title, X: Axis{"secrets cached", true}, Y: Axis{k.unit, true}, Remarks: []string{
			"quiet origin: nobody writes to it; busy origin: another client writes before each invocation",
		}}
		for i, name := range names {
			p.Series = append(p.Series, Series{Name: name, Points: k.points[i], Marked: true})
			p.Remarks = append(p.Remarks, name+": "+growth(k.points[i], k.of, "the secrets cached"))
		}
		b.report.plot(p)
	}
	return b.idleInvocations(ctx)
}

// pollCosts is what an invocation that reads one secret costs.
type pollCosts struct {
	cpu      float64 // of the extension, µs
	requests float64 // to the origin
	wait     float64 // of the first read, µs
}

func (b *bench) pollCost(ctx context.Context, n int, busy bool) (pollCosts, error) {
	o, err := standIn()
	if err != nil {
		return pollCosts{}, err
	}
	defer o.close()
	for i := range n {
		if err := o.put(ctx, strconv.Itoa(i), secretOf(100)); err != nil {
			return pollCosts{}, err
		}
	}
	e, address, err := startExtension(ctx, b.bin.thaw, append(o.env(), "THAW_CACHE_BYTES=1GiB")...)
	if err != nil {
		return pollCosts{}, err
	}
	defer e.Close()
	err = e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error { return fill(ctx, address, n) })
	if err != nil {
		return pollCosts{}, err
	}
	var cpu, requests, waits []float64
	for round := range 1 + b.rounds(10) {
		if busy {
			if err := o.put(ctx, "other", strconv.Itoa(round)); err != nil {
				return pollCosts{}, err
			}
		}
		before, err := quiet(ctx, e.PID())
		if err != nil {
			return pollCosts{}, err
		}
		asked := o.requests()
		err = e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
			began := time.Now()
			if err := readOnce(ctx, address, 0); err != nil {
				return err
			}
			waits = append(waits, micros(time.Since(began)))
			return nil
		})
		if err != nil {
			return pollCosts{}, err
		}
		after, err := quiet(ctx, e.PID())
		if err != nil {
			return pollCosts{}, err
		}
		if round > 0 { // the first makes sure of what the fill has learned
			cpu, requests = append(cpu, micros(after-before)), append(requests, float64(o.requests()-asked))
		}
	}
	return pollCosts{sample(cpu).Median, sample(requests).Median, sample(waits).Median}, nil
}

// idleInvocations compares invocations that read nothing with those of an
// extension that does nothing.
func (b *bench) idleInvocations(ctx context.Context) error {
	o, err := standIn()
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.put(ctx, "0", secretOf(100)); err != nil {
		return err
	}
	t := b.report.table("CPU of an invocation that reads nothing", "µs")
	var first []float64
	for _, c := range []struct {
		name, binary, note string
		secrets            int
		env                []string
	}{
		{"do-nothing extension", b.bin.nothing, "", 0, nil},
		{"thaw, nothing cached", b.bin.thaw, "no request to the origin", 0, o.env()},
		{"thaw, one secret cached", b.bin.thaw, "one GET sys/leader", 1, o.env()},
		{"thaw, one secret cached, THAW_POLL=read", b.bin.thaw, "no request until something is read", 1, append(o.env(), "THAW_POLL=read")},
	} {
		runs, err := b.idleCost(ctx, c.binary, c.secrets, c.env)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		row := Row{Name: c.name, Value: sample(runs), Note: c.note}
		if first == nil {
			first = runs
		} else {
			r := sample(ratios(runs, first))
			row.Ratio = &r
		}
		t.Rows = append(t.Rows, row)
	}
	return nil
}

func (b *bench) idleCost(ctx context.Context, binary string, secrets int, env []string) ([]float64, error) {
	e, address, err := startExtension(ctx, binary, env...)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	nothing := func(context.Context, lambdaapi.Invocation) error { return nil }
	err = e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error { return fill(ctx, address, secrets) })
	if err == nil {
		err = e.Invoke(ctx, nothing)
	}
	if err != nil {
		return nil, err
	}
	var runs []float64
	for range b.rounds(20) {
		before, err := quiet(ctx, e.PID())
		if err != nil {
			return nil, err
		}
		if err := e.Invoke(ctx, nothing); err != nil {
			return nil, err
		}
		after, err := quiet(ctx, e.PID())
		if err != nil {
			return nil, err
		}
		runs = append(runs, micros(after-before))
	}
	return runs, nil
}
