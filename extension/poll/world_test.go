package poll

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/tests/standin"
)

// cluster is an origin of one node: the stand-in, which has the secrets and the raft
// index, and what tests have come of its answers.
type cluster struct {
	origin     *standin.Origin
	mu         sync.Mutex
	active     string // the leader's active_time; empty: as the stand-in says
	isSelf     bool
	version    string
	raft       bool
	down       error         // of every request
	slow       time.Duration // before every answer
	pooled     bool          // a request that finds no open connection free waits for one to be opened first
	free       int           // open connections without a request, where pooled
	status     int           // of every answer, if not 0
	asked      map[string]int
	caps       func(token, path string) []string
	capStatus  int
	gateway    func(paths []string) (status int, err error) // refuses a confirmation in the origin's place; nil: there is none
	each       time.Duration                                // that a path of sys/capabilities-self takes
	most       int                                          // bytes of its answer that are read; 0: any number
	lifeStatus int                                          // of lookups; 0: 200
	token      cache.Token                                  // what lookups say of it
	leader     error                                        // of sys/leader alone
	health     time.Duration                                // before an answer of sys/health
	times      []time.Time                                  // of all requests
	refuse     func(token string) (status int, err error)   // what comes of a token's requests; nil: what comes of others
}

func newCluster() *cluster {
	return &cluster{origin: standin.New(standin.Options{}), isSelf: true, version: "1.21.0", raft: true, asked: map[string]int{}}
}

// ask has the stand-in answer a read.
func (c *cluster) ask(method, path string) *http.Response {
	return standin.Ask(c.origin, "root", method, path, "").Result()
}

// put writes a secret whose value is the number of its version.
func (c *cluster) put(path string) {
	c.origin.Root(http.MethodPost, path, fmt.Sprintf(`{"data":{"v":"%d"}}`, c.versionOf(path)+1))
}

// versionOf is the version of a secret; 0: there is none.
func (c *cluster) versionOf(path string) int {
	var secret struct {
		Data struct{ Metadata struct{ Version int } }
	}
	if err := json.NewDecoder(c.ask(http.MethodGet, path).Body).Decode(&secret); err != nil {
		panic(err)
	}
	return secret.Data.Metadata.Version
}

// append appends a write that is not applied before apply is called.
func (c *cluster) append(path string) (apply func()) {
	appended, proceed, applied := make(chan struct{}), make(chan struct{}), make(chan struct{})
	c.origin.BetweenAppendAndApply(func() {
		close(appended)
		<-proceed
	})
	go func() {
		defer close(applied)
		c.put(path)
	}()
	<-appended
	return func() {
		c.origin.BetweenAppendAndApply(nil)
		close(proceed)
		<-applied
	}
}

// set changes the cluster.
func (c *cluster) set(f func(*cluster)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

// count returns how many requests came for one path since requests was called.
func (c *cluster) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[what]
}

func (c *cluster) begin(ctx context.Context, what string) error {
	c.mu.Lock()
	c.asked[what]++
	c.times = append(c.times, time.Now())
	down, slow := c.down, c.slow
	if c.pooled && c.free > 0 {
		c.free--
	} else if c.pooled {
		slow *= 2
	}
	c.mu.Unlock()
	defer c.set(func(c *cluster) { c.free++ })
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return down
}

func (c *cluster) refusal(id *cache.Identity) (int, error) {
	c.mu.Lock()
	refuse := c.refuse
	c.mu.Unlock()
	if refuse == nil {
		return 0, nil
	}
	return refuse(id.Token)
}

// requests returns how many requests came since the last call.
func (c *cluster) requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.asked {
		n += k
	}
	clear(c.asked)
	return n
}

