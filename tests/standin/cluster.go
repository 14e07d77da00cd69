package standin

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Lag says how long after its write a node gets an entry. It is called once for
// each entry and node.
type Lag func() time.Duration

// ClusterOptions configure a Cluster. Zero values mean what the fields say.
type ClusterOptions struct {
	Origin    http.Handler // the storage of the primary: a stand-in, or a reverse proxy to a real server
	RootToken string       // of the origin; empty: "root"
	Standbys  int          // performance standbys
	Lag       Lag          // of the standbys; nil: none
	// Forwarding is allow_forwarding_via_header, off by default
	// (https://developer.hashicorp.com/vault/docs/configuration/replication).
	Forwarding bool
	// ServerSideConsistentTokens: a service token names the state of its login, so
	// that a node which lacks it answers 412; without, the token is unknown to it:
	// 403 (https://developer.hashicorp.com/vault/docs/faq/ssct).
	ServerSideConsistentTokens bool
	NoEvents                   bool // sys/events is not there, as on a community server
	OldEvents                  bool // events do not tell the state of their change, as before 1.21

	// OpenBao makes it a cluster of OpenBao 2.5: its standbys serve reads, say 429
	// at sys/health, and know none of the headers
	// (https://openbao.org/docs/rfcs/standby-nodes-handle-read-requests). What a
	// standby answers is older than the raft index that it has applied by up to
	// CacheLag: its caches are invalidated after the index moved.
	OpenBao  bool
	CacheLag time.Duration
	Now      func() time.Time // nil: time.Now
	// Community makes it a cluster of community servers, whose standbys hand
	// everything on to the active node: they are Forwarding unless told otherwise.
	Community bool
	// NoHandOver: standbys cannot hand on, and redirect (disable_clustering of the
	// server's configuration).
	NoHandOver bool
	// NodeIDs is enable_response_header_raft_node_id of the listener: every answer
	// names the node that gave it, which is the active one where it was forwarded
	// (https://developer.hashicorp.com/vault/docs/configuration/listener/tcp).
	NodeIDs bool
	// NoIndex: the storage is PostgreSQL, say, which has no raft index
	// (https://openbao.org/docs/configuration/storage/postgresql/).
	NoIndex bool
	// Version is what the nodes say they are; empty: the version that is copied. A
	// build of OpenBao without linker flags says 2.0.0-HEAD, and in a rolling upgrade
	// a leader says an old version whose standbys serve reads already.
	Version string
}

// Cluster is a primary or a performance secondary.
type Cluster struct {
	o       ClusterOptions
	id      string // cluster_id
	key     []byte // of the HMACs of its states
	primary *Cluster
	nodes   []*Node // the first one that was active, then the others
	log     *journal
	events  bus
	servers []*httptest.Server

	mu     sync.Mutex     // guards the fields below
	named  *Node          // that leads, or is about to; nil: nobody
	ready  bool           // it leads
	last   *Node          // that led last
	counts map[string]int // see Counts
}

// NewCluster returns a primary cluster.
func NewCluster(o ClusterOptions) *Cluster {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.RootToken == "" {
		o.RootToken = "root"
	}
	c := &Cluster{o: o, log: newJournal(o.Now)}
	c.found(&Node{c: c, name: "active"})
	for i := range o.Standbys {
		c.nodes = append(c.nodes, &Node{c: c, name: fmt.Sprintf("standby-%d", i), follows: c.log.follow(nil, o.Lag)})
	}
	return c
}

// Secondary returns a performance secondary of c: what was written to c is there
// after lag, and on its standbys (o.Standbys) after o.Lag more.
func (c *Cluster) Secondary(o ClusterOptions, lag Lag) *Cluster {
	o.Origin, o.RootToken, o.Now = c.o.Origin, c.o.RootToken, c.o.Now
	s := &Cluster{o: o, primary: c, log: c.log}
	up := c.log.follow(nil, lag)
	s.found(&Node{c: s, name: "secondary-active", follows: up})
	for i := range o.Standbys {
		s.nodes = append(s.nodes, &Node{c: s, name: fmt.Sprintf("secondary-standby-%d", i), follows: c.log.follow(up, o.Lag)})
	}
	return s
}

// found gives the cluster what only it has, and its first leader.
func (c *Cluster) found(leader *Node) {
	var b [16]byte
	_, _ = rand.Read(b[:])
	c.id = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	c.key = make([]byte, 32)
	_, _ = rand.Read(c.key)
	leader.since = c.o.Now().UTC().Add(-time.Duration(binary.BigEndian.Uint32(c.key)) % time.Second)
	c.nodes, c.named, c.last, c.ready = []*Node{leader}, leader, leader, true
	c.counts = make(map[string]int)
}

// Active returns the active node; nil: nobody leads.
func (c *Cluster) Active() *Node {
	if n, ready := c.leader(); ready {
		return n
	}
	return nil
}

// leader is the node that all name as the leader, nil for none, and whether it has
// taken up the lead.
func (c *Cluster) leader() (n *Node, ready bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.named, c.ready
}

// Standby returns performance standby i, whether it leads by now or not.
func (c *Cluster) Standby(i int) *Node { return c.nodes[1+i] }

// Nodes are all of them.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Lead makes a node of a primary the active one. It applied all that was written
// before it leads, its active_time is now, and its term begins with an entry of its
// own. The one that led before becomes a standby, which has all that was written.
// nil: nobody leads any more.
func (c *Cluster) Lead(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == c.named && c.ready {
		return
	}
	c.named, c.ready = n, n != nil
	if n == nil {
		return
	}
	c.log.lead(n.follows)
	if n != c.last {
		c.last.follows, n.follows = n.follows, nil
	}
	c.last, n.since = n, c.o.Now().UTC()
}

// Elect makes a node known as the leader that it is about to be: until Lead it is a
// standby, and redirects to itself (waitForLeadership in vault/ha.go of
// hashicorp/vault v1.21.0).
func (c *Cluster) Elect(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.named, c.ready = n, false
}

// ID returns the cluster_id.
func (c *Cluster) ID() string { return c.id }

// Serve gives every node an address on loopback, until Close.
func (c *Cluster) Serve() {
	for _, n := range c.nodes {
		s := httptest.NewServer(n)
		n.At(s.URL)
		c.servers = append(c.servers, s)
	}
}

// Close ends what Serve began.
func (c *Cluster) Close() {
	c.events.close()
	for _, s := range c.servers {
		s.CloseClientConnections()
		s.Close()
	}
}

// Flush brings every node up to the end of the log.
func (c *Cluster) Flush() { c.log.flush() }

// Index returns the index of the last entry.
func (c *Cluster) Index() uint64 { return c.log.last() }

// Counts tells how often something happened: "412", "forwarded" (to the active
// node), "old" (a read that a node which lags answered with what was), "local"
// (other requests that a standby answered itself), "active", "refused" (a
// header that is not allowed), "unknown token".
func (c *Cluster) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int, len(c.counts))
	for k, v := range c.counts {
		out[k] = v
	}
	return out
}

func (c *Cluster) count(what string) {
	c.mu.Lock()
	c.counts[what]++
	c.mu.Unlock()
}
