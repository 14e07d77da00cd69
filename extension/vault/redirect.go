package vault

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
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

// trail is a request on its way from one node to where its redirects lead.
type trail struct {
	*call
	entry *node // that was asked first
}

// follow sends the request to entry and on to where entry's redirects lead.
func (t trail) follow() *result {
	at := t.entry
	for hop := 0; ; hop++ {
		r := t.send(at)
		if r.e != nil {
			if hop > 0 {
				t.c.note(t.entry, func(s *state) { s.leader = nil })
				r.sent = r.sent || t.handsOn()
			}
			return r
		}
		to, bad := t.target(at, r)
		if to == nil && bad == nil {
			return r
		}
		r.drop()
		if bad == nil && hop == maxHops {
			bad = &ErrRedirect{To: to.addr(), Why: "it is the third in a row"}
		}
		if bad != nil {
			return t.misled(at, bad)
		}
		if e := t.throttle(); e != nil {
			return &result{node: at, e: e, sent: true}
		}
		at = to
	}
}

// handsOn tells whether a node that is sent the request may hand it on, so that
// after a redirect it is not known what came of a write.
func (t trail) handsOn() bool { return !t.read && !t.noForward }

// misled is the failure of a request that at redirected to where it may not go.
func (t trail) misled(at *node, bad *ErrRedirect) *result {
	bad.From, bad.Why = at.addr(), t.c.o.Named(bad.Why)
	r := t.failure(at, Redirect, bad, "")
	r.back = bad.back
	if bad.down {
		r.e.Kind = Unreachable // a standby that has not noticed yet
	}
	// Where it leads to nobody, nothing was applied here, nor sent there.
	r.sent = !bad.down && !bad.back || t.handsOn()
	return r
}

// target says where an answer of at redirects to: nowhere (nil, nil), to a
// node that may be sent the token, or to something else.
func (t trail) target(at *node, r *result) (*node, *ErrRedirect) {
	to, bad := t.location(r)
	if to == nil {
		return nil, bad
	}
	routed := t.c.routed.Load()
	switch {
	case at.is(to.Scheme, to.Host) && !t.there(at, to):
		return nil, nil // another place on the same node: that is an answer
	case at.is(to.Scheme, to.Host):
		if routed {
			t.c.note(at, func(s *state) { s.learned = time.Time{} })
		}
		bad := refuse(to, "it leads back to the node that sent it")
		bad.back = true
		return nil, bad
	case at.scheme == "https" && to.Scheme != "https":
		return nil, refuse(to, "it leaves TLS")
	case !t.resendable():
		return nil, refuse(to, "the request's body was streamed and cannot be sent again; give the active node's address as VAULT_ADDR")
	}
	if routed {
		t.c.became(at, RoleStandby)
		if t.handsOn() {
			return nil, refuse(to, "the node may have handed the write on before, and what came of that is not known")
		}
	}
	n, trust := newLeader(to.Scheme, to.Host), t.leads
	if !t.same(to) {
		n.base = t.entry.base
	}
	for _, v := range slices.Backward(t.c.views()) { // the first of several counts
		if v.is(to.Scheme, to.Host) {
			n, trust = v.node, t.belongs
		}
	}
	if !t.there(n, to) {
		return nil, refuse(to, "it changes the path or the query")
	}
	if why := trust(n); why != nil {
		bad, e := refuse(to, why.Error()), new(Error)
		bad.down = why == errGone || errors.As(why, &e) && e.Kind.passing()
		return nil, bad
	}
	return n, nil
}

