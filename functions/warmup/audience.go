package warmup

import (
	"context"
	"errors"
	"github.com/thaw-project/thaw/extension/cache"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

// runAudience does what is due for one audience. ctx ends the pass; last
// outlives it, for what has to be written down then. later are those whose turn
// comes after this one.
func (w *Warmer) runAudience(ctx, last context.Context, l *leadership, later []*leadership, full bool) {
	now := w.o.Now()
	l.before = w.current().Unchanged
	log := w.o.Log.With("audience", l.audience.Name)
	state := w.loadState(last, l)
	name, resume := state.due(now, full, w.o.FullEvery, w.o.ModifiedEvery)
	var again time.Time // not before this
	defer func() {
		l.setNext(latest(w.nextDue(state), again))
		w.note(func(s *Summary) {
			if s.LastFull.IsZero() || state.Full.Before(s.LastFull) {
				s.LastFull = state.Full
			}
		})
	}()
	if name == passNothing {
		log.Debug("nothing is due")
		w.through(l)
		w.o.Backup.save(l.ctx, w, l, &state)
		return
	}
	if name == passModified && resume == nil {
		stamp := w.whereStands(ctx)
		if ctx.Err() != nil && l.checked {
			// The run's time ended during the question. Nothing is left undone: the
			// check before was this run's.
			log.Debug("the run ends before it is known whether anything changed since its last check")
			w.note(func(s *Summary) { s.Unchanged += l.unchanged })
			return
		}
		if state.Cursor.stands(stamp) {
			// Not a thing was written since before the last pass read anything.
			w.began(passModified)
			w.note(func(s *Summary) { s.Unchanged += state.Inventory.Secrets })
			state.Verified = stamp.At
			w.saveState(ctx, l, state)
			if w.o.Stamps {
				l.audience.Marks.PutStamps(ctx, stamp, nil)
			}
			log.Info("the origin's cursor stands: nothing changed", "secrets", state.Inventory.Secrets)
			w.through(l)
			w.o.Backup.save(l.ctx, w, l, &state)
			return
		}
	}
	w.began(name)
	p := &pass{w: w, l: l, name: name, last: last, state: &state, progress: progress{Pass: name, Began: now}}
	settled := false
	w.away.whenItBegins(func() {
		p.saving.Lock()
		defer p.saving.Unlock()
		if settled {
			return
		}
		settled = w.o.Backup.restore(l.ctx, w, l, &state)
		for _, other := range later {
			// The wait may take all the time there is.
			state := w.loadState(other.ctx, other)
			settled = w.o.Backup.restore(other.ctx, w, other, &state) && settled
		}
	})
	defer w.away.whenItBegins(nil)
	if resume != nil {
		p.progress = *resume
	}
	log.Info("pass begins", "pass", name, "from", resume.String())
	err := p.run(l.ctx, resume == nil)
	if err == nil {
		log.Info("pass is complete", "pass", name, "secrets", state.Inventory.Secrets)
		w.through(l)
		if n := int(p.passing.Load()); n > 0 {
			w.stopped(Resume{Audience: l.audience.Name, Reason: "the origin failed some reads; the next pass tries them again", Missing: n})
		}
		w.o.Backup.save(l.ctx, w, l, &state)
		return
	}
	if why := context.Cause(l.ctx); why != nil && errors.Is(err, context.Canceled) {
		err = why
	}
	log.Warn("pass is cut off", "pass", name, "after", p.progress.After, "error", err)
	var missing []item
	if p.todo != nil {
		missing = p.todo.missing()
	}
	if errors.Is(err, backoff.ErrGivenUp) {
		w.nameMissing(l.audience, missing)
		again = now.Add(max(w.o.ModifiedEvery, time.Minute))
	}
	state.Cut = &p.progress
	w.saveState(last, l, state)
	w.stopped(Resume{Audience: l.audience.Name, After: p.progress.After, Reason: reason(err), Missing: len(missing)})
	if errors.Is(err, errAway) && !settled {
		ctx, cancel := context.WithTimeout(last, spare-2*time.Second)
		defer cancel()
		w.o.Backup.restore(ctx, w, l, &state)
	}
}

// lookTries is how often the cursor is asked for in a cycle where the origin is
// there and only this question fails.
const lookTries = 3

// whereStands is the cursor in this cycle. A request that failed is no reason
// to read every secret again: an origin that is away is waited for, and one
// whose rate limit refused is asked when the backoff opens.
func (w *Warmer) whereStands(ctx context.Context) cache.CursorStamp {
	for range lookTries {
		stamp, err := w.cursor.look(ctx)
		status := errStatus(0)
		failed := errors.As(err, &status)
		if err == nil || ctx.Err() != nil || !failed && !isAway(err) {
			return stamp
		}
		if status != http.StatusTooManyRequests && !w.away.wait(ctx, err) {
			return cache.CursorStamp{}
		}
	}
	return cache.CursorStamp{}
}

// nameMissing names what a cycle that was given up leaves out.
func (w *Warmer) nameMissing(a *Audience, missing []item) {
	const why = "not read: the origin's rate limit refused too many attempts; the next run goes on here"
	for _, it := range missing {
		w.fail(a.Namespace, it.path, why)
	}
	if len(missing) == 0 {
		for _, p := range a.Prefixes {
			w.fail(a.Namespace, p, why)
		}
	}
}

// nextDue is when an audience's state asks for a pass again.
func (w *Warmer) nextDue(r record) time.Time {
	next := r.Verified.Add(w.o.ModifiedEvery)
	if full := r.Full.Add(w.o.FullEvery); full.Before(next) {
		next = full
	}
	if r.Cut != nil {
		return time.Time{}
	}
	return next
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reason says in a summary why a pass stopped.
func reason(err error) string {
	if errors.Is(err, backoff.ErrGivenUp) {
		return "rate limited: " + err.Error()
	}
	return err.Error()
}
