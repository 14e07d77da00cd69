package warmup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

// cycle does what is due for the audience, until ctx ends. later are those whose turn
// comes after this one.
func (l *leadership) cycle(ctx context.Context, later []*leadership, full bool) {
	w, state := l.w, &l.state
	l.before = w.current().Unchanged
	l.load(l.last)
	l.next = time.Time{}
	full = l.rescope() || full
	name, resume := state.due(w.o.Now(), full, w.o.FullEvery, w.o.ModifiedEvery)
	switch {
	case name == passNothing:
		w.o.Log.Debug("nothing is due", "audience", l.audience.Name)
		l.through()
	case name != passModified || resume != nil || !l.stands(ctx):
		l.makePass(later, name, resume)
	}
	due := slices.MinFunc([]time.Time{state.Verified.Add(w.o.ModifiedEvery), state.Full.Add(w.o.FullEvery)}, time.Time.Compare)
	if state.Cut == nil && due.After(l.next) {
		l.next = due
	}
	w.note(func(s *Summary) {
		if s.LastFull.IsZero() || state.Full.Before(s.LastFull) {
			s.LastFull = state.Full
		}
	})
}

// stands asks whether anything was written since the last pass. It reports true when no
// pass has to be made.
func (l *leadership) stands(ctx context.Context) bool {
	w, state, log := l.w, &l.state, l.w.o.Log.With("audience", l.audience.Name)
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
		l.save(ctx, *state)
		l.audience.PutStamps(ctx, stamp, nil)
		log.Info("the origin's index stands: nothing changed", "secrets", state.Inventory.Secrets)
		l.through()
	default:
		return false
	}
	return true
}

// makePass makes a pass, or what is left of one.
func (l *leadership) makePass(later []*leadership, name string, resume *progress) {
	w, log, now := l.w, l.w.o.Log.With("audience", l.audience.Name, "pass", name), l.w.o.Now()
	w.began(name)
	p := &pass{leadership: l, later: later, todo: new(todo), progress: progress{Pass: name, Began: now}}
	from := "the beginning"
	if resume != nil {
		p.progress = *resume
		from = fmt.Sprintf("%s pass of %s, after %q", resume.Pass, resume.Began.UTC().Format(time.RFC3339), resume.After)
	}
	log.Info("pass begins", "from", from)
	err := p.run(l.ctx, resume == nil)
	if err == nil {
		log.Info("pass is complete", "secrets", l.state.Inventory.Secrets)
		l.through()
		if n := int(p.passing.Load()); n > 0 {
			w.stopped(Resume{Audience: l.audience.Name, Reason: "the origin failed some reads; the next pass tries them again", Missing: n})
		}
		return
	}
	if why := context.Cause(l.ctx); why != nil && errors.Is(err, context.Canceled) {
		err = why
	}
	p.saving.Lock() // no restoring is under way any more, and none begins
	restored := p.restored
	p.restored = true
	p.saving.Unlock()
	log.Warn("pass is cut off", "after", p.progress.After, "error", err)
	missing := p.todo.missing()
	reason := err.Error()
	if errors.Is(err, backoff.ErrGivenUp) {
		w.nameMissing(l.audience, missing)
		l.next, reason = now.Add(max(w.o.ModifiedEvery, time.Minute)), "rate limited: "+reason
	}
	l.state.Cut = &p.progress
	l.save(l.last, l.state)
	w.stopped(Resume{Audience: l.audience.Name, After: p.progress.After, Reason: reason, Missing: len(missing)})
	if errors.Is(err, errAway) && !restored {
		ctx, cancel := context.WithTimeout(l.last, spare-2*time.Second)
		defer cancel()
		w.o.Backup.restore(ctx, l)
	}
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
	b := p.w.o.Backup
	p.restored = b.restore(p.ctx, p.leadership)
	for _, other := range p.later {
		other.load(other.ctx)
		p.restored = b.restore(other.ctx, other) && p.restored
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
