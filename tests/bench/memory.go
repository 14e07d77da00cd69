package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// Sizes of the memory measurement.
const (
	cachedSecrets = 1000
	secretBytes   = 1024
	manyHits      = 100_000
)

// memory measures the resident memory of the extension.
func (b *bench) memory(ctx context.Context) error {
	o, err := standIn()
	if err != nil {
		return err
	}
	defer o.close()
	for i := range cachedSecrets {
		if err := o.put(ctx, strconv.Itoa(i), secretOf(secretBytes)); err != nil {
			return err
		}
	}
	var nothing, empty, filled, used []float64
	for range b.rounds(3) {
		n, err := b.memoryNothing(ctx)
		if err != nil {
			return err
		}
		e, f, u, err := b.memoryThaw(ctx, o)
		if err != nil {
			return err
		}
		nothing, empty, filled, used = append(nothing, n), append(empty, e), append(filled, f), append(used, u)
	}
	t := b.report.table("Resident memory", "MB")
	t.Remarks = append(t.Remarks, "VmRSS of /proc/PID/status after a quiet second; MB are 10^6 bytes; file-backed pages of the binary included")
	const most = 14
	target := fmt.Sprintf("under %d MB", most)
	t.Rows = []Row{
		{Name: "do-nothing extension", Value: sample(nothing)},
		{Name: "thaw, ready", Value: sample(empty)},
		{Name: fmt.Sprintf("thaw, %d secrets of %d bytes", cachedSecrets, secretBytes), Value: sample(filled), Target: target, Most: most, Note: "read once through the proxy"},
		{Name: fmt.Sprintf("thaw, after %d hits on them", manyHits), Value: sample(used), Target: target, Most: most, Note: "32 connections"},
	}
	return nil
}

func (b *bench) memoryNothing(ctx context.Context) (float64, error) {
	e, _, err := startExtension(ctx, b.bin.nothing)
	if err != nil {
		return 0, err
	}
	defer e.Close()
	return resident(ctx, e.PID())
}

func (b *bench) memoryThaw(ctx context.Context, o *origin) (empty, filled, used float64, err error) {
	e, address, err := startExtension(ctx, b.bin.thaw, o.env()...)
	if err != nil {
		return 0, 0, 0, err
	}
	defer e.Close()
	if empty, err = resident(ctx, e.PID()); err != nil {
		return 0, 0, 0, err
	}
	err = e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
		for i := range cachedSecrets {
			if err := readOnce(ctx, address, i); err != nil {
				return err
			}
		}
		if filled, err = resident(ctx, e.PID()); err != nil {
			return err
		}
		if err := manyReads(ctx, address); err != nil {
			return err
		}
		used, err = resident(ctx, e.PID())
		return err
	})
	return empty, filled, used, err
}

func secretPath(i int) string { return "/v1/secret/data/bench/" + strconv.Itoa(i%cachedSecrets) }

func readOnce(ctx context.Context, address string, i int) error {
	l, err := dial(ctx, address, secretPath(i), "", 1)
	if err != nil {
		return err
	}
	defer l.close()
	return l.run(ctx, 1)
}

// manyReads spreads the hits over connections that each read secrets of their own.
func manyReads(ctx context.Context, address string) error {
	const conns, burst = 32, 25
	loads := make([]*load, conns)
	for i := range loads {
		l, err := dial(ctx, address, secretPath(i), "", 1)
		if err != nil {
			return err
		}
		defer l.close()
		loads[i] = l
	}
	errs := make(chan error, conns)
	for i, l := range loads {
		go func() {
			for n := 0; n < manyHits/conns; n += burst {
				path := secretPath(i + n/burst*conns)
				l.request = bytes.Replace(l.request, l.path(), []byte(path), 1)
				if err := l.run(ctx, burst); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var all []error
	for range loads {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// path is the path that the request asks for.
func (l *load) path() []byte {
	fields := bytes.Fields(l.request)
	return fields[1]
}

// resident is VmRSS of a process after a quiet second, in MB.
func resident(ctx context.Context, pid int) (float64, error) {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return statusMB(pid, "VmRSS:")
}
