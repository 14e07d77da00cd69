package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/wire"
)

const (
	leaderPath = "/v1/sys/leader"
	healthPath = "/v1/sys/health"
)

// Leader is what a node says of itself and its leader.
//
// Vault: type LeaderResponse in vault/logical_system.go of hashicorp/vault
// v1.21.0 (https://developer.hashicorp.com/vault/api-docs/system/leader).
// OpenBao sends the same names, and leaves out empty ones
// (https://openbao.org/api-docs/system/leader/).
type Leader struct {
	SentAt        time.Time `json:"-"` // just before the request was sent; with the monotonic reading
	ReceivedAt    time.Time `json:"-"` // when the answer was here to its last byte; likewise
	Cached        bool      `json:"-"` // something in between answered from a cache: verifies nothing
	Unsure        bool      `json:"-"` // it is not certain whose answer it is, or who leads: verifies nothing
	Fresh         bool      `json:"-"` // it names its node, and came on a new connection: perhaps of another cluster
	Node          string    `json:"-"` // id of the node that answered; empty: answers name none
	Status        int       `json:"-"` // HTTP status; the fields below are set under 200 only
	HAEnabled     bool      `json:"ha_enabled"`
	IsSelf        bool      `json:"is_self"`
	ActiveTime    string    `json:"active_time"`                         // when the leader became active, as sent; only the leader knows it
	LeaderAddress string    `json:"leader_address"`                      // empty where the listener redacts addresses
	RemoteWAL     uint64    `json:"performance_standby_last_remote_wal"` // 0 but on a performance standby
	Committed     uint64    `json:"raft_committed_index"`                // 0: storage isn't integrated
	Applied       uint64    `json:"raft_applied_index"`                  // likewise
}

// Tells reports whether the answer is the active node's word on where its storage
// stands: what can verify a read.
func (l Leader) Tells() bool {
	return l.Status == http.StatusOK && l.IsSelf && !l.Cached && !l.Unsure && l.Committed != 0 && l.Applied != 0 && l.ActiveTime != ""
}

// namedFor is how long after an answer that named its node one without a name is
// not trusted: it may be of another node, or of another cluster.
const namedFor = 10 * time.Minute

// Leader asks the active node's sys/leader once, without token and namespace;
// of one configured address it is not known whether it is the active node's. Any
// HTTP answer is a Leader; under 200 it must also be readable. It takes no slot
// of MaxInFlight: what verifies everything must not queue behind what it
// verifies.
func (c *Client) Leader(ctx context.Context) (l Leader, err error) {
	c.askActive(ctx, func(n *node) (bool, error) {
		l, err = c.leader(ctx, n)
		l.Unsure = l.Unsure || c.rivals(n)
		// A single server has no leader, and answers is_self false.
		return err == nil && (l.Status != http.StatusOK || l.IsSelf || !l.HAEnabled), err
	})
	return l, err
}

// askActive puts a question to the active node, and once more to whatever node
// is active by then if the first turns out not to be.
func (c *Client) askActive(ctx context.Context, ask func(*node) (good bool, err error)) {
	first, routed := c.seeds[0], c.routed.Load()
	if routed {
		c.know(ctx, true)
		first = c.node()
	}
	good, err := ask(first)
	if good || ctx.Err() != nil || !routed {
		return
	}
	if err != nil {
		c.failedAt(first, time.Now())
	} else {
		c.became(first, RoleStandby)
	}
	c.learn(ctx)
	if second := c.node(); second != first {
		_, _ = ask(second)
	}
}

