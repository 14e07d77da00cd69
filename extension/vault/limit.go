package vault

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// admit waits for a slot and for the rate limit. free gives the slot back and
// may be called more than once.
func (k *call) admit() (free func(), e *Error) {
	slots := k.c.slots
	select {
	case slots <- struct{}{}:
	default:
		select {
		case slots <- struct{}{}:
		case <-k.ctx.Done():
			return nil, k.limited(fmt.Errorf("%d requests are in flight already (THAW_MAX_IN_FLIGHT)", cap(slots)))
		}
	}
	free = sync.OnceFunc(func() { <-slots })
	if e := k.throttle(); e != nil {
		free()
		return nil, e
	}
	return free, nil
}

// Places is how many requests are in flight that take a place of MaxInFlight.
func (c *Client) Places() int { return len(c.slots) }

var errRate = errors.New("the rate limit for requests to the origin is used up (VAULT_RATE_LIMIT)")

// throttle waits for the rate limit, not at all if the wait would outlive the
// deadline.
func (k *call) throttle() *Error {
	if k.ctx.Err() != nil {
		return k.outOfTime(k.c.node())
	}
	if k.c.limiter == nil {
		return nil
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

// spare takes a slot and a token of the rate limit for a second copy of a
// request, if there is one of each left. free gives the slot back.
func (c *Client) spare() (free func(), ok bool) {
	select {
	case c.slots <- struct{}{}:
	default:
		return nil, false
	}
	if c.limiter != nil && !c.limiter.Allow() {
		<-c.slots
		return nil, false
	}
	return func() { <-c.slots }, true
}

// limited is the error of a wait that the context ended: why, unless the
// caller left.
func (k *call) limited(why error) *Error {
	e := k.outOfTime(k.c.node())
	if e.Kind == Timeout {
		e.Kind, e.Err, e.hint = Limited, why, ""
	}
	return e
}
