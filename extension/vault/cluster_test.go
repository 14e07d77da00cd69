package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/tests/standin"
)

// cluster is the stand-in's, which says how nodes behave: what they tell of
// themselves, what they hand on, and where they redirect to.
type cluster struct {
	*standin.Cluster
	storage storage
	nodes   []*member

	mu     sync.Mutex // guards the fields below
	polls  int        // questions for a health
	onPoll func()
}

// storage is what the nodes share. It is no Vault: it takes any request that bears
// the token, and echoes it, so that tests see what arrives.
type storage struct {
	mu      sync.Mutex // guards applied
	applied []string   // bodies of writes, in order
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.URL.Path == leaderPath: // the stand-in's cluster wants to know whether the index moved
		writeJSON(w, http.StatusOK, map[string]any{"raft_committed_index": 7})
		return
	case r.Header.Get("X-Vault-Token") != clusterToken:
		writeJSON(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}})
		return
	case r.Method != http.MethodGet && r.Method != "LIST":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.applied = append(s.applied, string(body))
	}
	writeJSON(w, http.StatusOK, map[string]any{"method": r.Method, "uri": r.URL.RequestURI(), "body": string(body)})
}

// member is a node that remembers what came, and into whose answers a test may put a
// word.
type member struct {
	*standin.Node
	c      *cluster
	addr   string
	server *httptest.Server

	mu      sync.Mutex // guards the fields below
	seen    []*http.Request
	told    map[string]map[string]any // see tells
	instead http.HandlerFunc          // see answers
}

// newCluster serves a node for each role. The first active one leads; a further one
// was deposed and has not noticed.
func newCluster(t *testing.T, roles ...Role) *cluster {
	t.Helper()
	return serveNodes(t, newNodes(standin.ClusterOptions{}, roles...))
}

// newNode serves a cluster of one.
func newNode(t *testing.T) *member {
	t.Helper()
	return newCluster(t, RoleActive).nodes[0]
}

func newNodes(o standin.ClusterOptions, roles ...Role) *cluster {
	c := &cluster{}
	o.Origin, o.RootToken, o.Standbys, o.NodeIDs = &c.storage, clusterToken, len(roles)-1, true
	o.Community = !o.OpenBao && !slices.Contains(roles, RolePerformanceStandby)
	c.Cluster = standin.NewCluster(o)
	c.Lead(nil)
	for i, n := range c.Nodes() {
		c.nodes = append(c.nodes, &member{Node: n, c: c})
		switch {
		case roles[i] == RoleActive && c.Active() == nil:
			c.Lead(n)
		case roles[i] == RoleActive:
			n.Be(standin.Deposed)
		case roles[i] == RoleSealed:
			n.Be(standin.Sealed)
		case roles[i] == RoleStandby && !o.OpenBao:
			n.Be(standin.Forwarding)
		}
	}
	return c
}

// serveNodes gives each node an address on loopback, which is its name, too.
func serveNodes(t *testing.T, c *cluster) *cluster {
	t.Helper()
	for _, m := range c.nodes {
		m.server = httptest.NewServer(m)
		t.Cleanup(m.die)
		m.addr = m.server.URL
		m.At(m.addr)
		m.Call(m.addr)
	}
	return c
}

// askedHeader names the node that was asked, which may have handed the request on.
const askedHeader = "Test-Asked"

// inBubble gives each node an address on a network inside the process. There a test's
// time is simulated, and no busy machine makes a node late.
func inBubble(t *testing.T, o Options, roles ...Role) (*cluster, *Client) {
	t.Helper()
	c, network := newNodes(standin.ClusterOptions{}, roles...), standin.NewNetwork()
	for i, m := range c.nodes {
		host := fmt.Sprintf("10.0.0.%d:8200", i+1)
		m.addr = "http://" + host
		m.At(m.addr)
		m.Call(m.addr)
		s := &http.Server{Handler: m}
		l := network.Listen(host)
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { _ = s.Close() })
	}
	o.Addrs, o.Dial, o.MaxRetries = c.addrs(), network.Dial, 2
	return c, newClient(t, o)
}

func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.seen = append(m.seen, r.Clone(context.Background()))
	told, instead := m.told, m.instead
	m.mu.Unlock()
	w.Header().Set(askedHeader, m.addr)
	if i := strings.Index(r.URL.Path, "/v1/"); i > 0 { // something before the node takes a base path off
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = r.URL.Path[i:], ""
	}
	if r.URL.Path == healthPath {
		m.c.polled()
	}
	about := r.URL.Path == healthPath || r.URL.Path == leaderPath
	switch fields := told[r.URL.Path]; {
	case fields != nil:
		rec := httptest.NewRecorder()
		m.Node.ServeHTTP(rec, r)
		said := make(map[string]any)
		_ = json.Unmarshal(rec.Body.Bytes(), &said)
		maps.Copy(said, fields)
		maps.Copy(w.Header(), rec.Header())
		writeJSON(w, rec.Code, said)
	case instead != nil && !about:
		instead(w, r)
	default:
		m.Node.ServeHTTP(w, r)
	}
}

