package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/functions/demo"
	"github.com/thaw-project/thaw/tests/fakes/memcache"
)

// coldNames are the secrets that each instance reads.
func coldNames() []string { return []string{"app", "db", "mail"} }

// abreast is how many instances start at once.
const abreast = 3

// coldStarts is the second act: instances that start cold, each of which reads
// its secrets in its first invocation and is then shut down. The same is done
// without the shared tier, with it, and with it and an age that is allowed.
//
// The first instance is alone: it has to ask the origin for everything. Then
// the others come, a few at a time. In the middle a secret is rotated, the
// next instance is alone again, and the others follow. So it can be told apart
// what the first, the one after the rotation, and all others ask for.
type coldStarts struct {
	settings settings
	origin   *origin
	bin      string
	out      *report

	mu      sync.Mutex
	values  map[string]string // guarded by mu; by name: what the origin has now
	planted []string          // guarded by mu; every value there was
	unmet   []string          // guarded by mu
	log     *transcript       // guarded by mu; of the last instance of which something was unmet
}

// way is how instances share.
type way struct {
	label   string
	maxAge  string // THAW_MAX_AGE; empty: nothing is shared
	through bool   // the rotation is written through an instance's thaw, not past it
}

func ways() []way {
	return []way{
		{label: "nothing shared"},
		{label: "shared, THAW_MAX_AGE=0", maxAge: "0"},
		{label: "shared, THAW_MAX_AGE=60s", maxAge: "60s", through: true},
	}
}

// asked are requests that reached the origin.
type asked struct{ logins, reads, cursor, other int }

func (a asked) total() int { return a.logins + a.reads + a.cursor + a.other }

func (a asked) plus(b asked) asked {
	return asked{a.logins + b.logins, a.reads + b.reads, a.cursor + b.cursor, a.other + b.other}
}

// sorted counts requests by what they are for. Other are those for the mount
// of a path, for capabilities, and the write.
func sorted(counts map[string]int) asked {
	var a asked
	for what, n := range counts {
		method, path, _ := strings.Cut(what, " ")
		switch {
		case path == "/v1/sys/leader":
			a.cursor += n
		case strings.HasPrefix(path, "/v1/auth/") && strings.HasSuffix(path, "/login"):
			a.logins += n
		case method == "GET" && !strings.HasPrefix(path, "/v1/sys/") && strings.Contains(path, "/data/"):
			a.reads += n
		default:
			a.other += n
		}
	}
	return a
}

// tally is what one way costs.
type tally struct {
	way
	starts int
	first  asked     // of the first instance
	turn   asked     // of the rotation and of the instance after it
	rest   asked     // of all others
	others int       // how many those are
	millis []float64 // of each instance: from the start of its process to its first secret
	took   time.Duration
}

func (t tally) all() asked { return t.first.plus(t.turn).plus(t.rest) }

// play goes through all ways. Expectations that are not met are collected.
func (c *coldStarts) play(ctx context.Context) error {
	if c.settings.cold <= 0 {
		return nil
	}
	c.values = map[string]string{}
	c.out.coldHeader(c.settings.cold, len(coldNames()))
	var tallies []tally
	for _, w := range ways() {
		for _, name := range coldNames() {
			if err := c.rotate(ctx, c.origin.direct, name); err != nil {
				return err
			}
		}
		t, err := c.sharing(ctx, w)
		if err != nil {
			return fmt.Errorf("cold starts, %s: %w", w.label, err)
		}
		c.out.coldRow(t)
		c.judge(t)
		tallies = append(tallies, t)
	}
	c.out.coldTotals(c, tallies)
	return nil
}

// sharing is the act with one way to share.
func (c *coldStarts) sharing(ctx context.Context, w way) (tally, error) {
	t, began := tally{way: w, starts: max(3, c.settings.cold)}, time.Now()
	env := c.settings.env
	if w.maxAge != "" {
		tier, err := memcache.Start(memcache.Options{})
		if err != nil {
			return t, err
		}
		defer tier.Close()
		defer func() { c.inspect(w, tier) }()
		env = append(append([]string{}, env...),
			"CACHE_ENABLE=true", "THAW_MEMCACHED="+tier.Addr(), "THAW_CACHE_KEY="+newKey(), "THAW_AUDIENCE=demo", "THAW_MAX_AGE="+w.maxAge,
			"THAW_MEMCACHED_TIMEOUT=500ms", "THAW_POLL_TIMEOUT=5s", "THAW_RECHECK=10s") // what is slow on a busy machine is not the point
	}
	before := c.origin.counter.Counts()
	since := func() asked {
		now := c.origin.counter.Counts()
		a := sorted(diff(now, before))
		before = now
		return a
	}
	// The middle: the first after the rotation.
	middle := t.starts / 2
	alone := func(inside func(context.Context, *environment) error) error {
		ms, err := c.start(ctx, w, env, inside)
		t.millis = append(t.millis, ms)
		return err
	}
	if err := alone(nil); err != nil {
		return t, err
	}
	t.first = since()
	if err := c.crowd(ctx, w, env, middle-1, &t); err != nil {
		return t, err
	}
	t.rest = since()
	var inside func(context.Context, *environment) error
	if w.through {
		inside = func(ctx context.Context, e *environment) error { return c.rotate(ctx, e.addr, coldNames()[0]) }
	} else if err := c.rotate(ctx, c.origin.direct, coldNames()[0]); err != nil {
		return t, err
	}
	if err := alone(inside); err != nil {
		return t, err
	}
	t.turn = since()
	if err := c.crowd(ctx, w, env, t.starts-middle-1, &t); err != nil {
		return t, err
	}
	t.rest = t.rest.plus(since())
	t.others, t.took = t.starts-2, time.Since(began)
	return t, nil
}

