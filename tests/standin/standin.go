// Package standin is a stand-in for the origin: a small Vault that lives in
// the test's own process. It is not Vault. It is for tests and for `make demo`
// where no Vault can be had, and everything that uses it says so.
//
// It answers what a Vault 1.21 community server with integrated storage
// answers, for the part of the API that thaw reads, writes and logs in with:
// KV version 1 and 2, credentials of a database, tokens, AppRole, ACL policies,
// response wrapping, sys/leader and its neighbours. Status codes, the shape of the bodies and the
// wording of errors are Vault's; a conformance test runs one script against
// both and compares. What it does not know it refuses with a 404 that names
// the stand-in, rather than guess.
//
// How it works: a request becomes a call, and the call is planned against the
// state as it is. A plan gives an answer and, for a write, a change. One
// writer runs at a time. Its change is appended first (the committed index
// moves), then applied (the state changes and the applied index follows), as
// Raft does it, so a reader between the two sees the old value under the new
// committed index. BetweenAppendAndApply stretches that moment for tests of
// the cursor. Values in the state are replaced, never edited.
//
// # Clusters
//
// A Cluster is a Vault Enterprise, or an OpenBao: an active node, standbys that
// lag behind it, and performance secondary clusters. Storage, tokens, policies
// and answers are those of an Origin, or of a real community server behind a
// reverse proxy; what is added is what Enterprise adds to them.
//
// It may also be of community servers, whose standbys hand everything on. Nodes have
// trouble as tests say (see Condition), nobody leads or somebody is about to, and what
// a standby cannot hand on it redirects.
//
// All nodes of all clusters share one storage, the Origin. What a node may see
// of it is decided by a log. A write goes to the primary's active node, one at
// a time. Before it is done the cluster reads, with the root token, what the write
// can change; if the origin's raft index moved, an entry with the next index
// and those answers goes into the log. Each node that lags gets the entry when
// its Lag has passed, and never before an earlier one; a standby of a secondary
// gets it from its own active node. Where a node is in the log is a function of
// the log and the clock: nothing runs in the background. A node answers a read
// of what an entry ahead of it changes with what was read before that entry.
// What it cannot know so (a version, or a list with parameters, of something
// that is about to change) it refuses with 501 rather than guess.
//
// Not modelled: policies and mounts don't lag, and a secondary's own tokens
// and leases are the primary's.
//
// Where the facts are from: X-Vault-Index, X-Vault-Inconsistent, X-Vault-Forward and what they do:
// https://developer.hashicorp.com/vault/docs/enterprise/consistency. The order
// of the checks and the texts: http/handler.go, vault/request_handling.go and
// http/sys_health.go of hashicorp/vault v1.21.0 and logical/error.go of its
// sdk, whose community build leaves out the check itself
// (MissingRequiredState in vault/core_util.go). The text of a state:
// ParseReplicationState in hashicorp/vault/api v1.23.0. That a state which
// cannot be verified, or is another cluster's, counts as missing is an
// assumption: it is the strictest answer.
package standin

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options configure an Origin. The zero value is a usable origin.
type Options struct {
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// RootToken is the root token; empty: "root", as `vault server -dev` has it
	// when told -dev-root-token-id=root.
	RootToken string
	// Empty leaves out the mounts. Otherwise there is KV version 2 at secret/
	// and KV version 1 at kv/.
	Empty bool
	// OpenBao makes it answer as OpenBao 2.5 does where that differs: answers
	// lack mount_type, a policy may have lists leave out what the token may not
	// see (list_scan_response_keys_filter_path).
	// https://openbao.org/docs/rfcs/filtering-list
	OpenBao bool
	// NoScan: something before OpenBao knows no method SCAN and answers 501, so that
	// only GET with ?scan=true lists recursively.
	NoScan bool
	// NoIndex: its storage is PostgreSQL, say, which has no raft index.
	NoIndex bool
}

