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
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/origin"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/tests/standin"
)

// cluster is the stand-in behind what a session sends by, with what may come of its
// answers on their way. Whoever comes has a token there, which may do everything until
// a test denies it something.
type cluster struct {
	*standin.Origin
	mu      sync.Mutex
	node    http.Handler                          // who answers: the stand-in, or a node of a cluster that has it as its storage
	raft    bool                                  // it has integrated storage, and so an index
	down    error                                 // of every request
	slow    time.Duration                         // before every answer
	pooled  bool                                  // a request that finds no open connection free waits for one to be opened first
	free    int                                   // open connections without a request, where pooled
	between func(request) (*http.Response, error) // see answers
	asked   map[string]int                        // by path
	times   []time.Time                           // of all requests
}

// request is one on its way to the origin.
type request struct {
	*http.Request
	path  string // behind /v1/
	token string // empty: the extension's own, or none
	body  string
}

// takes waits for as long as something on the way takes.
func (q request) takes(d time.Duration) error {
	if d > 0 {
		select {
		case <-time.After(d):
		case <-q.Context().Done():
		}
	}
	return context.Cause(q.Context())
}

// paths are those that a confirmation asks for.
func (q request) paths() []string {
	var body struct{ Paths []string }
	if q.path == capabilitiesPath && json.Unmarshal([]byte(q.body), &body) != nil {
		panic(q.body)
	}
	return body.Paths
}

const own = "own" // the extension's token

func newCluster() *cluster {
	c := &cluster{Origin: standin.New(standin.Options{}), raft: true, asked: map[string]int{}}
	c.node = c.Origin
	c.SetPolicy("everything", map[string][]string{"*": {"create", "read", "update", "delete", "list"}})
	for _, token := range []string{own, "alice", "bob", "revoked", "narrow"} {
		c.AddTokenWith(standin.TokenOptions{ID: token, TTL: 100 * 365 * 24 * time.Hour, Policies: []string{"everything", "of " + token}})
	}
	return c
}

// of is a cluster that has the stand-in as its storage.
func (c *cluster) of(o standin.ClusterOptions) *standin.Cluster {
	o.Origin = c.Origin
	return standin.NewCluster(o)
}

// deny changes the policy of a token, which may not use these paths any more, and may
// use others again.
func (c *cluster) deny(token string, paths ...string) {
	rules := map[string][]string{}
	for _, p := range paths {
		rules[p] = []string{"deny"}
	}
	c.SetPolicy("of "+token, rules)
}

// put writes a secret whose value is the number of its version.
func (c *cluster) put(path string) {
	body := fmt.Sprintf(`{"data":{"v":"%d"}}`, c.versionOf(path)+1)
	if w := standin.Ask(c.node, "root", http.MethodPost, path, body); w.Code != http.StatusOK {
		panic(fmt.Sprint(path, ": ", w.Code, " ", w.Body))
	}
}

// versionOf is the version of a secret; 0: there is none.
func (c *cluster) versionOf(path string) int {
	var secret struct {
		Data struct{ Metadata struct{ Version int } }
	}
	if err := json.Unmarshal(standin.Ask(c.Origin, "root", http.MethodGet, path, "").Body.Bytes(), &secret); err != nil {
		panic(err)
	}
	return secret.Data.Metadata.Version
}

// append appends a write that is not applied before apply is called.
func (c *cluster) append(path string) (apply func()) {
	appended, proceed, applied := make(chan struct{}), make(chan struct{}), make(chan struct{})
	c.BetweenAppendAndApply(func() {
		close(appended)
		<-proceed
	})
	go func() {
		defer close(applied)
		c.put(path)
	}()
	<-appended
	return func() {
		c.BetweenAppendAndApply(nil)
		close(proceed)
		<-applied
	}
}

