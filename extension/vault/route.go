package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// class says which nodes a request may go to.
type class uint8

const (
	toLeader class = iota // the active node, or one that hands on to it
	toReader              // any node that serves reads
	toSelf                // asks a node about itself, without a token
)

// classify says where a request goes.
func (k *call) classify() class {
	switch path := strings.TrimRight(k.req.URL.Path, "/"); path {
	case healthPath, leaderPath, "/v1/sys/seal-status", "/v1/sys/init", "/v1/sys/unseal":
		return toSelf
	}
	if k.read && k.c.o.StandbyReads && !toActive(k.req.Context()) {
		return toReader
	}
	return toLeader
}

// choice is one node to try, and how.
type choice struct {
	view
	plain bool // the node is not to hand the request on: it answers, or says that it cannot
	lost  bool // it said that it knows no leader
}

// Routing.
//
// Writes, logins and whatever is to be fresh go to the active node; reads under
// StandbyReads to the nodes that serve reads from a copy, two of them chosen by
// chance and the quicker of the two asked. A standby that only hands on is
// second choice. Sealed, uninitialized and removed nodes and DR secondaries get
// only questions about themselves, and what is not known to be of our cluster
// never sees a token.
//
// A node that could not be asked, or that says that it cannot answer, is
// followed by the next. A write only goes on if it is certain that it was not
// applied: it was never sent, or the node refused to look at it, being sealed or
// a standby. Therefore a write forbids a standby to hand it on: after a hand-over
// that went wrong the standby answers with a redirect as if nothing had happened
// (forwardRequest in http/handler.go of hashicorp/vault v1.21.0). Only where the
// active node cannot be reached from here it may be handed on, once.

// routed makes one attempt where there are nodes to choose from: it tries one
// after the other until one answers for good.
func (k *call) routed() (*answer, *failure) {
	k.c.know(k.ctx)
	var (
		tried   []choice
		kept    *answer  // the last answer that another node may better
		failed  *failure // the last failure
		without bool     // a node said that there is no leader
		soon    bool     // a node is about to lead
		learned bool     // the roles were asked for again
		own     bool     // kept has nothing to do with who leads
	)
	settle := func(a *answer, f *failure) (*answer, *failure) {
		if kept != nil && kept != a {
			kept.discard()
		}
		return a, f
	}
	for {
		n, ok := k.choose(tried)
		if !ok && !learned && k.ctx.Err() == nil && k.inDoubt() {
			learned = true
			k.c.learn(k.ctx)
			n, ok = k.choose(tried)
		}
		if !ok || soon && !k.read && !n.plain {
			break
		}
		tried = append(tried, n)
		a, f := k.visit(n, tried)
		if f != nil {
			failed = f
			// As a leader it would have answered. A node that says that it leads
			// and does this is not about to; that is told as it is.
			soon = soon || f.back && !f.sent && (n.role != RoleActive || f.e.Addr != n.addr())
			other := f.e.Kind == Redirect && n.plain || k.read && k.ctx.Err() == nil && (f.e.Kind == TLS || f.e.Kind == Protocol)
			if !other && !k.again(f) {
				return settle(nil, f)
			}
			continue
		}
		v := k.judge(a, n)
		if v == final {
			return settle(a, nil)
		}
		if v == uncertain {
			return settle(a, nil)
		}
		if v == leaderless {
			without, tried[len(tried)-1].lost = true, true
		}
		settle(a, nil)
		kept = a
		own = v == elsewhere && !bytes.Contains(a.peeked, []byte(textSealed))
	}
	f := k.nobody(failed, without || soon || !own && k.leaderless() || k.turned(tried))
	if kept != nil {
		if f.leaderless {
			f.kept = kept
			return nil, f
		}
		return kept, nil
	}
	return nil, f
}

// choose gives the next node to try, one that rests only if there is no other.
func (k *call) choose(tried []choice) (choice, bool) {
	all := k.c.views()
	if n, ok := k.chooseOf(slices.DeleteFunc(slices.Clone(all), func(v view) bool { return v.resting }), tried); ok {
		return n, ok
	}
	return k.chooseOf(all, tried)
}