func (c *cluster) Leader(ctx context.Context) (vault.Leader, error) {
	sent := time.Now()
	if err := c.begin(ctx, "leader"); err != nil {
		return vault.Leader{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader != nil {
		return vault.Leader{}, c.leader
	}
	var said struct {
		ActiveTime string `json:"active_time"`
		Committed  uint64 `json:"raft_committed_index"`
		Applied    uint64 `json:"raft_applied_index"`
	}
	if err := json.NewDecoder(c.ask(http.MethodGet, "sys/leader").Body).Decode(&said); err != nil {
		return vault.Leader{}, err
	}
	l := vault.Leader{SentAt: sent, ReceivedAt: time.Now(), HAEnabled: true, IsSelf: c.isSelf, ActiveTime: cmp.Or(c.active, said.ActiveTime), Status: http.StatusOK}
	if c.raft {
		l.Committed, l.Applied = said.Committed, said.Applied
	}
	if c.status != 0 {
		l = vault.Leader{SentAt: sent, Status: c.status}
	}
	return l, nil
}

func (c *cluster) Health(ctx context.Context) (vault.Health, error) {
	if err := c.begin(ctx, "health"); err != nil {
		return vault.Health{}, err
	}
	c.mu.Lock()
	silent := c.health
	c.mu.Unlock()
	if silent > 0 {
		select {
		case <-time.After(silent):
		case <-ctx.Done():
			return vault.Health{}, context.Cause(ctx)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return vault.Health{Status: 200, Initialized: true, Version: c.version, Enterprise: strings.Contains(c.version, "+ent"), OpenBao: strings.HasPrefix(c.version, "2.")}, nil
}

func (c *cluster) Capabilities(ctx context.Context, id *cache.Identity, _ string, paths []string) (int, map[string][]string, error) {
	if err := c.begin(ctx, "capabilities"); err != nil {
		return 0, nil, err
	}
	c.mu.Lock()
	each := c.each
	c.mu.Unlock()
	select {
	case <-time.After(each * time.Duration(len(paths))):
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	}
	if status, err := c.refusal(id); status != 0 || err != nil {
		return status, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gateway != nil {
		if status, err := c.gateway(paths); err != nil {
			return status, nil, err
		}
	}
	if c.capStatus != 0 {
		return c.capStatus, nil, nil
	}
	out := map[string][]string{}
	for _, p := range paths {
		out[p] = []string{"read"}
		if c.caps != nil {
			out[p] = c.caps(id.Token, p)
		}
	}
	// Vault gives each path twice, at the top and below data.
	if raw, err := json.Marshal(out); err != nil || c.most > 0 && 2*len(raw) > c.most {
		return http.StatusUnprocessableEntity, nil, err
	}
	return http.StatusOK, out, nil
}

func (c *cluster) LookUp(ctx context.Context, id *cache.Identity, _ string) (int, cache.Token, error) {
	asked := time.Now()
	if err := c.begin(ctx, "lifetime"); err != nil {
		return 0, cache.Token{}, err
	}
	if status, err := c.refusal(id); status != 0 || err != nil {
		return status, cache.Token{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lifeStatus != 0 {
		return c.lifeStatus, cache.Token{Asked: asked}, nil
	}
	token := c.token
	token.Asked = asked
	return http.StatusOK, token, nil
}

// world is a poller with its cache in front of a cluster.
type world struct {
	t       *testing.T
	cluster *cluster
	cursor  *Cursor
	cache   *cache.Cache
	poller  *Poller
	login   func() // before each read of the origin; nil: nothing
	refused error  // of the own identity's login; nil: it works
}

func (w *world) Ready(_ context.Context, id *cache.Identity) error {
	if id.Own() {
		return w.refused
	}
	return nil
}

func (w *world) Index(ctx context.Context, epoch uint64) cache.Index {
	return w.cursor.Index(ctx, epoch)
}

func (w *world) Read(ctx context.Context, q cache.Question) (*http.Response, error) {
	key := q.Key
	if w.login != nil {
		w.login()
	}
	if err := w.cluster.begin(ctx, key.Path); err != nil {
		return nil, err
	}
	refused, err := w.cluster.refusal(q.ID)
	if err != nil {
		return nil, err
	}
	w.cluster.mu.Lock()
	defer w.cluster.mu.Unlock()
	w.cursor.Answered() // as the session does when the body is closed
	if status := cmp.Or(refused, w.cluster.status); status != 0 {
		const body = `{"errors":["x"]}`
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}, nil
	}
	return w.cluster.ask(key.Method(), key.Path), nil
}

// newWorld makes a world; call it inside a synctest bubble and end it with
// close.
func newWorld(t *testing.T, change ...func(*cache.Options, *Options)) *world {
	return newWorldOf(t, newCluster(), change...)
}

// newWorldOf is newWorld for one of several instances before an origin.
func newWorldOf(t *testing.T, c *cluster, change ...func(*cache.Options, *Options)) *world {
	return newWorldWith(t, c, nil, change...)
}

// newWorldWith is newWorldOf for one that knows what others learned.
func newWorldWith(t *testing.T, c *cluster, hearsay Hearsay, change ...func(*cache.Options, *Options)) *world {
	w := &world{t: t, cluster: c}
	log := slog.New(slog.DiscardHandler)
	co := cache.Options{Origin: w, Bytes: 1 << 24, Recheck: time.Second, StaleIfError: time.Hour, RefreshInterval: 5 * time.Minute}
	po := Options{Timeout: 500 * time.Millisecond, Connect: time.Second, Recheck: time.Second, Concurrency: 8, Log: log, Now: time.Now}
	for _, f := range change {
		f(&co, &po)
	}
	w.cursor = NewCursor(w.cluster, hearsay, time.Second, log, time.Now)
	w.cache = cache.New(co)
	po.Cache, po.Cursor = w.cache, w.cursor
	po.Permissions = NewPermissions(w.cache, w.cluster, nil, log, time.Now)
	w.poller = New(po)
	return w
}

func (w *world) close() {
	w.poller.Close()
	w.cursor.Close()
	w.cache.Close()
}

// read reads path as the proxy does on a miss.
func (w *world) read(path string) {
	w.t.Helper()
	if _, err := w.cache.Load(w.t.Context(), cache.Want{Key: cache.Key{Path: path}, ID: w.cache.Own()}); err != nil {
		w.t.Fatalf("read %s: %v", path, err)
	}
}

// hold has the cluster and the cache hold path: it is written, and read in the
// invocation that begins now.
func (w *world) hold(path string) {
	w.t.Helper()
	w.cluster.put(path)
	w.poller.Invoke(time.Now())
	w.ask()
	w.read(path)
}

// ask has an index received, as an init does.
func (w *world) ask() {
	w.t.Helper()
	if err := w.cursor.Ask(w.t.Context(), w.cache.Ledger().Epoch()); err != nil {
		w.t.Fatalf("ask for the index: %v", err)
	}
}

// invoke begins an epoch and waits for its poll, if there is one.
func (w *world) invoke() {
	w.t.Helper()
	w.poller.Invoke(time.Now())
	w.poller.mu.Lock()
	r := w.poller.running
	w.poller.mu.Unlock()
	if r != nil {
		<-r.done
	}
}

func (w *world) state(path string) cache.State {
	return w.cache.Lookup(cache.Key{Path: path}, w.cache.Own(), false, time.Now()).State
}

func (w *world) value(path string) string {
	h := w.cache.Lookup(cache.Key{Path: path}, w.cache.Own(), false, time.Now())
	if h.Entry == nil {
		return ""
	}
	return string(h.Entry.Body)
}

var errDown = errors.New("connection refused")

// skipped is a clock that tests can put ahead of the timers, as the wall
// clock is after a freeze.
type skipped struct {
	mu sync.Mutex
	by time.Duration // guarded by mu
}

func (s *skipped) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.by)
}

func (s *skipped) skip(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by += d
}
