package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/functions/demo"
)

// secretNames are the demo's secrets. The function reads app first, then app
// and db, and in the storm all of stormNames; "other" is the one that is asked
// for the first time when the origin is dead.
func secretNames() []string { return append(stormNames(), "other") }

func stormNames() []string { return []string{"app", "db", "mail", "queue", "search"} }

// outcome is what a read must be.
type outcome int

const (
	miss  outcome = iota // read from the origin
	hit                  // from the cache, current
	fresh                // current, from wherever
	stale                // from the cache, marked stale
	fails                // thaw's error
)

// act is one step of the script: what happens, then one invocation.
type act struct {
	before string // for people: what happens before the invocation
	do     func(context.Context) error
	reads  []string // names of the secrets the function reads
	want   []outcome
	dead   bool // the origin cannot be reached meanwhile
}

// stage plays the script.
type stage struct {
	settings settings
	origin   *origin
	env      *environment
	out      *report

	value    map[string]string // by name: what the origin has now
	version  map[string]int
	answered map[string]int // by name: the version that the last read gave
	planted  []string       // every value there ever was
	unmet    []string       // expectations that were not met

	invocations  int
	reads        int           // asked by the function
	deadReads    int           // of those, while the origin could not be reached
	deadServed   int           // of those, answered
	stormReads   []float64     // ms of each read of the storm
	stormSums    []float64     // ms of all reads of one invocation of the storm
	originStorm  int           // origin requests in the storm
	stormRotated int           // rotations in the storm
	stormTook    time.Duration // all of it
}

// script is the acts up to the storm.
func (s *stage) script() []act {
	rotate := func(names ...string) func(context.Context) error {
		return func(ctx context.Context) error { return s.rotate(ctx, names...) }
	}
	freeze := s.freeze
	app, both := []string{"app"}, []string{"app", "db"}
	length := s.settings.freeze.String()
	return []act{
		{before: "cold start", reads: app, want: []outcome{miss}},
		{before: "nothing", reads: app, want: []outcome{hit}},
		{before: "frozen for " + length, do: freeze, reads: app, want: []outcome{hit}},
		{before: "app is rotated", do: rotate("app"), reads: app, want: []outcome{fresh}},
		{before: "nothing", reads: app, want: []outcome{hit}},
		{before: "frozen, app is rotated meanwhile", do: func(ctx context.Context) error {
			return errors.Join(s.env.lambda.Freeze(), s.rotate(ctx, "app"), wait.For(ctx, s.settings.freeze))
		}, reads: app, want: []outcome{fresh}},
		{before: "nothing; a second secret", reads: both, want: []outcome{hit, miss}},
		{before: "nothing", reads: both, want: []outcome{hit, hit}},
		{before: "db is rotated", do: rotate("db"), reads: both, want: []outcome{fresh, fresh}},
		{before: "Vault is killed", do: func(context.Context) error { s.origin.counter.Cut(); return nil },
			reads: both, want: []outcome{stale, stale}, dead: true},
		{before: "frozen for " + length, do: freeze, reads: both, want: []outcome{stale, stale}, dead: true},
		{before: "nothing; one never read before", reads: []string{"app", "other"}, want: []outcome{stale, fails}, dead: true},
		{before: "Vault is back, app rotated", do: func(ctx context.Context) error {
			if err := errors.Join(s.rotate(ctx, "app"), s.origin.counter.Mend()); err != nil {
				return err
			}
			s.origin.counter.Delay(s.settings.delay) // Mend took it off
			return nil
		}, reads: both, want: []outcome{fresh, fresh}},
		{before: "nothing", reads: []string{"app", "db", "other"}, want: []outcome{hit, hit, miss}},
	}
}

// fill writes the secrets for the first time.
func (s *stage) fill(ctx context.Context) error {
	s.value, s.version, s.answered = map[string]string{}, map[string]int{}, map[string]int{}
	return s.rotate(ctx, secretNames()...)
}

// play runs the whole script. The error is of something that made it
// impossible to go on; expectations that are not met are collected.
func (s *stage) play(ctx context.Context) error {
	s.out.header()
	for _, a := range s.script() {
		if a.do != nil {
			if err := a.do(ctx); err != nil {
				return fmt.Errorf("before invocation %d (%s): %w", s.invocations+1, a.before, err)
			}
		}
		if err := s.invoke(ctx, a); err != nil {
			return err
		}
	}
	return s.storm(ctx)
}

