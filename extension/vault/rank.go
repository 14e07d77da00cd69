package vault

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Ranking.
//
// Writes, logins and whatever is to be fresh go to the active node; reads under
// StandbyReads to the nodes that serve reads from a copy, two of them chosen by
// chance and the quicker of the two asked. A standby that only hands on is
// second choice. Sealed, uninitialized and removed nodes and DR secondaries get
// only questions about themselves, and what is not known to be of our cluster
// never sees a token. A node that rests comes after all others.

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
	noForward  bool // the node is not to hand the request on: it answers, or says that it cannot
	leaderless bool // tried, and it said that it knows no leader
}

// rank gives the nodes that a request of a class may still go to after those that
// were tried, the best first. Nodes that serve reads from a copy come together,
// for pick.
func rank(all []view, to class, read bool, tried []choice) []choice {
	lead, copies, hand, other := sorted(all)
	var out []choice
	for _, v := range lead {
		out = append(out, choice{view: v, noForward: !read && !v.secondary})
	}
	switch {
	case to == toSelf:
		out = append(out, plainly(copies, hand, reachable(other, all, tried))...)
	case to == toReader:
		out = append(plainly(copies), append(out, plainly(hand)...)...)
	case read:
		out = append(out, plainly(hand)...)
	}
	out = slices.DeleteFunc(out, func(c choice) bool { return was(tried, c.node) })
	if !read && to != toSelf {
		out = append(out, stand(slices.Concat(hand, copies), all, tried)...)
	}
	slices.SortStableFunc(out, func(a, b choice) int { return last(a.resting) - last(b.resting) })
	return out
}

func last(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// sorted tells apart who leads, who serves reads from a copy, who hands requests
// on, and who does none of it.
func sorted(all []view) (lead, copies, hand, other []view) {
	if a := leading(all); a != nil {
		lead = []view{*a}
	}
	for _, v := range all {
		switch {
		case v.role == RoleForeign, v.ours && v.role == RoleActive:
		case !v.ours:
			other = append(other, v)
		case v.copies:
			copies = append(copies, v)
		case v.role == RoleStandby:
			hand = append(hand, v)
		default:
			other = append(other, v)
		}
	}
	return lead, copies, hand, other
}

func plainly(groups ...[]view) (out []choice) {
	for _, v := range slices.Concat(groups...) {
		out = append(out, choice{view: v})
	}
	return out
}

// reachable leaves out the nodes that did not answer, while another one is left.
func reachable(other, all []view, tried []choice) []view {
	if !slices.ContainsFunc(all, func(v view) bool { return v.ours && v.role != RoleUnreachable && !was(tried, v.node) }) {
		return other
	}
	return slices.DeleteFunc(other, func(v view) bool { return v.role == RoleUnreachable })
}

// stand gives the nodes that a write goes to beside the leader. A standby hands
// on: first it gets the write so that it says who leads, before it is let hand
// the write on, since a redirect after it tried would not tell whether the write
// was applied. That waits until it is clear that no election is due: to a leader
// that just died a write cannot be handed, and what came of it would not be known.
func stand(nodes, all []view, tried []choice) (out []choice) {
	ways := []bool{true, false}
	if slices.ContainsFunc(all, func(v view) bool { return v.justLost || v.role == RoleActive && !v.fresh && was(tried, v.node) }) {
		ways = ways[:1]
	}
	for _, noForward := range ways {
		for _, v := range nodes {
			if !slices.ContainsFunc(tried, func(t choice) bool { return t.node == v.node && (t.noForward == noForward || t.leaderless) }) {
				out = append(out, choice{view: v, noForward: noForward})
			}
		}
	}
	return out
}

func was(tried []choice, n *node) bool {
	return slices.ContainsFunc(tried, func(t choice) bool { return t.node == n })
}

// choose gives the next node to try.
func (t *tour) choose() (choice, bool) {
	to := t.classify()
	ranked := rank(t.c.views(), to, t.read, t.tried)
	for len(ranked) > 0 {
		if to != toReader || !ranked[0].copies {
			return ranked[0], true
		}
		end := slices.IndexFunc(ranked, func(c choice) bool { return !c.copies || c.resting != ranked[0].resting })
		if end < 0 {
			end = len(ranked)
		}
		if c, ok := t.pick(slices.Clone(ranked[:end])); ok {
			return c, true
		}
		ranked = ranked[end:]
	}
	return choice{}, false
}

// exploreOne: one choice in so many is left to chance, so that a node that was
// slow is seen to be quick again.
const exploreOne = 32

// pick takes two of the nodes by chance and keeps to the first, unless the
// second can be expected to answer in less than half its time: the load
// spreads, and no node that is slow gets much of it (the power of two choices;
// https://doi.org/10.1109/71.963420). A node that has not applied the index that
// the read needs is passed over.
func (t *tour) pick(left []choice) (choice, bool) {
	least := atLeast(t.req.Context())
	for len(left) > 0 {
		i := rand.IntN(len(left))
		if len(left) > 1 {
			j := (i + 1 + rand.IntN(len(left)-1)) % len(left)
			if 2*left[j].known.cost() < left[i].known.cost() && rand.IntN(exploreOne) > 0 {
				i = j
			}
		}
		if least == 0 || t.hasApplied(left[i].view, least) {
			return left[i], true
		}
		left = slices.Delete(left, i, i+1)
	}
	return choice{}, false
}

// hasApplied tells whether a node has applied a raft index.
func (t *tour) hasApplied(v view, index uint64) bool {
	if v.applied >= index {
		return true
	}
	ctx, cancel := context.WithTimeoutCause(t.ctx, silence, errAway)
	defer cancel()
	l, err := t.c.leader(ctx, v.node)
	if err != nil && t.ctx.Err() == nil {
		t.c.failedAt(v.node, time.Now())
	}
	if err != nil || l.Status != http.StatusOK || l.Cached {
		return false
	}
	v.known.indices(l)
	return l.Applied >= index
}
