package vault

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
)

// Redirects.
//
// A standby that does not forward answers 307 with the active node's address
// (https://developer.hashicorp.com/vault/docs/concepts/ha). The request that
// follows it carries the token, so whoever can make an answer say 307 could ask
// for the token. Therefore the redirect only chooses among nodes that are known
// otherwise: the configured ones, and the leader that the configured node's
// own sys/leader names, once both nodes' sys/health, asked without a token,
// tell the same cluster_id. Path and query are the request's own, never the
// redirect's. A client with one address lets a standby hand a write on and
// follows the redirect that comes instead, as every client of Vault does; only
// one that knows the nodes can do better (see Routing).
//
// What leads back to the node that was asked, to another path there, sends
// nothing anywhere and is handed to the caller as it is. To the same path it
// means that the node is about to lead: it has made itself known, and is a
// standby until it has taken up the lead (waitForLeadership in vault/ha.go of
// hashicorp/vault v1.21.0). Such a request is made again later.
const maxHops = 2

// cluster remembers to which leader each configured node's redirects may lead.
type cluster struct {
	mu     sync.Mutex       // guards leader
	leader map[*node]string // node.addr() of the leader
}

func (cl *cluster) knows(entry *node, addr string) bool {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.leader[entry] == addr
}

func (cl *cluster) learn(entry *node, addr string) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.leader == nil {
		cl.leader = make(map[*node]string)
	}
	cl.leader[entry] = addr
}

func (cl *cluster) forget(entry *node) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	delete(cl.leader, entry)
}

// follow sends the request to entry and on to where entry's redirects lead.
func (k *call) follow(entry *node) (*answer, *failure) {
	at := entry
	for hop := 0; ; hop++ {
		a, f := k.send(at)
		if f != nil {
			if f.at = at; hop > 0 {
				k.c.cluster.forget(entry)
				f.sent = f.sent || !k.read && !k.plain // entry may have handed it on
			}
			return nil, f
		}
		to, bad := k.target(entry, at, a)
		if to == nil && bad == nil {
			return a, nil
		}
		a.discard()
		if bad == nil && hop == maxHops {
			bad = &ErrRedirect{To: to.addr(), Why: "it is the third in a row"}
		}
		if bad != nil {
			bad.From = at.addr()
			f := &failure{e: &Error{Op: k.op(), Addr: at.addr(), Err: bad, Kind: Redirect}, sent: true, back: bad.back}
			if bad.down {
				f.e.Kind = Unreachable // a standby that has not noticed yet
			}
			if bad.down || bad.back { // nothing was applied here, nor sent there
				f.sent = !k.read && !k.plain
			}
			return nil, f
		}
		if e := k.throttle(); e != nil {
			return nil, &failure{e: e, sent: true}
		}
		at = to
	}
}

// target says where an answer of at redirects to: nowhere (nil, nil), to a
// node that may be sent the token, or to something else.
func (k *call) target(entry, at *node, a *answer) (*node, *ErrRedirect) {
	switch a.StatusCode {
	case http.StatusTemporaryRedirect:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusPermanentRedirect:
		if !k.read {
			return nil, nil
		}
	default:
		return nil, nil
	}
	where := a.Header.Values("Location")
	if len(where) == 0 {
		return nil, nil
	}
	if len(where) > 1 {
		return nil, &ErrRedirect{To: "several places", Why: "one Location is expected"}
	}
	to, err := parseLocation(where[0], k.req.Header.Get("Upgrade") != "")
	if err != nil {
		return nil, &ErrRedirect{To: "an unreadable place", Why: err.Error()}
	}
	if to == nil {
		return nil, nil // relative
	}
	samePath := to.path == k.req.URL.Path && to.query == k.req.URL.RawQuery
	if at.is(to.scheme, to.host) {
		if samePath || k.under(at, to) {
			if _, _, routed := k.c.roster.snapshot(); routed {
				at.known.doubt()
			}
			bad := to.refuse("it leads back to the node that sent it")
			bad.back = true
			return nil, bad
		}
		return nil, nil
	}
	if at.scheme == "https" && to.scheme != "https" {
		return nil, to.refuse("it leaves TLS")
	}
	if k.body != nil && !k.body.fresh() && k.req.GetBody == nil {
		return nil, to.refuse("the request's body was streamed and cannot be sent again; give the active node's address as VAULT_ADDR")
	}
	nodes, _, routed := k.c.roster.snapshot()
	if routed {
		at.known.became(RoleStandby, k.c.o.Now())
		if !k.read && !k.plain {
			return nil, to.refuse("the node may have handed the write on before, and what came of that is not known")
		}
	}
	for _, n := range nodes {
		if n.is(to.scheme, to.host) {
			if !samePath && !k.under(n, to) {
				return nil, to.refuse("it changes the path or the query")
			}
			if routed && k.isDown(n) {
				bad := to.refuse("that node cannot be reached")
				bad.down = true
				return nil, bad
			}
			if routed && !k.belongs(n) {
				return nil, to.refuse("that node has not told that it is of our cluster")
			}
			return n, nil
		}
	}
	n := &node{scheme: to.scheme, host: to.host, wire: to.host}
	if !samePath {
		if n.base = entry.base; !k.under(n, to) {
			return nil, to.refuse("it changes the path or the query")
		}
	}
	if why := k.sameCluster(entry, n); why != nil {
		bad := to.refuse(why.Error())
		var e *Error
		bad.down = errors.As(why, &e) && e.Kind.passing()
		return nil, bad
	}
	return n, nil
}

