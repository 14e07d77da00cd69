package vault

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Learning roles.
//
// A routed client asks every node's sys/health, without a token, before it
// sends anything else, and again when an answer or its absence puts a role in
// doubt. Nothing runs between requests: no role is learned at start or in a
// frozen process.
//
// A node gets a token only after it told its cluster, and only if that is home.
// Home is decided once: the cluster that more than half of all nodes tell; if
// none is named by so many when every node has answered, or had ConnTimeout to
// do so, the one that most nodes tell, and among equals that of the node that
// is configured first. What is of another cluster gets nothing but sys/health.

// Roles are remembered this long.
const (
	// roleLasts bounds the age of a role that nothing puts in doubt. An older
	// one is used while it is learned anew.
	roleLasts = time.Minute
	// leaseLasts bounds the age of "active" where standbys serve reads
	// themselves, and reads are to come from the active node: one that has
	// lost its place without a word would answer from a copy.
	leaseLasts = time.Second
	// learnMost is how long a round is waited for at most. Who still needs a
	// node then asks again, without waiting for those that keep silent.
	learnMost = 700 * time.Millisecond
	// roundGap is the least time between two rounds of questions.
	roundGap = 50 * time.Millisecond
)

// round is one round of questions to nodes.
type round struct {
	usable chan struct{} // closed when an active node is known
	over   chan struct{} // closed when every question of it is answered
	once   sync.Once     // closes usable
}

// learn asks the nodes for their roles and waits until an active one is known,
// or all have answered or failed, or ctx ends. Who comes while a round has just
// begun shares it. A node whose answer to an earlier question is still awaited
// is not asked again, and not waited for.
func (c *Client) learn(ctx context.Context) {
	rd := c.askRoles()
	enough := time.NewTimer(learnMost)
	defer enough.Stop()
	select {
	case <-rd.usable:
	case <-rd.over:
	case <-enough.C:
	case <-ctx.Done():
	}
}

// askRoles begins a round, or returns the one that has just begun.
func (c *Client) askRoles() *round {
	r := &c.roster
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.round != nil && time.Since(r.begun) < roundGap && !failedSince(r.nodes, r.begun) {
		return r.round
	}
	rd := &round{usable: make(chan struct{}), over: make(chan struct{})}
	if !c.background(func() { c.runRound(rd) }) {
		close(rd.over)
		return rd
	}
	r.round, r.begun = rd, time.Now()
	return rd
}

// failedSince tells whether a request to one of the nodes failed after a time on
// the runtime's clock: a round that began before says nothing of it.
func failedSince(nodes []*node, at time.Time) bool {
	return slices.ContainsFunc(nodes, func(n *node) bool {
		n.known.mu.Lock()
		defer n.known.mu.Unlock()
		return n.known.lastFailed.After(at)
	})
}

// probeTime bounds one question for a node's health.
func (c *Client) probeTime() time.Duration { return 2 * c.o.ConnTimeout }

// probing is the context of such questions.
func (c *Client) probing() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(c.life, c.probeTime(), timeoutError("a node is asked for its health for "+c.probeTime().String()))
}

func (c *Client) runRound(rd *round) {
	defer close(rd.over)
	ctx, cancel := c.probing()
	defer cancel()
	c.look(ctx)
	nodes, home, _ := c.roster.snapshot()
	told := make(chan struct{}, len(nodes))
	var asked int
	var probes sync.WaitGroup
	defer probes.Wait()
	for _, n := range nodes {
		if done, mine := n.known.begin(); !mine {
			if v := n.view(home, c.o.Now()); home == "" || v.role == RoleActive && !v.fresh {
				asked++ // whose cluster it is, or whether it still leads, is what matters
				probes.Go(func() {
					select {
					case <-done:
					case <-ctx.Done():
					}
					told <- struct{}{}
				})
			}
			continue
		}
		asked++
		probes.Go(func() {
			defer func() { told <- struct{}{} }()
			c.probe(ctx, n)
		})
	}
	patience := time.NewTimer(c.o.ConnTimeout)
	defer patience.Stop()
	late := false
	for {
		if home == "" {
			home = c.decide(late || asked == 0)
		}
		if a := c.active(); home != "" && a != nil && a.fresh {
			rd.once.Do(func() { close(rd.usable) })
		}
		if asked == 0 {
			break
		}
		select {
		case <-told:
			asked--
		case <-patience.C:
			late = true
		}
	}
	if home != "" && c.active() == nil {
		c.seekLeader(ctx, home)
	}
}

// begin claims the question for the node's health. mine is false where it is
// being asked already; done is closed when the answer is here.
func (s *known) begin() (done <-chan struct{}, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking != nil {
		return s.asking, false
	}
	s.asking = make(chan struct{})
	return s.asking, true
}

func (s *known) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.asking)
	s.asking = nil
}

// probe asks one node for its health. begin must have said yes.
func (c *Client) probe(ctx context.Context, n *node) {
	defer n.known.end()
	began := c.o.Now()
	h, err := c.health(ctx, n, c.headersFor(n))
	if err != nil {
		e, ok := err.(*Error)
		if c.life.Err() != nil || !ok || e.Kind == Limited || c.o.Now().Round(0).Sub(began.Round(0)) > 2*c.probeTime() {
			return // it was frozen while it waited, or never asked: that says nothing
		}
		n.known.lost(e, c.o.Now())
		return
	}
	_, home, _ := c.roster.snapshot()
	if n.known.take(h, home, c.o.Now()) {
		c.quarantine(n, home)
	}
	if n.view(home, c.o.Now()).role == RoleActive && c.rivals(n) {
		// Two nodes say that they are active, one of them not for long: who
		// became it later is.
		if l, err := c.leader(ctx, n); err == nil && l.Status == http.StatusOK {
			n.known.indices(l)
		}
	}
}