// location is where a redirect leads; nil where the answer is none, or leads to a
// place on the same node.
func (t trail) location(a *result) (*url.URL, *ErrRedirect) {
	switch a.StatusCode {
	case http.StatusTemporaryRedirect:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusPermanentRedirect:
		if !t.read {
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
	to, err := parseLocation(where[0], t.req.Header.Get("Upgrade") != "")
	if err != nil {
		return nil, &ErrRedirect{To: "an unreadable place", Why: err.Error()}
	}
	return to, nil
}

var errGone = errors.New("that node cannot be reached")

// belongs says why a node of the list may not be sent the token; nil: it may. One that
// has not told its cluster yet is asked.
func (t trail) belongs(n *node) error {
	if !t.c.routed.Load() {
		return nil
	}
	v := t.c.view(n)
	if v.role == RoleUnreachable && v.fresh {
		return errGone
	}
	if !v.ours {
		t.c.asked(t.ctx, n)
	}
	if !t.c.view(n).ours {
		return errors.New("that node has not told that it is of our cluster")
	}
	return nil
}

// leads says why n, which is on no list, is not known to be the leader of entry's
// cluster; nil if it is. Nothing that it sends carries the token.
func (t trail) leads(n *node) error {
	if l := t.c.view(t.entry).leader; l != nil && l.is(n.scheme, n.host) {
		return nil
	}
	l, err := t.c.leader(t.ctx, t.entry)
	if err != nil {
		return fmt.Errorf("the node that sent it does not tell its leader: %w", err)
	}
	if named := leaderNode(l); named == nil || !n.is(named.scheme, named.host) {
		return errors.New("that is neither a configured address nor the leader that the configured node names; list the cluster's nodes in THAW_VAULT_ADDRS")
	}
	if err := t.tells(t.entry); err != nil {
		return fmt.Errorf("the configured node does not tell its cluster: %w", err)
	}
	if err := t.tells(n); err != nil {
		return fmt.Errorf("that node does not tell its cluster: %w", err)
	}
	if v := t.c.view(n); v.role == RoleForeign || v.cluster != t.c.view(t.entry).cluster {
		return errors.New("that node belongs to another cluster")
	}
	t.c.note(t.entry, func(s *state) { s.leader = n })
	return nil
}

var errNoCluster = errors.New("a sealed node does not tell its cluster")

// tells asks a node which cluster it is of; the error says why it does not tell.
func (t trail) tells(n *node) error {
	t.c.asked(t.ctx, n)
	if t.ctx.Err() != nil {
		return t.outOfTime(n)
	}
	switch v := t.c.view(n); {
	case v.trouble != nil:
		return v.trouble
	case v.cluster == "":
		return errNoCluster
	}
	return nil
}

// same tells whether to is the request's place at a node without a base path.
func (t trail) same(to *url.URL) bool {
	return to.Path == t.req.URL.Path && to.RawQuery == t.req.URL.RawQuery
}

// there tells whether to is the request's place at n: below its base path, or without.
func (t trail) there(n *node, to *url.URL) bool {
	u, err := n.url(t.req.URL)
	return t.same(to) || err == nil && to.Path == u.Path && to.RawQuery == u.RawQuery
}

// refuse says why a redirect to a place is not followed.
func refuse(to *url.URL, why string) *ErrRedirect {
	return &ErrRedirect{To: to.Scheme + "://" + to.Host, Why: why}
}

// parseLocation reads a Location header, its host as node.host; nil for one that names
// no host. Vault
// writes ws and wss for websockets (hashicorp/vault v1.21.0, http/handler.go,
// respondStandby).
func parseLocation(where string, upgrade bool) (*url.URL, error) {
	u, err := url.Parse(where)
	if err != nil {
		return nil, errors.New("it is not a URL")
	}
	if u.Scheme == "" && u.Host == "" && u.User == nil {
		return nil, nil
	}
	if upgrade && (u.Scheme == "ws" || u.Scheme == "wss") {
		u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("its scheme is not https or http")
	}
	if u.User != nil {
		return nil, errors.New("it holds a user name")
	}
	host, err := hostPort(u)
	if err != nil || u.Opaque != "" || u.Hostname() == "" || len(host) > 300 {
		return nil, errors.New("it names no host")
	}
	u.Host = host
	return u, nil
}
