package warmup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

// runAudience does what is due for one audience, until ctx ends. later are those whose
// turn comes after this one.
func (w *Warmer) runAudience(ctx context.Context, l *leadership, later []*leadership, full bool) {
	l.before = w.current().Unchanged
	state := l.loadState(l.last)
	var again time.Time // not before this
	defer func() {
		l.next = again
		due := slices.MinFunc([]time.Time{state.Verified.Add(w.o.ModifiedEvery), state.Full.Add(w.o.FullEvery)}, time.Time.Compare)
		if state.Cut == nil && due.After(again) {
			l.next = due
		}
		w.note(func(s *Summary) {
			if s.LastFull.IsZero() || state.Full.Before(s.LastFull) {
				s.LastFull = state.Full
			}
		})
	}()
	full = w.rescope(l.audience, &state) || full
	name, resume := state.due(w.o.Now(), full, w.o.FullEvery, w.o.ModifiedEvery)
	switch {
	case name == passNothing:
		w.o.Log.Debug("nothing is due", "audience", l.audience.Name)
		w.through(l, &state)
	case name != passModified || resume != nil || !w.unchanged(ctx, l, &state):
		again = w.makePass(l, later, &state, name, resume)
	}
}

// unchanged asks whether anything was written since the last pass. It reports
// true when no pass has to be made.
func (w *Warmer) unchanged(ctx context.Context, l *leadership, state *record) bool {
	log := w.o.Log.With("audience", l.audience.Name)
	stamp := w.whereStands(ctx)
	switch {
	case ctx.Err() != nil && l.checked:
		// The run's time ended during the question. Nothing is left undone: the
		// check before was this run's.
		log.Debug("the run ends before it is known whether anything changed since its last check")
		w.note(func(s *Summary) { s.Unchanged += l.unchanged })
	case state.Cursor.stands(stamp):
		w.began(passModified)
		w.note(func(s *Summary) { s.Unchanged += state.Inventory.Secrets })
		state.Verified = stamp.At
		w.saveState(ctx, l, *state)
		l.audience.PutStamps(ctx, stamp, nil)
		log.Info("the origin's index stands: nothing changed", "secrets", state.Inventory.Secrets)
		w.through(l, state)
	default:
		return false
	}
	return true
}

// makePass makes a pass, or what is left of one. It returns before when the next
// must not begin; zero: when it is due.
func (w *Warmer) makePass(l *leadership, later []*leadership, state *record, name string, resume *progress) (again time.Time) {
	log := w.o.Log.With("audience", l.audience.Name, "pass", name)
	now := w.o.Now()
	w.began(name)
	p := &pass{w: w, l: l, later: later, state: state, progress: progress{Pass: name, Began: now}}
	from := "the beginning"
	if resume != nil {
		p.progress = *resume
		from = fmt.Sprintf("%s pass of %s, after %q", resume.Pass, resume.Began.UTC().Format(time.RFC3339), resume.After)
	}
	log.Info("pass begins", "from", from)
	err := p.run(l.ctx, resume == nil)
	if err == nil {
		log.Info("pass is complete", "secrets", state.Inventory.Secrets)
		w.through(l, state)
		if n := int(p.passing.Load()); n > 0 {
			w.stopped(Resume{Audience: l.audience.Name, Reason: "the origin failed some reads; the next pass tries them again", Missing: n})
		}
		return time.Time{}
	}
	if why := context.Cause(l.ctx); why != nil && errors.Is(err, context.Canceled) {
		err = why
	}
	log.Warn("pass is cut off", "after", p.progress.After, "error", err)
	missing := p.todo.missing()
	reason := err.Error()
	if errors.Is(err, backoff.ErrGivenUp) {
		w.nameMissing(l.audience, missing)
		again, reason = now.Add(max(w.o.ModifiedEvery, time.Minute)), "rate limited: "+reason
	}
	state.Cut = &p.progress
	w.saveState(l.last, l, *state)
	w.stopped(Resume{Audience: l.audience.Name, After: p.progress.After, Reason: reason, Missing: len(missing)})
	if errors.Is(err, errAway) && !p.restored {
		ctx, cancel := context.WithTimeout(l.last, spare-2*time.Second)
		defer cancel()
		w.o.Backup.restore(ctx, w, l, state)
	}
	return again
}

// restore puts backups into an empty tier while the origin is away: this
// audience's, and those of later ones, since the wait may take all the time
// there is.
func (p *pass) restore() {
	p.saving.Lock()
	defer p.saving.Unlock()
	if p.restored {
		return
	}
	w := p.w
	p.restored = w.o.Backup.restore(p.l.ctx, w, p.l, p.state)
	for _, other := range p.later {
		state := other.loadState(other.ctx)
		p.restored = w.o.Backup.restore(other.ctx, w, other, &state) && p.restored
	}
}

// nameMissing names what a cycle that was given up leaves out.
func (w *Warmer) nameMissing(a *Audience, missing []item) {
	const why = "not read: the origin's rate limit refused too many attempts; the next run goes on here"
	names := pathsOf(missing)
	if len(names) == 0 {
		names = a.Prefixes
	}
	for _, name := range names {
		w.fail(a.Namespace, name, why)
	}
}
