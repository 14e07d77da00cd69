package vault

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/coalesce"
)

// roster is the origin's nodes: the configured addresses, what their names
// stand for, and the leader that they name, if it is none of these.
//
// One configured address is asked as it is, whatever its name stands for, until
// it fails as only a node of a cluster does. From then on, and from the start
// where there are several addresses or reads may go to standbys, the client is
// routed: it looks names up, learns each node's role, and chooses.
type roster struct {
	c         *Client // sends the questions
	seeds     []*node // the configured addresses
	questions *coalesce.Group[any, time.Duration]
	rivalry   sync.Once   // says that two nodes claim to lead
	routed    atomic.Bool // from then on

	mu    sync.Mutex // guards the fields below, and what is known of each node
	nodes []*node    // replaced, never changed in place
	home  string     // the cluster_id of the cluster that gets the token; "": not decided
}

// lookAgain is how long the addresses of a name are not looked up again.
const lookAgain = 30 * time.Second

// homeOf returns home.
func (r *roster) homeOf() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.home
}

// join puts a leader that was learned on the list, in place of the last one.
func (r *roster) join(leader *node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = append(slices.DeleteFunc(slices.Clone(r.nodes), func(n *node) bool { return n.learnt }), leader)
}

// views returns what is known of each node.
func (r *roster) views() []view {
	now := r.c.o.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]view, len(r.nodes))
	for i, n := range r.nodes {
		out[i] = n.viewLocked(r.home, now)
	}
	return out
}

// view is what is known of one node.
func (r *roster) view(n *node) view {
	now := r.c.o.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	return n.viewLocked(r.home, now)
}

// note changes what is known of a node.
func (r *roster) note(n *node, change func(s *state)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := *n.known
	change(&s)
	n.known = &s
}

// became notes the role that an answer to some other request gave away.
func (r *roster) became(n *node, role Role) {
	now := r.c.o.Now()
	r.note(n, func(s *state) { s.became(role, now) })
}

// look looks the names of the configured addresses up and makes nodes of what they
// stand for. A name that cannot be looked up
// stays one node, and so does one that is reached through an HTTP proxy, which
// does that itself. Nodes that stay keep what is known of them.
func (r *roster) look(ctx context.Context) {
	r.mu.Lock()
	before := r.nodes
	r.mu.Unlock()
	var found []*node
	for _, seed := range r.seeds {
		nodes, sure := r.expand(ctx, seed)
		if !sure {
			// That the name server fails says nothing of the nodes.
			if known := slices.DeleteFunc(slices.Clone(before), func(n *node) bool { return n.seed != seed }); len(known) > 0 {
				nodes = known
			}
		}
		for _, n := range nodes {
			if at := slices.IndexFunc(before, n.same); at >= 0 {
				n = before[at]
			}
			if !slices.ContainsFunc(found, n.same) {
				found = append(found, n)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.nodes {
		if n.learnt && !slices.ContainsFunc(found, n.same) {
			found = append(found, n) // a leader that was learned stays while it leads
		} else if !slices.Contains(found, n) {
			r.questions.Forget(n)
		}
	}
	r.nodes = found
}

// same tells whether two nodes are one: what is dialled and what is expected
// there are the same.
func (n *node) same(o *node) bool {
	return n.scheme == o.scheme && n.host == o.host && n.socket == o.socket && n.server == o.server && n.base == o.base
}

// expand gives the nodes that a configured address stands for. sure is false
// where there may be others, since a name could not be looked up.
func (r *roster) expand(ctx context.Context, seed *node) (nodes []*node, sure bool) {
	if !seed.named || r.proxied(seed) {
		return []*node{seed}, true
	}
	name, _, err := net.SplitHostPort(seed.host)
	sure = err == nil // as it is of every node
	targets := []*net.SRV{{Target: name}}
	if r.c.o.SRVLookup && seed.noPort {
		// As vault/api's NewRequest: service http, protocol tcp, only where the
		// address names no port; https://datatracker.ietf.org/doc/html/draft-andrews-http-srv-02
		_, found, err := r.c.o.LookupSRV(ctx, "http", "tcp", name)
		if err == nil && len(found) > 0 {
			targets = found[:min(len(found), mostNodes)]
		}
		dns, _ := errors.AsType[*net.DNSError](err)
		sure = err == nil || dns != nil && dns.IsNotFound
	}
	for _, t := range targets {
		n := newSeed(seed)
		n.seed = seed
		if t.Port != 0 {
			target := strings.ToLower(strings.TrimSuffix(t.Target, "."))
			n.host, err = hostPort(&url.URL{Scheme: seed.scheme, Host: net.JoinHostPort(target, strconv.Itoa(int(t.Port)))})
			if err != nil {
				continue
			}
			if n.server = name; within(target, name) {
				n.server = target
			}
		}
		found, err := r.addresses(ctx, n)
		nodes, sure = append(nodes, found...), sure && err == nil
	}
	if len(nodes) == 0 {
		nodes = []*node{seed}
	}
	return nodes, sure
}

// within tells whether a target of SRV records is of the same domain as the
// name they were asked for: its certificate may then bear the target's name.
// What DNS says is not proof; a certificate for another domain is not accepted
// on its word.
func within(target, name string) bool {
	_, domain, ok := strings.Cut(name, ".")
	return target == name || strings.HasSuffix(target, "."+name) || ok && strings.Contains(domain, ".") && strings.HasSuffix(target, "."+domain)
}

// addresses makes a node of each address of a name, if there are several that
// are not this host's own. Its error is the name server's; then the name itself
// is the node.
func (r *roster) addresses(ctx context.Context, n *node) ([]*node, error) {
	name, port, _ := net.SplitHostPort(n.host)
	ips, err := r.c.o.LookupIP(ctx, "ip", name)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	ips = slices.Compact(ips)
	if len(ips) < 2 || !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !ip.IsLoopback() }) {
		return []*node{n}, err
	}
	var out []*node
	for _, ip := range ips[:min(len(ips), mostNodes)] {
		m := newSeed(n)
		m.host, m.server, m.named = net.JoinHostPort(ip.String(), port), cmp.Or(n.server, name), false
		out = append(out, m)
	}
	return out, nil
}

// mostNodes bounds the nodes that one name may stand for.
const mostNodes = 16

// newSeed copies what an address says, without what is known of the node.
func newSeed(n *node) *node {
	return &node{
		scheme: n.scheme, host: n.host, wire: n.wire, base: n.base, socket: n.socket, server: n.server, named: n.named, noPort: n.noPort, seed: n.seed,
		known: new(state), // n's is guarded
	}
}

// proxied tells whether requests to the node go through an HTTP proxy.
func (r *roster) proxied(n *node) bool {
	u, err := r.c.proxy(&http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: n.scheme, Host: n.host}})
	return err != nil || u != nil
}

// widen makes the client routed where its one address turns out to stand for
// several nodes. It reports whether it is routed now.
func (r *roster) widen(ctx context.Context) bool {
	_ = r.names(ctx)
	if n := len(r.views()); n > 1 && r.routed.CompareAndSwap(false, true) {
		r.c.o.Logger.Info("the origin's name stands for several nodes: each is asked for its role", "nodes", n)
	}
	return r.routed.Load()
}
