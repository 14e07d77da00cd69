package vault

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/wire"
)

// Routing.
//
// A node that could not be asked, or that says that it cannot answer, is
// followed by the next. A write only goes on if it is certain that it was not
// applied: it was never sent, or the node refused to look at it, being sealed or
// a standby. Therefore a write forbids a standby to hand it on: after a hand-over
// that went wrong the standby answers with a redirect as if nothing had happened
// (forwardRequest in http/handler.go of hashicorp/vault v1.21.0). Only where the
// active node cannot be reached from here it may be handed on, once.
//
//	next ── none left ──────────────────────────────► over: what was kept, or why there is no node
//	  │ a node                                          ▲
//	  ▼                                                 │
//	visit ── final answer, or a failure that stays ──► done
//	  │ another node may do better: keep the answer or the failure
//	  └─► next

// tour is one attempt among the nodes: what was tried, and what came of it.
type tour struct {
	*call
	tried   []choice
	kept    *result // the last answer that another node may better; nil: none
	meant   meaning // what kept means
	failed  *result // the last failure; nil: none
	soon    bool    // a node is about to lead
	learned bool    // the roles were asked for again
}

// routed makes one attempt where there are nodes to choose from: it tries one
// after the other until one answers for good.
func (k *call) routed() *result {
	k.c.know(k.ctx, false)
	t := &tour{call: k}
	for {
		n, ok := t.next()
		if !ok {
			return t.over()
		}
		r := t.visit(n)
		if r.e == nil && !t.keep(n, r) {
			return r
		}
		if r.e != nil && !t.goesOn(n, r) {
			t.drop()
			return r
		}
	}
}

// next gives the node to try next.
func (t *tour) next() (choice, bool) {
	n, ok := t.choose()
	if !ok && !t.learned && t.ctx.Err() == nil && t.classify() != toSelf {
		if a := t.c.active(); a == nil || !a.fresh {
			t.learned = true
			t.c.learn(t.ctx)
			n, ok = t.choose()
		}
	}
	if !ok || t.soon && !t.read && !n.noForward {
		return choice{}, false
	}
	t.tried = append(t.tried, n)
	return n, true
}

// goesOn takes note of a failure, and tells whether another node is tried.
func (t *tour) goesOn(n choice, r *result) bool {
	t.failed = r
	if r.back && !r.sent && (n.role != RoleActive || r.e.Addr != n.addr()) {
		// As a leader it would have answered. A node that says that it leads and
		// does this is not about to; that is told as it is.
		t.soon = true
	}
	switch r.e.Kind {
	case Redirect:
		return n.noForward || t.again(r)
	case TLS, Protocol:
		return t.read && t.ctx.Err() == nil
	}
	return t.again(r)
}

// keep keeps an answer that another node may better, and tells whether it is one.
func (t *tour) keep(n choice, r *result) bool {
	t.drop()
	m := t.meaning(r, n)
	if m == final {
		return false
	}
	t.kept, t.meant = r, m
	if m == noLeader {
		t.tried[len(t.tried)-1].leaderless = true
	}
	return true
}

// drop ends the answer that was kept.
func (t *tour) drop() {
	if t.kept != nil {
		t.kept.drop()
		t.kept = nil
	}
}

// over is the result of an attempt that found no further node.
func (t *tour) over() *result {
	own := t.kept != nil && t.meant == failing // that has nothing to do with who leads
	unled := slices.ContainsFunc(t.tried, func(c choice) bool { return c.leaderless })
	r := t.nobody(t.failed, unled || t.soon || !own && t.leaderless() || t.turned())
	if t.kept == nil {
		return r
	}
	if r.leaderless {
		t.kept.e, t.kept.leaderless = r.e, true
	}
	return t.kept
}

// turned tells whether a node that was tried as a standby leads by now.
func (t *tour) turned() bool {
	a := t.c.active()
	return a != nil && a.fresh && slices.ContainsFunc(t.tried, func(c choice) bool { return c.node == a.node && c.role != RoleActive })
}

// meaning is what an answer means for the choice of a node.
type meaning uint8

const (
	final    meaning = iota // it is the answer
	sealed                  // this node is sealed, and did nothing: another one may
	failing                 // this node cannot, and a read may go to another one
	noLeader                // this node knows no active node, and did nothing
)

// meaning says what the answer to a request to n means, and takes note of what it
// tells of the node that gave it: n, or one that n redirected to.
func (k *call) meaning(a *result, n choice) meaning {
	switch a.StatusCode {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	case 472, 530: // only ever a node's state
	default:
		return final
	}
	if k.classify() == toSelf {
		return final
	}
	// Whether a write was handed on, so that it is not certain what came of it.
	uncertain := !k.read && !n.noForward
	switch wire.Peek(a.Response, maxPeek).Reason() {
	case wire.Locked:
		return final
	case wire.Sealed:
		return k.sealed(a, n, uncertain)
	case wire.NotForwarded: // said before anything is handed on
		uncertain = false
		fallthrough
	case wire.NoLeader:
		k.c.became(a.node, RoleStandby)
		if uncertain {
			return final
		}
		return noLeader
	}
	if !k.read || a.StatusCode == http.StatusInternalServerError {
		return final
	}
	k.c.failedAt(a.node, time.Now())
	return failing
}

// sealed is meaning for an answer that says so. Of a standby it may be the word of
// the leader that it handed on to.
func (k *call) sealed(a *result, n choice, uncertain bool) meaning {
	handed := a.node == n.node && n.role == RoleStandby && !n.noForward
	if !handed {
		k.c.became(a.node, RoleSealed)
		if a.node == n.node {
			return sealed
		}
	}
	if uncertain {
		return final
	}
	return noLeader // n has not noticed
}

// maxPeek bounds what is read of an error's body to see what it says, in bytes.
const maxPeek = 2 << 10

var (
	errNoLeader = errors.New("no node of the origin is active")
	errNoNode   = errors.New("no node of the origin can take requests")
)

// leaderless tells whether an election is likely: nodes are up, none leads.
func (t *tour) leaderless() bool {
	if t.classify() == toSelf || t.c.active() != nil {
		return false
	}
	return slices.ContainsFunc(t.c.views(), func(v view) bool {
		return v.ours && (v.role == RoleStandby || v.role == RolePerformanceStandby || v.role == RoleUnhealthy)
	})
}

// nobody is the failure of an attempt that found no node.
func (t *tour) nobody(last *result, noLeader bool) *result {
	switch {
	case t.ctx.Err() != nil:
		return &result{e: t.outOfTime(t.c.node()), sent: last != nil && last.sent}
	case noLeader && last != nil && last.sent && !t.read:
		return last
	case noLeader:
		r := t.failure(t.c.node(), NoLeader, errNoLeader, "its nodes are up and elect one, or cannot reach each other")
		r.leaderless = true
		return r
	case last != nil:
		return last
	}
	// What kept the first node from answering, if that is known, says most.
	for _, v := range t.c.views() {
		if e := v.trouble; e != nil {
			// It is about our question, not the caller's request.
			return t.failure(v.node, e.Kind, e.Err, e.hint)
		}
	}
	return t.failure(t.c.node(), NoLeader, errNoNode, "each is sealed, not initialized, a DR secondary or of another cluster: see thaw status")
}
