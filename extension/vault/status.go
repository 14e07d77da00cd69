package vault

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/rescue"
)

// Status is what is known of the origin, without a secret.
type Status struct {
	Routed      bool         `json:"routed"`       // nodes are told apart; else the one address is asked as it is
	Leader      string       `json:"leader"`       // address of the active node; empty: none is known
	ClusterID   string       `json:"cluster_id"`   // empty: not told
	ClusterName string       `json:"cluster_name"` // likewise
	Sealed      bool         `json:"sealed"`       // every node that answers is
	Nodes       []NodeStatus `json:"nodes"`
}

// NodeStatus is one node.
type NodeStatus struct {
	Address     string     `json:"address"`
	Role        string     `json:"role"`
	LastSeen    *time.Time `json:"last_seen"` // when it last answered anything; null: never
	Latency     float64    `json:"latency_ms"`
	Applied     uint64     `json:"applied_index"`                       // raft_applied_index; 0: storage is not integrated
	RemoteWAL   uint64     `json:"performance_standby_last_remote_wal"` // 0 but on a performance standby
	Replication string     `json:"replication_performance_mode,omitempty"`
	Breaker     string     `json:"breaker"` // closed; open: it rests after failures
	Failures    int        `json:"failures"`
	Sealed      bool       `json:"sealed"`
	Version     string     `json:"version"`
	ClusterID   string     `json:"cluster_id"`
	Error       string     `json:"error,omitempty"` // why it gave no health
}

// statusTime bounds the questions of one Status.
const statusTime = 2 * time.Second

// Status asks every node for its health and, of our own cluster, for its leader
// and indices, and tells what is known then. Neither question has a token.
func (c *Client) Status(ctx context.Context) Status {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	_, _, routed := c.roster.snapshot()
	if routed {
		c.look(ctx)
	}
	nodes, _, _ := c.roster.snapshot()
	var asking sync.WaitGroup
	leaders := make([]string, len(nodes))
	for i, n := range nodes {
		asking.Go(func() { rescue.Do(c.o.Logger, "ask a node for its status", func() { leaders[i] = c.examine(ctx, n) }) })
	}
	asking.Wait()
	c.decide(caller.Err() == nil) // else nobody waited for the answers
	home := c.roster.homeOf()
	out := Status{Routed: routed, ClusterID: home, Sealed: true, Nodes: []NodeStatus{}}
	if a := c.active(); a != nil {
		out.Leader = a.addr()
	} else if !routed {
		out.Leader = leaders[0] // as what is behind the one address says
	}
	answers := false
	for _, n := range nodes {
		s := n.status(c.o.Now())
		out.Nodes = append(out.Nodes, s)
		if s.Role != RoleUnreachable.String() && s.Role != RoleForeign.String() {
			answers = true
			out.Sealed = out.Sealed && s.Sealed
		}
		n.known.mu.Lock()
		if home != "" && n.known.cluster == home && out.ClusterName == "" {
			out.ClusterName = n.known.health.ClusterName
		}
		n.known.mu.Unlock()
	}
	out.Sealed = out.Sealed && answers
	return out
}

// examine asks one node what Status tells of it, and returns the leader's address
// as the node has it; empty: not told.
func (c *Client) examine(ctx context.Context, n *node) (leader string) {
	began := time.Now()
	mine := c.asked(ctx, n)
	n.known.mu.Lock()
	role := n.known.role
	if mine && n.known.average == 0 && role != RoleUnreachable {
		n.known.average = time.Since(began)
	}
	n.known.mu.Unlock()
	switch role {
	case RoleActive, RoleStandby, RolePerformanceStandby, RoleUnhealthy, RoleDRSecondary:
		if l, err := c.leader(ctx, n); err == nil && l.Status == http.StatusOK {
			n.known.indices(l)
			leader = l.LeaderAddress
		}
	}
	return leader
}

func (n *node) status(now time.Time) NodeStatus {
	s := &n.known
	s.mu.Lock()
	defer s.mu.Unlock()
	out := NodeStatus{
		Address: n.addr(), Role: s.role.String(), Latency: float64(s.average.Microseconds()) / 1000, Applied: s.applied, RemoteWAL: s.remoteWAL,
		Replication: s.health.ReplicationPerformanceMode, Breaker: "closed", Failures: s.failures, Sealed: s.health.Sealed && s.role != RoleUnreachable,
		Version: s.health.Version, ClusterID: s.cluster,
	}
	if n.server != "" {
		out.Address += " (" + n.server + ")"
	}
	if !s.lastSeen.IsZero() {
		seen := s.lastSeen.UTC()
		out.LastSeen = &seen
	}
	if s.restsLocked(now) {
		out.Breaker = "open"
	}
	if s.trouble != nil {
		out.Error = s.trouble.Error()
	}
	return out
}
