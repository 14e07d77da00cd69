package standin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
)

// Node is one server of a cluster.
type Node struct {
	c       *Cluster
	name    string
	follows *follower // guarded by Cluster.mu; nil: the primary's active node
	addr    string
	down    func(w http.ResponseWriter, r *http.Request) bool

	condition atomic.Uint32 // a Condition
}

var _ http.Handler = (*Node)(nil)

// Addr is where Serve put the node.
func (n *Node) Addr() string { return n.addr }

// At says where the node is reached, for those who serve it themselves.
func (n *Node) At(addr string) { n.addr = addr }

// Applied is the index of the last entry that the node has.
func (n *Node) Applied() uint64 { return n.c.log.position(n.behind()) }

// leads reports whether the node is the active one.
func (n *Node) leads() bool { return n.c.Active() == n }

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
		n.c.count("forwarded")
		leader := n.c.Active()
		leader.sign(w)
		leader.handle(w, r, body, true)
	default:
		n.handle(w, r, body, forward)
	}
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
	if changes(r) {
		if leader := n.c.Active(); leader != n {
			n.c.count("forwarded")
			leader.sign(w)
		}
		n.write(w, r, body)
		return
	}
	n.read(w, r)
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