// set changes what is on the way to the cluster.
func (c *cluster) set(f func(*cluster)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

// count returns how many requests came for one path since requests was called.
func (c *cluster) count(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[path]
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

// answers has something in between answer requests, with a response or an error. Where
// it gives neither, the origin answers.
func (c *cluster) answers(f func(request) (*http.Response, error)) {
	c.set(func(c *cluster) { c.between = f })
}

// instead has something in between answer at these paths, or at all.
func (c *cluster) instead(f func() (*http.Response, error), paths ...string) {
	c.answers(func(q request) (*http.Response, error) {
		if len(paths) == 0 || slices.Contains(paths, q.path) {
			return f()
		}
		return nil, nil
	})
}

// refuse has something in between answer what is asked for under a token.
func (c *cluster) refuse(f func(token string) (*http.Response, error)) {
	c.answers(func(q request) (*http.Response, error) {
		if q.path == leaderPath || q.path == healthPath {
			return nil, nil
		}
		return f(q.token)
	})
}

const (
	leaderPath       = "sys/leader"
	healthPath       = "sys/health"
	capabilitiesPath = "sys/capabilities-self"
	lookupPath       = "auth/token/lookup-self"
)

// trouble is an error of Vault's that says no more than its status.
func trouble(status int) func() (*http.Response, error) {
	return func() (*http.Response, error) { return response(status, "application/json", `{"errors":["x"]}`), nil }
}

// page is what something else than Vault answers.
func page(status int) func() (*http.Response, error) {
	return func() (*http.Response, error) { return response(status, "text/html", "<html>not Vault's</html>"), nil }
}

// fails has no answer come.
func fails(err error) func() (*http.Response, error) {
	return func() (*http.Response, error) { return nil, err }
}

func response(status int, kind, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// Do sends a request to the cluster, with the extension's token where it has none.
func (c *cluster) Do(r *http.Request) (*http.Response, error) {
	q := request{Request: r, path: strings.TrimPrefix(r.URL.Path, "/v1/"), token: r.Header.Get("X-Vault-Token")}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		q.body = string(body)
	}
	c.mu.Lock()
	c.asked[q.path]++
	c.times = append(c.times, time.Now())
	down, slow, between, node := c.down, c.slow, c.between, c.node
	if c.pooled && c.free > 0 {
		c.free--
	} else if c.pooled {
		slow *= 2
	}
	c.mu.Unlock()
	defer c.set(func(c *cluster) { c.free++ })
	if err := q.takes(slow); err != nil || down != nil {
		return nil, cmp.Or(err, down)
	}
	if between != nil {
		if res, err := between(q); res != nil || err != nil {
			return res, err
		}
	}
	sent := r.Clone(r.Context())
	sent.Body = io.NopCloser(strings.NewReader(q.body))
	sent.Header.Set("X-Vault-Token", cmp.Or(q.token, own))
	w := httptest.NewRecorder()
	node.ServeHTTP(w, sent)
	return w.Result(), nil
}

// DoOnce is Do, which does not try again either.
func (c *cluster) DoOnce(r *http.Request) (*http.Response, error) { return c.Do(r) }

// tell asks what needs no token.
func (c *cluster) tell(ctx context.Context, path string, into any) (status int, err error) {
	res, err := c.Do((&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/v1/" + path}, Header: http.Header{}}).WithContext(ctx))
	if err != nil {
		return 0, err
	}
	if json.NewDecoder(res.Body).Decode(into) != nil && res.StatusCode == http.StatusOK {
		return 0, &vault.Error{Kind: vault.Protocol}
	}
	return res.StatusCode, nil
}

func (c *cluster) Leader(ctx context.Context) (l vault.Leader, err error) {
	sent := time.Now()
	if l.Status, err = c.tell(ctx, leaderPath, &l); err != nil {
		return vault.Leader{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.SentAt, l.ReceivedAt = sent, time.Now(); !c.raft {
		l.Committed, l.Applied = 0, 0
	}
	return l, nil
}

func (c *cluster) Health(ctx context.Context) (h vault.Health, err error) {
	h.Status, err = c.tell(ctx, healthPath, &h)
	h.Enterprise, h.OpenBao = strings.Contains(h.Version, "+ent"), strings.HasPrefix(h.Version, "2.")
	return h, err
}

// world is a poller with its cache in front of a cluster.
type world struct {
	t       *testing.T
	cluster *cluster
	cursor  *cursor.Cursor
	cache   *cache.Cache
	poller  *Poller
	*origin.Session
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
	if w.login != nil {
		w.login()
	}
	res, err := w.Session.Read(ctx, q)
	if err == nil {
		w.cursor.Answered() // as the session does when the body is closed
	}
	return res, err
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
func newWorldWith(t *testing.T, c *cluster, hearsay cursor.Hearsay, change ...func(*cache.Options, *Options)) *world {
	tokens, err := auth.New(auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cluster: c, Session: origin.New(origin.Options{Client: c, Tokens: tokens})}
	log := slog.New(slog.DiscardHandler)
	co := cache.Options{Origin: w, Bytes: 1 << 24, Recheck: time.Second, StaleIfError: time.Hour, RefreshInterval: 5 * time.Minute}
	po := Options{Timeout: 500 * time.Millisecond, Connect: time.Second, Recheck: time.Second, Concurrency: 8, Log: log, Now: time.Now}
	for _, f := range change {
		f(&co, &po)
	}
	w.cursor = cursor.New(w.cluster, hearsay, time.Second, log, time.Now)
	w.cache = cache.New(co)
	po.Cache, po.Cursor = w.cache, w.cursor
	po.Permissions = NewPermissions(w.cache, w.Session, nil, log, time.Now)
	w.poller = New(po)
	return w
}

func (w *world) close() {
	w.poller.Close()
	w.cursor.Close()
	w.cache.Close()
	w.Close()
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
