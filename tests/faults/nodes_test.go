package faults

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// A standby gets each entry after nodeLag at most, and its caches lag behind that by
// cacheLag at most (OpenBao).
const (
	nodeLag  = 400 * time.Millisecond
	cacheLag = 100 * time.Millisecond
)

// nodeHeader names the node that answers.
const nodeHeader = "X-Vault-Raft-Node-Id"

// cluster puts nodes in front of the origin, which is their storage.
func (w *world) cluster() {
	w.nodes = standin.NewCluster(standin.ClusterOptions{
		Origin: w.origin, RootToken: rootToken, Now: w.now, Standbys: w.setup.Standbys, OpenBao: w.setup.OpenBao, CacheLag: cacheLag, NoIndex: w.setup.NoIndex,
		NodeIDs: w.setup.Names != none, ServerSideConsistentTokens: true, NoEvents: true,
		Lag: func() time.Duration { return time.Duration(w.dice("follow").IntN(int(nodeLag))) },
	})
	for i, n := range w.nodes.Nodes() {
		if w.known() {
			n.At("http://" + nodeAddrs[i])
		}
	}
}

// nodeAddrs are where the nodes are, for instances that know them.
var nodeAddrs = [...]string{originAddr, "10.0.0.4:8200", "10.0.0.5:8200"}

// known reports whether the instances know the nodes' addresses.
func (w *world) known() bool {
	return w.nodes != nil && (w.setup.Balancer == addresses || w.setup.Balancer == anyAddress)
}

// nodesOf are the settings with which an instance knows the nodes.
func (w *world) nodesOf() []string {
	if !w.known() {
		return nil
	}
	env := []string{"THAW_VAULT_ADDRS=http://" + strings.Join(nodeAddrs[:len(w.nodes.Nodes())], ",http://")}
	if w.setup.Balancer == anyAddress {
		env = append(env, "THAW_READS=standby")
	}
	return env
}

// active is who answers without a lag.
func (w *world) active() http.Handler {
	if w.nodes == nil {
		return w.origin
	}
	return w.nodes.Active()
}

// connection is which connection a request came on, counted from 0.
type connection struct{}

// connected is the context of a new connection.
func (w *world) connected(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connection{}, int(w.conns.Add(1)-1))
}

// pick is the node to which the balancer hands a request.
func (w *world) pick(r *http.Request) *standin.Node {
	all, leader := w.nodes.Nodes(), w.nodes.Active()
	n := int(w.asked.Add(1))
	standby := all[n%len(all)]
	if standby == leader {
		standby = all[(n+1)%len(all)]
	}
	about := r.URL.Path == "/v1/sys/leader" || r.URL.Path == "/v1/sys/health"
	switch w.setup.Balancer {
	case addresses, anyAddress:
		var inst, inc, node int
		fmt.Sscanf(r.RemoteAddr, "%d.%d@%d", &inst, &inc, &node)
		return all[node]
	case roundRobin:
		return all[n%len(all)]
	case byConnection:
		conn, _ := r.Context().Value(connection{}).(int)
		return all[conn%len(all)]
	case splitReads:
		if !about {
			return standby
		}
	case splitSys:
		if about {
			return standby
		}
	}
	return leader
}

// answer is the origin's answer to a request, by whichever node the balancer picks.
// Where the stand-in does not know what a standby that lags would say, the active one
// answers: of answers that depend on who asks, and where it says 501.
func (w *world) answer(r *http.Request) *recorder {
	rec := newRecorder()
	if w.nodes == nil {
		w.origin.ServeHTTP(rec, r)
		return rec
	}
	node := w.pick(r)
	if strings.HasSuffix(strings.TrimRight(r.URL.Path, "/"), "/metadata") || strings.Trim(r.URL.Path, "/") == "v1/kv" {
		node = w.nodes.Active()
	}
	if node.ServeHTTP(rec, r); rec.status == http.StatusNotImplemented {
		rec, node = newRecorder(), w.nodes.Active()
		node.ServeHTTP(rec, r)
	}
	if w.setup.Names == some && rec.header.Get(nodeHeader) != w.nodes.Nodes()[0].Name() {
		rec.header.Del(nodeHeader)
	}
	w.trace("origin: %s answers %d to %s %s", node.Name(), rec.status, r.Method, r.URL)
	return rec
}

// sealNodes seals the origin, or unseals it.
func (w *world) sealNodes(sealed bool) {
	switch {
	case w.nodes != nil:
		now := standin.Serving
		if sealed {
			now = standin.Sealed
		}
		for _, n := range w.nodes.Nodes() {
			n.Be(now)
		}
	case sealed:
		w.origin.Seal()
	default:
		w.origin.Unseal()
	}
}

// elect has another node lead, while all are sealed.
func (w *world) elect(n int) {
	if w.nodes != nil {
		w.change(0, nil, func() { w.nodes.Lead(pick(w.nodes.Nodes(), n)) })
	}
}

// lag is how much older an answer may be than what the active node would have said:
// as much as the node lags that was asked. What the index verified is none of that
// (docs/guarantees.md).
func (w *world) lag(a *answer) time.Duration {
	if w.nodes == nil || w.setup.Balancer == toActive || w.setup.Balancer == splitSys || strings.Contains(a.how, "verified=cursor") {
		return 0
	}
	return nodeLag + cacheLag
}
