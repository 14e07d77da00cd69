package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// start measures CPU time from exec: of the extension that does nothing until
// it waits for events, and of thaw until then and until the function has its
// first secret, login included, from an origin with and without TLS. Beside it
// the most memory that each had.
func (b *bench) start(ctx context.Context) error {
	plain, err := standIn()
	if err != nil {
		return err
	}
	defer plain.close()
	ca, err := harness.NewCA()
	if err != nil {
		return err
	}
	secure, err := standInWith(ca)
	if err != nil {
		return err
	}
	defer secure.close()
	if err := errors.Join(plain.put(ctx, "hit", secretOf(100)), secure.put(ctx, "hit", secretOf(100))); err != nil {
		return err
	}
	var nothing, least, ready, first, overTLS, memNothing, memPlain, memTLS []float64
	for range b.rounds(40) {
		n, err := b.startNothing(ctx)
		if err != nil {
			return err
		}
		l, err := startFirst(ctx, b.bin.nothing, plain)
		if err != nil {
			return err
		}
		least = append(least, millis(l.first))
		p, err := startFirst(ctx, b.bin.thaw, plain)
		if err != nil {
			return err
		}
		s, err := startFirst(ctx, b.bin.thaw, secure)
		if err != nil {
			return err
		}
		nothing, ready, first, overTLS = append(nothing, millis(n.ready)), append(ready, millis(p.ready)), append(first, millis(p.first)), append(overTLS, millis(s.first))
		memNothing, memPlain, memTLS = append(memNothing, n.peak), append(memPlain, p.peak), append(memTLS, s.peak)
	}
	t := b.report.table("CPU from exec", "ms")
	row := func(name, note, target string, runs []float64) Row {
		r := sample(ratios(runs, nothing))
		return Row{Name: name, Value: sample(runs), Ratio: &r, Note: note, Target: target}
	}
	t.Rows = []Row{
		{Name: "do-nothing extension, ready", Value: sample(nothing), Note: "tests/bench/nothing: listens, registers, asks for events"},
		row("the same with the requests of a first secret", "what thaw asks the origin, and the answer, with net/http and nothing around it: the least for a first secret", "", least),
		row("thaw, ready", "", "", ready),
		row("thaw, first secret", "with the AppRole login and what follows the read; origin: "+plain.label, "at most 1.8 of the do-nothing extension, at best 1.4", first),
		row("thaw, first secret over TLS", "one handshake, TLS 1.3", "", overTLS),
	}
	t.Rows[3].Most, t.Rows[3].MostOf = 1.8, ofRatio
	m := b.report.table("Peak resident memory at the start", "MB")
	m.Remarks = append(m.Remarks, "VmHWM of /proc/PID/status; MB are 10^6 bytes; file-backed pages of the binary included")
	m.Rows = []Row{
		{Name: "do-nothing extension, ready", Value: sample(memNothing)},
		{Name: "thaw, first secret", Value: sample(memPlain)},
		{Name: "thaw, first secret over TLS", Value: sample(memTLS)},
	}
	return nil
}

// started is what a start took.
type started struct {
	ready, first time.Duration // CPU until the first Next, and until the first secret
	peak         float64       // MB
}

func (b *bench) startNothing(ctx context.Context) (s started, err error) {
	e, _, err := startExtension(ctx, b.bin.nothing)
	if err != nil {
		return s, err
	}
	defer e.Close()
	if s.ready, err = quiet(ctx, e.PID()); err != nil {
		return s, err
	}
	s.peak, err = statusMB(e.PID(), "VmHWM:")
	return s, err
}

// startFirst starts an extension and has the function read its first secret.
func startFirst(ctx context.Context, binary string, o *origin) (s started, err error) {
	e, address, err := startExtension(ctx, binary, o.env()...)
	if err != nil {
		return s, err
	}
	defer e.Close()
	if s.ready, err = quiet(ctx, e.PID()); err != nil {
		return s, err
	}
	err = e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
		if _, err := bodyOf(ctx, address); err != nil {
			return err
		}
		if s.first, err = quiet(ctx, e.PID()); err != nil {
			return err
		}
		s.peak, err = statusMB(e.PID(), "VmHWM:")
		return err
	})
	return s, err
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
	t.Remarks = append(t.Remarks, "wall time, so other work on this machine shows in the maximum")
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
		row := Row{Name: c.name, Value: sample(times[i])}
		if i > 0 {
			row.Target, row.Most = "at most 10 ms whatever the origin does", 10
		}
		t.Rows = append(t.Rows, row)
	}
	return nil
}