// invoke is one invocation, judged and shown.
func (s *stage) invoke(ctx context.Context, a act) error {
	s.invocations++
	before := s.origin.counter.Counts()
	got, err := s.env.invoke(ctx, nil, s.paths(a.reads))
	if err != nil {
		return fmt.Errorf("invocation %d: %w", s.invocations, err)
	}
	asked := diff(s.origin.counter.Counts(), before)
	for i, g := range got {
		name := a.reads[i]
		s.reads++
		if a.dead {
			s.deadReads++
			if g.Error == "" {
				s.deadServed++
			}
		}
		bad := s.judge(name, g, a.want[i])
		if bad != "" {
			s.unmet = append(s.unmet, fmt.Sprintf("invocation %d, %s: %s", s.invocations, name, bad))
		}
		r := row{invocation: s.invocations, before: a.before, name: name, got: g, checked: checked(g, asked), asked: s.origin.counter.Total(), bad: bad}
		r.again = a.want[i] == fresh && !a.dead && s.answered[name] == g.Version && (g.XCache == "MISS" || r.checked == "re-read")
		if g.Error == "" {
			s.answered[name] = g.Version
		}
		if i > 0 {
			r.invocation, r.before = 0, ""
		}
		s.out.row(r)
	}
	return nil
}

// judge says what is wrong with a read; empty: nothing.
func (s *stage) judge(name string, g demo.Summary, want outcome) string {
	if want == fails {
		switch {
		case g.Error == "":
			return "answered, although thaw never had it and Vault is dead"
		case !strings.Contains(g.Error, "thaw: "):
			return "the error is not thaw's: " + g.Error
		}
		return ""
	}
	switch {
	case g.Error != "":
		return "failed: " + g.Error
	case s.env.seen[g.Path] != s.value[name]:
		return fmt.Sprintf("an old value: version %d, Vault has %d", g.Version, s.version[name])
	case g.Stale != (want == stale):
		return fmt.Sprintf("marked stale: %t", g.Stale)
	case want == miss && g.XCache != "MISS", (want == hit || want == stale) && g.XCache != "HIT":
		return "X-Cache is " + g.XCache
	}
	return ""
}

// checked says how thaw knew that an answer was current, from the requests
// that reached the origin during the invocation.
func checked(g demo.Summary, asked map[string]int) string {
	switch {
	case g.Error != "" || g.Stale:
		return "could not be"
	case g.XCache != "HIT":
		return "read now"
	case asked["GET /v1/"+g.Path] > 0:
		return "re-read"
	case asked["GET /v1/sys/leader"] > 0:
		return "cursor"
	}
	return "none"
}

func diff(after, before map[string]int) map[string]int {
	out := map[string]int{}
	for k, n := range after {
		if d := n - before[k]; d > 0 {
			out[k] = d
		}
	}
	return out
}

// storm is many invocations in a row, each of which reads every secret, with
// a rotation now and then.
func (s *stage) storm(ctx context.Context) error {
	names := stormNames()
	began, asked := time.Now(), s.origin.counter.Total()
	hits, old := 0, 0
	for i := range s.settings.storm {
		if i%50 == 25 {
			if err := s.rotate(ctx, names[i/50%len(names)]); err != nil {
				return err
			}
			s.stormRotated++
		}
		s.invocations++
		got, err := s.env.invoke(ctx, nil, s.paths(names))
		if err != nil {
			return fmt.Errorf("invocation %d: %w", s.invocations, err)
		}
		sum := 0.0
		for j, g := range got {
			s.reads++
			s.stormReads = append(s.stormReads, g.Millis)
			sum += g.Millis
			if g.XCache == "HIT" {
				hits++
			}
			if bad := s.judge(names[j], g, fresh); bad != "" {
				old++
				if len(s.unmet) < 20 {
					s.unmet = append(s.unmet, fmt.Sprintf("invocation %d, %s: %s", s.invocations, names[j], bad))
				}
			}
		}
		s.stormSums = append(s.stormSums, sum)
		s.out.progress(i+1, s.settings.storm)
	}
	s.originStorm = s.origin.counter.Total() - asked
	s.stormTook = time.Since(began)
	s.out.storm(s, hits, old)
	return nil
}

// finish shuts the environment down and looks at what it leaves behind.
func (s *stage) finish() error {
	if err := s.env.shutdown(); err != nil {
		s.unmet = append(s.unmet, err.Error())
	}
	for _, v := range s.planted {
		if s.env.log.contains(v) {
			s.unmet = append(s.unmet, "a secret's value is in the extension's log")
			break
		}
	}
	if s.reads == 0 {
		return errors.New("nothing was read")
	}
	return nil
}

// rotate writes new values.
func (s *stage) rotate(ctx context.Context, names ...string) error {
	for _, n := range names {
		v, err := s.origin.put(ctx, n)
		if err != nil {
			return err
		}
		s.value[n] = v
		s.version[n]++
		s.planted = append(s.planted, v)
	}
	return nil
}

// freeze stops the extension's process (SIGSTOP). The next invocation lets it
// run on, as Lambda does.
func (s *stage) freeze(ctx context.Context) error {
	return errors.Join(s.env.lambda.Freeze(), wait.For(ctx, s.settings.freeze))
}

func (s *stage) paths(names []string) []string {
	paths := make([]string, len(names))
	for i, n := range names {
		paths[i] = s.origin.path(n)
	}
	return paths
}