// leader asks a node's sys/leader and takes note of what it says, unless something in
// between said it.
func (c *Client) leader(ctx context.Context, n *node) (Leader, error) {
	r, err := c.ask(ctx, n, leaderPath)
	if err != nil {
		return Leader{}, err
	}
	node, one := wire.Node(r.Header)
	nameless := node == "" && clock.Within(time.Unix(0, c.namedAt.Load()), r.received, namedFor)
	l := Leader{SentAt: r.sent, ReceivedAt: r.received, Status: r.Status, Cached: wire.FromCache(r.Header), Unsure: !one || nameless, Fresh: r.fresh && node != "", Node: node}
	if r.Status == http.StatusOK && (!r.Genuine(wire.Leader) || json.Unmarshal(r.Body, &l) != nil) {
		return Leader{Status: r.Status}, c.notVault(n, "sys/leader")
	}
	active, err := time.Parse(time.RFC3339Nano, l.ActiveTime)
	date, dated := http.ParseTime(r.Header.Get("Date"))
	if err != nil || !l.IsSelf || active.After(r.received) && (dated != nil || active.After(date)) {
		active = time.Time{} // nobody's, or in the future, by our clock and by the answer's
	}
	if l.Status == http.StatusOK && !l.Cached {
		c.note(n, func(s *state) { s.indices(l, active) })
	}
	return l, nil
}

// Health is a node's sys/health.
//
// Vault: type HealthResponse in http/sys_health.go of hashicorp/vault v1.21.0
// (https://developer.hashicorp.com/vault/api-docs/system/health). The key
// "enterprise" is there since 1.16 (CHANGELOG, GH-24270); earlier versions are
// told by "+ent" in the version. OpenBao has no such key, and its versions
// begin at 2.0.0 (openbao/openbao, http/sys_health.go and version/version.go).
type Health struct {
	Status                     int    `json:"-"` // 200, 429, 472, 473, 474, 501, 503 or 530
	Initialized                bool   `json:"initialized"`
	Sealed                     bool   `json:"sealed"`
	Standby                    bool   `json:"standby"`
	PerformanceStandby         bool   `json:"performance_standby"`
	Version                    string `json:"version"`
	ClusterID                  string `json:"cluster_id"`   // empty while sealed
	ClusterName                string `json:"cluster_name"` // likewise
	ReplicationPerformanceMode string `json:"replication_performance_mode"`
	ReplicationDRMode          string `json:"replication_dr_mode"`

	Enterprise bool      `json:"-"`
	OpenBao    bool      `json:"-"`
	ServerTime time.Time `json:"-"` // whole seconds
	edition    bool      // the answer said whether it is Enterprise
	mixed      bool      // another node of the cluster serves reads by itself, as in a rolling upgrade
}

// Health asks the active node's sys/health once, without token and
// namespace. An answer that isn't one, as a load balancer's 503, is an error.
// Where the nodes' addresses are known, the standbys are asked, too: of what the
// active node's version says of them nothing holds while they are upgraded first.
// It takes no place of MaxInFlight.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	c.askActive(ctx, func(n *node) (bool, error) {
		h, err = c.health(ctx, n)
		return err == nil, err
	})
	if err == nil && c.routed.Load() && h.ForwardsReads() {
		for _, v := range c.views() {
			c.asked(ctx, v.node)
			h.mixed = h.mixed || c.view(v.node).copies
		}
	}
	return h, err
}

func (c *Client) health(ctx context.Context, n *node) (Health, error) {
	r, err := c.ask(ctx, n, healthPath)
	if err != nil {
		return Health{}, err
	}
	var body struct {
		Health
		Enterprise *bool `json:"enterprise"`
		ServerTime int64 `json:"server_time_utc"`
	}
	if !r.Genuine(wire.Health) || json.Unmarshal(r.Body, &body) != nil {
		return Health{Status: r.Status}, c.notVault(n, "sys/health")
	}
	h := body.Health
	h.Status, h.ServerTime, h.edition = r.Status, time.Unix(body.ServerTime, 0), body.Enterprise != nil
	h.Enterprise = h.edition && *body.Enterprise || strings.Contains(h.Version, "+ent")
	major, _, ok := majorMinor(h.Version)
	h.OpenBao = ok && !h.edition && major >= 2
	return h, nil
}