// answers has f answer what is no question about the node, where a test scripts what
// comes of a request: as something before Vault would, or a hand-over that went wrong.
func (m *member) answers(f http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.instead = f
}

// tells has some fields of what the node tells at a path read otherwise.
func (m *member) tells(path string, fields map[string]any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told == nil {
		m.told = make(map[string]map[string]any)
	}
	m.told[path] = fields
}

// leadsSince has the node tell that it applied index and is active since then.
func (m *member) leadsSince(index uint64, since string) {
	m.tells(leaderPath, map[string]any{"raft_committed_index": index, "raft_applied_index": index, "active_time": since})
}

func (m *member) requests() []*http.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.seen)
}

// tokens is how many requests bore a token.
func (m *member) tokens() int {
	return len(slices.DeleteFunc(m.requests(), func(r *http.Request) bool { return r.Header.Get("X-Vault-Token") == "" }))
}

// besides is the requests but those for the node's health and leader.
func besides(m *member) []*http.Request {
	return slices.DeleteFunc(m.requests(), func(r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, healthPath) || strings.HasSuffix(r.URL.Path, leaderPath)
	})
}

func (m *member) last(t *testing.T) *http.Request {
	t.Helper()
	seen := m.requests()
	if len(seen) == 0 {
		t.Fatal("the origin was not asked")
	}
	return seen[len(seen)-1]
}

// die ends m's process, or cuts it off from here: the other nodes still reach it
// unless it is Unreachable.
func (m *member) die() {
	m.server.CloseClientConnections()
	m.server.Close()
}

func (c *cluster) addrs() (out []string) {
	for _, m := range c.nodes {
		out = append(out, m.addr)
	}
	return out
}

// elect makes m the leader and the old one its standby.
func (c *cluster) elect(m *member) { c.Lead(m.Node) }

// leadLater makes m the leader when its cluster was asked for 40 healths more.
func (m *member) leadLater() {
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.polls + 40
	c.onPoll = func() {
		if c.polls == at {
			c.elect(m)
		}
	}
}

func (c *cluster) polled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.polls++; c.onPoll != nil {
		c.onPoll()
	}
}

// readAndWriteOnce does both at a time, and wants both done, the write once.
func (c *cluster) readAndWriteOnce(t *testing.T, client *Client) {
	t.Helper()
	var both sync.WaitGroup
	both.Go(func() { answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")) })
	both.Go(func() { answeredBy(t, client.Do, again(t, "PUT", "a")) })
	both.Wait()
	if got := c.writes(); len(got) != 1 {
		t.Errorf("applied: %v", got)
	}
}

func (c *cluster) writes() []string {
	c.storage.mu.Lock()
	defer c.storage.mu.Unlock()
	return slices.Clone(c.storage.applied)
}

const clusterToken = "hvs.secret-token" // that of request

// hedging gives a client of two performance standbys that knows how long they
// take, and lets the first of them, nodes[1], hang until free is called.
func hedging(t *testing.T) (c *cluster, client *Client, free func()) {
	t.Helper()
	c = newCluster(t, RoleActive, RolePerformanceStandby, RolePerformanceStandby)
	o := quick(c.addrs())
	o.StandbyReads = true
	client = newClient(t, o)
	client.Status(t.Context())
	for range 60 {
		answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	}
	c.nodes[1].Be(standin.Silent)
	return c, client, func() { c.nodes[1].Be(standin.Serving) }
}

// answeredBy sends a request and returns the address of the node that answered, itself
// or by handing the request on.
func answeredBy(t *testing.T, send func(*http.Request) (*http.Response, error), req *http.Request) (node string) {
	t.Helper()
	status, body := do(t, func(req *http.Request) (*http.Response, error) {
		res, err := send(req)
		if err == nil {
			node = res.Header.Get(askedHeader)
		}
		return res, err
	}, req)
	if status != 200 {
		t.Fatalf("%s: %d %s", req.Method, status, body)
	}
	return node
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
	return Options{Config: config.Config{Addrs: addrs, MaxRetries: 2}, Sleep: func(ctx context.Context, d time.Duration) error {
		return wait.For(ctx, min(d, 5*time.Millisecond))
	}}
}
