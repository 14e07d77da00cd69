package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

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
	SentAt        time.Time // just before the request was sent; with the monotonic reading
	ReceivedAt    time.Time // when the answer was here to its last byte; likewise
	HAEnabled     bool
	IsSelf        bool
	ActiveTime    string // when the leader became active, as sent; only the leader knows it
	LeaderAddress string // empty where the listener redacts addresses
	RemoteWAL     uint64 // performance_standby_last_remote_wal; 0 but on a performance standby
	Committed     uint64 // raft_committed_index; 0: storage isn't integrated
	Applied       uint64 // raft_applied_index; 0 likewise
	Cached        bool   // something in between answered from a cache: proves nothing
	Status        int    // HTTP status; the fields from HAEnabled to Applied are set under 200 only
}

// Leader asks the active node's sys/leader once, without token and namespace;
// of one configured address it is not known whether it is the active node's. Any
// HTTP answer is a Leader; under 200 it must also be readable. It takes no slot
// of MaxInFlight: what verifies everything must not queue behind what it
// verifies.
func (c *Client) Leader(ctx context.Context) (Leader, error) {
	return askActive(c, ctx, func(n *node) (Leader, bool, error) {
		l, err := c.leader(ctx, n)
		if err == nil && l.Status == http.StatusOK {
			n.known.indices(l)
		}
		// A single server has no leader, and answers is_self false.
		return l, err == nil && (l.Status != http.StatusOK || l.IsSelf || !l.HAEnabled), err
	})
}

// askActive puts a question to the active node, and once more to whatever node
// is active by then if the first turns out not to be.
func askActive[T any](c *Client, ctx context.Context, ask func(*node) (answer T, good bool, err error)) (T, error) {
	if _, _, routed := c.roster.snapshot(); !routed {
		l, _, err := ask(c.seeds[0])
		return l, err
	}
	c.know(ctx)
	first := c.node()
	l, good, err := ask(first)
	if good || ctx.Err() != nil {
		return l, err
	}
	if err != nil {
		c.failedAt(first, time.Now())
	} else {
		first.known.became(RoleStandby, c.o.Now())
	}
	c.learn(ctx)
	if second := c.node(); second != first {
		l, _, err = ask(second)
	}
	return l, err
}

func (c *Client) leader(ctx context.Context, n *node) (Leader, error) {
	r, err := c.ask(ctx, n, leaderPath, c.headersFor(n))
	if err != nil {
		return Leader{}, err
	}
	l := Leader{SentAt: r.sent, ReceivedAt: r.received, Status: r.status, Cached: wire.FromCache(r.header)}
	if r.status != http.StatusOK {
		return l, nil
	}
	var body struct {
		HAEnabled  bool   `json:"ha_enabled"`
		IsSelf     bool   `json:"is_self"`
		ActiveTime string `json:"active_time"`
		Leader     string `json:"leader_address"`
		RemoteWAL  uint64 `json:"performance_standby_last_remote_wal"`
		Committed  uint64 `json:"raft_committed_index"`
		Applied    uint64 `json:"raft_applied_index"`
	}
	if !wire.New(r.status, r.header, r.body).Genuine(wire.Leader) || json.Unmarshal(r.body, &body) != nil {
		return l, c.notVault(n, "sys/leader")
	}
	l.HAEnabled, l.IsSelf, l.ActiveTime = body.HAEnabled, body.IsSelf, body.ActiveTime
	l.LeaderAddress, l.RemoteWAL, l.Committed, l.Applied = body.Leader, body.RemoteWAL, body.Committed, body.Applied
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
	Status                                        int // 200, 429, 472, 473, 474, 501, 503 or 530
	Initialized, Sealed, Standby                  bool
	PerformanceStandby, Enterprise                bool
	Version, ClusterID, ClusterName               string // ids and names are empty while sealed
	ReplicationPerformanceMode, ReplicationDRMode string
	OpenBao                                       bool
	ServerTime                                    time.Time // whole seconds
	edition                                       bool      // the answer said whether it is Enterprise
}

// Health asks the active node's sys/health once, without token and
// namespace. An answer that isn't one, as a load balancer's 503, is an error.
// It takes no slot of MaxInFlight.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return askActive(c, ctx, func(n *node) (Health, bool, error) {
		h, err := c.health(ctx, n, c.headersFor(n))
		return h, err == nil, err
	})
}