// quarantine says once that a node is not of our cluster.
func (c *Client) quarantine(n *node, home string) {
	n.known.mu.Lock()
	theirs := n.known.cluster
	n.known.mu.Unlock()
	c.o.Logger.Warn("this address belongs to another cluster than the origin's others: it gets no token and no request; remove it from THAW_VAULT_ADDRS, or restart thaw if the cluster was built anew",
		"address", n.addr(), "cluster_id", theirs, "origin_cluster_id", home)
}

// rivals tells whether another node also says that it is active.
func (c *Client) rivals(n *node) bool {
	for _, v := range c.views() {
		if v.node != n && v.role == RoleActive {
			return true
		}
	}
	return false
}

// decide settles which cluster is home, if that can be said by now, and returns
// it. final: no further answer is waited for.
func (c *Client) decide(final bool) string {
	r := &c.roster
	nodes, home, _ := r.snapshot()
	if home != "" {
		return home
	}
	votes := make(map[string]int)
	var first []string // clusters in the order of the nodes that tell them
	for _, n := range nodes {
		n.known.mu.Lock()
		cluster := n.known.cluster
		n.known.mu.Unlock()
		if cluster == "" {
			continue
		}
		if votes[cluster]++; votes[cluster] == 1 {
			first = append(first, cluster)
		}
	}
	best := ""
	for _, cluster := range first {
		if best == "" || votes[cluster] > votes[best] {
			best = cluster
		}
	}
	if best == "" || !final && 2*votes[best] <= len(nodes) {
		return ""
	}
	r.mu.Lock()
	if r.home == "" {
		r.home = best
	}
	home = r.home
	r.mu.Unlock()
	for _, n := range nodes {
		if n.known.judge(home) {
			c.quarantine(n, home)
		}
	}
	return home
}

// active is the node that leads; nil: none is known. Of several that say so it
// is the one that became active last, and first the one whose role is not in
// doubt.
func (c *Client) active() *view {
	var best *view
	for _, v := range c.views() {
		if v.role != RoleActive || !v.ours {
			continue
		}
		if best == nil || v.fresh && !best.fresh || v.fresh == best.fresh && later(v.activeTime, best.activeTime) {
			best = &v
		}
	}
	return best
}

// later tells whether one active_time comes after another. Each is RFC 3339 in its
// node's own zone (activeTime in vault/ha.go of hashicorp/vault v1.21.0).
func later(a, b string) bool {
	at, err := time.Parse(time.RFC3339Nano, a)
	bt, other := time.Parse(time.RFC3339Nano, b)
	if err != nil || other != nil {
		return a > b
	}
	return at.After(bt)
}

// seekLeader looks for the active node outside the list: a standby names it. It
// joins the list if it is of the same cluster and says itself that it is active,
// and if reaching it does not leave TLS.
func (c *Client) seekLeader(ctx context.Context, home string) {
	for _, v := range c.views() {
		if !v.ours || v.role != RoleStandby && v.role != RolePerformanceStandby {
			continue
		}
		l, err := c.leader(ctx, v.node)
		if err != nil || l.Status != http.StatusOK {
			continue
		}
		v.known.indices(l)
		u, err := url.Parse(l.LeaderAddress)
		if err != nil || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || v.scheme == "https") {
			continue
		}
		host, err := hostPort(u)
		if err != nil {
			continue
		}
		n := &node{scheme: u.Scheme, host: host, wire: host, learnt: true}
		if c.has(n) {
			continue
		}
		n.known.begin()
		c.probe(ctx, n)
		if w := n.view(home, c.o.Now()); !w.ours || w.role != RoleActive {
			continue
		}
		r := &c.roster
		r.mu.Lock()
		nodes := make([]*node, 0, len(r.nodes)+1)
		for _, o := range r.nodes {
			if !o.learnt {
				nodes = append(nodes, o)
			}
		}
		r.nodes = append(nodes, n)
		r.mu.Unlock()
		return
	}
}

func (c *Client) has(n *node) bool {
	nodes, _, _ := c.roster.snapshot()
	for _, o := range nodes {
		if strings.EqualFold(o.host, n.host) && o.scheme == n.scheme {
			return true
		}
	}
	return false
}

// know makes sure that the active node is known, as far as it can be.
func (c *Client) know(ctx context.Context) {
	a := c.active()
	if a == nil || !a.fresh {
		c.learn(ctx)
		return
	}
	age := c.o.Now().Round(0).Sub(a.learned)
	switch {
	case age >= 0 && age <= leaseLasts:
	case !a.forwards && !c.o.StandbyReads:
		c.confirm(ctx, a.node)
	case age < 0 || age > roleLasts:
		c.askRoles() // nobody waits for it
	}
}

// asked makes sure that the node is asked for its health and waits for the answer,
// or until ctx ends. The question is everybody's: a caller who leaves does not
// end it. mine tells that it was put only now.
func (c *Client) asked(ctx context.Context, n *node) (mine bool) {
	done, mine := n.known.begin()
	if mine && !c.background(func() {
		ctx, cancel := c.probing()
		defer cancel()
		c.probe(ctx, n)
	}) {
		n.known.end()
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	return mine
}

// background runs what Close waits for, unless that was called.
func (c *Client) background(f func()) bool {
	c.closing.Lock()
	defer c.closing.Unlock()
	if c.life.Err() != nil {
		return false
	}
	c.work.Go(f)
	return true
}

// confirm asks the active node alone whether it still is; if it isn't, all.
func (c *Client) confirm(ctx context.Context, n *node) {
	c.asked(ctx, n)
	if ctx.Err() != nil {
		return
	}
	if a := c.active(); a == nil || !a.fresh {
		c.learn(ctx)
	}
}