// belongs tells whether a node of the list may be sent the token; one that has
// not told its cluster yet is asked.
func (k *call) belongs(n *node) bool {
	_, home, _ := k.c.roster.snapshot()
	if n.view(home, k.c.o.Now()).ours {
		return true
	}
	k.c.asked(k.ctx, n)
	return n.view(home, k.c.o.Now()).ours
}

// isDown tells whether a node did not answer when it was last asked for its
// health.
func (k *call) isDown(n *node) bool {
	_, home, _ := k.c.roster.snapshot()
	v := n.view(home, k.c.o.Now())
	return v.role == RoleUnreachable && v.fresh
}

// under tells whether to is the request's place below n's base path.
func (k *call) under(n *node, to *location) bool {
	u, err := n.url(k.req.URL)
	return err == nil && to.path == u.Path && to.query == u.RawQuery
}

// sameCluster says why n is not known to be the leader of entry's cluster; nil
// if it is. Nothing that it sends carries the token.
func (k *call) sameCluster(entry, n *node) error {
	if k.c.cluster.knows(entry, n.addr()) {
		return nil
	}
	l, err := k.c.leader(k.ctx, entry)
	if err != nil {
		return fmt.Errorf("the node that sent it does not tell its leader: %w", err)
	}
	u, err := url.Parse(l.LeaderAddress)
	if err != nil || u.User != nil {
		return errors.New("the node that sent it does not tell its leader")
	}
	if host, err := hostPort(u); err != nil || !n.is(u.Scheme, host) {
		return errors.New("that is neither a configured address nor the leader that the configured node names; list the cluster's nodes in THAW_VAULT_ADDRS")
	}
	ours, err := k.clusterID(entry, plain(k.c.o.Headers))
	if err != nil {
		return fmt.Errorf("the configured node does not tell its cluster: %w", err)
	}
	// The configured headers may be credentials too: not to a stranger.
	theirs, err := k.clusterID(n, nil)
	if err != nil {
		return fmt.Errorf("that node does not tell its cluster: %w", err)
	}
	if ours != theirs {
		return errors.New("that node belongs to another cluster")
	}
	k.c.cluster.learn(entry, n.addr())
	return nil
}

var errNoCluster = errors.New("a sealed node does not tell its cluster")

func (k *call) clusterID(n *node, headers http.Header) (string, error) {
	h, err := k.c.health(k.ctx, n, headers)
	if err == nil && h.ClusterID == "" {
		err = errNoCluster
	}
	return h.ClusterID, err
}

// location is where a redirect leads.
type location struct {
	scheme, host string // http or https; host:port as node.host
	path, query  string
}

func (l *location) refuse(why string) *ErrRedirect {
	return &ErrRedirect{To: l.scheme + "://" + l.host, Why: why}
}

// parseLocation reads a Location header; nil for one that names no host. Vault
// writes ws and wss for websockets (hashicorp/vault v1.21.0, http/handler.go,
// respondStandby).
func parseLocation(where string, upgrade bool) (*location, error) {
	u, err := url.Parse(where)
	if err != nil {
		return nil, errors.New("it is not a URL")
	}
	if u.Scheme == "" && u.Host == "" && u.User == nil {
		return nil, nil
	}
	switch u.Scheme {
	case "http", "https":
	case "ws", "wss":
		if !upgrade {
			return nil, errors.New("its scheme is not https or http")
		}
		u.Scheme = map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
	default:
		return nil, errors.New("its scheme is not https or http")
	}
	if u.User != nil {
		return nil, errors.New("it holds a user name")
	}
	host, err := hostPort(u)
	if err != nil || u.Opaque != "" || u.Hostname() == "" || len(host) > 300 {
		return nil, errors.New("it names no host")
	}
	return &location{scheme: u.Scheme, host: host, path: u.Path, query: u.RawQuery}, nil
}
