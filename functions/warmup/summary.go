package warmup

import (
	"cmp"
	"maps"
	"time"
)

// Summary is what a run did. Its JSON names are a contract.
type Summary struct {
	Pass        string            `json:"pass"`             // full, modified or nothing: the largest of the audiences'
	Leader      bool              `json:"leader"`           // of at least one audience
	Fetched     int               `json:"fetched"`          // secrets read from the origin
	Changed     int               `json:"changed"`          // of them: not in the tier, or another answer
	Unchanged   int               `json:"unchanged"`        // the same answer, or proven by the cursor
	Removed     int               `json:"removed"`          // secrets that are no more
	Failed      map[string]string `json:"failed"`           // prefix or path: why
	FailedMore  int               `json:"failed_more"`      // failures beyond those named
	RateLimited int               `json:"rate_limited"`     // answers 429
	Requests    int               `json:"requests"`         // sent to the origin, but for logins
	Seconds     float64           `json:"seconds"`          //
	Complete    bool              `json:"complete"`         // nothing that was due is left
	Resume      *Resume           `json:"resume,omitempty"` // where the next run goes on

	LastFull time.Time `json:"-"` // when the last complete full pass began, of the audience whose is oldest
}

// Resume says where a pass stopped, and why.
type Resume struct {
	Audience string `json:"audience"`
	After    string `json:"after"` // the last path that is done; empty: none
	Reason   string `json:"reason"`
}

// maxFailed bounds the failures that are named.
const maxFailed = 1000

const (
	passNothing  = "nothing"
	passModified = "modified"
	passFull     = "full"
)

func (w *Warmer) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.summary = Summary{Pass: passNothing, Failed: map[string]string{}, Complete: true}
	w.asked.Store(0)
	w.refused = 0
	if w.o.Gate != nil {
		w.refused = w.o.Gate.Stats().Refused
	}
}

// note changes the summary.
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
	w.note(func(s *Summary) {
		s.Complete = false
		if s.Resume == nil {
			s.Resume = &r
		}
	})
}

// began raises the summary's pass.
func (w *Warmer) began(pass string) {
	rank := map[string]int{passNothing: 0, passModified: 1, passFull: 2}
	w.note(func(s *Summary) {
		if cmp.Compare(rank[pass], rank[s.Pass]) > 0 {
			s.Pass = pass
		}
	})
}

// so far, with what others count.
func (w *Warmer) current() Summary {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.summary
	s.Failed = maps.Clone(s.Failed)
	s.Requests = int(w.asked.Load())
	if w.o.Gate != nil {
		s.RateLimited = w.o.Gate.Stats().Refused - w.refused
	}
	return s
}

func (w *Warmer) finish(began time.Time) Summary {
	s := w.current()
	s.Seconds = max(0, inSeconds(w.o.Now().Sub(began)))
	return s
}

// inSeconds is a duration in seconds, to the millisecond.
func inSeconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
