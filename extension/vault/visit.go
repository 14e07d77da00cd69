package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/rescue"
)

// silence is how long a node may keep silent before it is asked whether it is
// still there. A process that was stopped keeps its connections and accepts
// more.
const silence = time.Second

// leg is one node's part in a call. The zero leg is none.
type leg struct {
	to    choice
	began time.Time
	lead  *node // that led then, as far as it was known
	call  *call // the caller's, but for the context, and bound for this node
	stop  context.CancelCauseFunc
	over  chan *result
	r     *result // what came out of over; nil: nothing yet
}

// visit sends the request to one node and watches over it:
//
//   - a repeatable read whose answer takes longer than is usual there goes to a
//     second node, too; the first answer wins;
//   - when nothing came for a while, all nodes are asked for their roles. A read
//     that waits for a node that is gone, or for one that hands on to a leader
//     that is none any more, is taken back. A write never is: what came of it
//     would not be known.
//
// It returns when no request is under way any more.
func (t *tour) visit(n choice) (won *result) {
	first, second := t.start(n), new(leg)
	slow, quiet := time.After(t.slow(n)), time.Tick(silence)
	var learned <-chan struct{}
	for won == nil {
		select {
		case first.r = <-first.over:
			won = t.ended(first, second)
		case second.r = <-second.over:
			won = t.ended(second, first)
		case <-slow:
			if n, ok := t.choose(); ok {
				if hold, ok := t.spare(); ok {
					defer hold.Free() // one copy is left then
					second = t.start(n)
				}
			}
		case <-quiet:
			learned = t.c.askRoles().Done()
		case <-learned:
			learned = nil
			for _, l := range []*leg{first, second} {
				if t.read && l.over != nil && t.inVain(l) {
					l.stop(errAway)
				}
			}
		}
	}
	return won
}

// slow is how long a node may take for a repeatable read, as is usual; else for ever.
func (k *call) slow(n choice) time.Duration {
	if d, ok := n.usual(); ok && k.read && (k.once || wishesIn(k.req.Context()).repeatable) {
		return d
	}
	return math.MaxInt64
}

// start sends the request to a node.
func (k *call) start(n choice) *leg {
	bound := *k
	bound.noForward, bound.noToken = n.noForward, !n.ours
	l := &leg{to: n, began: time.Now(), call: &bound, over: make(chan *result, 1)}
	if a := k.c.active(); a != nil {
		l.lead = a.node
	}
	bound.ctx, l.stop = context.WithCancelCause(k.ctx)
	k.c.note(n.node, func(s *state) { s.pending++ })
	go func() {
		var r *result
		err := rescue.Try(func() error {
			r = trail{&bound, n.node}.follow()
			if r.e == nil && bound.read {
				bound.whole(r)
			}
			return nil
		})
		if err != nil {
			r = bound.failure(n.node, Protocol, err, "")
			r.sent = true
		}
		l.over <- r
	}()
	return l
}

// ended takes note of a leg that is over, and returns what won; nil while the other,
// if there is one, may do better.
func (k *call) ended(l, other *leg) *result {
	l.note(k)
	switch {
	case other.over == nil:
		return l.r
	case other.r == nil && (l.r.e != nil || passing(k.req, l.r.StatusCode)):
		return nil
	case other.r == nil:
		other.stop(context.Canceled)
		other.r = <-other.over
		other.note(k)
	case l.r.e != nil && other.r.e == nil:
		l, other = other, l
	}
	other.r.drop()
	return l.r
}

const errAway = timeoutError("the node no longer answers, or no longer leads")

// inVain tells whether there is no use in waiting for a node's answer.
func (k *call) inVain(l *leg) bool {
	v := k.c.view(l.to.node)
	switch {
	case v.role == RoleUnreachable || v.role == RoleSealed:
		return true
	case v.role == RoleActive || v.copies && k.classify() == toReader:
		return false
	}
	// It hands on, and the leader it does that to is another one by now.
	a := k.c.active()
	return a != nil && a.node != l.to.node && l.lead != nil && a.node != l.lead
}

// note takes note of how the node did.
func (l *leg) note(k *call) {
	n, r, now := l.to.node, l.r, k.c.o.Now()
	k.c.note(n, func(s *state) {
		if s.pending--; r.e == nil {
			good := r.StatusCode < http.StatusBadGateway || r.StatusCode > http.StatusGatewayTimeout
			s.answered(now, time.Since(l.began), good)
		}
	})
	switch {
	case r.e == nil:
	case context.Cause(l.call.ctx) == errAway:
		k.c.failedAt(n, l.began)
	case k.ctx.Err() != nil || l.call.ctx.Err() != nil || r.e.Kind == Limited || errors.As(r.e.Err, new(*ErrRedirect)):
		// That says nothing of a node.
	default:
		k.c.failedAt(r.node, l.began)
	}
}

// failedAt takes note that a node did not answer a request that was sent at
// began, on the runtime's clock. What it said of its health before counts no more.
func (r *roster) failedAt(n *node, began time.Time) {
	now := r.c.o.Now()
	r.note(n, func(s *state) { s.failed(now, began) })
	r.renew(n)
}

// maxWhole bounds the answers to reads that are read to their end before they
// are handed on, in bytes.
const maxWhole = 64 << 10

// whole reads a short answer to its end: a node that is lost half-way through it
// is followed by the next, as if it had not begun.
func (k *call) whole(r *result) {
	if r.ContentLength < 0 || r.ContentLength > maxWhole || r.StatusCode == http.StatusSwitchingProtocols {
		return
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		r.Response, r.e, r.sent = nil, k.explain(r.node, answering, err), true
	}
}

// noForwarding makes a standby say who leads instead of handing a request on
// (NoRequestForwardingHeaderName in http/handler.go of hashicorp/vault v1.21.0).
const noForwarding = "X-Vault-No-Request-Forwarding"

// dress fits a request's copy for the node: what a node that is not known to be
// of our cluster may not see goes, and a write is not to be handed on.
func (k *call) dress(h http.Header) {
	if k.noForward {
		if _, set := h[noForwarding]; !set {
			h[noForwarding] = []string{"true"}
		}
	}
	if k.noToken {
		h.Del("X-Vault-Token")
		h.Del("Authorization")
	}
}
