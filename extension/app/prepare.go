package app

import (
	"context"
	"fmt"
	"net/http"

	"github.com/thaw-project/thaw/extension/files"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/rescue"
)

// Prepare does, beside the function's own init, what its first read would wait for
// otherwise: it connects, logs in, asks for the index and what the origin is, and reads
// THAW_PREFETCH. What is done is not done again, so whoever does not know whether a freeze
// interrupted it calls it once more, and beside the first.
//
// With a shared cache most cold starts need neither a login nor the origin. Then only
// a path of THAW_PREFETCH that is not there, with its capability, makes Prepare ask. So
// does THAW_INIT=off, with or without one.
//
// An origin that cannot be reached costs its line in the log: reads try again.
func (a *App) Prepare(ctx context.Context) {
	if !a.prepared.Load() {
		rescue.Do(a.log, "prepare for the first read", func() { a.prepare(ctx) })
	}
}

func (a *App) prepare(ctx context.Context) {
	ask := a.tier == nil && !a.cfg.NoInit
	if ask {
		if err := a.connect(ctx); err != nil {
			a.log.Debug("prepare for the first read: reads try again", "error", err)
			return
		}
	}
	a.tier.Ready(ctx)
	a.poller.TakeStamps(ctx)
	a.prefetch(ctx)
	if ask {
		a.session.Settle()
	}
	if ctx.Err() == nil && a.prepared.CompareAndSwap(false, true) {
		a.log.Debug("prepared for the first read")
	}
}

// connect logs in, where thaw has a login of its own, and has an index to be recorded with
// reads. A login may move the index, so it comes first.
func (a *App) connect(ctx context.Context) error {
	if err := a.session.Ready(ctx, a.cache.Own()); err != nil || !a.polls() {
		return err
	}
	if err := a.cursor.Ask(ctx, a.cache.Ledger().Epoch()); err != nil {
		return fmt.Errorf("ask for the index: %w", err)
	}
	return nil
}

// prefetch has the cache hold THAW_PREFETCH's paths.
func (a *App) prefetch(ctx context.Context) {
	rescue.Each(a.log, "prefetch", a.cfg.PollConcurrency, len(a.cfg.Prefetch), func(i int) {
		p := a.cfg.Prefetch[i]
		key, err := files.KeyOf(a.cfg.Namespace, p)
		if err != nil {
			a.log.Warn("prefetch: not a plain API path such as secret/data/app", "path", p)
			return
		}
		o := a.reads.Ensure(ctx, poll.Want{Key: key, ID: a.cache.Own(), Held: true, MaxAge: -1, StaleFor: -1})
		o.Answer.Close()
		if o.Result == poll.Failed || o.Result == poll.Miss && o.Answer.Status != http.StatusOK {
			a.log.Warn("prefetch", "path", p, "status", o.Answer.Status, "error", o.Err)
		}
	})
}
