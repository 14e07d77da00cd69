package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// azure measures what thaw-azure adds to an invocation of Azure Functions: the
// same handler is invoked directly and through it, in turns. "Secret cached"
// has a secret in the cache, so that each invocation starts a poll of the
// origin beside.
func (b *bench) azure(ctx context.Context) error {
	program, user := filepath.Join(b.bin.dir, "thaw-azure"), filepath.Join(b.bin.dir, "azurehandler")
	if err := harness.Build(ctx, program, "./extension/azurefn/thaw-azure"); err != nil {
		return err
	}
	if err := harness.Build(ctx, user, "./tests/bench/azurehandler"); err != nil {
		return err
	}
	o, err := standIn()
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.put(ctx, "hit", secretOf(100)); err != nil {
		return err
	}
	direct, err := startServer(ctx, "the handler, called directly", func(address string) harness.Command {
		return harness.Command{Path: user, Env: []string{portOf(address)}}
	})
	if err != nil {
		return err
	}
	defer direct.stop()
	through := func(name string) (*server, error) {
		secrets, err := freeAddress()
		if err != nil {
			return nil, err
		}
		s, err := startServer(ctx, name, func(address string) harness.Command {
			return harness.Command{Path: program, Args: []string{"--", user, "proxy=" + secrets}, Env: append(o.env(), portOf(address), "THAW_LISTEN="+secrets)}
		})
		return s, err
	}
	idle, err := through("through thaw-azure")
	if err != nil {
		return err
	}
	defer idle.stop()
	cached, err := through("through thaw-azure, secret cached")
	if err != nil {
		return err
	}
	defer cached.stop()
	if _, err := invoke(ctx, cached, invocation{http.MethodGet, "/read?path=secret/data/bench/hit", nil}); err != nil {
		return err
	}
	servers := []*server{direct, idle, cached}
	for _, kind := range []struct {
		name string
		call invocation
	}{
		{"envelope of 1 KiB", invocation{http.MethodPost, "/QueueFunction", []byte(`{"Data":{"item":"` + string(bytes.Repeat([]byte("x"), 1<<10)) + `"},"Metadata":{}}`)}},
		{"proxied, answer of 1 KiB", invocation{http.MethodGet, "/api/fn?seed=1&size=1024", nil}},
	} {
		if err := b.azureRounds(ctx, kind.name, servers, kind.call); err != nil {
			return err
		}
	}
	return nil
}

// azureRounds measures one kind of invocation.
func (b *bench) azureRounds(ctx context.Context, kind string, servers []*server, call invocation) error {
	const perRound = 400
	p50, cpu := make([][]float64, len(servers)), make([][]float64, len(servers))
	for round := range b.rounds(15) {
		for turn := range servers {
			i := (turn + round) % len(servers)
			before, err := cpuTime(servers[i].pid)
			if err != nil {
				return err
			}
			times := make([]time.Duration, 0, perRound)
			for range perRound {
				took, err := invoke(ctx, servers[i], call)
				if err != nil {
					return fmt.Errorf("%s: %w", servers[i].name, err)
				}
				times = append(times, took)
			}
			after, err := cpuTime(servers[i].pid)
			if err != nil {
				return err
			}
			slices.Sort(times)
			p50[i] = append(p50[i], micros(times[len(times)/2]))
			cpu[i] = append(cpu[i], micros(after-before)/perRound)
		}
	}
	t := b.report.table("Azure Functions, one invocation, median: "+kind, "µs")
	for i, s := range servers {
		row := Row{Name: s.name, Value: sample(p50[i])}
		if i > 0 {
			added := make([]float64, len(p50[i]))
			for n := range added {
				added[n] = p50[i][n] - p50[0][n]
			}
			a := sample(added)
			row.Target, row.Most, row.MostOf, row.Added = "adds at most 500", 500, ofAdded, &a
			row.Note = fmt.Sprintf("adds %.0f µs; CPU of thaw-azure %.0f µs", a.Median, sample(cpu[i]).Median)
		}
		t.Rows = append(t.Rows, row)
	}
	return nil
}

// invocation is a request as the host sends it.
type invocation struct {
	method, path string
	body         []byte
}

// azureClient keeps its connections, as the host does.
func azureClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 4}}
}

// invoke sends one and waits for all of its answer.
func invoke(ctx context.Context, s *server, i invocation) (time.Duration, error) {
	if s.client == nil {
		s.client = azureClient()
	}
	var body io.Reader
	if i.body != nil {
		body = bytes.NewReader(i.body)
	}
	req, err := http.NewRequestWithContext(ctx, i.method, "http://"+s.address+i.path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Azure-Functions-InvocationId", "0")
	if i.body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	began := time.Now()
	res, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	took := time.Since(began)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s answered %d", i.method, i.path, res.StatusCode)
	}
	return took, err
}

// portOf is how the host tells a handler its port.
func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return "FUNCTIONS_CUSTOMHANDLER_PORT=" + port
}
