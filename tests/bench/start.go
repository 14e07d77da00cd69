package main

import (
	"context"
	"fmt"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// start measures CPU time from exec: of the extension that does nothing until
// it waits for events, and of thaw until then and until the function has its
// first secret, login included.
func (b *bench) start(ctx context.Context) error {
	o, err := standIn()
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.put(ctx, "hit", secretOf(100)); err != nil {
		return err
	}
	var nothing, ready, first []float64
	for range b.rounds(40) {
		n, err := b.startNothing(ctx)
		if err != nil {
			return err
		}
		r, f, err := b.startThaw(ctx, o)
		if err != nil {
			return err
		}
		nothing, ready, first = append(nothing, millis(n)), append(ready, millis(r)), append(first, millis(f))
	}
	readyRatio, firstRatio := sample(ratios(ready, nothing)), sample(ratios(first, nothing))
	t := b.report.table("CPU from exec", "ms")
	t.Rows = []Row{
		{Name: "do-nothing extension, ready", Value: sample(nothing), Note: "tests/bench/nothing: listens, registers, asks for events"},
		{Name: "thaw, ready", Value: sample(ready), Ratio: &readyRatio},
		{Name: "thaw, first secret", Value: sample(first), Ratio: &firstRatio, Note: "with the AppRole login and what follows the read; origin: " + o.label, Target: "at most 1.8 of the do-nothing extension"},
	}
	return nil
}

func (b *bench) startNothing(ctx context.Context) (time.Duration, error) {
	e, _, err := startExtension(ctx, b.bin.nothing)
	if err != nil {
		return 0, err
	}
	defer e.Close()
	return quiet(ctx, e.PID())
}

func (b *bench) startThaw(ctx context.Context, o *origin) (ready, first time.Duration, err error) {
	e, address, err := startExtension(ctx, b.bin.thaw, o.env()...)
	if err != nil {
		return 0, 0, err
	}
	defer e.Close()
	if ready, err = quiet(ctx, e.PID()); err != nil {
		return 0, 0, err
	}
	err = e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
		if _, err := bodyOf(ctx, address); err != nil {
			return err
		}
		first, err = quiet(ctx, e.PID())
		return err
	})
	return ready, first, err
}

// quiet waits until a process has used no CPU for a while and returns what it
// used in all.
func quiet(ctx context.Context, pid int) (time.Duration, error) {
	last, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	since := time.Now()
	err = until(ctx, 2*time.Second, func() (bool, error) {
		now, err := cpuTime(pid)
		if err != nil {
			return false, err
		}
		if now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 30*time.Millisecond, nil
	})
	if err != nil {
		return 0, fmt.Errorf("wait until process %d is quiet: %w", pid, err)
	}
	return last, nil
}

// ready measures the time on the clock from exec to the first Next, with
// origins in several conditions.
func (b *bench) ready(ctx context.Context) error {
	t := b.report.table("Time from exec to the first Next", "ms")
	t.Remarks = append(t.Remarks, "target for thaw: at most 10 ms whatever the origin does; wall time, so other work on this machine shows in the maximum")
	healthy, err := standIn()
	if err != nil {
		return err
	}
	defer healthy.close()
	refuses := dead()
	silent, err := stalled()
	if err != nil {
		return err
	}
	defer silent.close()
	cases := []struct {
		name, binary string
		env          []string
	}{
		{"do-nothing extension", b.bin.nothing, nil},
		{"thaw, origin healthy", b.bin.thaw, healthy.env()},
		{"thaw, origin refuses connections", b.bin.thaw, refuses.env()},
		{"thaw, origin never answers", b.bin.thaw, silent.env()},
	}
	times := make([][]float64, len(cases))
	for range b.rounds(20) {
		for i, c := range cases {
			e, _, err := startExtension(ctx, c.binary, c.env...)
			if err != nil {
				return err
			}
			times[i] = append(times[i], millis(e.Times().ReadyAt()))
			e.Close()
		}
	}
	for i, c := range cases {
		t.Rows = append(t.Rows, Row{Name: c.name, Value: sample(times[i])})
	}
	return nil
}
