package vault

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
)

// Learning roles.
//
// A routed client asks every node's sys/health, without a token, before it
// sends anything else, and again when an answer or its absence puts a role in
// doubt. Nothing runs between requests: no role is learned at start or in a
// frozen process. A question is nobody's: who needs its answer joins it, and a
// caller who leaves does not end it.
//
// A node gets a token only after it told its cluster, and only if that is home
// (view.ours). Home is decided once: the cluster that more than half of all
// nodes tell; if none is named by so many when every node has answered, or had
// ConnTimeout to do so, the one that most nodes tell, and among equals that of
// the node that is configured first. What is of another cluster gets nothing but
// sys/health.

// Roles are remembered this long.
const (
	// roleLasts bounds the age of a role that nothing puts in doubt. An older
	// one is used while it is learned anew.
	roleLasts = time.Minute
	// leaseLasts bounds the age of "active" where standbys serve reads
	// themselves, and reads are to come from the active node: one that has
	// lost its place without a word would answer from a copy.
	leaseLasts = time.Second
	// learnMost is how long answers are waited for at most. Who still needs a
	// node then asks again, without waiting for those that keep silent.
	learnMost = 700 * time.Millisecond
	// askGap is the least time between an answer and the next question, unless
	// the node failed since.
	askGap = 50 * time.Millisecond
)

// newQuestions makes the group of those that are put, or were answered just now: by what
// they are about, a node for its health. Their results are for how long they are kept.
func (r *roster) newQuestions() *coalesce.Group[any, time.Duration] {
	return coalesce.New[any](coalesce.Options[time.Duration]{
		Limit: 2 * r.probeTime(), Now: r.c.o.Now, Keep: func(d time.Duration, _ error) time.Duration { return d },
	})
}

// put puts a question by ask, unless it is put already, or was answered no longer ago.
func (r *roster) put(about any, ago time.Duration, ask func(context.Context)) (call *coalesce.Call[time.Duration], mine bool) {
	return r.questions.Start(r.c.life, about, func(ctx context.Context) (time.Duration, error) {
		ask(ctx)
		return ago, nil
	})
}

// names makes sure that those of the configured addresses were looked up not long ago.
func (r *roster) names(ctx context.Context) error {
	call, _ := r.put("names", lookAgain, r.look)
	_, err := call.Wait(ctx)
	return err
}

// askHealth asks a node for it.
func (r *roster) askHealth(n *node) (call *coalesce.Call[time.Duration], mine bool) {
	return r.put(n, askGap, func(ctx context.Context) { r.probe(ctx, n) })
}

// askRoles asks all nodes for theirs.
func (r *roster) askRoles() *coalesce.Call[time.Duration] {
	call, _ := r.put("roles", askGap, func(ctx context.Context) { r.survey(ctx, func() bool { return false }) })
	return call
}

// renew has the next question for a node's health asked, though one was answered
// just now.
func (r *roster) renew(n *node) {
	if r.questions.Running(n) == nil {
		r.questions.Forget(n)
	}
}

// asked asks the node for its health, unless it is being asked, and waits for the
// answer, or until ctx ends. mine tells that it was asked only now.
func (r *roster) asked(ctx context.Context, n *node) (mine bool) {
	r.renew(n)
	call, mine := r.askHealth(n)
	_, _ = call.Wait(ctx)
	if n.learnt { // perhaps never asked again: nothing is kept of it
		r.questions.Forget(n)
	}
	return mine
}

// learn asks the nodes for their roles and waits until an active one is known,
// or all have answered or failed, or ctx ends.
func (r *roster) learn(ctx context.Context) {
	limit := learnMost
	if r.homeOf() == "" {
		limit = r.c.o.ConnTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r.survey(bounded, func() bool {
		a := r.active()
		return a != nil && a.fresh
	})
	r.decide(ctx.Err() == nil)
}

// survey asks all nodes until it has heard enough, or all, or ctx ends. Where none
// of them leads it looks for the leader elsewhere.
func (r *roster) survey(ctx context.Context, enough func() bool) {
	if r.names(ctx) != nil {
		return
	}
	waiting := r.askAll()
	left, answered := len(waiting), make(chan struct{}, len(waiting)+1)
	await := func(call *coalesce.Call[time.Duration]) {
		_, _ = call.Wait(ctx)
		answered <- struct{}{}
	}
	for _, call := range waiting {
		go await(call)
	}
	for sought := false; ; left-- {
		r.decide(left == 0)
		switch {
		case enough():
			return
		case left > 0:
		case sought || r.homeOf() == "" || r.active() != nil:
			return
		default:
			seeking, _ := r.put("leader", askGap, r.seekLeader)
			go await(seeking)
			sought, left = true, 1
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return
		}
	}
}

// askAll asks every node for its health, and returns what is worth waiting for:
// not the answer of a node that keeps silent for learnMost, unless it may say whose
// the nodes are, or whether the leader still leads.
func (r *roster) askAll() (waiting []*coalesce.Call[time.Duration]) {
	home := r.homeOf()
	for _, v := range r.views() {
		if call, mine := r.askHealth(v.node); mine || home == "" || v.role == RoleActive && !v.fresh || clock.Within(call.Began(), r.c.o.Now(), learnMost) {
			waiting = append(waiting, call)
		}
	}
	return waiting
}

// probeTime bounds one question for a health.
func (r *roster) probeTime() time.Duration { return 2 * r.c.o.ConnTimeout }

// probe asks one node for its health and takes note of it.
func (r *roster) probe(ctx context.Context, n *node) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.probeTime(), timeoutError("a node is asked for its health for "+r.probeTime().String()))
	defer cancel()
	began := r.c.o.Now()
	h, err := r.c.health(ctx, n)
	now := r.c.o.Now()
	if err != nil {
		e, ok := err.(*Error)
		if r.c.life.Err() != nil || !ok || e.Kind == Limited || clock.Elapsed(began, now) > 2*r.probeTime() {
			return // it was frozen while it waited, or never asked: that says nothing
		}
		r.note(n, func(s *state) { s.lost(e, now) })
		return
	}
	r.note(n, func(s *state) { s.take(h, now) })
	r.quarantine(n)
	if v := r.view(n); v.ours && v.role == RoleActive && r.rivals(n) {
		r.rivalry.Do(func() {
			r.c.o.Logger.Warn("two nodes of the origin say that they lead: requests go to the one whose storage is ahead, and no index verifies what is cached until one is left; check the cluster",
				"address", n.addr())
		})
		for _, v := range r.views() {
			if v.ours && v.role == RoleActive {
				_, _ = r.c.leader(ctx, v.node)
			}
		}
	}
}

