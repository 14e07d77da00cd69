package standin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"
)

// Node is one server of a cluster.
type Node struct {
	c       *Cluster
	name    string
	follows *follower     // guarded by Cluster.mu; nil: the primary's active node
	addr    string        // guarded by Cluster.mu
	since   time.Time     // guarded by Cluster.mu; active_time of when it led last
	wake    chan struct{} // guarded by Cluster.mu; closed when the condition changes; nil: nobody waits
	down    func(w http.ResponseWriter, r *http.Request) bool

	condition atomic.Uint32 // a Condition
	cut       atomic.Bool   // see CutHandOver
}

var _ http.Handler = (*Node)(nil)

// Addr is where Serve put the node; empty for nil, which is no node.
func (n *Node) Addr() string {
	if n == nil {
		return ""
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.addr
}

// At says where the node is reached, for those who serve it themselves.
func (n *Node) At(addr string) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.addr = addr
}

// Applied is the index of the last entry that the node has.
func (n *Node) Applied() uint64 { return n.c.log.position(n.behind()) }

// leads reports whether the node is the active one, as far as it knows.
func (n *Node) leads() bool { return n.is() == Deposed || n.c.Active() == n }

// began is when the node became active.
func (n *Node) began() time.Time {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.since
}

// behind is how the node lags.
func (n *Node) behind() *follower {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.follows
}

// Vault's headers (http/handler.go).
const (
	indexHeader        = "X-Vault-Index"
	forwardHeader      = "X-Vault-Forward"
	noForwardHeader    = "X-Vault-No-Request-Forwarding"
	inconsistentHeader = "X-Vault-Inconsistent"
)

// ServeHTTP answers as handleRequestForwarding in http/handler.go decides, and
// what follows it.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	n.sign(w)
	if n.out(w, r, path) || n.own(w, r, path) {
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 32<<20))
	if err != nil {
		refuseAt(w, http.StatusBadRequest, "error reading the request's body")
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	forward := false
	if n.c.o.OpenBao {
		n.handle(w, r, body, true)
		return
	}
	if v := r.Header.Get(forwardHeader); v != "" {
		if !n.c.o.Forwarding {
			n.c.count("refused")
			refuseAt(w, http.StatusBadRequest, "forwarding via header "+forwardHeader+" disabled in configuration")
			return
		}
		forward = v == "active-node"
	} else if r.Header.Get(inconsistentHeader) == "forward-active-node" {
		if !n.c.o.Forwarding {
			n.c.count("refused")
			refuseAt(w, http.StatusBadRequest, "forwarding via header "+inconsistentHeader+"=forward-active-node disabled in configuration")
			return
		}
		forward = n.misses(r.Header.Values(indexHeader))
	}
	switch {
	case forward && !n.leads():
		// Documented for performance standbys only: on a secondary the active node
		// answers as it is ("This mitigation will not help with stale reads relating
		// to performance replication").
		if leader := n.handOn(w, r); leader != nil {
			leader.sign(w)
			leader.handle(w, r, body, true)
		}
	default:
		n.handle(w, r, body, forward)
	}
}

// handOn is the node that a standby hands a request on to, as forwardRequest in
// http/handler.go does; nil: it cannot, or is told not to, and has redirected.
func (n *Node) handOn(w http.ResponseWriter, r *http.Request) *Node {
	leader, ready := n.c.leader()
	if able := ready && !n.c.o.NoHandOver && leader.able(); able && r.Header.Get(noForwardHeader) == "" {
		n.c.count("forwarded")
		if !n.cut.Load() {
			return leader
		}
		leader.ServeHTTP(httptest.NewRecorder(), r)
	}
	n.redirect(w, r)
	return nil
}

