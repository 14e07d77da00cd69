package warmup

import (
	"maps"
	"time"
)

// Summary is what a run did. Its JSON names are a contract.
type Summary struct {
	Pass        string            `json:"pass"`             // full, modified or nothing: the largest of the audiences'
	Leader      bool              `json:"leader"`           // of at least one audience
	Fetched     int               `json:"fetched"`          // secrets read from the origin
	Changed     int               `json:"changed"`          // of them: not in the tier, or another answer
	Unchanged   int               `json:"unchanged"`        // the same answer, or revalidated by the index
	Removed     int               `json:"removed"`          // secrets that are no more
	Failed      map[string]string `json:"failed"`           // prefix or path: why
	FailedMore  int               `json:"failed_more"`      // failures beyond those named
	RateLimited int               `json:"rate_limited"`     // answers 429
	Requests    int               `json:"requests"`         // sent to the origin; without a backoff, those for lists and secrets
	Seconds     float64           `json:"seconds"`          //
	Complete    bool              `json:"complete"`         // nothing that was due is left
	Resume      *Resume           `json:"resume,omitempty"` // where the next run goes on

	// Leaderless: memcached did not answer for some audience, so that nobody warms it.
	// Without it, whoever does not lead leaves the work to another.
	Leaderless bool      `json:"-"`
	LastFull   time.Time `json:"-"` // when the last complete full pass began, of the audience whose is oldest
}

// Resume says where a pass stopped, and why.
type Resume struct {
	Audience string `json:"audience"`
	After    string `json:"after"`   // the last path that was begun; empty: none
	Missing  int    `json:"missing"` // secrets that were listed and not read; 0 also where not all was listed
	Reason   string `json:"reason"`
}

// maxFailed bounds the failures that are named.
const maxFailed = 1000

const (
	passNothing  = "nothing"
	passModified = "modified"
	passFull     = "full"
)

// begin forgets the last run. The origin is waited for until then, where it is away.
func (w *Warmer) begin(until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.summary = Summary{Pass: passNothing, Failed: map[string]string{}}
	w.left, w.stood, w.until = make(map[string]Resume), nil, until
	if w.o.Backoff != nil {
		w.before = w.o.Backoff.Stats()
	}
}

// note changes the summary, or what else w.mu guards.
func (w *Warmer) note(f func(*Summary)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.summary)
}

// fail names what could not be had.
func (w *Warmer) fail(namespace, path, why string) {
	if namespace != "" {
		path = namespace + "/" + path
	}
	w.note(func(s *Summary) {
		if _, ok := s.Failed[path]; !ok && len(s.Failed) >= maxFailed {
			s.FailedMore++
			return
		}
		s.Failed[path] = why
	})
}

// stopped says that an audience's pass is not through.
func (w *Warmer) stopped(r Resume) {
	w.note(func(*Summary) { w.left[r.Audience] = r })
}

// through says that nothing is left to do for an audience but its backup.
func (l *leadership) through() {
	l.w.note(func(s *Summary) {
		l.checked, l.unchanged = true, s.Unchanged-l.before
		delete(l.w.left, l.audience.Name)
	})
	l.w.o.Backup.save(l.ctx, l)
}

// began raises the summary's pass.
func (w *Warmer) began(pass string) {
	rank := map[string]int{passNothing: 0, passModified: 1, passFull: 2}
	w.note(func(s *Summary) {
		if rank[pass] > rank[s.Pass] {
			s.Pass = pass
		}
	})
}

// current is the summary so far, with what others count.
func (w *Warmer) current() Summary {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.summary
	s.Failed = maps.Clone(s.Failed)
	s.Complete = len(w.left) == 0
	for i := range w.o.Audiences {
		if r, ok := w.left[w.o.Audiences[i].Name]; ok {
			s.Resume = &r
			break
		}
	}
	if w.o.Backoff != nil {
		now := w.o.Backoff.Stats()
		s.RateLimited, s.Requests = now.Refused-w.before.Refused, now.Requests-w.before.Requests
	}
	return s
}
