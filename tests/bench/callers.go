package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// Measures of the part with many callers.
const (
	callerPace    = 500 * time.Microsecond // between two reads of the caller that is measured
	callerReads   = 6000                   // that it does while one thing happens
	callerLongest = 20 * time.Second       // for these reads
	callerOwn     = 20                     // secrets of its own, which it reads in turn
	callerConns   = 32                     // by which callers fill the cache
	callerTarget  = 5                      // ms, of the 99th percentile
)

// kind is how many callers there are, and what they read.
type kind struct {
	callers, entries int   // secrets of each
	shared           bool  // all read the same secrets; else each its own
	size             int   // bytes of a secret
	cache            int64 // THAW_CACHE_BYTES
}

// most is what a process has to stand: 10,000 callers, 100,000 capabilities, a cache
// of 1 GiB that is almost full.
var most = kind{10_000, 10, false, 8500, 1 << 30}

// callers measures what a hit of one caller takes while the process holds the
// capabilities of many, and while something happens that concerns others: polls
// that find the index moved, tokens that are revoked through thaw, policies that
// are changed through it. Then, what the loss of a token takes, by what it holds.
func (b *bench) callers(ctx context.Context) error {
	kinds := []kind{{1000, 10, false, 100, 2 << 30}, {500, b.rounds(2000), true, 100, 2 << 30}}
	if b.many {
		kinds = []kind{most}
	}
	for _, k := range kinds {
		if err := b.callersAt(ctx, k); err != nil {
			return fmt.Errorf("%d callers: %w", k.callers, err)
		}
	}
	return nil
}

// crowd is thaw with callers whose capabilities it holds.
type crowd struct {
	kind
	o      *origin
	thaw   *server
	http   *http.Client
	tokens []string // of the callers that may still be revoked
	turns  int      // of everything
}

func (b *bench) callersAt(ctx context.Context, k kind) error {
	crowded, err := b.crowd(ctx, k)
	if err != nil {
		return err
	}
	defer crowded.close()
	whose := "of its own"
	if k.shared {
		whose = "that all read"
	}
	t := b.report.table(fmt.Sprintf("A hit beside %d callers with %d secrets each", k.callers, k.entries), "ms, 99th percentile")
	t.Remarks = append(t.Remarks, fmt.Sprintf("thaw proxy; each caller holds capabilities for %d secrets of %d bytes %s; THAW_CACHE_BYTES is %d MiB; one more caller reads every %v, over one connection",
		k.entries, k.size, whose, k.cache>>20, callerPace))
	nothing := func(context.Context) error { return nil }
	if b.many {
		alone, err := b.crowd(ctx, kind{cache: k.cache})
		if err != nil {
			return err
		}
		row, err := b.hitWhile(ctx, alone, time.Hour, nothing)
		if alone.close(); err != nil {
			return fmt.Errorf("no other callers: %w", err)
		}
		row.Name = "no other callers, and nothing happens"
		t.Rows = append(t.Rows, row)
	}
	for _, c := range []struct {
		name, note string
		every      time.Duration
		happens    func(context.Context) error
	}{
		{"nothing happens", "", time.Hour, nothing},
		{"polls find the index moved", "another client writes 50 times a second", 20 * time.Millisecond, func(ctx context.Context) error { return crowded.o.put(ctx, "written", "x") }},
		{"tokens are revoked", "another caller revokes its own token through thaw, 10 times a second", 100 * time.Millisecond, crowded.revokeOne},
		{"a policy is changed", "through thaw, 5 times a second", 200 * time.Millisecond, func(ctx context.Context) error {
			return crowded.changePolicy(ctx, "http://"+crowded.thaw.address, "other")
		}},
		{"all of it, and callers come and go", "50 times a second one of: three writes, a caller who reads and goes, a revocation", 20 * time.Millisecond, crowded.everything},
	} {
		row, err := b.hitWhile(ctx, crowded, c.every, c.happens)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		row.Name = c.name
		if c.note != "" {
			row.Note = c.note + "; " + row.Note
		}
		t.Rows = append(t.Rows, row)
	}
	if !k.shared {
		return nil
	}
	return b.losses(ctx, crowded, k)
}

// everything does in turns what may concern others.
func (c *crowd) everything(ctx context.Context) error {
	switch c.turns++; c.turns % 5 {
	case 0:
		return c.revokeOne(ctx)
	case 1:
		return c.comeAndGo(ctx)
	default:
		return c.o.put(ctx, "written", "x")
	}
}

