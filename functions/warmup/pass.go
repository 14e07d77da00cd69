package warmup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/functions/warmup/gate"
)

// runAudience does what is due for one audience. ctx ends the pass; last
// outlives it, for what has to be written down then.
func (w *Warmer) runAudience(ctx, last context.Context, l *leadership, full bool) {
	now := w.o.Now()
	log := w.o.Log.With("audience", l.audience.Name)
	state := w.loadState(ctx, l)
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
		w.through(l.audience.Name)
		w.o.Backup.save(l.ctx, w, l, &state)
		return
	}
	if name == passModified && resume == nil {
		if _, stamp := w.cursor.look(ctx); state.Cursor.stands(stamp) {
			// Not a thing was written since before the last pass read anything.
			w.began(passModified)
			w.note(func(s *Summary) { s.Unchanged += state.Inventory.Secrets })
			state.Verified = stamp.At
			w.saveState(ctx, l, state)
			if w.o.Stamps {
				l.audience.Marks.PutStamps(ctx, stamp, nil)
			}
			log.Info("the origin's cursor stands: nothing changed", "secrets", state.Inventory.Secrets)
			w.through(l.audience.Name)
			w.o.Backup.save(l.ctx, w, l, &state)
			return
		}
	}
	w.began(name)
	p := &pass{w: w, l: l, name: name, last: last, state: &state, progress: progress{Pass: name, Began: now}}
	if resume != nil {
		p.progress = *resume
	}
	log.Info("pass begins", "pass", name, "from", resume.String())
	err := p.run(l.ctx, resume == nil)
	if err == nil {
		log.Info("pass is complete", "pass", name, "secrets", state.Inventory.Secrets)
		w.through(l.audience.Name)
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
	missing := p.missing()
	if errors.Is(err, gate.ErrGivenUp) {
		w.nameMissing(l.audience, missing)
		again = now.Add(max(w.o.ModifiedEvery, time.Minute))
	}
	state.Cut = &p.progress
	w.saveState(last, l, state)
	w.stopped(Resume{Audience: l.audience.Name, After: p.progress.After, Reason: reason(err), Missing: len(missing)})
	w.o.Backup.restore(last, w, l, &state, err)
}

// missing are the secrets that were listed and are not known to be done.
func (p *pass) missing() []item {
	at, found := slices.BinarySearchFunc(p.items, p.progress.After, cmpName)
	if found {
		at++
	}
	return slices.DeleteFunc(slices.Clone(p.items[at:]), func(it item) bool { return it.list })
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
	if errors.Is(err, gate.ErrGivenUp) {
		return "rate limited: " + err.Error()
	}
	return err.Error()
}

// pass is one pass for one audience.
type pass struct {
	w        *Warmer
	l        *leadership
	name     string
	last     context.Context
	state    *record
	progress progress

	items   []item
	next    atomic.Int64 // index of the next item to read
	pending []atomic.Int64

	lists struct {
		mu sync.Mutex // guards the batch
		batch
	}
	unstored atomic.Int64 // records that memcached did not take
	passing  atomic.Int64 // secrets whose read failed and may not the next time

	saving sync.Mutex // held by who writes the progress down
	saved  time.Time  // guarded by saving
}

// run makes the pass. When it returns an error, progress says how far it came.
func (p *pass) run(ctx context.Context, fromStart bool) error {
	w := p.w
	if err := w.ready(ctx); err != nil {
		return err
	}
	// After the login, which may move it.
	w.cursor.ask(ctx)
	if fromStart {
		p.progress.Cursor = toAnchor(w.cursor.anchorNow())
	}
	listed := w.o.Now()
	found, err := w.list(ctx, p.l.audience, p.storeList)
	if err != nil {
		return err
	}
	if !p.flush(&p.lists.batch) { // nobody lists any more
		return errLost
	}
	p.items = p.wanted(ctx, found.items)
	if err := p.readAll(ctx); err != nil {
		return err
	}
	return p.complete(ctx, found, listed)
}

// ready logs in, and waits while the origin is away.
func (w *Warmer) ready(ctx context.Context) error {
	for {
		err := w.o.Origin.Ready(ctx)
		if err == nil || ctx.Err() != nil || !isAway(err) {
			return err
		}
		if !w.away.wait(ctx, err) {
			return fmt.Errorf("%w: %w", errAway, err)
		}
	}
}

// wanted leaves out what may not be stored, and, if that is asked for, what no
// function holds a grant for.
func (p *pass) wanted(ctx context.Context, items []item) []item {
	items = slices.DeleteFunc(slices.Clone(items), func(it item) bool { return cache.MatchPath(p.w.o.Skip, it.path) })
	if !p.w.o.ConfirmedOnly {
		return items
	}
	ns := p.l.audience.Namespace
	out := items[:0]
	for chunk := range slices.Chunk(items, 500) {
		rights := make([]cache.Right, len(chunk))
		for i, it := range chunk {
			rights[i] = cache.Right{Namespace: ns, Path: it.path, List: it.list}
		}
		held := p.l.audience.Marks.Grants(ctx, rights)
		for i, it := range chunk {
			if _, ok := held[rights[i]]; ok {
				out = append(out, it)
			}
		}
	}
	return out
}

