package cursor

import (
	"net/http"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/vault"
)

// story is an origin's behaviour, as answerers take it in.
type story struct {
	*answerers
	now time.Time
}

func (s *story) leads(term, node string) bool {
	l := vault.Leader{ActiveTime: term, Node: node, IsSelf: true, SentAt: s.now, ReceivedAt: s.now.Add(time.Millisecond)}
	alone := s.led(l, s.now)
	s.heard(l)
	s.now = s.now.Add(time.Second)
	return alone
}

func (s *story) tells(h vault.Health) bool {
	var nodes []string
	for node := range s.nodes {
		nodes = append(nodes, node)
	}
	return s.told(h, nodes, s.now)
}

func (s *story) reads(node string) {
	h := http.Header{}
	if node != "" {
		h.Set("X-Vault-Raft-Node-Id", node)
	}
	s.saw(h)
}

var (
	forwarding = vault.Health{Version: "1.21.0", ClusterID: "c"}
	serving    = vault.Health{Version: "2.5.1", OpenBao: true, ClusterID: "c"}
	secondary  = vault.Health{Version: "1.21.0+ent", Enterprise: true, ReplicationPerformanceMode: "secondary", ClusterID: "c"}
)

// TestG1WhoseIndexCounts: of which node an index verifies what was read, and whether
// sys/leader is worth a question.
func TestG1WhoseIndexCounts(t *testing.T) {
	t.Parallel()
	later := func(d time.Duration) func(*story) { return func(s *story) { s.now = s.now.Add(d) } }
	leads := func(term, node string) func(*story) { return func(s *story) { s.leads(term, node) } }
	tells := func(h vault.Health) func(*story) { return func(s *story) { s.tells(h) } }
	reads := func(node string) func(*story) { return func(s *story) { s.reads(node) } }
	misses := func(n int) func(*story) {
		return func(s *story) {
			for range n {
				s.hit(false, s.now)
			}
		}
	}
	for _, c := range []struct {
		name    string
		happens []func(*story)
		usable  bool
		nobody  bool // an index without a node counts
		node    bool // that of the node "n" does
	}{
		{"nothing is known", nil, true, false, false},
		{"standbys forward", []func(*story){leads("1", ""), tells(forwarding)}, true, true, false},
		{"standbys serve reads", []func(*story){leads("1", ""), tells(serving)}, false, false, false},
		{"perhaps no longer", []func(*story){leads("1", ""), tells(serving), later(11 * time.Minute)}, true, false, false},
		{"a node", []func(*story){leads("1", "n"), tells(serving)}, true, false, true},
		{"a node, by a read", []func(*story){leads("1", ""), reads("n"), tells(serving)}, true, false, true},
		{"a node that sys/health has not told of", []func(*story){leads("1", ""), tells(forwarding), leads("1", "n")}, true, true, false},
		{"another node's", []func(*story){leads("1", "m"), tells(serving)}, true, false, false},
		{"a secondary", []func(*story){leads("1", "n"), tells(secondary)}, false, false, false},
		{"what was told is old", []func(*story){leads("1", "n"), tells(forwarding), later(11 * time.Minute), leads("1", "n")}, true, false, false},
		{"another leader", []func(*story){leads("1", "n"), tells(forwarding), leads("2", "n")}, true, false, false},
		{"another leader of which it was told", []func(*story){leads("1", "n"), tells(forwarding), leads("2", "n"), tells(forwarding)}, true, true, true},
		{"three answers of others", []func(*story){leads("1", "n"), tells(serving), misses(3)}, false, false, true},
		{"a minute after three", []func(*story){leads("1", "n"), tells(serving), misses(3), later(61 * time.Second)}, true, false, true},
		{"a minute after four", []func(*story){leads("1", "n"), tells(serving), misses(4), later(61 * time.Second)}, false, false, true},
		{"a new node after four", []func(*story){leads("1", "n"), tells(serving), misses(4), reads("m")}, true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &story{new(answerers), time.Unix(1e9, 0)}
			for _, f := range c.happens {
				f(s)
			}
			if usable, nobody, node := s.usable(s.now), s.trusts(""), s.trusts("n"); usable != c.usable || nobody != c.nobody || node != c.node {
				t.Errorf("usable %t, without a node %t, with one %t; want %t, %t, %t", usable, nobody, node, c.usable, c.nobody, c.node)
			}
		})
	}
}

// TestG1TwoThatLeadAreNotOne: an earlier leader that comes again, or another cluster.
func TestG1TwoThatLeadAreNotOne(t *testing.T) {
	t.Parallel()
	s := &story{new(answerers), time.Unix(1e9, 0)}
	if !s.leads("1", "n") || !s.tells(forwarding) || !s.leads("2", "n") || !s.leads("2", "n") {
		t.Error("an election is no second leader")
	}
	if s.leads("1", "n") {
		t.Error("the first leader came again, and was taken for the only one")
	}
	if other := forwarding; s.tells(other) == false {
		t.Error("the same cluster was taken for another")
	} else if other.ClusterID = "d"; s.tells(other) {
		t.Error("another cluster was taken for the same")
	}
	for id := range 3 * mostNodes { // a hostile address invents nodes
		s.reads(string(rune('a' + id)))
	}
	if len(s.nodes) > mostNodes {
		t.Errorf("%d nodes are remembered", len(s.nodes))
	}
}
