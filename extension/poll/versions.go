package poll

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/queue"
	"github.com/thaw-project/thaw/extension/rescue"
)

// errSilent says that nothing was answered within the budget.
var errSilent = errors.New("the origin did not answer in time")

// versions reads again what is not verified, several at a time.
func (p *Poller) versions(ctx context.Context, r *run, keys []cache.Key, answered bool) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var (
		wg        sync.WaitGroup
		next      atomic.Int64 // of keys
		anyAnswer atomic.Bool
		reached   atomic.Uint64
		inLine    atomic.Bool // the budget ended before one could be asked: that says nothing of the origin
		fault     atomic.Pointer[error]
	)
	keys, listed := p.list(ctx, r, keys)
	anyAnswer.Store(answered || listed)
	for range min(p.o.Concurrency, len(keys)) {
		again := func() {
			for i := next.Add(1) - 1; int(i) < len(keys) && ctx.Err() == nil; i = next.Add(1) - 1 {
				answered, err := p.reread(ctx, r, keys[i])
				if answered {
					anyAnswer.Store(true)
				}
				switch {
				case err == nil:
					reached.Add(1)
				case queue.Limited(err):
					inLine.Store(true)
				case ctx.Err() == nil: // the origin fails: that is enough
					fault.CompareAndSwap(nil, &err)
					stop(err)
				}
			}
		}
		wg.Go(func() { rescue.Do(p.o.Log, "read a secret again", again) })
	}
	wg.Wait()
	p.counts.unreached.Add(uint64(len(keys)) - reached.Load())
	if err := fault.Load(); err != nil {
		return p.fail(r, *err)
	}
	if r.budget.ctx.Err() != nil && !p.cancelled(r) && !anyAnswer.Load() && !inLine.Load() {
		return p.fail(r, errSilent)
	}
	return nil
}

// beside begins to read again what is not verified, without waiting for the index check:
// the index moved at the last polls, so it most likely verifies nothing this time
// either. What is read records the index of the poll before. So when the cluster falls
// quiet, one more poll reads everything again. The function it returns, which is nil
// where there is nothing to do beside, waits until that is over, or gives it up, and
// returns the origin's failure.
func (p *Poller) beside(r *run, unverified func() []cache.Key) (end func(giveUp bool) error) {
	if !p.alone() || !p.o.Cursor.Moves(r.epoch) {
		return nil
	}
	keys := unverified()
	if len(keys) == 0 {
		return nil
	}
	p.plan(r, func() []cache.Key { return keys })
	ctx, stop := context.WithCancel(r.budget.ctx)
	over := make(chan error, 1)
	go func() { // ends with the poll, which waits for it
		defer stop()
		err := errPanicked
		rescue.Do(p.o.Log, "read secrets again", func() { err = p.versions(ctx, r, keys, true) })
		over <- err
	}()
	return func(giveUp bool) error {
		if giveUp {
			stop()
		}
		return <-over
	}
}

// alone reports whether no other instance may have read again what an index check leaves.
func (p *Poller) alone() bool { return !p.o.Shared && p.o.Stamps == nil }

// reread reads one secret again, unless that is not needed any more. answered:
// the origin gave an answer, whatever it was. The error is the origin's failure,
// or that of ctx.
func (p *Poller) reread(ctx context.Context, r *run, key cache.Key) (answered bool, err error) {
	if p.o.Cache.Ledger().Verified(key, p.o.Now().Add(r.horizon)) {
		return false, nil
	}
	id := p.o.Cache.Access().Reader(key, p.o.Now())
	if id == nil {
		p.o.Cache.Ledger().PassOver(key, p.o.Now())
		return false, nil
	}
	ours, free := p.left(r, key)
	if !ours {
		return false, nil
	}
	p.counts.reread.Add(1)
	a, err := p.o.Cache.Load(ctx, cache.Want{Key: key, ID: id, Poll: true, Unless: p.o.Now().Add(r.horizon)})
	a.Close()
	if err != nil || a.Status != http.StatusOK {
		free(context.WithoutCancel(ctx))
	}
	switch {
	case errors.Is(err, cache.ErrVerified), errors.Is(err, cache.ErrNotReady): // a read was quicker, or its login failed: others can see for themselves
		return false, nil
	case err != nil:
		return false, err
	}
	switch a.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true, a.Failure
	}
	return true, nil
}

// rereadsMost bounds the reads with which a poll renews capabilities.
const rereadsMost = 8

// renew reads with capabilities with which a read is due soon, beside the hits,
// unless another instance has, or is at it while this one would have to log in.
func (p *Poller) renew(ctx context.Context) {
	due := p.o.Cache.Rereads(p.o.Now(), rereadsMost)
	if keys := ours(due); len(keys) > 0 {
		p.o.Cache.FillNewer(ctx, keys)
		due = p.o.Cache.Rereads(p.o.Now(), rereadsMost)
	}
	if d := p.o.Permissions.directory; d != nil && len(ours(due)) > 0 && d.Confirming(ctx) {
		due = slices.DeleteFunc(due, func(c cache.Check) bool { return c.ID.Own() })
	}
	for _, d := range due {
		if ctx.Err() != nil {
			return
		}
		a, _ := p.o.Cache.Load(ctx, cache.Want{Key: d.Key, ID: d.ID, Poll: true}) // what fails is due at the next read
		a.Close()
	}
}

// ours are the keys of the extension's own identity.
func ours(due []cache.Check) (keys []cache.Key) {
	for _, d := range due {
		if d.ID.Own() {
			keys = append(keys, d.Key)
		}
	}
	return keys
}
