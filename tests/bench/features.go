package main

import (
	"context"
	"fmt"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// features measures a hit with each feature switched off, or on, in turn.
func (b *bench) features(ctx context.Context) error {
	o, err := standIn()
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.put(ctx, "hit", secretOf(100)); err != nil {
		return err
	}
	variants := []struct {
		name, note string
		env        []string
	}{
		{"as it comes", "", nil},
		{"two processors", "THAW_MAX_PROCS=2", []string{"THAW_MAX_PROCS=2"}},
		{"without polls", "THAW_POLL=off: secrets go by TTL", []string{"THAW_POLL=off"}},
		{"polls at the first read", "THAW_POLL=read", []string{"THAW_POLL=read"}},
		{"with metric lines", "THAW_EMF=true", []string{"THAW_EMF=true"}},
		{"no memory tier", "THAW_CACHE_BYTES=0: each read goes to the origin, whose CPU is not counted", []string{"THAW_CACHE_BYTES=0"}},
		{"not KV", "VAULT_DEFAULT_CACHE_ENABLED=false: as before, but streamed through", []string{"VAULT_DEFAULT_CACHE_ENABLED=false"}},
	}
	var servers []*server
	// Each extension is in an invocation while the next one starts.
	var next func(ctx context.Context) error
	next = func(ctx context.Context) error {
		if len(servers) == len(variants) {
			return nil
		}
		v := variants[len(servers)]
		e, address, err := startExtension(ctx, b.bin.thaw, append(o.env(), v.env...)...)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		defer e.Close()
		servers = append(servers, &server{name: v.name, note: v.note, address: address, pid: e.PID(), stop: e.Close})
		return e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
			if _, err := bodyOf(ctx, address); err != nil {
				return err
			}
			if len(servers) < len(variants) {
				return next(ctx)
			}
			cpu, err := turns(ctx, servers, 1, b.rounds(20), 500)
			if err != nil {
				return err
			}
			t := b.report.table("CPU per read with a feature switched", "µs")
			for i, s := range servers {
				row := Row{Name: s.name, Value: sample(cpu[i]), Note: s.note}
				if i > 0 {
					r := sample(ratios(cpu[i], cpu[0]))
					row.Ratio = &r
				}
				t.Rows = append(t.Rows, row)
			}
			return nil
		})
	}
	return next(ctx)
}
