package warmup

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/wire"
)

// cursor is the origin's raft index, by the rule of the package poll: what was
// applied before a read was sent proves the read if that same index is still
// the last one committed at a request sent later. It counts only where every
// read is answered by the active node, or where answers name their nodes: there
// an entry has the index only if its answer named the same node.
type cursor struct {
	asker Asker
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex // guards the fields below
	index   cache.Index
	stamp   cache.CursorStamp
	fresh   bool // asked in this cycle
	trusted bool
	learned bool // whether it is trusted is known

	nameless bool   // an answer came that names no node
	cluster  string // that sys/health told
	openBao  bool
}

// errStatus is an answer that says nothing about the cursor: an origin that is
// sealed, or refuses for its rate limit.
type errStatus int

func (e errStatus) Error() string { return "sys/leader: status " + strconv.Itoa(int(e)) }

// forget makes the next look a new request.
func (c *cursor) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = false
}

// indexNow is the cursor as it was last received: for a read that is sent
// after this.
func (c *cursor) indexNow() cache.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

// look returns the cursor, asked for once in a cycle. An error says that
// nothing is known about it.
func (c *cursor) look(ctx context.Context) (cache.CursorStamp, error) {
	c.mu.Lock()
	fresh, stamp := c.fresh, c.stamp
	c.mu.Unlock()
	if fresh {
		return stamp, nil
	}
	return c.query(ctx)
}

// query asks the origin where the cursor is. Where there is none the index and
// the stamp are zero.
func (c *cursor) query(ctx context.Context) (cache.CursorStamp, error) {
	if c.asker == nil {
		return cache.CursorStamp{}, nil
	}
	if trusted, err := c.trust(ctx); !trusted {
		return cache.CursorStamp{}, err
	}
	l, err := c.asker.Leader(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = err == nil
	if err == nil && l.Status == http.StatusOK {
		c.nameless = c.nameless || l.Node == ""
	}
	if err != nil || !l.Tells() || !c.trusted && c.nameless {
		if err != nil {
			c.log.Debug("ask for the cursor", "error", err)
		}
		c.index, c.stamp = cache.Index{}, cache.CursorStamp{}
		if err == nil && wire.Failed(l.Status) {
			c.fresh, err = false, errStatus(l.Status)
		}
		return c.stamp, err
	}
	a := cache.Index{Applied: l.Applied, ActiveTime: l.ActiveTime, Node: l.Node, FirstSeen: l.ReceivedAt}
	if a.Same(c.index) {
		a.FirstSeen = c.index.FirstSeen
	} else if !c.index.Zero() && (a.ActiveTime != c.index.ActiveTime || a.Node != c.index.Node) {
		c.learned = false // another leader: perhaps after an upgrade
	}
	c.index = a
	c.stamp = cache.CursorStamp{At: l.SentAt, Committed: l.Committed, ActiveTime: l.ActiveTime, Node: l.Node}
	return c.stamp, nil
}

// whole reports whether the last stamp may be a recorded index, too: functions take the
// index in it for what had been applied before their reads
// (extension/poll/cursor.go), which an entry on its way from the log is not.
func (c *cursor) whole() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.stamp.At.IsZero() && c.index.Applied == c.stamp.Committed
}

// trust learns once what the origin is, and reports whether its index is worth
// asking for.
func (c *cursor) trust(ctx context.Context) (bool, error) {
	c.mu.Lock()
	learned, worth := c.learned, c.trusted || !c.nameless
	c.mu.Unlock()
	if learned {
		return worth, nil
	}
	h, err := c.asker.Health(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || h.Version == "" {
		return false, err
	}
	if c.cluster != "" && h.ClusterID != "" && h.ClusterID != c.cluster {
		c.log.Warn("the origin's address leads to two clusters: every modified pass reads each secret again; check the load balancer's nodes", "cluster_id", c.cluster, "other_cluster_id", h.ClusterID)
		c.learned, c.trusted, c.nameless = true, false, true
		return false, nil
	}
	c.learned, c.trusted, c.openBao, c.cluster = true, h.ForwardsReads(), h.OpenBao, h.ClusterID
	c.nameless = c.nameless || h.Secondary()
	if !c.trusted {
		c.log.Info("this origin's standbys serve reads themselves: every modified pass reads each secret again instead of comparing the raft index, unless its answers name their nodes (enable_response_header_raft_node_id)", "version", h.Version)
	}
	return c.trusted || !c.nameless, nil
}