func (k *call) chooseOf(all []view, tried []choice) (choice, bool) {
	open := slices.ContainsFunc(all, func(v view) bool { return v.ours && v.role != RoleUnreachable && !was(tried, v.node) })
	var lead, read, hand, other []view
	for _, v := range all {
		switch {
		case v.role == RoleForeign:
		case !v.ours:
			other = append(other, v)
		case v.role == RoleActive:
			lead = append(lead, v)
		case v.copies:
			read = append(read, v)
		case v.role == RoleStandby:
			hand = append(hand, v)
		default:
			other = append(other, v)
		}
	}
	if a := k.c.active(); a != nil && len(lead) > 1 {
		lead = []view{*a}
	}
	class := k.classify()
	if class == toReader {
		if v, ok := k.pick(read, tried); ok {
			return choice{view: v}, true
		}
	}
	for _, v := range lead {
		if !was(tried, v.node) {
			return choice{view: v, plain: !k.read && !v.secondary}, true
		}
	}
	if class == toSelf {
		for _, v := range slices.Concat(read, hand, other) {
			if !was(tried, v.node) && (v.role != RoleUnreachable || !open) {
				return choice{view: v}, true
			}
		}
		return choice{}, false
	}
	// A standby hands on. A write goes there so that it says who leads, before
	// it is let hand the write on: a redirect after it tried would not tell
	// whether the write was applied.
	if k.read {
		for _, v := range hand {
			if !was(tried, v.node) {
				return choice{view: v}, true
			}
		}
		return choice{}, false
	}
	// That waits until it is clear that no election is due: to a leader that just
	// died a write cannot be handed, and what came of it would not be known.
	ways := []bool{true, false}
	if slices.ContainsFunc(k.c.views(), func(v view) bool { // also one that rests
		return v.justLost || v.role == RoleActive && !v.fresh && was(tried, v.node)
	}) {
		ways = ways[:1]
	}
	for _, plain := range ways {
		for _, v := range slices.Concat(hand, read) {
			if !slices.ContainsFunc(tried, func(t choice) bool { return t.node == v.node && (t.plain == plain || t.lost) }) {
				return choice{view: v, plain: plain}, true
			}
		}
	}
	return choice{}, false
}

func was(tried []choice, n *node) bool {
	return slices.ContainsFunc(tried, func(t choice) bool { return t.node == n })
}

// exploreOne: one choice in so many is left to chance, so that a node that was
// slow is seen to be quick again.
const exploreOne = 32

// pick takes two of the nodes by chance and keeps to the first, unless the
// second can be expected to answer in less than half its time: the load
// spreads, and no node that is slow gets much of it (the power of two choices;
// https://doi.org/10.1109/71.963420).
func (k *call) pick(from []view, tried []choice) (view, bool) {
	least := atLeast(k.req.Context())
	var left []view
	for _, v := range from {
		if !was(tried, v.node) {
			left = append(left, v)
		}
	}
	for len(left) > 0 {
		i := rand.IntN(len(left))
		if len(left) > 1 {
			j := rand.IntN(len(left) - 1)
			if j >= i {
				j++
			}
			if 2*left[j].known.cost() < left[i].known.cost() && rand.IntN(exploreOne) > 0 {
				i = j
			}
		}
		if least == 0 || k.hasApplied(left[i], least) {
			return left[i], true
		}
		left = slices.Delete(left, i, i+1)
	}
	return view{}, false
}

// hasApplied tells whether a node has applied a raft index.
func (k *call) hasApplied(v view, index uint64) bool {
	if v.applied >= index {
		return true
	}
	ctx, cancel := context.WithTimeoutCause(k.ctx, silence, errGone)
	defer cancel()
	l, err := k.c.leader(ctx, v.node)
	if err != nil && k.ctx.Err() == nil {
		v.known.failed(k.c.o.Now(), time.Now())
	}
	if err != nil || l.Status != http.StatusOK || l.Cached {
		return false
	}
	v.known.indices(l)
	return l.Applied >= index
}

// verdict is what an answer means for the choice of a node.
type verdict uint8

const (
	final      verdict = iota // it is the answer
	elsewhere                 // this node cannot, and did nothing: another one may
	leaderless                // this node knows no active node, and did nothing
	uncertain                 // it cannot be told whether this node did something
)

// Texts of Vault that say that a request was not looked at: ErrSealed in
// sdk/helper/consts/error.go, and respondStandby in http/handler.go of
// hashicorp/vault v1.21.0; the third is that of versions before 1.20.
const (
	textSealed   = "Vault is sealed"
	textNoLeader = "no active Vault instance found"
	textNoActive = "active cluster node not found"
	textNotUp    = "node is not active"
)

