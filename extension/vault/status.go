package vault

import (
	"context"
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
	routed := c.routed.Load()
	if routed {
		_ = c.names(ctx)
	}
	var asking sync.WaitGroup
	asked := c.views()
	leaders := make([]string, len(asked))
	for i, v := range asked {
		asking.Go(func() {
			rescue.Do(c.o.Logger, "ask a node for its status", func() { leaders[i] = c.examine(ctx, v.node) })
		})
	}
	asking.Wait()
	c.decide(caller.Err() == nil) // else nobody waited for the answers
	out := Status{Routed: routed, ClusterID: c.homeOf(), Sealed: true, Nodes: []NodeStatus{}}
	if a := c.active(); a != nil {
		out.Leader = a.addr()
	} else if !routed {
		out.Leader = leaders[0] // as what is behind the one address says
	}
	answers := false
	for _, v := range asked {
		v = c.view(v.node)
		s := v.status()
		out.Nodes = append(out.Nodes, s)
		if v.role != RoleUnreachable && v.role != RoleForeign {
			answers = true
			out.Sealed = out.Sealed && s.Sealed
		}
		if out.ClusterID != "" && v.cluster == out.ClusterID && out.ClusterName == "" {
			out.ClusterName = v.health.ClusterName
		}
	}
	out.Sealed = out.Sealed && answers
	return out
}

// examine asks one node what Status tells of it, and returns the leader's address
// as the node has it; empty: not told.
func (c *Client) examine(ctx context.Context, n *node) (leader string) {
	began := time.Now()
	mine := c.asked(ctx, n)
	c.note(n, func(s *state) {
		if mine && s.average == 0 && s.role != RoleUnreachable {
			s.average = time.Since(began)
		}
	})
	switch c.view(n).role {
	case RoleActive, RoleStandby, RolePerformanceStandby, RoleUnhealthy, RoleDRSecondary:
		l, _ := c.leader(ctx, n)
		return l.LeaderAddress
	}
	return ""
}

func (v view) status() NodeStatus {
	out := NodeStatus{
		Address: v.addr(), Role: v.role.String(), Latency: float64(v.average.Microseconds()) / 1000, Applied: v.applied, RemoteWAL: v.remoteWAL,
		Replication: v.health.ReplicationPerformanceMode, Breaker: "closed", Failures: v.failures, Sealed: v.health.Sealed && v.role != RoleUnreachable,
		Version: v.health.Version, ClusterID: v.cluster,
	}
	if v.server != "" {
		out.Address += " (" + v.server + ")"
	}
	if !v.lastSeen.IsZero() {
		seen := v.lastSeen.UTC()
		out.LastSeen = &seen
	}
	if v.resting {
		out.Breaker = "open"
	}
	if v.trouble != nil {
		out.Error = v.trouble.Error()
	}
	return out
}