// Origin is the stand-in. It is an http.Handler and safe for concurrent use.
type Origin struct {
	now    func() time.Time
	root   string // token
	bao    bool
	noScan bool
	noRaft bool
	mux    *http.ServeMux
	counts counter

	hooks struct {
		mu      sync.Mutex // guards the fields below
		locked  string     // namespace; empty: none
		fault   func(http.ResponseWriter, *http.Request) bool
		between func()
	}

	writer sync.Mutex // held by the one write that is being planned, appended and applied

	mu    sync.RWMutex // guards state
	state state
}

// state is everything that a real Vault keeps in its storage, and where the
// log stands.
type state struct {
	sealed     bool
	activeTime time.Time
	committed  uint64 // the index last appended
	applied    uint64 // the index last applied
	mounts     map[string]*mount
	policies   map[string]policy
	tokens     map[string]*token // by id
	roles      map[string]*role  // AppRole, by name
	logins     map[string]*role  // of other methods, by path
	wrapped    map[string]*wrapped
	entities   map[string]entity // by id
	clusterID  string
}

// change is what a write does to the state once it is appended.
type change struct {
	entries uint64 // how many log entries it takes
	apply   func(*state)
}

// New makes an origin: initialised, unsealed and active.
func New(o Options) *Origin {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.RootToken == "" {
		o.RootToken = "root"
	}
	s := &Origin{now: o.Now, root: o.RootToken, bao: o.OpenBao, noScan: o.NoScan, noRaft: o.NoIndex, mux: http.NewServeMux()}
	now := o.Now()
	s.state = state{
		activeTime: now.UTC(),
		committed:  30, applied: 30,
		mounts:    map[string]*mount{},
		policies:  map[string]policy{"default": defaultPolicy()},
		tokens:    map[string]*token{},
		roles:     map[string]*role{},
		logins:    map[string]*role{},
		wrapped:   map[string]*wrapped{},
		entities:  map[string]entity{},
		clusterID: newUUID(),
	}
	s.state.tokens[o.RootToken] = &token{
		id: o.RootToken, accessor: randomText(24), policies: []string{"root"}, path: "auth/token/root",
		display: "root", created: now, orphan: true, kind: "service",
	}
	if !o.Empty {
		s.state.mounts["secret/"] = newMount("kv", 2, "")
		s.state.mounts["kv/"] = newMount("kv", 1, "")
	}
	s.mux.HandleFunc("/v1/", s.serve)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { errorAnswer(http.StatusNotFound).write(w) })
	return s
}

