package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/fakes/memcache"
)

// Sizes of the storm.
const (
	stormStarts  = 1000
	stormSecrets = 5
	stormAtOnce  = 8
)

// stormKey seals the storm's shared tier: 32 bytes in base64.
const stormKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// storm starts a thousand extensions, a few at a time, each of which reads a
// few secrets in its first invocation, and counts what the origin is asked:
// each alone, with a shared tier whose verification may be no older than the
// invocation, and with one that may be a minute old.
func (b *bench) storm(ctx context.Context) error {
	starts := b.rounds(stormStarts)
	t := b.report.table(fmt.Sprintf("Requests to the origin by %d cold starts with %d secrets each", starts, stormSecrets), "requests")
	p := &Plot{Title: "Requests to the origin during a storm of cold starts", X: Axis{"cold starts", false}, Y: Axis{"requests in all", false}}
	for _, c := range []struct {
		name, note string
		shared     bool
		env        []string
	}{
		{"each for itself", "no shared tier", false, nil},
		{"shared tier", "THAW_MAX_AGE=0: one GET sys/leader a start", true, nil},
		{"shared tier, a minute old", "THAW_MAX_AGE=60s: stamps of others count", true, []string{"THAW_MAX_AGE=60s"}},
	} {
		points, err := b.stormOf(ctx, starts, c.shared, c.env)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		t.Rows = append(t.Rows, Row{Name: c.name, Value: sample([]float64{points[len(points)-1].Y}), Note: c.note})
		p.Series = append(p.Series, Series{Name: c.name, Points: points})
	}
	t.Remarks = append(t.Remarks, "memcached is the stand-in of tests/fakes/memcache; one instance has filled it before")
	b.report.plot(p)
	return nil
}

func (b *bench) stormOf(ctx context.Context, starts int, shared bool, more []string) ([]Point, error) {
	o, err := standIn()
	if err != nil {
		return nil, err
	}
	defer o.close()
	for i := range stormSecrets {
		if err := o.put(ctx, strconv.Itoa(i), secretOf(100)); err != nil {
			return nil, err
		}
	}
	env := append(o.env(), more...)
	if shared {
		m, err := memcache.Start(memcache.Options{})
		if err != nil {
			return nil, err
		}
		defer m.Close()
		env = append(env, "CACHE_ENABLE=true", "THAW_MEMCACHED="+m.Addr(), "THAW_CACHE_KEY="+stormKey, "THAW_MEMCACHED_TIMEOUT=200ms")
		if err := b.coldStart(ctx, env); err != nil { // the one that fills
			return nil, err
		}
	}
	before := o.requests()
	points := []Point{{}}
	var mu sync.Mutex // guards points and errs
	var errs []error
	slots := make(chan struct{}, stormAtOnce)
	var wg sync.WaitGroup
	for range starts {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			err := b.coldStart(ctx, env)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			}
			points = append(points, Point{float64(len(points)), float64(o.requests() - before)})
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return nil, fmt.Errorf("%d of %d: %w", len(errs), starts, errs[0])
	}
	return points, errors.Join(ctx.Err())
}

// coldStart is one environment's start, first invocation and end.
func (b *bench) coldStart(ctx context.Context, env []string) error {
	e, address, err := startExtension(ctx, b.bin.thaw, env...)
	if err != nil {
		return err
	}
	defer e.Close()
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = e.Invoke(bounded, func(ctx context.Context, _ lambdaapi.Invocation) error {
		for i := range stormSecrets {
			if err := readOnce(ctx, address, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		_, err = e.Shutdown("spindown")
	}
	return err
}
