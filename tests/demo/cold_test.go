package main

import (
	"io"
	"strings"
	"testing"
)

// TestTheDemoFailsWhenColdInstancesAskTheOrigin keeps the secrets out of the
// shared tier, as a user may: then each instance reads them, and the demo must
// say so.
func TestTheDemoFailsWhenColdInstancesAskTheOrigin(t *testing.T) {
	t.Parallel()
	code, out := played(t, nil, "-env", "THAW_NO_SHARE_PATHS=secret/data/thaw-demo/*")
	if code != 1 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	mustShow(t, out, `^  shared, THAW_MAX_AGE=0: the others asked Vault`, `^  shared, THAW_MAX_AGE=60s: the others asked Vault`)
}

// TestAnOldValueOfAColdInstanceIsSeen rotates past thaw where a minute of age is
// allowed: the others serve the old value then, which is what the setting says,
// and the check must see it.
func TestAnOldValueOfAColdInstanceIsSeen(t *testing.T) {
	t.Parallel()
	ctx, out := t.Context(), newReport(io.Discard, false)
	o, err := newOrigin(ctx, settings{}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.close() })
	bin, cleanup, err := extensionBinary(ctx, "", nil, out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cleanup)
	c := &coldStarts{settings: settings{cold: 4}, origin: o, bin: bin, out: out, values: map[string]string{}}
	for _, name := range coldNames() {
		if err := c.rotate(ctx, o.direct, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.sharing(ctx, way{label: "aged", maxAge: "60s"}); err != nil {
		t.Fatal(err)
	}
	if len(c.unmet) != 2 || !strings.Contains(c.unmet[0], "a cold start, aged: app: an old value, version 1") || c.log == nil {
		t.Errorf("unmet: %q, want the old value of the two after the rotation", c.unmet)
	}
}

func TestWhatColdInstancesAskForIsHeldAgainstThePromise(t *testing.T) {
	t.Parallel()
	good := tally{starts: 5, others: 3, first: asked{1, 3, 1, 1}, turn: asked{1, 3, 2, 0}}
	with := func(maxAge string, change func(*tally)) tally {
		g := good
		g.maxAge = maxAge
		change(&g)
		return g
	}
	for name, tt := range map[string]struct {
		tally tally
		bad   string // part of the complaint; empty: none
	}{
		"a cursor each":        {with("0", func(g *tally) { g.rest.cursor = 3 }), ""},
		"two cursors of one":   {with("0", func(g *tally) { g.rest.cursor = 4 }), "the others asked"},
		"a login of another":   {with("0", func(g *tally) { g.rest.logins = 1 }), "the others asked"},
		"a read of another":    {with("60s", func(g *tally) { g.rest.reads = 1 }), "the others asked"},
		"nothing":              {with("60s", func(*tally) {}), ""},
		"a cursor in a minute": {with("60s", func(g *tally) { g.rest.cursor = 1 }), ""},
		"two in a minute":      {with("60s", func(g *tally) { g.rest.cursor = 2 }), "the others asked"},
		"the first never read": {with("0", func(g *tally) { g.first.reads = 0 }), "the first asked"},
		"a dear rotation":      {with("60s", func(g *tally) { g.turn.reads = 4 }), "the rotation asked"},
		"not shared":           {with("", func(g *tally) { g.first, g.turn, g.rest = asked{1, 3, 1, 1}, asked{1, 3, 1, 1}, asked{3, 9, 3, 3} }), ""},
		"not shared, less":     {with("", func(g *tally) { g.rest = asked{3, 8, 3, 3} }), "all asked"},
	} {
		c := &coldStarts{origin: &origin{quiet: true}}
		c.judge(tt.tally)
		if (len(c.unmet) == 0) != (tt.bad == "") || !strings.Contains(strings.Join(c.unmet, "\n"), tt.bad) {
			t.Errorf("%s: %q, want %q", name, c.unmet, tt.bad)
		}
		c = &coldStarts{origin: &origin{}}
		if c.judge(tt.tally); len(c.unmet) > 0 {
			t.Errorf("%s: judged although others use the origin: %q", name, c.unmet)
		}
	}
}

func TestColdRequestsAreSortedByKind(t *testing.T) {
	t.Parallel()
	got := sorted(map[string]int{
		"GET /v1/sys/leader": 5, "GET /v1/secret/data/x/app": 2, "POST /v1/secret/data/x/app": 1, "POST /v1/auth/approle/login": 3,
		"GET /v1/sys/internal/ui/mounts/secret/data/x": 1, "POST /v1/sys/capabilities-self": 1,
	})
	if want := (asked{logins: 3, reads: 2, cursor: 5, other: 3}); got != want || got.total() != 13 {
		t.Errorf("sorted = %+v, want %+v", got, want)
	}
	if text := got.String(); text != "3 logins, 2 reads, 5 cursor, 3 other" || (asked{}).String() != "nothing" {
		t.Errorf("it reads %q", text)
	}
}