// ServeHTTP counts the request, offers it to the fault hook, and answers it.
// Paths that are not clean are redirected, as Vault's own mux does.
func (s *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.counts.add(r.Method + " " + r.URL.Path)
	s.hooks.mu.Lock()
	fault, locked := s.hooks.fault, s.hooks.locked
	s.hooks.mu.Unlock()
	if ns := strings.Trim(r.Header.Get("X-Vault-Namespace"), "/"); locked != "" && ns == locked {
		errorAnswer(http.StatusServiceUnavailable, "API access to this namespace has been locked by an administrator - \""+ns+"/\" must be unlocked to gain access.").write(w)
		return
	}
	if fault != nil && fault(w, r) {
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	if ns := r.Header.Get("X-Vault-Namespace"); ns != "" {
		h.Set("X-Vault-Namespace", ns) // a community server ignores it, and echoes it
	}
	s.mux.ServeHTTP(w, r)
}

// serve plans one API request, and applies its change if there is one.
func (s *Origin) serve(w http.ResponseWriter, r *http.Request) {
	c, refusal := parseCall(r, s.now(), s.bao)
	if refusal != nil {
		refusal.write(w)
		return
	}
	c.noRaft = s.noRaft
	if r.Method == "SCAN" && s.noScan {
		errorAnswer(http.StatusNotImplemented).write(w)
		return
	}
	if c.mutates() {
		s.runWrite(c).write(w)
		return
	}
	s.mu.RLock()
	a, ch := c.plan(&s.state)
	s.mu.RUnlock()
	if ch != nil { // a read that writes: response wrapping
		a = s.runWrite(c)
	}
	a.write(w)
}

// runWrite plans the call as the only writer, appends its change and applies it.
func (s *Origin) runWrite(c *call) answer {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.mu.RLock()
	a, ch := c.plan(&s.state)
	s.mu.RUnlock()
	if ch != nil {
		s.commit(ch)
	}
	return a
}

// commit appends a change and applies it; the caller holds writer.
func (s *Origin) commit(ch *change) {
	s.mu.Lock()
	s.state.committed += ch.entries
	s.mu.Unlock()
	if ch.entries > 0 {
		s.hooks.mu.Lock()
		between := s.hooks.between
		s.hooks.mu.Unlock()
		if between != nil {
			between()
		}
	}
	s.mu.Lock()
	ch.apply(&s.state)
	s.state.applied = s.state.committed
	s.mu.Unlock()
}

// Mount enables KV of a version (1 or 2) at a path, unless something is there.
func (s *Origin) Mount(path string, version int) {
	s.writer.Lock()
	defer s.writer.Unlock()
	path = strings.Trim(path, "/") + "/"
	s.commit(&change{entries: 1, apply: func(st *state) {
		if st.mounts[path] == nil {
			st.mounts[path] = newMount("kv", version, "")
		}
	}})
}

// Seal seals the origin: everything but sys/health, sys/seal-status and
// sys/init answers 503 until Unseal.
func (s *Origin) Seal() { s.setSealed(true) }

// Unseal makes the origin active again. Its active_time changes, as a real
// node's does when it takes leadership.
func (s *Origin) Unseal() { s.setSealed(false) }

func (s *Origin) setSealed(sealed bool) {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.sealed && !sealed {
		s.state.activeTime = s.now().UTC()
		s.state.committed += 3 // a new term writes its own entries
		s.state.applied = s.state.committed
	}
	s.state.sealed = sealed
}

// SetFault installs a hook that sees every request first. It returns true
// when it has answered (or broken the connection) itself; nil removes it.
func (s *Origin) SetFault(f func(http.ResponseWriter, *http.Request) bool) {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	s.hooks.fault = f
}

// LockNamespace locks the API of a namespace, as sys/namespaces/api-lock/lock does in
// Vault Enterprise and OpenBao; empty: none is locked. All requests to it answer 503
// (https://developer.hashicorp.com/vault/docs/concepts/namespace-api-lock).
func (s *Origin) LockNamespace(ns string) {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	s.hooks.locked = strings.Trim(ns, "/")
}

// BetweenAppendAndApply installs a hook that runs in every write after the
// committed index moved and before the value changes. Reads go on meanwhile
// and see the old value. The hook may read from the origin, not write to it.
// nil removes it.
func (s *Origin) BetweenAppendAndApply(f func()) {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	s.hooks.between = f
}

// Leader is what sys/leader says: since when the node leads, and the index last applied.
func (s *Origin) Leader() (activeTime string, applied uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.activeTime.Format(time.RFC3339Nano), s.state.applied
}

// Counts returns how often each "METHOD /v1/path" was asked since the start
// or the last ResetCounts.
func (s *Origin) Counts() map[string]int { return s.counts.snapshot() }

// Requests returns how many requests arrived since the start or the last
// ResetCounts.
func (s *Origin) Requests() int { return s.counts.sum() }

// ResetCounts sets all counters to zero.
func (s *Origin) ResetCounts() { s.counts.reset() }

// counter counts requests by method and path.
type counter struct {
	mu    sync.Mutex // guards the fields below
	by    map[string]int
	total int
}

func (c *counter) add(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]int{}
	}
	c.by[key]++
	c.total++
}

func (c *counter) snapshot() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int, len(c.by))
	for k, v := range c.by {
		out[k] = v
	}
	return out
}

func (c *counter) sum() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by, c.total = nil, 0
}

// newUUID is a random version 4 UUID, the form of Vault's request ids.
func newUUID() string {
	var b [16]byte
	mustRandom(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// randomText is n characters of randomness.
func randomText(n int) string {
	b := make([]byte, (n+1)/2)
	mustRandom(b)
	return hex.EncodeToString(b)[:n]
}

func mustRandom(b []byte) {
	if _, err := io.ReadFull(rand.Reader, b); err != nil {
		panic(err) // crypto/rand never fails on the systems Go supports
	}
}
