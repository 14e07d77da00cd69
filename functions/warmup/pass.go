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
)

// pass is one pass for one audience.
type pass struct {
	*leadership
	later    []*leadership // those whose turn comes after this one
	progress progress

	items []item
	whole []prefix // those below which everything was listed
	todo  *todo    // nothing until everything is listed

	spared int // secrets that need no read

	unstored atomic.Int64 // records that memcached did not take
	passing  atomic.Int64 // lists and secrets whose read failed and may not the next time

	saving   sync.Mutex // held by who writes the progress down, or restores backups
	saved    time.Time  // guarded by saving
	restored bool       // guarded by saving: nothing is left to try with backups
}

// run makes the pass. When it returns an error, progress says how far it came.
func (p *pass) run(ctx context.Context, fromStart bool) error {
	w := p.w
	if err := p.ready(ctx); err != nil {
		return err
	}
	// After the login, which may move it.
	_, _, _ = w.askIndex(ctx) // without an answer the one of before counts
	if activeTime, forwards, at := w.cursor.Told(); !at.IsZero() {
		p.audience.Learned(ctx, activeTime, forwards, at)
	}
	if fromStart {
		p.progress.Cursor = recordedIndex(w.cursor.Recorded())
	}
	listed := w.o.Now()
	if err := p.list(ctx); err != nil {
		return err
	}
	p.choose(ctx)
	if err := p.readAll(ctx); err != nil {
		return err
	}
	return p.complete(ctx, listed)
}

// ready logs in, and waits while the origin is away.
func (p *pass) ready(ctx context.Context) error {
	for {
		err := p.w.o.Origin.Ready(ctx)
		if err == nil || ctx.Err() != nil || !isAway(err) {
			return err
		}
		if err := p.outlast(ctx, err); err != nil {
			return err
		}
	}
}

// choose leaves out what may not be stored, and, if that is asked for, what no
// function is known to be allowed to read.
func (p *pass) choose(ctx context.Context) {
	a, o := p.audience, &p.w.o
	var used map[cache.Capability]bool
	if o.ConfirmedOnly {
		used = a.Used(ctx)
	}
	p.items = slices.DeleteFunc(p.items, func(it item) bool {
		return cache.MatchPath(o.Skip, it.path) || o.ConfirmedOnly && !used[cache.Capability{Namespace: a.Namespace, Path: it.path}]
	})
}

// readAll reads every secret that is not done.
func (p *pass) readAll(ctx context.Context) error {
	p.todo = newTodo(p.items, p.progress.After, p.progress.Left)
	p.saved = p.w.o.Now()
	err := p.spare(ctx)
	if err == nil {
		err = p.w.each(ctx, p.w.o.Workers, func(ctx context.Context, _ int) error { return p.work(ctx) })
	}
	p.progress.After, p.progress.Left = p.todo.position()
	return err
}

// work is one worker.
func (p *pass) work(ctx context.Context) error {
	var b batch
	for i, ok := p.todo.claim(); ok; i, ok = p.todo.claim() {
		if err := p.fetch(ctx, p.todo.list[i], &b); err != nil {
			_ = p.flush(&b) // what ends the work is the other
			return err
		}
		if b.of = append(b.of, i); b.full() {
			if err := p.flush(&b); err != nil {
				return err
			}
			p.saveProgress()
		}
	}
	return p.flush(&b)
}

// fetch reads one secret into the batch. An error is a reason to stop.
func (p *pass) fetch(ctx context.Context, it item, b *batch) error {
	w, ns := p.w, p.audience.Namespace
	key := cache.Key{Namespace: ns, Path: it.path}
	index := w.cursor.Recorded()
	a, err := p.read(ctx, http.MethodGet, it.path)
	if errors.As(err, new(errRefused)) {
		p.refuse(it.path, err)
		return nil
	} else if err != nil {
		return err
	}
	switch a.Status {
	case http.StatusOK:
		w.note(func(s *Summary) { s.Fetched++ })
		r, ok := cache.Interpret(key, it.at.mount, a, index)
		if !ok {
			w.fail(ns, it.path, "the answer cannot be cached: it is wrapped or leased, or a cache before the origin gave it")
			return nil
		}
		b.records, b.bytes = append(b.records, r), b.bytes+len(r.Body)
	case http.StatusNotFound:
		// Deleted, or its latest version is. It was listed, so it is no zombie.
		if b.absent = append(b.absent, key); len(b.absent) == 1 {
			b.absentAt = a.SentAt
		}
		if it.at.empty {
			p.sayEmpty(it.at)
		}
	default:
		p.refuse(it.path, refusal(a, "may not read it"))
	}
	return nil
}

// refuse names what the origin refuses.
func (p *pass) refuse(path string, err error) {
	p.w.fail(p.audience.Namespace, path, err.Error())
	if r, ok := errors.AsType[errRefused](err); ok && r.passing {
		p.passing.Add(1)
	}
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
	state, cut := p.state, p.progress
	cut.After, cut.Left = p.todo.position()
	state.Cut = &cut
	p.save(p.last, state)
}

// complete removes zombies and writes down what the pass achieved.
func (p *pass) complete(ctx context.Context, listed time.Time) error {
	w := p.w
	if !p.held() {
		return errLost
	}
	p.removeZombies(ctx, listed)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if n := p.unstored.Load(); n > 0 {
		p.progress.After, p.progress.Left = "", nil // which of them is not worth knowing
		return fmt.Errorf("memcached did not take %d of the secrets", n)
	}
	p.sayCost()
	p.state.Inventory = p.saveInventory(ctx)
	p.state.Verified, p.state.Cursor, p.state.Cut = p.progress.Began, p.progress.Cursor, nil
	if p.passing.Load() > 0 {
		p.state.Cursor = recorded{} // standing, it would hide them from the next pass
	}
	if p.progress.Pass == passFull {
		p.state.Full = p.progress.Began
	}
	p.save(ctx, p.state)
	if w.o.Progress != nil {
		w.o.Progress(w.current())
	}
	return nil
}

// sayCost says once what looking for changes costs at an origin that tells
// neither an index nor the metadata of folders.
func (p *pass) sayCost() {
	w, n := p.w, len(p.todo.list)
	if p.progress.Pass != passModified || n == 0 || p.progress.Cursor != (recorded{}) || p.spared > 0 || w.costTold {
		return
	}
	w.costTold = true
	every := max(w.o.ModifiedEvery, time.Minute)
	w.o.Log.Warn("this origin tells neither an index nor the metadata of its secrets: each look for changes reads all of them again. "+
		"Raise PROACTIVE_CACHE_MINIMUM_FETCHING_TIME, warm less, or let the warm-up's policy scan detailed-metadata where the origin has it (OpenBao)",
		"secrets", n, "requests_an_hour", n*int(time.Hour/every))
}