// comeAndGo is one more caller, who reads secrets of another and goes.
func (c *crowd) comeAndGo(ctx context.Context) error {
	token, err := c.token(ctx)
	if err != nil {
		return err
	}
	l, err := dial(ctx, c.thaw.address, "", "", 1)
	if err != nil {
		return err
	}
	defer l.close()
	for i := 0; i < c.entries && err == nil; i++ {
		_, err = l.conns[0].ask(c.request(token, c.name(c.turns%c.callers, i)))
	}
	return err
}

// name is that of a secret of a caller.
func (c *crowd) name(caller, i int) string {
	if c.shared {
		return fmt.Sprintf("s-%d", i)
	}
	return fmt.Sprintf("s-%d-%d", caller, i)
}

// hitWhile reads as one more caller while something happens every so often.
func (b *bench) hitWhile(ctx context.Context, c *crowd, every time.Duration, happens func(context.Context) error) (Row, error) {
	token, err := c.token(ctx)
	if err != nil {
		return Row{}, err
	}
	r := &reading{c: c, token: token}
	defer r.close()
	if _, err := r.while(ctx, callerOwn); err != nil { // fills the cache
		return Row{}, err
	}
	r.hits, r.reads = 0, 0
	var p99 []float64
	for range b.rounds(5) {
		during, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- repeat(during, every, happens) }()
		times, err := r.while(ctx, callerReads)
		stop()
		if err := errors.Join(err, <-ended); err != nil {
			return Row{}, err
		}
		slices.Sort(times)
		p99 = append(p99, millis(percentile(times, 0.99)))
	}
	return Row{
		Value: sample(p99), Target: fmt.Sprintf("at most %d ms", callerTarget), Most: callerTarget,
		Note: fmt.Sprintf("%.1f %% of the answers came from the cache", 100*float64(r.hits)/float64(r.reads)),
	}, nil
}

// reading is the caller that is measured.
type reading struct {
	c           *crowd
	token       string
	load        *load // nil: not connected
	reads, hits int
}

func (r *reading) close() {
	if r.load != nil {
		r.load.close()
	}
}

// while reads so often, or for as long as that may take, and returns how long
// each answer took. One that does not come in time counts with what was waited.
func (r *reading) while(ctx context.Context, reads int) ([]time.Duration, error) {
	var times []time.Duration
	for end := time.Now().Add(callerLongest); len(times) < reads && time.Now().Before(end); r.reads++ {
		if r.load == nil {
			l, err := dial(ctx, r.c.thaw.address, "", "", 1)
			if err != nil {
				return times, err
			}
			r.load = l
		}
		began := time.Now()
		_, err := r.load.conns[0].ask(r.c.request(r.token, fmt.Sprintf("own-%d", len(times)%callerOwn)))
		took := time.Since(began)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.load.close()
			r.load = nil
		case err != nil:
			return times, err
		case r.load.conns[0].hit:
			r.hits++
		}
		times = append(times, took)
		time.Sleep(callerPace - took)
	}
	return times, ctx.Err()
}

