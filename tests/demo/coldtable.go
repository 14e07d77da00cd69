package main

import (
	"fmt"
	"strings"
)

const coldLayout = "%-25s %6s %6s %6s %7s %6s %7s %10s %15s"

// coldHeader opens the second act.
func (r *report) coldHeader(starts, secrets int) {
	r.line("%s", r.paint(bold, fmt.Sprintf("three times %s; each reads %s and is shut down; a rotation in the middle", plural(max(3, starts), "cold start"), plural(secrets, "secret"))))
	r.line("%s", r.paint(bold, fmt.Sprintf(coldLayout, "requests to Vault:", "cold", "", "", "", "", "", "per", "first secret")))
	r.line("%s", r.paint(bold, fmt.Sprintf(coldLayout, "", "starts", "logins", "reads", "cursor", "other", "in all", "cold start", "after, median")))
}

// coldProgress shows how far a way is, on a terminal only.
func (r *report) coldProgress(label string, n, of int) {
	if r.terminal {
		fmt.Fprintf(r.w, "\r%-25s ... %d of %d", label, n, of)
		if n == of {
			fmt.Fprint(r.w, "\r\x1b[K")
		}
	}
}

// coldRow is what one way costs.
func (r *report) coldRow(t tally) {
	a := t.all()
	n := func(v int) string { return fmt.Sprint(v) }
	r.line(coldLayout, t.label, n(t.starts), n(a.logins), n(a.reads), n(a.cursor), n(a.other), n(a.total()),
		fmt.Sprintf("%.2f", float64(a.total())/float64(t.starts)), fmt.Sprintf("%.0f ms", median(t.millis)))
}

const askedLayout = "%-27s %-36s%s"

// coldTotals says who asked for what with the shared tier, and whether every
// value was right.
func (r *report) coldTotals(c *coldStarts, tallies []tally) {
	shared := tallies[len(tallies)-2:] // as in ways
	pair := func(label string, of func(tally) string) string {
		return strings.TrimRight(fmt.Sprintf(askedLayout, label, of(shared[0]), of(shared[1])), " ")
	}
	r.line("")
	r.line("%s", r.paint(bold, pair("who asked for what", func(t tally) string { return "THAW_MAX_AGE=" + t.maxAge })))
	r.line("%s", pair("the first instance", func(t tally) string { return t.first.String() }))
	r.line("%s", pair("the one at the rotation (3)", func(t tally) string { return t.turn.String() }))
	r.line("%s", pair(fmt.Sprintf("the %d others, together", shared[0].others), func(t tally) string { return t.rest.String() }))
	verdict := r.paint(green, "0 old values, nothing unsealed in memcached")
	if len(c.unmet) > 0 {
		verdict = r.paint(red, fmt.Sprintf("%d NOT AS PROMISED", len(c.unmet)))
	}
	reads := 0
	for _, t := range tallies {
		reads += t.starts * len(coldNames())
	}
	r.line("%d reads by the function: %s", reads, verdict)
	r.line("")
	r.line("(3) with THAW_MAX_AGE=0 the secret is rotated at Vault, past thaw; with 60s through thaw:")
	r.line("    past it, the old value may be served for up to 60s")
	if c.settings.delay == 0 {
		r.line("    times are without a network, as those above: see -delay")
	}
	r.line("")
}

// String is such as "1 login, 3 reads, 2 cursor".
func (a asked) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		text string
	}{{a.logins, plural(a.logins, "login")}, {a.reads, plural(a.reads, "read")}, {a.cursor, fmt.Sprintf("%d cursor", a.cursor)}, {a.other, fmt.Sprintf("%d other", a.other)}} {
		if p.n > 0 {
			parts = append(parts, p.text)
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}
