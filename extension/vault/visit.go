package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/rescue"
)

// silence is how long a node may keep silent before it is asked whether it is
// still there. A process that was stopped keeps its connections and accepts
// more.
const silence = time.Second

// leg is one node's part in a call.
type leg struct {
	choice
	began  time.Time
	lead   *node // that led then, as far as it was known
	call   *call // the caller's, but for the context, and bound for this node
	cancel context.CancelCauseFunc

	a *answer // of a leg that is over: this or f
	f *failure
}

// contest is a request on its way to one node, or to two at a time.
type contest struct {
	k       *call
	legs    []*leg
	over    chan *leg // those that ended
	running int
	held    *leg // ended, and the other may do better; nil: none
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
func (t *tour) visit(first choice) (*answer, *failure) {
	c := &contest{k: t.call, over: make(chan *leg, 2)}
	c.start(first)
	slow, stop := c.slow(first)
	defer stop()
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	var learned <-chan struct{}
	for {
		select {
		case l := <-c.over:
			if won := c.ended(l); won != nil {
				return won.result()
			}
		case <-slow:
			slow = nil
			if second, ok := t.choose(); ok {
				if hold, ok := t.spare(); ok {
					defer hold.Free() // one copy is left then
					c.start(second)
				}
			}
		case <-quiet.C:
			learned = t.c.askRoles().Done()
			quiet.Reset(silence)
		case <-learned:
			learned = nil
			c.takeBack()
		}
	}
}

// slow fires when the answer of a node to a repeatable read takes longer than is
// usual.
func (c *contest) slow(n choice) (<-chan time.Time, func() bool) {
	if k := c.k; k.read && (k.hedge || repeatable(k.req.Context())) {
		if d, ok := n.known.usual(); ok {
			t := time.NewTimer(d)
			return t.C, t.Stop
		}
	}
	return nil, func() bool { return true }
}

// start sends the request to a node.
func (c *contest) start(n choice) {
	k := c.k
	bound := *k
	bound.noForward, bound.noToken = n.noForward, !n.ours
	l := &leg{choice: n, began: time.Now(), call: &bound}
	if a := k.c.active(); a != nil {
		l.lead = a.node
	}
	bound.ctx, l.cancel = context.WithCancelCause(k.ctx)
	n.known.pending.Add(1)
	c.legs = append(c.legs, l)
	c.running++
	go func() {
		defer func() {
			if err := rescue.Recovered(recover()); err != nil {
				l.a, l.f = nil, &failure{e: &Error{Op: bound.op(), Addr: n.node.addr(), Err: err, Kind: Protocol}, at: n.node, sent: true}
			}
			c.over <- l
		}()
		l.a, l.f = trail{&bound, n.node}.follow()
		if l.f == nil && bound.read {
			l.a, l.f = bound.whole(l.a)
		}
	}()
}

// ended takes note of a leg that is over, and returns the one that won, or nil
// while another may do better.
func (c *contest) ended(l *leg) *leg {
	c.running--
	l.note(c.k)
	if c.running > 0 && (l.f != nil || passing(c.k.req, l.a.StatusCode)) {
		c.held = l
		return nil
	}
	if other := c.held; other != nil {
		if l.f != nil && other.f == nil {
			l, other = other, l
		}
		other.drop()
	}
	for _, other := range c.legs {
		if other != l {
			other.cancel(context.Canceled)
		}
	}
	for ; c.running > 0; c.running-- {
		loser := <-c.over
		loser.note(c.k)
		loser.drop()
	}
	return l
}

// takeBack ends the legs of a read that are in vain.
func (c *contest) takeBack() {
	if !c.k.read {
		return
	}
	for _, l := range c.legs {
		if c.inVain(l) {
			l.cancel(errAway)
		}
	}
}

const errAway = timeoutError("the node no longer answers, or no longer leads")

// inVain tells whether there is no use in waiting for a node's answer.
func (c *contest) inVain(l *leg) bool {
	k := c.k
	v := l.node.view(k.c.roster.homeOf(), k.c.o.Now())
	switch {
	case v.role == RoleUnreachable || v.role == RoleSealed:
		return true
	case v.role == RoleActive || v.copies && k.classify() == toReader:
		return false
	}
	// It hands on, and the leader it does that to is another one by now.
	a := k.c.active()
	return a != nil && a.node != l.node && l.lead != nil && a.node != l.lead
}

// note takes note of how the node did.
func (l *leg) note(k *call) {
	l.known.pending.Add(-1)
	if l.f == nil {
		good := l.a.StatusCode < http.StatusBadGateway || l.a.StatusCode > http.StatusGatewayTimeout
		l.known.answered(k.c.o.Now(), time.Since(l.began), good)
		return
	}
	if context.Cause(l.call.ctx) == errAway {
		k.c.failedAt(l.node, l.began)
		return
	}
	if k.ctx.Err() != nil || l.call.ctx.Err() != nil || l.f.e.Kind == Limited || errors.As(l.f.e.Err, new(*ErrRedirect)) {
		return // that says nothing of a node
	}
	at := l.f.at
	if at == nil {
		at = l.node
	}
	k.c.failedAt(at, l.began)
}

// drop ends a leg whose answer nobody wants.
func (l *leg) drop() {
	if l.a != nil {
		l.a.discard()
	}
	l.cancel(nil)
}

// result is what the leg brought; its context lives as long as the answer.
func (l *leg) result() (*answer, *failure) {
	if l.f != nil {
		l.cancel(nil)
		return nil, l.f
	}
	cancel := l.a.cancel
	l.a.cancel = func() {
		cancel()
		l.cancel(nil)
	}
	return l.a, nil
}

// failedAt takes note that a node did not answer a request that was sent at
// began, on the runtime's clock. What it said of its health before counts no more.
func (r *roster) failedAt(n *node, began time.Time) {
	n.known.failed(r.c.o.Now(), began)
	r.renew(n)
}

// maxWhole bounds the answers to reads that are read to their end before they
// are handed on, in bytes.
const maxWhole = 64 << 10

// whole reads a short answer to its end: a node that is lost half-way through it
// is followed by the next, as if it had not begun.
func (k *call) whole(a *answer) (*answer, *failure) {
	if a.ContentLength < 0 || a.ContentLength > maxWhole || a.StatusCode == http.StatusSwitchingProtocols {
		return a, nil
	}
	body, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	if err != nil {
		a.cancel()
		return nil, &failure{e: k.explain(a.node, answering, err), at: a.node, sent: true}
	}
	a.Body = io.NopCloser(bytes.NewReader(body))
	return a, nil
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