// repeat does something every so often until its context ends.
func repeat(ctx context.Context, every time.Duration, do func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := do(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// losses measures what it takes thaw to lose a token, by how many capabilities
// hang on it: beside many callers, and alone.
func (b *bench) losses(ctx context.Context, many *crowd, k kind) error {
	callers, entries := k.callers, k.entries
	k.callers = 0
	alone, err := b.crowd(ctx, k)
	if err != nil {
		return err
	}
	defer alone.close()
	p := &Plot{Title: "Time that a token's loss takes, by what it holds", X: Axis{"secrets that the token may read from the cache", true}, Y: Axis{"µs", true}}
	for _, w := range []struct {
		name string
		in   *crowd
	}{{"no other callers", alone}, {fmt.Sprintf("%d other callers with %d secrets each", callers, entries), many}} {
		s := Series{Name: w.name, Marked: true}
		for n := 1; n <= entries; n *= 10 {
			var took []float64
			for range b.rounds(9) {
				d, err := w.in.loss(ctx, n)
				if err != nil {
					return fmt.Errorf("lose a token with %d: %w", n, err)
				}
				took = append(took, micros(d))
			}
			s.Points = append(s.Points, Point{float64(n), sample(took).Median})
		}
		p.Series = append(p.Series, s)
		p.Remarks = append(p.Remarks, w.name+": "+growth(s.Points, "the time", "what the token holds"))
	}
	p.Remarks = append(p.Remarks, "a revoke-self through thaw proxy, with the request to the origin; to lose a token costs what hangs on it, and not what others hold, if the lines lie together")
	b.report.plot(p)
	return nil
}

// loss has a new caller read n secrets and revoke its token.
func (c *crowd) loss(ctx context.Context, n int) (time.Duration, error) {
	token, err := c.token(ctx)
	if err != nil {
		return 0, err
	}
	l, err := dial(ctx, c.thaw.address, "", "", 1)
	if err != nil {
		return 0, err
	}
	defer l.close()
	for i := range n {
		if _, err := l.conns[0].ask(c.request(token, fmt.Sprintf("s-%d", i))); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	err = c.send(ctx, "http://"+c.thaw.address, "auth/token/revoke-self", token, nil)
	return time.Since(began), err
}

// crowd starts thaw and has callers read.
func (b *bench) crowd(ctx context.Context, k kind) (*crowd, error) {
	o, err := standInApart(ctx)
	if err != nil {
		return nil, err
	}
	c := &crowd{kind: k, o: o, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}}
	o.more = append(o.more, fmt.Sprintf("THAW_CACHE_BYTES=%d", k.cache))
	if err := c.fill(ctx); err != nil {
		c.close()
		return nil, err
	}
	if c.thaw, err = startThawProxy(ctx, b.bin, o); err != nil {
		c.close()
		return nil, err
	}
	if err := c.read(ctx); err != nil {
		c.close()
		return nil, fmt.Errorf("fill the cache: %w", err)
	}
	return c, nil
}

func (c *crowd) close() {
	if c.thaw != nil {
		c.thaw.stop()
	}
	c.http.CloseIdleConnections()
	c.o.close()
}

// fill writes the secrets and makes the callers' tokens.
func (c *crowd) fill(ctx context.Context) error {
	err := c.changePolicy(ctx, c.o.addr, "callers")
	for i := 0; i < callerOwn && err == nil; i++ {
		err = c.o.put(ctx, fmt.Sprintf("own-%d", i), secretOf(100))
	}
	for i := 0; i < c.entries && c.shared && err == nil; i++ {
		err = c.o.put(ctx, c.name(0, i), secretOf(c.size))
	}
	for n := 0; n < c.callers && err == nil; n++ {
		var token string
		token, err = c.token(ctx)
		c.tokens = append(c.tokens, token)
		for i := 0; i < c.entries && !c.shared && err == nil; i++ {
			err = c.o.put(ctx, c.name(n, i), secretOf(c.size))
		}
	}
	return err
}

// read has every caller read its secrets.
func (c *crowd) read(ctx context.Context) error {
	l, err := dial(ctx, c.thaw.address, "", "", callerConns)
	if err != nil {
		return err
	}
	defer l.close()
	errs := make([]error, callerConns)
	var wg sync.WaitGroup
	for k, conn := range l.conns {
		wg.Go(func() {
			for n := k; n < len(c.tokens) && errs[k] == nil && ctx.Err() == nil; n += callerConns {
				for i := 0; i < c.entries && errs[k] == nil; i++ {
					_, errs[k] = conn.ask(c.request(c.tokens[n], c.name(n, i)))
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// request is a caller's read of a secret.
func (c *crowd) request(token, name string) []byte {
	return []byte("GET /v1/secret/data/bench/" + name + " HTTP/1.1\r\nHost: " + c.thaw.address + "\r\nX-Vault-Request: true\r\nX-Vault-Token: " + token + "\r\n\r\n")
}

// token makes one for a caller, at the origin itself. It has no parent, as a login's
// has none: who has one is confirmed after each revocation.
func (c *crowd) token(ctx context.Context) (string, error) {
	res, err := harness.Send(ctx, c.http, c.o.addr, harness.Call{
		Method: http.MethodPost, Path: "auth/token/create", Token: c.o.root, Body: map[string]any{"policies": []string{"callers"}, "ttl": "1h", "no_parent": true},
	})
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return "", err
	}
	return tokenOf(res.Body)
}

// revokeOne has one of the callers revoke its token through thaw; when none is
// left nothing happens.
func (c *crowd) revokeOne(ctx context.Context) error {
	if len(c.tokens) == 0 {
		return nil
	}
	token := c.tokens[0]
	c.tokens = c.tokens[1:]
	return c.send(ctx, "http://"+c.thaw.address, "auth/token/revoke-self", token, nil)
}

// changePolicy writes a policy that lets callers read, by way of an address.
func (c *crowd) changePolicy(ctx context.Context, address, name string) error {
	return c.send(ctx, address, "sys/policies/acl/"+name, c.o.root, map[string]any{"policy": `path "secret/data/bench/*" { capabilities = ["read"] }`})
}

func (c *crowd) send(ctx context.Context, address, path, token string, body any) error {
	res, err := harness.Send(ctx, c.http, address, harness.Call{Method: http.MethodPost, Path: path, Token: token, Body: body})
	if err == nil {
		err = res.Err()
	}
	return err
}
