package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/thaw-project/thaw/functions/demo"
)

// report writes what people see. Colours only on a terminal.
type report struct {
	w        io.Writer
	terminal bool
}

func newReport(w io.Writer, terminal bool) *report { return &report{w: w, terminal: terminal} }

// Colours of the terminal (ECMA-48, SGR).
const (
	green  = "32"
	yellow = "33"
	red    = "31"
	blue   = "36"
	faint  = "2"
	bold   = "1"
)

func (r *report) paint(color, s string) string {
	if !r.terminal {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

func (r *report) line(format string, args ...any) { fmt.Fprintf(r.w, format+"\n", args...) }

// opening says what is real here and what is not.
func (r *report) opening(o *origin) {
	r.line("%s", r.paint(bold, "thaw demo"))
	r.line("  extension  the real one, as a process of its own")
	r.line("  function   the sample of functions/demo, in this process")
	r.line("  Lambda     a stand-in that speaks the Extensions API and freezes with SIGSTOP (it is not AWS)")
	r.line("  Vault      %s", o.label)
	r.line("  memcached  a stand-in inside this process (it is not memcached), for the second act")
	r.line("")
}

// step announces something that takes a while; call the result when it is done.
func (r *report) step(what string) (done func()) {
	fmt.Fprintf(r.w, "%s ... ", what)
	began := time.Now()
	return func() { r.line("%.1fs", time.Since(began).Seconds()) }
}

func (r *report) started(ready time.Duration) {
	r.line("starting it ... ready for its first event after %.0fms; then the function starts, for %v, beside which it logs in to Vault", float64(ready.Microseconds())/1000, ownInit)
	r.line("")
}

const layout = "%5s  %-33s %-10s %-7s %-13s %8s %8s"

func (r *report) header() {
	r.line("%s", r.paint(bold, fmt.Sprintf(layout, "", "what happened", "secret,", "", "checked with", "", "requests")))
	r.line("%s", r.paint(bold, fmt.Sprintf(layout, "invoc", "before it", "version", "answer", "Vault by", "ms", "so far")))
}

// row is one read.
type row struct {
	invocation int // 0: a further read of the same invocation
	before     string
	name       string
	got        demo.Summary
	checked    string
	asked      int    // requests that reached the origin so far
	again      bool   // read again although it had not changed
	bad        string // what is wrong; empty: nothing
}

func (r *report) row(x row) {
	answer, color := x.got.XCache, green
	switch {
	case x.got.Error != "":
		answer, color = "ERROR", red
		if x.got.Status != 0 {
			answer = fmt.Sprintf("%d", x.got.Status)
		}
	case x.got.Stale:
		answer, color = "STALE", yellow
	case answer == "MISS":
		color = blue
	}
	number, secret := "", x.name
	if x.invocation > 0 {
		number = fmt.Sprintf("%d", x.invocation)
	}
	if x.got.Version > 0 {
		secret += fmt.Sprintf(" v%d", x.got.Version)
	}
	text := fmt.Sprintf(layout, number, x.before, secret, "\x00", x.checked, fmt.Sprintf("%.2f", x.got.Millis), fmt.Sprintf("%d", x.asked))
	// Colour codes have no width, so they are put in after the columns are laid out.
	pad := fmt.Sprintf("%-7s", "\x00")
	text = strings.Replace(text, pad, r.paint(color, answer)+strings.Repeat(" ", max(0, 7-len(answer))), 1)
	r.line("%s", text)
	if x.got.Error != "" {
		r.wrapped(x.got.Error)
	}
	if x.again {
		r.wrapped("Vault's index moved when another secret was rotated, so this one was read again too")
	}
	if x.bad != "" {
		r.line("%s", r.paint(red, "       ^ NOT AS PROMISED: "+x.bad))
	}
}

// wrapped prints a message below its row.
func (r *report) wrapped(message string) {
	const indent, width = "       ", 84
	text := indent
	for word := range strings.FieldsSeq(message) {
		if len(text)+len(word) > width+len(indent) && text != indent {
			r.line("%s", r.paint(faint, text))
			text = indent
		}
		if text != indent {
			text += " "
		}
		text += word
	}
	r.line("%s", r.paint(faint, text))
}

// progress shows how far the storm is, on a terminal only.
func (r *report) progress(n, of int) {
	if r.terminal && (n%10 == 0 || n == of) {
		fmt.Fprintf(r.w, "\r       ... %d of %d invocations", n, of)
		if n == of {
			fmt.Fprint(r.w, "\r\x1b[K")
		}
	}
}

// storm is the row of the storm.
func (r *report) storm(s *stage, hits, old int) {
	n := s.settings.storm
	reads := n * len(stormNames())
	first := s.invocations - n + 1
	r.line("%5s  %s in %.1fs, each reading %d secrets; %s meanwhile", fmt.Sprintf("%d-", first), plural(n, "invocation"),
		s.stormTook.Seconds(), len(stormNames()), plural(s.stormRotated, "rotation"))
	verdict := r.paint(green, "0 old values")
	if old > 0 {
		verdict = r.paint(red, fmt.Sprintf("%d NOT AS PROMISED", old))
	}
	r.line("%5d  %d reads: %d HIT, %d MISS, %s; %s to Vault", s.invocations, reads, hits, reads-hits, verdict, plural(s.originStorm, "request"))
	r.line("")
}

// totals is the comparison at the end.
func (r *report) totals(t summary) {
	const l = "%-46s %14s %14s"
	r.line("%s", r.paint(bold, fmt.Sprintf(l, fmt.Sprintf("%d invocations, %d reads", t.invocations, t.reads), "without thaw", "with thaw")))
	r.line(l, "requests to Vault", fmt.Sprintf("%d (1)", t.reads), fmt.Sprintf("%d    ", t.asked))
	for _, k := range t.kinds {
		r.line(l, "  "+k.name, "", fmt.Sprintf("%d    ", k.n))
	}
	r.line(l, "reads answered while Vault was dead", fmt.Sprintf("0 of %d (1)", t.deadReads), fmt.Sprintf("%d of %d    ", t.deadServed, t.deadReads))
	ms := func(v float64, note string) string { return fmt.Sprintf("%.2f ms%s", v, note) }
	r.line(l, "one read, median", ms(t.directRead, " (2)"), ms(t.thawRead, "    "))
	r.line(l, fmt.Sprintf("the %d reads of one invocation, median", t.perInvocation), ms(t.directInvocation, " (2)"), ms(t.thawInvocation, "    "))
	r.line("")
	r.line("(1) computed: one read for each secret in each invocation; logins not counted")
	network := "no network in between, by -delay 0"
	if t.delay > 0 {
		network = fmt.Sprintf("each answer of Vault delayed by %v", t.delay)
	}
	r.line("(2) measured just now, straight from Vault over a connection that is kept; all on this machine,")
	r.line("    %s", network)
	r.line("")
}

func (r *report) done(took time.Duration) { r.line("done in %.1fs", took.Seconds()) }

// failed lists what was not as promised.
func (r *report) failed(unmet []string, log string) {
	r.line("")
	r.line("%s", r.paint(red, "NOT AS PROMISED"))
	for _, u := range unmet {
		r.line("  %s", u)
	}
	r.line("the extension printed last:\n%s", log)
}

// plural is "1 request", "2 requests".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
