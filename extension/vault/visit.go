package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"
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
}

type legResult struct {
	*leg
	a *answer
	f *failure
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
func (k *call) visit(first choice, tried []choice) (*answer, *failure) {
	results := make(chan legResult, 2)
	var legs []*leg
	start := func(n choice) {
		l := k.leg(n)
		legs = append(legs, l)
		go func() {
			a, f := l.call.follow(n.node)
			if f == nil && k.read {
				a, f = l.call.whole(a)
			}
			results <- legResult{l, a, f}
		}()
	}
	start(first)
	running := 1
	var late <-chan time.Time
	if k.read && (k.hedge || repeatable(k.req.Context())) {
		if d, ok := first.known.late(); ok {
			t := time.NewTimer(d)
			defer t.Stop()
			late = t.C
		}
	}
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	var learned <-chan struct{}
	var worse *legResult // an answer that the other may better
	for {
		select {
		case r := <-results:
			running--
			r.done(k)
			if running > 0 && r.f != nil {
				r.cancel(nil)
				continue // the other may still answer
			}
			if running > 0 && passing(k.req, r.a.StatusCode) {
				worse = &r
				continue // likewise
			}
			if worse != nil && r.f != nil {
				r.cancel(nil)
				r, worse = *worse, nil
			} else if worse != nil {
				worse.a.discard()
				worse = nil
			}
			for _, l := range legs {
				if l != r.leg {
					l.cancel(context.Canceled)
				}
			}
			for ; running > 0; running-- {
				loser := <-results
				loser.done(k)
				if loser.a != nil {
					loser.a.discard()
				}
			}
			return r.keep(k)
		case <-late:
			late = nil
			second, ok := k.choose(append(tried, first))
			if !ok {
				continue
			}
			if free, ok := k.c.spare(); ok {
				defer free() // one copy is left then
				start(second)
				running++
			}
		case <-quiet.C:
			rd := k.c.askRoles()
			learned = rd.over
			quiet.Reset(silence)
		case <-learned:
			learned = nil
			if !k.read {
				continue
			}
			for _, l := range legs {
				if k.gone(l) {
					l.cancel(errGone)
				}
			}
		}
	}
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
		return nil, &failure{e: explain(k.ctx, k.op(), a.node.addr(), answering, err), at: a.node, sent: true}
	}
	a.Body = io.NopCloser(bytes.NewReader(body))
	return a, nil
}

const errGone = timeoutError("the node no longer answers, or no longer leads")

// gone tells whether there is no use in waiting for a node's answer.
func (k *call) gone(l *leg) bool {
	_, home, _ := k.c.roster.snapshot()
	v := l.node.view(home, k.c.o.Now())
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

// leg prepares the request for a node.
func (k *call) leg(n choice) *leg {
	bound := *k
	bound.plain, bound.bare = n.plain, !n.ours
	l := &leg{choice: n, began: time.Now(), call: &bound}
	if a := k.c.active(); a != nil {
		l.lead = a.node
	}
	bound.ctx, l.cancel = context.WithCancelCause(k.ctx)
	n.known.flying.Add(1)
	return l
}

// done takes note of how the node did.
func (r legResult) done(k *call) {
	r.known.flying.Add(-1)
	gone := context.Cause(r.call.ctx) == errGone
	switch {
	case r.f == nil:
		good := true
		switch r.a.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			good = false
		}
		r.known.answered(k.c.o.Now(), time.Since(r.began), good)
	case gone || k.ctx.Err() == nil && r.call.ctx.Err() == nil && r.f.e.Kind != Limited && !errors.As(r.f.e.Err, new(*ErrRedirect)):
		at := r.node
		if r.f.at != nil && !gone {
			at = r.f.at
		}
		at.known.failed(k.c.o.Now(), r.began)
	}
}

// keep returns the result; the leg's context lives as long as the answer.
func (r legResult) keep(k *call) (*answer, *failure) {
	if r.f != nil {
		r.cancel(nil)
		return nil, r.f
	}
	cancel := r.a.cancel
	r.a.cancel = func() {
		cancel()
		r.leg.cancel(nil)
	}
	return r.a, nil
}

// noForwarding makes a standby say who leads instead of handing a request on
// (NoRequestForwardingHeaderName in http/handler.go of hashicorp/vault v1.21.0).
const noForwarding = "X-Vault-No-Request-Forwarding"

// dress fits a request's copy for the node: what a node that is not known to be
// of our cluster may not see goes, and a write is not to be handed on.
func (k *call) dress(h http.Header) {
	if k.plain {
		if _, set := h[noForwarding]; !set {
			h[noForwarding] = []string{"true"}
		}
	}
	if k.bare {
		h.Del("X-Vault-Token")
		h.Del("Authorization")
	}
}