func (c *Client) health(ctx context.Context, n *node, headers http.Header) (Health, error) {
	r, err := c.ask(ctx, n, healthPath, headers)
	if err != nil {
		return Health{}, err
	}
	h := Health{Status: r.status}
	var body struct {
		Initialized bool   `json:"initialized"`
		Sealed      bool   `json:"sealed"`
		Standby     bool   `json:"standby"`
		PerfStandby bool   `json:"performance_standby"`
		Enterprise  *bool  `json:"enterprise"`
		Version     string `json:"version"`
		ClusterID   string `json:"cluster_id"`
		ClusterName string `json:"cluster_name"`
		PerfMode    string `json:"replication_performance_mode"`
		DRMode      string `json:"replication_dr_mode"`
		ServerTime  int64  `json:"server_time_utc"`
	}
	if !wire.New(r.status, r.header, r.body).Genuine(wire.Health) || json.Unmarshal(r.body, &body) != nil {
		return h, c.notVault(n, "sys/health")
	}
	h.Initialized, h.Sealed, h.Standby, h.PerformanceStandby = body.Initialized, body.Sealed, body.Standby, body.PerfStandby
	h.Version, h.ClusterID, h.ClusterName = body.Version, body.ClusterID, body.ClusterName
	h.ReplicationPerformanceMode, h.ReplicationDRMode = body.PerfMode, body.DRMode
	h.ServerTime = time.Unix(body.ServerTime, 0)
	h.edition = body.Enterprise != nil
	h.Enterprise = h.edition && *body.Enterprise || strings.Contains(body.Version, "+ent")
	if major, _, ok := majorMinor(body.Version); ok && !h.edition && major >= 2 {
		h.OpenBao = true
	}
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
func (h Health) ForwardsReads() bool {
	if h.OpenBao {
		major, minor, ok := majorMinor(h.Version)
		return ok && major == 2 && minor < 5
	}
	return h.Community()
}

// majorMinor reads the beginning of a version: "1.21.0", "v2.5.0-beta1".
func majorMinor(version string) (major, minor int, ok bool) {
	rest := strings.TrimPrefix(version, "v")
	major, rest, ok = number(rest)
	if !ok || !strings.HasPrefix(rest, ".") {
		return 0, 0, false
	}
	if minor, _, ok = number(rest[1:]); !ok {
		return 0, 0, false
	}
	return major, minor, true
}

func number(s string) (n int, rest string, ok bool) {
	for s != "" && s[0] >= '0' && s[0] <= '9' && n < 1e6 {
		n, s, ok = n*10+int(s[0]-'0'), s[1:], true
	}
	return n, s, ok
}

// reply is a whole answer, for questions whose answers are short.
type reply struct {
	sent, received time.Time
	status         int
	header         http.Header
	body           []byte
}

// maxReply bounds those answers, in bytes; real ones are below 1 KiB.
const maxReply = 64 << 10

// ask sends one GET to n: no slot, no retry, no redirect, and no headers but
// the given ones.
func (c *Client) ask(ctx context.Context, n *node, path string, headers http.Header) (*reply, error) {
	req := (&http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Header: http.Header{
		// A cache in between is to ask again.
		"Cache-Control": {"no-cache"},
	}}).WithContext(ctx)
	k := c.begin(req, true)
	defer k.end()
	k.headers = headers
	if e := k.throttle(); e != nil {
		return nil, e
	}
	r := &reply{sent: c.o.Now()}
	a, f := k.send(n)
	if f != nil {
		return nil, f.e
	}
	defer a.cancel()
	defer a.Body.Close()
	r.status, r.header = a.StatusCode, a.Header
	var err error
	if r.body, err = io.ReadAll(io.LimitReader(a.Body, maxReply+1)); err != nil {
		return nil, k.explain(n, answering, err)
	}
	if len(r.body) > maxReply {
		return nil, c.notVault(n, strings.TrimPrefix(path, "/v1/"))
	}
	r.received = c.o.Now()
	return r, nil
}

// headersFor is the configured headers that go to n with a question of our own:
// none to a node that nobody configured.
func (c *Client) headersFor(n *node) http.Header {
	if n.learnt {
		return nil
	}
	return plain(c.o.Headers)
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
