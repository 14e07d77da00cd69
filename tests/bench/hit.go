package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// hitPath is the secret that every hit reads.
const hitPath = "/v1/secret/data/bench/hit"

// hits measures the CPU time that a request costs the server that answers it:
// thaw with the secret cached, a bare handler with the same body, and `vault
// proxy`, all on one processor, as thaw is in Lambda. The servers take turns, so that what the machine does beside meets
// all of them.
func (b *bench) hits(ctx context.Context) error {
	return b.withServers(ctx, func(ctx context.Context, servers []*server) error {
		if len(servers) > 4 {
			servers = servers[:4] // the origin itself is another kind of server
		}
		return errors.Join(b.hitRounds(ctx, servers, 1), b.hitRounds(ctx, servers, 32))
	})
}

// withServers starts what hits are compared with, in this order: the bare
// handler, the extension during an invocation, `thaw proxy`, and, where there
// is a real Vault, `vault proxy` and that Vault.
func (b *bench) withServers(ctx context.Context, measure func(context.Context, []*server) error) error {
	o, v, err := realVault(ctx, b.vault)
	if errors.Is(err, harness.ErrMissing) || b.noVault {
		if err == nil {
			o.close()
		}
		b.report.note("no Vault: `vault proxy` is left out, and thaw reads from the stand-in")
		v = nil
		o, err = standIn()
	}
	if err != nil {
		return err
	}
	defer o.close()
	b.report.note("the origin is %s", o.label)
	if err := o.put(ctx, "hit", secretOf(100)); err != nil {
		return err
	}
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	add := func(s *server, err error) error {
		if err == nil {
			servers = append(servers, s)
		}
		return err
	}
	e, address, err := startExtension(ctx, b.bin.thaw, o.env()...)
	if err != nil {
		return err
	}
	servers = append(servers, &server{name: "thaw, Lambda extension", note: "a hit during an invocation", address: address, pid: e.PID(), stop: e.Close})
	return e.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
		body, err := bodyOf(ctx, address)
		if err != nil {
			return err
		}
		err = add(startBare(ctx, b.bin, body))
		if err == nil {
			err = add(startThawProxy(ctx, b.bin, o))
		}
		if err == nil && v != nil {
			err = add(startVaultProxy(ctx, v.Binary(), b.bin, o))
		}
		if err != nil {
			return err
		}
		servers[0], servers[1] = servers[1], servers[0] // what others are compared with comes first
		if v != nil {
			token, err := v.CreateToken(ctx, harness.TokenSpec{Policies: []string{"bench"}})
			if err != nil {
				return err
			}
			direct := &server{name: "Vault itself", note: "no proxy between", address: strings.TrimPrefix(v.Addr(), "http://"), header: "X-Vault-Token: " + token + "\r\n", stop: func() {}}
			servers = append(servers, direct)
		}
		return measure(ctx, servers)
	})
}

// bodyOf reads the secret, which is then cached.
func bodyOf(ctx context.Context, address string) ([]byte, error) {
	l, err := dial(ctx, address, hitPath, "", 1)
	if err != nil {
		return nil, err
	}
	defer l.close()
	body, err := l.conns[0].ask(l.request)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", hitPath, err)
	}
	return append([]byte(nil), body...), nil
}

// hitRounds measures requests over n connections. The close comparison has
// many short turns. `vault proxy`, whose turn takes ten times as long and
// leaves the machine's caches to the next, is compared apart.
func (b *bench) hitRounds(ctx context.Context, servers []*server, n int) error {
	title := fmt.Sprintf("CPU per request, %d connections", n)
	if n == 1 {
		title = "CPU per request, 1 connection"
	}
	t := b.report.table(title, "µs")
	cpu, err := turns(ctx, servers[:3], n, b.rounds(80), 1000)
	if err != nil {
		return err
	}
	for i, s := range servers[:3] {
		row := Row{Name: s.name, Value: sample(cpu[i]), Note: s.note}
		if i > 0 {
			r := sample(ratios(cpu[i], cpu[0]))
			row.Ratio = &r
		}
		if i == 1 {
			row.Target, row.Most, row.MostOf = "at most 1.05 of the bare handler", 1.05, ofRatio
		}
		t.Rows = append(t.Rows, row)
	}
	if len(servers) == 3 {
		return nil
	}
	extension, proxy := servers[1], servers[3]
	if cpu, err = turns(ctx, []*server{extension, proxy}, n, b.rounds(10), 2000); err != nil {
		return err
	}
	r := sample(ratios(cpu[0], cpu[1]))
	t = b.report.table(title+", beside vault proxy", "µs")
	t.Rows = []Row{
		{Name: proxy.name, Value: sample(cpu[1]), Note: proxy.note},
		{Name: extension.name, Value: sample(cpu[0]), Ratio: &r, Target: "at most half of vault proxy's", Most: 0.5, MostOf: ofRatio},
	}
	return nil
}

// turns lets the servers take turns at so many requests and returns each
// one's CPU time per request in each round, in microseconds.
func turns(ctx context.Context, servers []*server, conns, rounds, requests int) ([][]float64, error) {
	const warmUp = 500
	loads := make([]*load, len(servers))
	for i, s := range servers {
		l, err := dial(ctx, s.address, hitPath, "", conns)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		defer l.close()
		loads[i] = l
		if err := l.run(ctx, warmUp); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	cpu := make([][]float64, len(servers))
	for round := range rounds {
		for turn := range servers {
			i := (turn + round) % len(servers)
			before, err := cpuTime(servers[i].pid)
			if err != nil {
				return nil, err
			}
			if err := loads[i].run(ctx, requests); err != nil {
				return nil, fmt.Errorf("%s: %w", servers[i].name, err)
			}
			after, err := cpuTime(servers[i].pid)
			if err != nil {
				return nil, err
			}
			cpu[i] = append(cpu[i], micros(after-before)/float64(requests))
		}
	}
	return cpu, nil
}
