package vault

import (
	"fmt"
	"time"

	"github.com/thaw-project/thaw/extension/queue"
)

// admit waits for a place (package queue) and for the rate limit.
func (k *call) admit() (*queue.Place, *Error) {
	place, err := k.c.places.Take(k.ctx, k.cancel)
	switch {
	case queue.Limited(err):
		return nil, &Error{Op: k.op(), Addr: k.c.node().addr(), Err: err, Kind: Limited}
	case err != nil:
		return nil, k.limited(queue.Limit(fmt.Sprintf("%d requests are in flight already (THAW_MAX_IN_FLIGHT)", k.c.o.MaxInFlight)))
	}
	if e := k.throttle(); e != nil {
		place.Free()
		return nil, e
	}
	if k.body != nil {
		sent := place.Sent
		k.body.over.Store(&sent)
	}
	return place, nil
}

const errRate = queue.Limit("the rate limit for requests to the origin is used up (VAULT_RATE_LIMIT)")

// throttle waits for the rate limit, not at all if the wait would outlive the
// deadline.
func (k *call) throttle() *Error {
	if k.ctx.Err() != nil {
		return k.outOfTime(k.c.node())
	}
	r := k.c.limiter.Reserve()
	d := r.Delay()
	if !r.OK() || d >= time.Until(k.deadline) {
		r.Cancel()
		return &Error{Op: k.op(), Addr: k.c.node().addr(), Err: errRate, Kind: Limited}
	}
	if d > 0 {
		if err := k.c.o.Sleep(k.ctx, d); err != nil {
			r.Cancel()
			return k.limited(errRate)
		}
	}
	return nil
}

// spare takes a place and a token of the rate limit for a second copy of a
// request, if there is one of each left.
func (k *call) spare() (*queue.Hold, bool) {
	hold, ok := k.c.places.Spare(k.ctx)
	if ok && !k.c.limiter.Allow() {
		hold.Free()
		return nil, false
	}
	return hold, ok
}

// limited is the error of a wait that the context ended: why, unless the
// caller left.
func (k *call) limited(why queue.Limit) *Error {
	e := k.outOfTime(k.c.node())
	if e.Kind == Timeout {
		e.Kind, e.Err, e.hint = Limited, why, ""
	}
	return e
}
