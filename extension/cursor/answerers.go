package cursor

import (
	"net/http"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wire"
)

// answerers is what is known of the nodes behind the origin's address: whether
// the index of the active one says anything of what the address answers to reads.
//
// Where answers name their node (wire.NodeHeader), the recorded index, the read's
// own answer and the later index have to name the same one; then it does not
// matter who else answers. Node ids are unique only within a cluster, so the
// address must lead to one: sys/health tells, asked again with each node that is
// new here, on new connections, and after learnAgain. Where answers name none, the
// version says whether standbys forward every read.
//
// Two clusters, or two leaders, behind the address end all of that for learnAgain.
type answerers struct {
	known    bool      // whether standbys forward every read,
	forwards bool      // by version, of answers that name no node
	learned  time.Time // when sys/health last told; zero: never
	of       string    // under which leader, by its active_time; empty: none was known
	cluster  string    // the cluster_id that it told
	openBao  bool      // what it told is OpenBao's
	product  time.Time // when it told that here; zero: never
	replica  bool      // a secondary cluster, whose index says nothing of what its primary has written
	due      bool      // it is to be asked again, while what it told counts

	nodes  map[string]bool // ids that answers bore: whether sys/health told of the cluster since
	hosts  map[string]bool // hosts that answers named
	named  bool            // answers bear ids
	reader string          // whose answer the last read was

	term     string    // active_time of the last leader
	received time.Time // when that was told last
	former   []string  // active_times before it
	split    time.Time // when it was last seen that the address leads to two clusters or leaders

	missed int       // answers in a row of another node than the one that answers reads
	rest   time.Time // since when sys/leader is not asked for that; zero: it is
}

const (
	learnAgain = 10 * time.Minute
	firstRest  = time.Minute
	mostMissed = 3  // then sys/leader is not asked for firstRest, since that may be an election; later for learnAgain
	mostNodes  = 64 // that are remembered
)

// hostHeader names the host of the node that answered, where the server's
// configuration has enable_response_header_hostname.
const hostHeader = "X-Vault-Hostname"

func recently(at, now time.Time) bool {
	return clock.Within(at, now, learnAgain)
}

// usable reports whether sys/leader may tell what can verify a read.
func (a *answerers) usable(now time.Time) bool {
	rests := recently(a.rest, now) && (a.missed > mostMissed || clock.Within(a.rest, now, firstRest))
	if recently(a.split, now) || rests || a.replica && recently(a.learned, now) {
		return false
	}
	return !a.known || a.forwards || a.named || !recently(a.learned, now)
}

// trusts reports whether an index of the node verifies what was read at it.
func (a *answerers) trusts(node string) bool {
	if node != "" {
		return a.nodes[node] && !a.replica
	}
	return a.known && a.forwards
}

// doubts reports whether an index that another instance trusts verifies nothing by what
// is known here.
func (a *answerers) doubts(i cache.Index, now time.Time) bool {
	return recently(a.split, now) || a.replica || slices.Contains(a.former, i.ActiveTime) || i.Node == "" && (a.named || a.known && !a.forwards)
}

// judged reports whether it is known what an index of the node is worth.
func (a *answerers) judged(node string) bool {
	return a.trusts(node) || a.replica || node == "" && a.known
}

// saw takes in who answered a read.
func (a *answerers) saw(h http.Header) {
	if node, _ := wire.Node(h); node != "" {
		a.reader = node
		a.met(node)
	}
	if host := h.Get(hostHeader); host != "" && !a.hosts[host] {
		a.hosts = add(a.hosts, host)
		if len(a.hosts) > 1 {
			a.known = false // perhaps of another version
		}
	}
}

// met takes in that a node answers. One that is new is a reason to look again.
func (a *answerers) met(node string) {
	a.named = true
	if _, known := a.nodes[node]; !known {
		a.nodes = add(a.nodes, node)
		a.nodes[node], a.due = false, true
		a.missed, a.rest = 0, time.Time{}
	}
}

func add(to map[string]bool, name string) map[string]bool {
	if to == nil || len(to) >= mostNodes {
		to = make(map[string]bool)
	}
	to[name] = true
	return to
}

// led takes in an answer of a leader. It reports false where another one has led
// since: then two do, or there are two clusters.
func (a *answerers) led(l vault.Leader, now time.Time) (alone bool) {
	if !a.split.IsZero() && !recently(a.split, now) {
		*a = answerers{nodes: a.nodes, hosts: a.hosts}
	}
	if a.named = l.Node != "" || a.named && l.Unsure; l.Node != "" {
		a.met(l.Node)
	}
	if !recently(a.learned, now) {
		a.forget()
	}
	a.due = a.due || l.Fresh
	if l.ActiveTime == a.term || l.SentAt.Before(a.received) {
		return true
	}
	if slices.Contains(a.former, l.ActiveTime) {
		return false
	}
	if a.term != "" {
		a.former = append(a.former[max(0, len(a.former)-mostNodes):], a.term)
	}
	if a.term = l.ActiveTime; a.of != a.term {
		a.forget() // perhaps after an upgrade
	}
	return true
}

// heard notes when the leader's last answer was here.
func (a *answerers) heard(l vault.Leader) {
	if l.ActiveTime == a.term && l.ReceivedAt.After(a.received) {
		a.received = l.ReceivedAt
	}
}

// forget has sys/health asked before anything is verified.
func (a *answerers) forget() {
	a.known, a.replica = false, false
	for node := range a.nodes {
		a.nodes[node] = false
	}
}

// told takes in what sys/health told when the nodes were known. It reports false
// where it told another cluster before.
func (a *answerers) told(h vault.Health, nodes []string, now time.Time) (one bool) {
	if a.cluster != "" && h.ClusterID != "" && h.ClusterID != a.cluster {
		return false
	}
	if h.ClusterID != "" {
		a.cluster = h.ClusterID
	}
	a.learned, a.product, a.known, a.forwards, a.openBao, a.replica = now, now, true, h.ForwardsReads(), h.OpenBao, h.Secondary()
	for _, node := range nodes {
		a.nodes[node] = true
	}
	return true
}

// hit notes whether an answer of sys/leader was one of the node that answers reads.
func (a *answerers) hit(yes bool, now time.Time) {
	if a.missed++; yes {
		a.missed = 0
	} else if a.missed >= mostMissed {
		a.rest = now
	}
}