// crowd starts n instances, a few at a time.
func (c *coldStarts) crowd(ctx context.Context, w way, env []string, n int, t *tally) error {
	for n > 0 {
		size := min(n, abreast)
		n -= size
		millis, errs := make([]float64, size), make([]error, size)
		var batch sync.WaitGroup
		for i := range size {
			batch.Go(func() { millis[i], errs[i] = c.start(ctx, w, env, nil) })
		}
		batch.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		t.millis = append(t.millis, millis...)
		c.out.coldProgress(w.label, len(t.millis), t.starts)
	}
	return nil
}

// start is the whole life of one instance. inside, if any, is done before it
// reads. It returns how long the first secret took from the start of the
// process, in milliseconds.
func (c *coldStarts) start(ctx context.Context, w way, env []string, inside func(context.Context, *environment) error) (float64, error) {
	e, err := startEnvironment(ctx, c.bin, c.origin, env)
	if err != nil {
		return 0, err
	}
	defer e.close()
	var paths []string
	for _, n := range coldNames() {
		paths = append(paths, c.origin.path(n))
	}
	var before func(context.Context) error
	if inside != nil {
		before = func(ctx context.Context) error { return inside(ctx, e) }
	}
	got, err := e.invoke(ctx, before, paths)
	if err != nil {
		return 0, fmt.Errorf("%w\nthe extension printed:\n%s", err, e.log.tail(4000))
	}
	var wrong []string
	for i, g := range got {
		if bad := c.wrong(e, coldNames()[i], g); bad != "" {
			wrong = append(wrong, bad)
		}
	}
	if err := e.shutdown(); err != nil {
		wrong = append(wrong, err.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.planted {
		if e.log.contains(v) {
			wrong = append(wrong, "a secret's value is in the extension's log")
			break
		}
	}
	for _, bad := range wrong {
		c.unmet, c.log = append(c.unmet, fmt.Sprintf("a cold start, %s: %s", w.label, bad)), e.log
	}
	return float64(e.first.Sub(e.lambda.Times().Exec).Microseconds()) / 1000, nil
}

// wrong says what is wrong with a read; empty: nothing.
func (c *coldStarts) wrong(e *environment, name string, g demo.Summary) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case g.Error != "":
		return fmt.Sprintf("%s: failed: %s", name, g.Error)
	case e.seen[g.Path] != c.values[name]:
		return fmt.Sprintf("%s: an old value, version %d", name, g.Version)
	case g.Stale:
		return name + ": marked stale"
	}
	return ""
}

// rotate writes a new value by way of addr.
func (c *coldStarts) rotate(ctx context.Context, addr, name string) error {
	v, err := c.origin.putAt(ctx, addr, name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values[name] = v
	c.planted = append(c.planted, v)
	return nil
}

// inspect looks at what is left in the shared tier.
func (c *coldStarts) inspect(w way, tier *memcache.Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range append([]string{c.origin.prefix}, c.planted...) {
		if tier.Holds(v) {
			c.unmet = append(c.unmet, w.label+": a secret's value or path is in memcached, not sealed")
			break
		}
	}
	for _, v := range tier.Violations() {
		c.unmet = append(c.unmet, w.label+": against memcached's protocol: "+v)
	}
}

func newKey() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	return base64.StdEncoding.EncodeToString(key[:])
}

// judge holds the counts against what is promised. Only an origin that nobody
// else uses allows that: others move its cursor.
func (c *coldStarts) judge(t tally) {
	if !c.origin.quiet {
		return
	}
	secrets := len(coldNames())
	expect := func(ok bool, who string, a asked, want string) {
		if !ok {
			c.unmet = append(c.unmet, fmt.Sprintf("%s: %s asked Vault %+v, want %s", t.label, who, a, want))
		}
	}
	if t.maxAge == "" {
		a := t.all()
		expect(a.logins == t.starts && a.reads == t.starts*secrets, "all", a, "a login and a read of each secret for every instance")
		return
	}
	expect(t.first.logins == 1 && t.first.reads == secrets, "the first", t.first, "one login and one read of each secret")
	cursors := t.others
	if t.maxAge != "0" {
		cursors = 1 + int(t.took/time.Minute)
	}
	expect(t.rest.logins+t.rest.reads+t.rest.other == 0 && t.rest.cursor <= cursors, "the others", t.rest,
		fmt.Sprintf("no login, no read, at most %d cursor", cursors))
	expect(t.turn.logins <= 1 && t.turn.reads <= secrets, "the rotation", t.turn, "at most one login and one read of each secret")
}
