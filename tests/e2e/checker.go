// Package e2e runs the real extension under the lifecycle fake against a real
// Vault with integrated storage, and judges what the function was told.
//
// The judge is the Checker. It knows a history for each resource: which
// answers it had, and between which two moments each became true. A read is
// judged when all is over, against the whole history:
//
//	write 1   [begin....end]
//	write 2                        [begin....end]
//	true          1 may be  |  1 is  | 1 or 2   |  2 is
//
// An answer that is not marked stale must have been true at some moment
// between Read.From and Read.To. From is the latest moment that the reader may
// rely on: the INVOKE of its invocation, or the end of a write of its own.
// Writes may overlap reads and each other; where the order of two writes cannot
// be known, either may be last.
package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Read is one answer that a function was given.
type Read struct {
	Resource string
	Answer   string
	From, To time.Time
	Marked   bool   // it says that it is stale
	CutOff   bool   // the origin could not be reached at some moment of it
	Note     string // for the report: who read, and what the answer said of itself
}

// state is an answer that a resource had.
type state struct {
	answer     string
	begin, end time.Time // the write that made it; end is zero while it runs
	superseded time.Time // by then certainly another write was the last; zero: never
}

// Checker holds histories and judges reads. It is safe for concurrent use.
type Checker struct {
	mu     sync.Mutex
	states map[string][]*state // guarded by mu
	reads  []Read              // guarded by mu
}

// NewChecker returns a Checker that knows nothing.
func NewChecker() *Checker { return &Checker{states: make(map[string][]*state)} }

// Wrote records that a write between begin and end made the resource's answer
// this one. A write that changes nothing may be recorded too.
func (c *Checker) Wrote(resource, answer string, begin, end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states[resource] = append(c.states[resource], &state{answer: answer, begin: begin, end: end})
}

// Read records an answer, to be judged by Judge.
func (c *Checker) Read(r Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads = append(c.reads, r)
}

// Verdict is what is wrong with a read.
type Verdict struct {
	Read Read
	Why  string
}

func (v Verdict) String() string {
	return fmt.Sprintf("%s: %s\n  between %s and %s (%s)\n  answer: %.300s", v.Read.Resource, v.Why,
		v.Read.From.Format("15:04:05.000000"), v.Read.To.Format("15:04:05.000000"), v.Read.Note, v.Read.Answer)
}

// Judgement is what became of all reads.
type Judgement struct {
	Reads      int
	Marked     int       // marked stale, rightly
	Stale      []Verdict // was true once, no more at From, and did not say so
	Wrong      []Verdict // was never true, or not yet
	Unexpected []Verdict // marked stale although the origin could be reached
}

// Failures are all verdicts.
func (j Judgement) Failures() []Verdict { return slices.Concat(j.Stale, j.Wrong, j.Unexpected) }

func (j Judgement) String() string {
	return fmt.Sprintf("%d reads, %d marked stale, %d stale and not marked, %d wrong, %d marked without need",
		j.Reads, j.Marked, len(j.Stale), len(j.Wrong), len(j.Unexpected))
}

// Judge judges every read against every write recorded so far.
func (c *Checker) Judge() Judgement {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, states := range c.states {
		supersede(states)
	}
	j := Judgement{Reads: len(c.reads)}
	for _, r := range c.reads {
		was, is := lookUp(c.states[r.Resource], r)
		switch {
		case !was && len(c.states[r.Resource]) == 0:
			j.Wrong = append(j.Wrong, Verdict{r, "nobody ever wrote it"})
		case !was:
			j.Wrong = append(j.Wrong, Verdict{r, "was not true before the answer came. History:\n" + history(c.states[r.Resource], r)})
		case r.Marked && !r.CutOff:
			j.Unexpected = append(j.Unexpected, Verdict{r, "is marked stale although the origin could be reached"})
		case r.Marked:
			j.Marked++
		case !is:
			j.Stale = append(j.Stale, Verdict{r, "was true once, but no more. History:\n" + history(c.states[r.Resource], r)})
		}
	}
	return j
}

// supersede finds for each state the first moment at which a later write had
// certainly ended. Later means begun after this one had ended: of two writes
// that overlap either may be the last.
func supersede(states []*state) {
	slices.SortStableFunc(states, func(a, b *state) int { return a.begin.Compare(b.begin) })
	// first[i] is the earliest end among states[i:].
	first := make([]time.Time, len(states)+1)
	for i := len(states) - 1; i >= 0; i-- {
		first[i] = states[i].end
		if next := first[i+1]; !next.IsZero() && next.Before(first[i]) {
			first[i] = next
		}
	}
	for _, s := range states {
		i, _ := slices.BinarySearchFunc(states, s.end, func(o *state, end time.Time) int {
			return cmp.Or(o.begin.Compare(end), -1) // the first that began after end
		})
		s.superseded = first[i]
	}
}

// lookUp reports whether the read's answer was true at any time before its
// end, and whether it may have been true between From and To.
func lookUp(states []*state, r Read) (was, is bool) {
	for _, s := range states {
		if s.answer != r.Answer || s.begin.After(r.To) {
			continue
		}
		was = true
		if s.superseded.IsZero() || !s.superseded.Before(r.From) {
			return true, true
		}
	}
	return was, false
}

// history is what the resource answered around a read.
func history(states []*state, r Read) string {
	const around = 3 * time.Second
	var b strings.Builder
	for _, s := range states {
		if s.end.Before(r.From.Add(-around)) || s.begin.After(r.To.Add(around)) {
			continue
		}
		mark := " "
		if s.answer == r.Answer {
			mark = "*"
		}
		fmt.Fprintf(&b, "  %s %s to %s: %.120s\n", mark, s.begin.Format("15:04:05.000000"), s.end.Format("15:04:05.000000"), s.answer)
	}
	return b.String()
}