// readAll reads every secret that is not done.
func (p *pass) readAll(ctx context.Context) error {
	start, found := slices.BinarySearchFunc(p.items, p.progress.After, cmpName)
	if found {
		start++
	}
	if p.progress.After == "" {
		start = 0
	}
	p.next.Store(int64(start))
	p.saved = p.w.o.Now()
	p.pending = make([]atomic.Int64, p.w.o.Workers)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for n := range p.w.o.Workers {
		p.pending[n].Store(int64(len(p.items)))
		wg.Go(func() {
			if err := p.work(ctx, &p.pending[n]); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	p.progress.After = p.doneUpTo()
	return context.Cause(ctx)
}

// doneUpTo is the name of the last item before which, and with which,
// everything is done.
func (p *pass) doneUpTo() string {
	first := min(p.next.Load(), int64(len(p.items)))
	for i := range p.pending {
		first = min(first, p.pending[i].Load())
	}
	if first == 0 {
		return ""
	}
	return p.items[first-1].name()
}

// work is one worker. pending is the index of its first item that is not in
// the tier yet.
func (p *pass) work(ctx context.Context, pending *atomic.Int64) error {
	var b batch
	none := int64(len(p.items))
	for {
		// Claimed under a lower bound, so that doneUpTo never runs ahead.
		if pending.Load() == none {
			pending.Store(p.next.Load())
		}
		i := p.next.Add(1) - 1
		if i >= none {
			break
		}
		if b.empty() {
			pending.Store(i)
		}
		if p.items[i].list {
			if b.empty() {
				pending.Store(none)
			}
			continue // was read when it was listed
		}
		if err := p.fetch(ctx, p.items[i], &b); err != nil {
			if !b.empty() && p.flush(&b) {
				pending.Store(i)
			}
			return err
		}
		switch {
		case b.empty():
			pending.Store(none)
		case b.full():
			if !p.flush(&b) {
				return errLost
			}
			pending.Store(none)
			p.saveProgress()
		}
	}
	if !b.empty() && !p.flush(&b) {
		return errLost
	}
	pending.Store(none)
	return nil
}

// fetch reads one secret into the batch. An error is a reason to stop.
func (p *pass) fetch(ctx context.Context, it item, b *batch) error {
	w, ns := p.w, p.l.audience.Namespace
	key := it.key(ns)
	anchor := w.cursor.anchorNow()
	a, err := w.read(ctx, key)
	if refused := errRefused(""); errors.As(err, &refused) {
		w.fail(ns, it.path, err.Error())
		return nil
	} else if err != nil {
		return err
	}
	switch a.Status {
	case http.StatusOK:
		w.note(func(s *Summary) { s.Fetched++ })
		r, ok := cache.Interpret(key, it.at.mount, a, anchor)
		if !ok {
			w.fail(ns, it.path, "the answer cannot be cached: it is wrapped or leased, or a cache before the origin gave it")
			return nil
		}
		b.add(r)
	case http.StatusNotFound:
		// Deleted, or its latest version is. It was listed, so it is no zombie.
		b.lose(key, a.SentAt)
	default:
		if cache.OriginFailure(a.Status) {
			p.passing.Add(1)
		}
		w.fail(ns, it.path, refusal(a, "may not read it").Error())
	}
	return nil
}

// saveProgress writes down how far the pass came, now and then, for the run
// that goes on if this one is killed.
func (p *pass) saveProgress() {
	if !p.saving.TryLock() {
		return
	}
	defer p.saving.Unlock()
	if p.w.o.Progress != nil {
		p.w.o.Progress(p.w.current())
	}
	now := p.w.o.Now()
	if now.Sub(p.saved) < 10*time.Second {
		return
	}
	p.saved = now
	state, cut := *p.state, p.progress
	cut.After = p.doneUpTo()
	state.Cut = &cut
	p.w.saveState(p.last, p.l, state)
}

// complete removes zombies and writes down what the pass achieved.
func (p *pass) complete(ctx context.Context, found listing, listed time.Time) error {
	w, ns := p.w, p.l.audience.Namespace
	if !p.l.held() {
		return errLost
	}
	w.zombies(ctx, p.l, p.state.Inventory, p.items, found.complete, func(gone []item) {
		for chunk := range slices.Chunk(gone, 100) {
			keys := make([]cache.Key, len(chunk))
			secrets := 0
			for i, it := range chunk {
				keys[i] = it.key(ns)
				if !it.list {
					secrets++
				}
			}
			if p.l.held() {
				p.l.audience.Store.Remove(ctx, keys, listed)
				w.note(func(s *Summary) { s.Removed += secrets })
			}
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if n := p.unstored.Load(); n > 0 {
		p.progress.After = "" // which of them is not worth knowing
		return fmt.Errorf("memcached did not take %d of the secrets", n)
	}
	p.state.Inventory = w.saveInventory(ctx, p.l, p.progress.Began.UnixNano(), p.items)
	p.state.Verified, p.state.Cursor, p.state.Cut = p.progress.Began, p.progress.Cursor, nil
	if p.passing.Load() > 0 {
		p.state.Cursor = anchor{} // standing, it would hide them from the next pass
	}
	if p.name == passFull {
		p.state.Full = p.progress.Began
	}
	w.saveState(ctx, p.l, *p.state)
	if w.o.Progress != nil {
		w.o.Progress(w.current())
	}
	return nil
}