// judge says what the answer to a request to n means, and takes note of what it
// tells of the node that gave it: n, or one that n redirected to.
func (k *call) judge(a *answer, n choice) verdict {
	switch a.StatusCode {
	case http.StatusTemporaryRedirect:
		// To another path of the same node: Vault cleans paths so.
		return final
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	case 472, 530: // only ever a node's state
	default:
		return final
	}
	if k.classify() == toSelf {
		return final
	}
	text := a.peek()
	switch {
	case a.StatusCode == http.StatusServiceUnavailable && bytes.Contains(text, []byte(textSealed)):
		// Of a standby it may be the word of the leader that it handed on to.
		handed := a.node == n.node && n.role == RoleStandby && !n.plain
		if !handed {
			a.node.known.became(RoleSealed, k.c.o.Now())
		}
		switch {
		case !handed && a.node == n.node:
			return elsewhere
		case !k.read && !n.plain:
			return uncertain
		}
		return leaderless // n has not noticed
	case bytes.Contains(text, []byte(textNoLeader)), bytes.Contains(text, []byte(textNoActive)), bytes.Contains(text, []byte(textNotUp)):
		a.node.known.became(RoleStandby, k.c.o.Now())
		// handleRequestForwarding in http/handler.go says textNoActive before it
		// hands anything on.
		if !k.read && !n.plain && !bytes.Contains(text, []byte(textNoActive)) {
			return uncertain
		}
		return leaderless
	case !k.read || a.StatusCode == http.StatusInternalServerError:
		return final
	}
	a.node.known.failed(k.c.o.Now(), time.Now())
	return elsewhere
}

// maxPeek bounds what is read of an error's body to see what it says, in bytes.
const maxPeek = 2 << 10

// peek reads the beginning of the body, which stays whole.
func (a *answer) peek() []byte {
	if a.peeked == nil {
		head, err := io.ReadAll(io.LimitReader(a.Body, maxPeek))
		rest := a.Body
		a.peeked = head
		if err != nil {
			return head // what remains fails the same way
		}
		a.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), rest), rest}
	}
	return a.peeked
}

var (
	errNoLeader = errors.New("no node of the origin is active")
	errNoNode   = errors.New("no node of the origin can take requests")
)

// leaderless tells whether an election is likely: nodes are up, none leads.
func (k *call) leaderless() bool {
	if k.classify() == toSelf || k.c.active() != nil {
		return false
	}
	return slices.ContainsFunc(k.c.views(), func(v view) bool {
		return v.ours && (v.role == RoleStandby || v.role == RolePerformanceStandby || v.role == RoleUnhealthy)
	})
}

// turned tells whether a node that was tried as a standby leads by now.
func (k *call) turned(tried []choice) bool {
	a := k.c.active()
	return a != nil && a.fresh && slices.ContainsFunc(tried, func(t choice) bool { return t.node == a.node && t.role != RoleActive })
}

// inDoubt tells whether what was tried puts it in doubt who leads.
func (k *call) inDoubt() bool {
	a := k.c.active()
	return k.classify() != toSelf && (a == nil || !a.fresh)
}

// nobody is the failure of an attempt that found no node.
func (k *call) nobody(last *failure, noLeader bool) *failure {
	if k.ctx.Err() != nil {
		return &failure{e: k.outOfTime(k.c.node()), sent: last != nil && last.sent}
	}
	if noLeader {
		if last != nil && last.sent && !k.read {
			return last
		}
		e := &Error{Op: k.op(), Addr: k.c.node().addr(), Err: errNoLeader, Kind: NoLeader, hint: "its nodes are up and elect one, or cannot reach each other"}
		return &failure{e: e, leaderless: true}
	}
	if last != nil {
		return last
	}
	// What kept the first node from answering, if that is known, says most.
	nodes, _, _ := k.c.roster.snapshot()
	for _, n := range nodes {
		n.known.mu.Lock()
		e := n.known.trouble
		n.known.mu.Unlock()
		if e != nil {
			// It is about our question, not the caller's request.
			return &failure{e: &Error{Op: k.op(), Addr: e.Addr, Err: e.Err, Kind: e.Kind, hint: e.hint}}
		}
	}
	return &failure{e: &Error{Op: k.op(), Addr: k.c.node().addr(), Err: errNoNode, Kind: NoLeader, hint: "each is sealed, not initialized, a DR secondary or of another cluster: see thaw status"}}
}
