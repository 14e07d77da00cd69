package poll

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/thaw-project/thaw/extension/cache"
)

// errSilent says that nothing was answered within the budget.
var errSilent = errors.New("the origin did not answer in time")

// versions reads again what is not proven.
func (p *Poller) versions(r *run, checks []cache.Check, answered bool) error {
	ctx, stop := context.WithCancelCause(r.budget.ctx)
	defer stop(nil)
	next := make(chan cache.Check)
	var (
		wg        sync.WaitGroup
		anyAnswer atomic.Bool
		reached   atomic.Int64
		fault     atomic.Pointer[error]
	)
	anyAnswer.Store(answered)
	abort := func(err error) {
		fault.CompareAndSwap(nil, &err)
		stop(err)
	}
	for range min(p.o.Concurrency, len(checks)) {
		wg.Go(func() {
			for check := range next {
				if p.o.Cache.Verified(check.Key, p.o.Now().Add(r.horizon)) {
					reached.Add(1)
					continue
				}
				ours, free := p.left(r, check.Key)
				if !ours {
					reached.Add(1)
					continue
				}
				p.counts.reread.Add(1)
				unless := p.o.Now().Add(r.horizon)
				a, err := p.o.Cache.Load(ctx, cache.Want{Key: check.Key, ID: check.ID, Poll: true, Unless: unless})
				if err != nil || a.Status != http.StatusOK {
					free(context.WithoutCancel(ctx))
				}
				if errors.Is(err, cache.ErrVerified) { // a read was quicker
					reached.Add(1)
					continue
				}
				if a.Stream != nil {
					a.Stream.Close()
				}
				switch {
				case err != nil && ctx.Err() != nil:
					return
				case err != nil:
					abort(err)
					return
				}
				anyAnswer.Store(true)
				switch a.Status {
				case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
					abort(fmt.Errorf("the origin answered %d", a.Status))
					return
				}
				reached.Add(1)
			}
		})
	}
feed:
	for _, check := range checks {
		select {
		case next <- check:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	p.counts.unreached.Add(uint64(int64(len(checks)) - reached.Load()))
	if err := fault.Load(); err != nil {
		return p.fail(r, *err)
	}
	if r.budget.ctx.Err() != nil && !p.cancelled(r) && !anyAnswer.Load() {
		return p.fail(r, errSilent)
	}
	return nil
}