// quarantine says once that a node is not of our cluster, if it isn't.
func (r *roster) quarantine(n *node) {
	news := false
	r.note(n, func(s *state) {
		news = s.foreign(r.home) && !s.said
		s.said = s.said || news
	})
	if !news {
		return
	}
	r.c.o.Logger.Warn("this address belongs to another cluster than the origin's others: it gets no token and no request; remove it from THAW_VAULT_ADDRS, or restart thaw if the cluster was built anew",
		"address", n.addr(), "cluster_id", r.view(n).cluster, "origin_cluster_id", r.homeOf())
}

// rivals tells whether another of our nodes also says that it is active.
func (r *roster) rivals(n *node) bool {
	return slices.ContainsFunc(r.views(), func(v view) bool { return v.node != n && v.ours && v.role == RoleActive })
}

// decide settles which cluster is home, if that can be said by now. final: no
// further answer is waited for.
func (r *roster) decide(final bool) {
	if r.homeOf() != "" {
		return
	}
	all := r.views()
	votes, best := make(map[string]int), ""
	for _, v := range all {
		votes[v.cluster]++
	}
	for _, v := range all { // the first of equals counts
		if v.cluster != "" && (best == "" || votes[v.cluster] > votes[best]) {
			best = v.cluster
		}
	}
	if best == "" || !final && 2*votes[best] <= len(all) {
		return
	}
	r.mu.Lock()
	if r.home == "" {
		r.home = best
	}
	r.mu.Unlock()
	for _, v := range all {
		r.quarantine(v.node)
	}
}

// active is the node that leads; nil: none is known.
func (r *roster) active() *view { return leading(r.views()) }

// leading is the node that leads. Of several that say so it is first the one whose
// role is not in doubt, then the one that has applied more, since a leader that
// was cut off appends and applies nothing, then the one that became active last.
func leading(all []view) (best *view) {
	for i := range all {
		if v := &all[i]; v.role == RoleActive && v.ours && (best == nil || v.leadsBefore(best)) {
			best = v
		}
	}
	return best
}

func (v *view) leadsBefore(o *view) bool {
	switch {
	case v.fresh != o.fresh:
		return v.fresh
	case v.applied != o.applied:
		return v.applied > o.applied
	}
	return v.activeTime.After(o.activeTime)
}

// seekLeader looks for the active node outside the list: a standby names it. It
// joins the list if it is of the same cluster and says itself that it is active,
// and if reaching it does not leave TLS.
func (r *roster) seekLeader(ctx context.Context) {
	for _, v := range r.views() {
		if !v.ours || v.role != RoleStandby && v.role != RolePerformanceStandby {
			continue
		}
		l, _ := r.c.leader(ctx, v.node)
		n := leaderNode(l)
		if n == nil || v.scheme == "https" && n.scheme != "https" || slices.ContainsFunc(r.views(), func(o view) bool { return strings.EqualFold(o.host, n.host) && o.scheme == n.scheme }) {
			continue
		}
		r.asked(ctx, n)
		if w := r.view(n); w.ours && w.role == RoleActive {
			r.join(n)
			return
		}
	}
}

// leaderNode is the node that l names as the leader; nil where it names none.
func leaderNode(l Leader) *node {
	u, err := parseLocation(l.LeaderAddress, false)
	if err != nil || u == nil {
		return nil
	}
	return newLeader(u.Scheme, u.Host)
}

// newLeader is a node that nobody configured.
func newLeader(scheme, host string) *node {
	return &node{scheme: scheme, host: host, wire: host, learnt: true, known: new(state)}
}

// know makes sure that the active node is known, as far as it can be. itself says that
// what is to be asked of it tells as much.
func (r *roster) know(ctx context.Context, itself bool) {
	a := r.active()
	if a != nil && a.fresh {
		leases := !a.health.ForwardsReads() && !r.c.o.StandbyReads
		switch now := r.c.o.Now(); {
		case clock.Within(a.learned, now, leaseLasts), leases && (itself || clock.Within(a.led, now, leaseLasts)):
			return
		case !leases:
			if !clock.Within(a.learned, now, roleLasts) {
				r.askRoles() // nobody waits for it
			}
			return
		}
		r.asked(ctx, a.node) // whether it still leads; if it doesn't, all are asked
		if a = r.active(); ctx.Err() != nil {
			return
		}
	}
	if a == nil || !a.fresh {
		r.learn(ctx)
	}
}
