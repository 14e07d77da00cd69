package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// growth measures memory and the CPU of a hit with more secrets, and with
// longer ones.
func (b *bench) growth(ctx context.Context) error {
	if err := b.growEntries(ctx); err != nil {
		return err
	}
	return b.growSize(ctx)
}

// growEntries goes from 10 to 100,000 cached secrets of 100 bytes.
func (b *bench) growEntries(ctx context.Context) error {
	var memory, cpu []Point
	for _, n := range b.upTo(10, 100_000) {
		o, err := standIn()
		if err != nil {
			return err
		}
		for i := range n {
			if err = o.put(ctx, strconv.Itoa(i), secretOf(100)); err != nil {
				break
			}
		}
		if err == nil {
			err = b.filled(ctx, o, n, func(ctx context.Context, address string, pid int) error {
				rss, err := resident(ctx, pid)
				if err != nil {
					return err
				}
				per, err := hitCost(ctx, address, pid)
				memory, cpu = append(memory, Point{float64(n), rss}), append(cpu, Point{float64(n), per})
				return err
			})
		}
		o.close()
		if err != nil {
			return fmt.Errorf("%d secrets: %w", n, err)
		}
	}
	b.report.plot(&Plot{
		Title: "Memory by cached secrets of 100 bytes", X: Axis{"secrets", true}, Y: Axis{"resident MB", true},
		Series:  []Series{{Name: "thaw, Lambda extension", Points: memory, Marked: true}},
		Remarks: []string{growth(beyond(memory), "what is more than with the fewest", "their number"), "THAW_CACHE_BYTES is raised to 1 GiB for this"},
	})
	b.report.plot(&Plot{
		Title: "CPU of a hit by cached secrets", X: Axis{"secrets", true}, Y: Axis{"µs", false},
		Series:  []Series{{Name: "thaw, Lambda extension", Points: cpu, Marked: true}},
		Remarks: []string{growth(cpu, "CPU of a hit", "the number of secrets")},
	})
	return nil
}

// growSize goes from 100 bytes to 512 KB for one secret, beside the bare
// handler with the same body.
func (b *bench) growSize(ctx context.Context) error {
	var thaw, bare []Point
	for _, n := range []int{100, 1 << 10, 8 << 10, 64 << 10, 512 << 10} {
		o, err := standIn()
		if err != nil {
			return err
		}
		if err = o.put(ctx, "hit", secretOf(n)); err == nil {
			err = b.filled(ctx, o, 0, func(ctx context.Context, address string, pid int) error {
				body, err := bodyOf(ctx, address)
				if err != nil {
					return err
				}
				s, err := startBare(ctx, b.bin, body)
				if err != nil {
					return err
				}
				defer s.stop()
				cpu, err := turns(ctx, []*server{s, {name: "thaw", address: address, pid: pid}}, 1, b.rounds(10), 200)
				if err != nil {
					return err
				}
				bare = append(bare, Point{float64(n), sample(cpu[0]).Median})
				thaw = append(thaw, Point{float64(n), sample(cpu[1]).Median})
				return nil
			})
		}
		o.close()
		if err != nil {
			return fmt.Errorf("a secret of %d bytes: %w", n, err)
		}
	}
	b.report.plot(&Plot{
		Title: "CPU of a hit by the secret's size", X: Axis{"bytes", true}, Y: Axis{"µs", true},
		Series: []Series{{Name: "thaw, Lambda extension", Points: thaw, Marked: true}, {Name: "bare net/http handler", Points: bare, Marked: true}},
		Remarks: []string{
			growth(thaw, "thaw", "the size"), growth(bare, "the bare handler", "the size"),
		},
	})
	return nil
}

// beyond is how much each point is above the first.
func beyond(points []Point) []Point {
	var out []Point
	for i, p := range points {
		if i > 0 {
			out = append(out, Point{p.X, p.Y - points[0].Y})
		}
	}
	return out
}

// upTo is low, ten times as many, and so on, at most high; a tenth of high if
// the run is shortened.
func (b *bench) upTo(low, high int) []int {
	var out []int
	if b.factor < 1 {
		high /= 10
	}
	for ; low <= high; low *= 10 {
		out = append(out, low)
	}
	return out
}

// filled runs measure in an invocation of an extension that holds n secrets.
func (b *bench) filled(ctx context.Context, o *origin, n int, measure func(ctx context.Context, address string, pid int) error) error {
	e, address, err := startExtension(ctx, b.bin.thaw, append(o.env(), "THAW_CACHE_BYTES=1GiB", "THAW_PREFETCH=")...)
	if err != nil {
		return err
	}
	defer e.Close()
	return e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
		if err := fill(ctx, address, n); err != nil {
			return err
		}
		return measure(ctx, address, e.PID())
	})
}

// fill reads n secrets through the proxy, over a few connections.
func fill(ctx context.Context, address string, n int) error {
	const conns = 8
	errs := make(chan error, conns)
	for c := range conns {
		go func() {
			errs <- func() error {
				l, err := dial(ctx, address, "/", "", 1)
				if err != nil {
					return err
				}
				defer l.close()
				for i := c; i < n; i += conns {
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					request := bytes.Replace(l.request, []byte("GET / "), fmt.Appendf(nil, "GET /v1/secret/data/bench/%d ", i), 1)
					if _, err := l.conns[0].ask(request); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	var all []error
	for range conns {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// hitCost is the CPU of a hit on one of the secrets, in microseconds.
func hitCost(ctx context.Context, address string, pid int) (float64, error) {
	l, err := dial(ctx, address, "/v1/secret/data/bench/7", "", 1)
	if err != nil {
		return 0, err
	}
	defer l.close()
	if err := l.run(ctx, 500); err != nil {
		return 0, err
	}
	var runs []float64
	for range 10 {
		before, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		if err := l.run(ctx, 1000); err != nil {
			return 0, err
		}
		after, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		runs = append(runs, micros(after-before)/1000)
	}
	return sample(runs).Median, nil
}

// statusMB reads a line of /proc/PID/status that counts kB.
func statusMB(pid int, name string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 64)
			return kib * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, name)
}
