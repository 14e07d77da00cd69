package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
)

// fakeCluster is a cluster of fake nodes as far as routing sees one. A node
// behaves as http/handler.go of hashicorp/vault v1.21.0 has it: sealed ones
// answer 503; a standby hands on what it cannot answer itself, redirects if it
// is told not to, and answers 503 where nobody leads (respondStandby). It stores
// nothing. It is not the stand-in's cluster, since its nodes are in states that tests
// script: a hand-over that is cut, no leader, an answer that hangs, an old version.
type fakeCluster struct {
	id    string
	nodes []*member

	mu      sync.Mutex // guards the fields below
	leader  *member
	applied []string // bodies of writes, in order
	polls   int      // questions for a health
	onPoll  func(polls int)
}

// member is one node of it. Its fields are guarded by the cluster's mu.
type member struct {
	c       *fakeCluster
	addr    string
	server  *httptest.Server
	role    Role
	version string
	since   string // active_time
	index   uint64
	tokens  int           // requests that bore a token
	reads   int           // reads it answered itself
	mode    string        // replication_performance_mode; empty: disabled
	cutHand bool          // handing on fails after the leader did the work
	hang    chan struct{} // not nil: nothing is answered until it is closed
}

func newCluster(t *testing.T, id string, roles ...Role) *fakeCluster {
	t.Helper()
	c := &fakeCluster{id: id}
	for _, r := range roles {
		m := &member{c: c, role: r, version: "1.21.0", index: 7}
		if r == RolePerformanceStandby {
			m.version = "1.21.0+ent"
		}
		m.server = httptest.NewServer(m)
		t.Cleanup(m.die)
		m.addr = m.server.URL
		if r == RoleActive {
			c.leader, m.since = m, "2026-01-09T00:00:00Z"
		}
		c.nodes = append(c.nodes, m)
	}
	return c
}

func (c *fakeCluster) addrs() (out []string) {
	for _, m := range c.nodes {
		out = append(out, m.addr)
	}
	return out
}

// change changes the cluster's state.
func (c *fakeCluster) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// elect makes m the leader and the old one its standby.
func (c *fakeCluster) elect(m *member) {
	c.change(func() {
		if c.leader != nil && c.leader.role == RoleActive {
			c.leader.role = RoleStandby
		}
		c.leader, m.role, m.since = m, RoleActive, "2026-01-09T01:00:00Z"
	})
}

// leadLater makes m the leader when its cluster was asked for 40 healths more. It
// is called within change.
func (m *member) leadLater() {
	c := m.c
	from := c.polls
	c.onPoll = func(polls int) {
		if polls == from+40 {
			c.leader, m.role, m.since = m, RoleActive, "2026-01-09T01:00:00Z"
		}
	}
}

// die ends m's process.
func (m *member) die() {
	m.server.CloseClientConnections()
	m.server.Close()
}

// readAndWriteOnce does both at a time, and wants both done, the write once.
func (c *fakeCluster) readAndWriteOnce(t *testing.T, client *Client) {
	t.Helper()
	var both sync.WaitGroup
	both.Go(func() { answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")) })
	both.Go(func() { answeredBy(t, client.Do, again(t, "PUT", "a")) })
	both.Wait()
	if got := c.writes(); len(got) != 1 {
		t.Errorf("applied: %v", got)
	}
}

func (c *fakeCluster) writes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.applied)
}

const clusterToken = "hvs.secret-token" // that of request

// healthStatus is getSysHealth's.
func healthStatus(r Role) int {
	return map[Role]int{RoleActive: 200, RoleStandby: 429, RolePerformanceStandby: 473, RoleDRSecondary: 472, RoleUninitialized: 501, RoleSealed: 503}[r]
}

func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c := m.c
	c.mu.Lock()
	hang := m.hang
	if r.Header.Get("X-Vault-Token") != "" {
		m.tokens++
	}
	c.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	leader := ""
	if c.leader != nil {
		leader = c.leader.addr
	}
	switch r.URL.Path {
	case healthPath:
		c.polls++
		if c.onPoll != nil {
			c.onPoll(c.polls)
		}
		id := c.id
		if m.role == RoleSealed || m.role == RoleUninitialized {
			id = ""
		}
		h := map[string]any{
			"initialized": m.role != RoleUninitialized, "sealed": id == "", "standby": m.role != RoleActive && m.role != RoleDRSecondary,
			"performance_standby": m.role == RolePerformanceStandby, "version": m.version, "cluster_id": id, "cluster_name": "c",
			"replication_performance_mode": cmp.Or(m.mode, "disabled"),
		}
		if strings.HasPrefix(m.version, "1") {
			h["enterprise"] = strings.Contains(m.version, "+ent")
		}
		writeJSON(w, healthStatus(m.role), h)
		return
	case leaderPath:
		writeJSON(w, 200, map[string]any{
			"ha_enabled": true, "is_self": m.role == RoleActive, "active_time": m.since, "leader_address": leader,
			"raft_committed_index": m.index, "raft_applied_index": m.index,
		})
		return
	}
	errs := func(status int, text string) { writeJSON(w, status, map[string]any{"errors": []string{text}}) }
	copies := m.role == RolePerformanceStandby || m.role == RoleStandby && strings.HasPrefix(m.version, "2.5")
	switch {
	case m.role == RoleSealed:
		errs(503, "Vault is sealed")
		return
	case m.role == RoleDRSecondary || m.role == RoleUninitialized:
		errs(400, "path disabled in replication DR secondary mode")
		return
	case r.Header.Get("X-Vault-Token") != clusterToken:
		errs(403, "permission denied")
		return
	case m.role == RoleActive || copies && r.Method == http.MethodGet:
	default:
		if leader == "" {
			errs(503, "no active Vault instance found")
			return
		}
		hand := r.Header.Get(noForwarding) == "" && c.leader.role == RoleActive
		if hand && m.cutHand && r.Method != http.MethodGet {
			c.applied = append(c.applied, string(body))
		}
		if !hand || m.cutHand {
			w.Header().Set("Location", leader+r.URL.RequestURI())
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
	}
	if r.Method == http.MethodGet {
		m.reads++
	} else {
		c.applied = append(c.applied, string(body))
	}
	writeJSON(w, 200, map[string]any{"node": m.addr})
}

// hedging gives a client of two performance standbys that knows how long they
// take, and lets the first of them, nodes[1], hang until free is called.
func hedging(t *testing.T) (c *fakeCluster, client *Client, free func()) {
	t.Helper()
	c = newCluster(t, "c1", RoleActive, RolePerformanceStandby, RolePerformanceStandby)
	o := quick(c.addrs())
	o.StandbyReads = true
	client = newClient(t, o)
	client.Status(t.Context())
	for range 60 {
		answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	}
	hang := make(chan struct{})
	c.change(func() { c.nodes[1].hang = hang })
	return c, client, func() { close(hang) }
}

// answeredBy sends a request and returns the address of the node that did the
// work.
func answeredBy(t *testing.T, send func(*http.Request) (*http.Response, error), req *http.Request) string {
	t.Helper()
	status, body := do(t, send, req)
	var a struct {
		Node string `json:"node"`
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil || status != 200 {
		t.Fatalf("%s: %d %s", req.Method, status, body)
	}
	return a.Node
}

// again is a request with a body that can be given again.
func again(t *testing.T, method, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "/v1/secret/data/app", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", clusterToken)
	return req
}

func quick(addrs []string) Options {
	return Options{Addrs: addrs, MaxRetries: 2, Sleep: func(ctx context.Context, d time.Duration) error {
		return wait.For(ctx, min(d, 5*time.Millisecond))
	}}
}