// redirect is respondStandby in http/handler.go: the leader's scheme and host, the
// request's path and query.
func (n *Node) redirect(w http.ResponseWriter, r *http.Request) {
	leader, _ := n.c.leader()
	if leader == nil {
		refuseAt(w, http.StatusServiceUnavailable, "no active Vault instance found")
		return
	}
	where := leader.Addr()
	if r.Header.Get("Upgrade") != "" {
		where = strings.Replace(where, "http", "ws", 1)
	}
	uri := r.URL.RequestURI()
	if strings.HasPrefix(r.RequestURI, "/") {
		uri = r.RequestURI // with the base path that something before the node took off
	}
	w.Header().Set("Location", where+uri)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// handle is handleCancelableRequest in vault/request_handling.go: first the
// state, then the token, then the request. unchecked leaves the state out.
func (n *Node) handle(w http.ResponseWriter, r *http.Request, body []byte, unchecked bool) {
	if !unchecked && n.misses(r.Header.Values(indexHeader)) {
		n.c.count("412")
		refuseAt(w, http.StatusPreconditionFailed, "required index state not present")
		return
	}
	if !n.leads() {
		if issued := n.c.log.issued(tokenOf(r)); issued > n.c.log.seen(n.behind(), n.c.o.CacheLag) {
			if n.c.o.ServerSideConsistentTokens {
				n.c.count("412")
				refuseAt(w, http.StatusPreconditionFailed, "required index state not present")
				return
			}
			n.c.count("unknown token")
			refuseAt(w, http.StatusForbidden, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
			return
		}
	}
	switch {
	case !changes(r):
		n.read(w, r)
	case n.is() == Deposed:
		refuseAt(w, http.StatusInternalServerError, "leadership lost while committing log") // of hashicorp/raft
	case n.leads():
		n.write(w, r, body)
	default:
		if leader := n.handOn(w, r); leader != nil {
			leader.sign(w)
			n.write(w, r, body)
		}
	}
}

func tokenOf(r *http.Request) string {
	if t := r.Header.Get("X-Vault-Token"); t != "" {
		return t
	}
	t, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return t
}

// changes reports whether a request may change storage: then a standby forwards
// it. A read with a wrapped answer stores a token.
func changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, "LIST":
		return r.Header.Get("X-Vault-Wrap-TTL") != ""
	}
	switch strings.TrimPrefix(r.URL.Path, "/v1/") {
	case "sys/capabilities-self", "sys/capabilities", "auth/token/lookup", "auth/token/lookup-self", "sys/wrapping/lookup":
		return false
	}
	return true
}

// read answers from what the node has.
func (n *Node) read(w http.ResponseWriter, r *http.Request) {
	follows := n.behind()
	at := n.c.log.seen(follows, n.c.o.CacheLag)
	res := n.c.ask(r)
	if res.Code == http.StatusForbidden || follows == nil {
		n.c.count(map[bool]string{true: "active", false: "local"}[n.leads()])
		copyAnswer(w, res)
		return
	}
	switch v := n.c.log.see(at, line(r), resource(r)); {
	case v.unknown:
		refuseAt(w, http.StatusNotImplemented, "the stand-in does not know what was here before a write that this node lacks")
	case v.old != nil:
		n.c.count("old")
		for k, vs := range v.old.header {
			w.Header()[k] = vs
		}
		w.WriteHeader(v.old.status)
		w.Write(v.old.body)
	default:
		n.c.count("local")
		copyAnswer(w, res)
	}
}

// ask sends a request to the origin, without what only Enterprise knows.
func (c *Cluster) ask(r *http.Request) *httptest.ResponseRecorder {
	own := r.Clone(r.Context())
	own.RequestURI = ""
	for _, h := range [...]string{indexHeader, forwardHeader, inconsistentHeader} {
		own.Header.Del(h)
	}
	w := httptest.NewRecorder()
	c.o.Origin.ServeHTTP(w, own)
	return w
}

func copyAnswer(w http.ResponseWriter, res *httptest.ResponseRecorder) {
	for k, vs := range res.Header() {
		w.Header()[k] = vs
	}
	w.WriteHeader(res.Code)
	w.Write(res.Body.Bytes())
}

// refuse answers with an error in Vault's shape (respondError in
// http/handler.go).
func refuseAt(w http.ResponseWriter, status int, message string) {
	body, err := json.Marshal(map[string][]string{"errors": {message}})
	if err != nil {
		panic(err) // strings are JSON
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