// Community tells whether the node is Vault's community edition, whose
// standbys hand every request to the active node. A version that cannot be
// read is taken for it only if the answer itself says so.
func (h Health) Community() bool {
	if h.OpenBao || h.Enterprise || strings.Contains(h.Version, "+ent") {
		return false
	}
	_, _, ok := majorMinor(h.Version)
	return ok || h.edition
}

// ForwardsReads tells whether reads sent to a standby are answered by the
// active node: Vault's community edition, and OpenBao before 2.5, whose
// standbys then began to serve reads
// (https://openbao.org/docs/rfcs/standby-nodes-handle-read-requests).
//
// A build without linker flags says 2.0.0-HEAD, whatever it is built from
// (version/version_base.go of openbao/openbao).
func (h Health) ForwardsReads() bool {
	if h.OpenBao {
		major, minor, ok := majorMinor(h.Version)
		return ok && major == 2 && minor < 5 && !h.mixed && !strings.Contains(strings.ToUpper(h.Version), "HEAD") && !strings.Contains(h.Version, "-dev")
	}
	return h.Community() && !h.mixed
}

// Secondary tells whether the node is of a secondary cluster: what its primary wrote
// is there later, whatever its own storage says.
func (h Health) Secondary() bool {
	return h.ReplicationPerformanceMode == "secondary" || h.ReplicationDRMode == "secondary"
}

// majorMinor reads the beginning of a version: "1.21.0", "v2.5.0-beta1".
func majorMinor(version string) (major, minor uint, ok bool) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	second := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	m, errMajor := strconv.ParseUint(first, 10, 32)
	n, errMinor := strconv.ParseUint(second, 10, 32)
	if errMajor != nil || errMinor != nil {
		return 0, 0, false
	}
	return uint(m), uint(n), true
}

// reply is a whole answer, for questions whose answers are short.
type reply struct {
	wire.Answer
	sent, received time.Time
	fresh          bool // it came on a new connection
}

// maxReply bounds those answers, in bytes; real ones are below 1 KiB.
const maxReply = 64 << 10

// ask sends one GET to n: no slot, no retry, no redirect, and of the configured
// headers those that do not name a caller, but none to a node that nobody configured.
func (c *Client) ask(ctx context.Context, n *node, path string) (*reply, error) {
	req := (&http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Header: http.Header{
		// A cache in between is to ask again.
		"Cache-Control": {"no-cache"},
	}}).WithContext(ctx)
	k := c.begin(req, true)
	defer k.end()
	if !n.learnt {
		k.headers = plain(c.o.Headers)
	}
	if e := k.throttle(); e != nil {
		return nil, e
	}
	sent := c.o.Now()
	r := k.send(n)
	if !c.routed.Load() { // else one of several: the others may answer
		k.over(r)
	}
	if r.e != nil {
		return nil, r.e
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxReply+1))
	if err != nil {
		return nil, k.explain(n, answering, err)
	}
	if len(body) > maxReply {
		return nil, c.notVault(n, strings.TrimPrefix(path, "/v1/"))
	}
	return &reply{wire.New(r.StatusCode, r.Header, body), sent, c.o.Now(), !r.on.Load().pooled}, nil
}

// plain is the configured headers without what names a caller.
func plain(headers http.Header) http.Header {
	out := headers.Clone()
	out.Del("X-Vault-Token")
	out.Del("X-Vault-Namespace")
	// Vault takes a bearer for its token; anything else is a gateway's.
	if scheme, _, _ := strings.Cut(out.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		out.Del("Authorization")
	}
	return out
}

func (c *Client) notVault(n *node, endpoint string) *Error {
	return c.spelled(&Error{Op: http.MethodGet, Addr: n.addr(), Kind: Protocol, Err: fmt.Errorf("the answer is not one of Vault's %s", endpoint),
		hint: "check that VAULT_ADDR names Vault, and what stands before it"})
}
