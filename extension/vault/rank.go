package vault

import (
	"context"
	"math/rand/v2"
	"slices"
	"sort"
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
	if k.read && k.c.o.StandbyReads && !wishesIn(k.req.Context()).active {
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

// place is what a node can do for a request of another.
type place uint8

const (
	nowhere place = iota
	leads
	copies // it serves reads from a copy
	hands  // it only hands requests on
	other
)

func (v view) place(lead *view) place {
	switch {
	case lead != nil && v.node == lead.node:
		return leads
	case v.role == RoleForeign, v.ours && v.role == RoleActive:
		return nowhere
	case v.ours && v.copies:
		return copies
	case v.ours && v.role == RoleStandby:
		return hands
	}
	return other
}

// rank gives the nodes that a request of a class may still go to after those that
// were tried, the best first. Nodes that serve reads from a copy come together,
// for pick.
//
// A standby hands on: first it gets a write so that it says who leads, before it
// is let hand the write on, since a redirect after it tried would not tell whether
// the write was applied. That waits until it is clear that no election is due: to
// a leader that just died a write cannot be handed, and what came of it would not
// be known.
func rank(all []view, to class, read bool, tried []choice) (out []choice) {
	lead := leading(all)
	was := func(v view, _ bool) bool {
		return slices.ContainsFunc(tried, func(t choice) bool { return t.node == v.node })
	}
	same := func(v view, noForward bool) bool {
		return slices.ContainsFunc(tried, func(t choice) bool { return t.node == v.node && (t.noForward == noForward || t.leaderless) })
	}
	add := func(p place, noForward bool, done func(view, bool) bool) {
		for _, v := range all {
			if v.place(lead) == p && !done(v, noForward) {
				out = append(out, choice{view: v, noForward: noForward})
			}
		}
	}
	if to == toReader {
		add(copies, false, was)
	}
	add(leads, !read && lead != nil && !lead.health.Secondary(), was)
	switch {
	case to == toSelf:
		silent := func(v view, _ bool) bool { return was(v, false) || v.role == RoleUnreachable }
		if !slices.ContainsFunc(all, func(v view) bool { return v.ours && !silent(v, false) }) {
			silent = was // no other node is left
		}
		add(copies, false, was)
		add(hands, false, was)
		add(other, false, silent)
	case read:
		add(hands, false, was)
	default:
		add(hands, true, same)
		add(copies, true, same)
		if !slices.ContainsFunc(all, func(v view) bool { return v.justLost || v.role == RoleActive && !v.fresh && was(v, false) }) {
			add(hands, false, same)
			add(copies, false, same)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return !out[i].resting && out[j].resting })
	return out
}

// choose gives the next node to try. One that serves reads from a copy and has not
// applied the index that the read needs is passed over.
func (t *tour) choose() (choice, bool) {
	to, least := t.classify(), wishesIn(t.req.Context()).atLeast
	for ranked := rank(t.c.views(), to, t.read, t.tried); len(ranked) > 0; {
		i, copies := 0, to == toReader && ranked[0].copies
		if copies {
			i = pick(ranked)
		}
		if c := ranked[i]; !copies || least == 0 || t.hasApplied(c.view, least) {
			return c, true
		}
		ranked = slices.Delete(ranked, i, i+1)
	}
	return choice{}, false
}

// exploreOne: one choice in so many is left to chance, so that a node that was
// slow is seen to be quick again.
const exploreOne = 32

// pick takes two of the nodes that serve reads from a copy and come first, by chance,
// and keeps to the first, unless the second can be expected to answer in less than half
// its time: the load spreads, and no node that is slow gets much of it (the power of two
// choices; https://doi.org/10.1109/71.963420).
func pick(ranked []choice) int {
	end := slices.IndexFunc(ranked, func(c choice) bool { return !c.copies || c.resting != ranked[0].resting })
	if end < 0 {
		end = len(ranked)
	}
	i := rand.IntN(end)
	if end > 1 {
		j := (i + 1 + rand.IntN(end-1)) % end
		if 2*ranked[j].cost() < ranked[i].cost() && rand.IntN(exploreOne) > 0 {
			return j
		}
	}
	return i
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
	return !l.Cached && l.Applied >= index
}
