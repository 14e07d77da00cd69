package standin

import (
	"bytes"
	"io"
	"net/http"
)

// Condition is how a node is. All but Serving and Deposed keep it from answering
// reads itself.
type Condition uint32

// Conditions, with what the node says at sys/health
// (https://developer.hashicorp.com/vault/api-docs/system/health).
const (
	Serving       Condition = iota // as its place in the cluster has it
	Forwarding                     // a standby that hands everything to the active node: 429
	DRSecondary                    // of a cluster for disaster recovery: 472
	Sealed                         // 503
	Uninitialized                  // 501
	Unreachable                    // it ends every connection
	Silent                         // it answers nothing before its condition changes
	// Deposed: it was cut off, or stopped, while another took up the lead, and has
	// not noticed. It says that it leads, and since when it did; it answers reads from
	// what a standby would have, and can write nothing.
	Deposed
)

// nodeHeader names the node that answered.
const nodeHeader = "X-Vault-Raft-Node-ID"

// Be changes the node's condition.
func (n *Node) Be(c Condition) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.condition.Store(uint32(c))
	if n.wake != nil {
		close(n.wake)
		n.wake = nil
	}
}

// is the node's condition, as its place in the cluster has it.
func (n *Node) is() Condition {
	c := Condition(n.condition.Load())
	if c != Forwarding && (c != Serving || !n.c.o.Community) {
		return c
	}
	if n.c.Active() == n {
		return Serving
	}
	return Forwarding
}

// able reports whether a standby can reach the node, which leads.
func (n *Node) able() bool { c := n.is(); return c == Serving || c == Silent }

// CutHandOver has the connection to the active node break once that has done what the
// node handed on to it, or not. The node redirects then, as if nothing had been done
// (forwardRequest in http/handler.go of hashicorp/vault v1.21.0).
func (n *Node) CutHandOver(cut bool) { n.cut.Store(cut) }

// Name is what the node calls itself.
func (n *Node) Name() string { return n.name }

// Call gives the node another name: node_id of its configuration. It is called before
// the node serves.
func (n *Node) Call(name string) { n.name = name }

// sign names the node as the one that answers, where the cluster is set up so.
func (n *Node) sign(w http.ResponseWriter) {
	if n.c.o.NodeIDs {
		w.Header().Set(nodeHeader, n.name)
	}
}

// out answers for a node that has trouble, or does not serve.
func (n *Node) out(w http.ResponseWriter, r *http.Request, path string) bool {
	if n.down != nil && n.down(w, r) {
		return true
	}
	if !n.silent(r) {
		return true
	}
	health := path == "sys/health"
	switch c := n.is(); c {
	case Serving, Deposed:
		return false
	case Unreachable:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close()
		}
	case Forwarding:
		switch path {
		case "sys/health":
			reply(w, http.StatusTooManyRequests, n.state(c))
		case "sys/leader":
			n.leader(w, r)
		default:
			if leader := n.handOn(w, r); leader != nil {
				leader.ServeHTTP(w, r)
			}
		}
	case DRSecondary:
		switch {
		case health:
			reply(w, 472, n.state(c))
		default:
			refuseAt(w, http.StatusBadRequest, "path disabled in replication DR secondary mode")
		}
	case Sealed, Uninitialized:
		switch {
		case health && c == Sealed:
			reply(w, http.StatusServiceUnavailable, n.state(c))
		case health:
			reply(w, http.StatusNotImplemented, n.state(c))
		default:
			refuseAt(w, http.StatusServiceUnavailable, "Vault is sealed")
		}
	}
	return true
}

// silent waits while the node is Silent. It returns false where the client left.
func (n *Node) silent(r *http.Request) bool {
	for {
		n.c.mu.Lock()
		if Condition(n.condition.Load()) != Silent {
			n.c.mu.Unlock()
			return true
		}
		if n.wake == nil {
			n.wake = make(chan struct{})
		}
		wake := n.wake
		n.c.mu.Unlock()
		body, err := io.ReadAll(r.Body) // the server notices that a client left once its request was read
		if err != nil {
			return false
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		select {
		case <-wake:
		case <-r.Context().Done():
			return false
		}
	}
}

// state is the body of sys/health in a condition.
func (n *Node) state(c Condition) map[string]any {
	out := c == Sealed || c == Uninitialized
	body := map[string]any{
		"initialized": c != Uninitialized, "sealed": out, "standby": true, "performance_standby": false,
		"replication_performance_mode": "disabled", "replication_dr_mode": "disabled", "server_time_utc": n.c.o.Now().Unix(),
		"version": enterpriseVersion, "enterprise": true, "echo_duration_ms": 0, "clock_skew_ms": 0, "replication_primary_canary_age_ms": 0,
	}
	if c == Forwarding {
		body["version"], body["enterprise"] = vaultVersion, false
	}
	n.edition(body)
	switch {
	case out:
		body["replication_performance_mode"], body["replication_dr_mode"] = "unknown", "unknown"
	case c == DRSecondary:
		body["replication_dr_mode"] = "secondary"
	}
	if !out {
		body["cluster_name"], body["cluster_id"] = "vault-cluster-"+n.c.id[:8], n.c.id
	}
	return body
}
