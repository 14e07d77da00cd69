package vault

import (
	"context"
	"net/http"
	"time"
)

// hedgeAfter is how long a poll waits for a connection that slept before it
// asks on a fresh one as well. It leaves a poll of 500ms time for a new
// connection, and is above the round trip to a healthy origin.
const hedgeAfter = 150 * time.Millisecond

// race sends req and, if the connection that carries it had slept long and
// nothing came within hedgeAfter, sends it once more on a connection that
// cannot have slept. The first answer wins, the other request is ended, and
// race returns when both are done.
//
//	slept connection   GET ......(nothing)...................x cancelled
//	fresh connection               dial, GET ... 200
//	                   0        150ms
func (k *call) race(n *node, via *http.Transport, req *http.Request) *result {
	over := make(chan *result, 2)
	start := func() (r *result, stop context.CancelFunc) {
		r = k.newTrip(n, false)
		r.ctx, stop = context.WithCancel(k.ctx) // which ends it, too
		go func() { over <- k.ride(r, via, req) }()
		return r, stop
	}
	first, stopLoser := start()
	select {
	case r := <-over:
		return r
	case <-time.After(hedgeAfter):
	}
	if t := first.on.Load(); t == nil || first.at.Load() == answering || !tooLong(t.slept, sleptLong) {
		return <-over
	}
	hold, ok := k.spare()
	if !ok {
		return <-over
	}
	defer hold.Free() // one copy is left when race returns
	// Whatever is idle now slept as well. What becomes idle from here on has
	// just worked.
	k.c.dropIdle()
	_, stopSecond := start()
	winner := <-over
	if winner == first {
		stopLoser = stopSecond
	}
	if winner.e != nil {
		return <-over // that says little while the other may still answer
	}
	stopLoser()
	if loser := <-over; loser.e == nil {
		_ = loser.Body.Close()
	}
	return winner
}
