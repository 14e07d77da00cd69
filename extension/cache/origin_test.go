package cache

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// kvOrigin gives the answers that a test puts at a path, and an index that moves with
// every change. It is not the stand-in, since most tests here are about answers that a
// Vault seldom gives or never does: of other shapes, dates, headers, mounts and versions.
type kvOrigin struct {
	mu      sync.Mutex
	bodies  map[string]string // by namespace + "|" + path + "?" + query; the body
	denied  map[string]bool   // by token + " " + path
	status  int               // of every answer while not 0
	err     error             // of every read while not nil
	index   uint64
	cursors bool
	reads   int
	hold    map[string]chan struct{} // by path: reads wait here before they are answered
	arrived chan string              // gets the path of each held read
	header  http.Header
	plain   bool              // answers are no JSON
	only    map[string]int    // by path: the status of its answers
	answers map[string]string // by path: the body of its 404
	between *foreign          // answers in the origin's place while not nil
	now     func() time.Time  // its own clock
}

func newOrigin() *kvOrigin {
	return &kvOrigin{bodies: map[string]string{}, denied: map[string]bool{}, hold: map[string]chan struct{}{}, arrived: make(chan string, 100), answers: map[string]string{}, index: 10, cursors: true, header: http.Header{}, now: time.Now}
}

func (o *kvOrigin) put(path, body string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.index++
	if body == "" {
		delete(o.bodies, path)
		return
	}
	o.bodies[path] = body
}

func (o *kvOrigin) Ready(context.Context, *Identity) error { return nil }

func (o *kvOrigin) Index(context.Context, uint64) Index {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.cursors {
		return Index{}
	}
	return Index{Applied: o.index, ActiveTime: "t"}
}

func (o *kvOrigin) Read(ctx context.Context, q Question) (*http.Response, error) {
	key, id := q.Key, q.ID
	o.mu.Lock()
	o.reads++
	path := joined(key.Namespace, key.Path)
	if key.Op == List {
		path += "/"
	}
	if key.Query != "" {
		path += "?" + key.Query
	}
	status, err, n := o.status, o.err, o.reads
	if only := o.only[path]; only != 0 {
		status = only
	}
	body, ok := o.bodies[path]
	header := o.header.Clone()
	denied, plain, between := o.denied[id.Token+" "+path], o.plain, o.between
	hold := o.hold[path]
	o.mu.Unlock()
	if hold != nil {
		o.arrived <- path
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	if between != nil {
		return between.response(), nil
	}
	switch {
	case status != 0:
		body = `{"errors":["trouble"]}`
	case denied:
		status, body = http.StatusForbidden, `{"errors":["permission denied"]}`
	case !ok:
		status, body = http.StatusNotFound, `{"errors":[]}`
		if gone := o.answers[path]; gone != "" {
			body = gone
		}
	default:
		status = http.StatusOK
		body = fmt.Sprintf(`{"request_id":"%d",%s`, n, body[1:])
	}
	header.Set("Content-Type", "application/json")
	if plain {
		header.Set("Content-Type", "text/html")
	}
	if _, set := header["Date"]; !set {
		header.Set("Date", o.now().UTC().Format(http.TimeFormat))
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}, nil
}

func v2(value string, version int, extra string) string {
	if extra != "" {
		extra = "," + extra
	}
	return fmt.Sprintf(`{"lease_id":"","lease_duration":0,"data":{"data":{"v":%q},"metadata":{"version":%d,"destroyed":false%s}},"wrap_info":null,"auth":null,"mount_type":"kv"}`, value, version, extra)
}

func v1(value string) string {
	return fmt.Sprintf(`{"lease_id":"","lease_duration":2764800,"data":{"v":%q},"wrap_info":null,"auth":null,"mount_type":"kv"}`, value)
}

// clock is a wall clock that tests set.
type fakeClock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *fakeClock { return &fakeClock{t: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)} }

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *fakeClock) add(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
	return c.t
}

func (c *fakeClock) set(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
	return c.t
}

// world is a cache in front of a kvOrigin.
type world struct {
	t *testing.T
	*Cache
	*Access
	*Ledger
	*Mounts
	Stream
	origin *kvOrigin
	clock  *fakeClock
}

func newWorld(t *testing.T, change ...func(*Options)) *world {
	w := &world{t: t, origin: newOrigin(), clock: newClock()}
	w.origin.now = w.clock.now
	o := Options{
		Origin: w.origin, Bytes: 1 << 20, Recheck: time.Second, StaleIfError: time.Hour, RefreshInterval: 5 * time.Minute, Now: w.clock.now,
	}
	for _, f := range change {
		f(&o)
	}
	w.Cache = New(o)
	w.Access, w.Ledger, w.Mounts, w.Stream = w.Cache.Access(), w.Cache.Ledger(), w.Cache.Mounts(), w.Cache.Stream()
	t.Cleanup(w.Close)
	return w
}

func key(path string) Key { return Key{Path: path} }

func (w *world) load(k Key, token string) Answer {
	w.t.Helper()
	id := w.identity(token)
	a, err := w.Load(w.t.Context(), Want{Key: k, ID: id})
	if err != nil {
		w.t.Fatalf("load %s: %v", k.Path, err)
	}
	return a
}

// identity is the caller's of a token, or the extension's own.
func (w *world) identity(token string) *Identity {
	if token == "" {
		return w.Own()
	}
	return w.Caller(token)
}

// look looks k up for a request that did not opt in.
func (w *world) look(k Key, token string, now time.Time) Hit {
	return w.Lookup(k, w.identity(token), false, now)
}

func (w *world) state(k Key, token string) State {
	return w.look(k, token, w.clock.now()).State
}

// expect checks the state of k, and for a hit its value.
func (w *world) expect(k Key, token string, want State, value string) {
	w.t.Helper()
	w.found(w.look(k, token, w.clock.now()), k, token, want, value)
}

// optedIn is expect for a request that opted in.
func (w *world) optedIn(k Key, token string, want State, value string) {
	w.t.Helper()
	w.found(w.Lookup(k, w.identity(token), true, w.clock.now()), k, token, want, value)
}

func (w *world) found(h Hit, k Key, token string, want State, value string) {
	w.t.Helper()
	if h.State != want {
		w.t.Fatalf("%s %q for token %q: state %d, want %d", k.Path, k.Query, token, h.State, want)
	}
	if value != "" && (h.Entry == nil || !strings.Contains(string(h.Entry.Body), fmt.Sprintf("%q", value))) {
		w.t.Fatalf("%s: body %s has no %q", k.Path, h.Entry.Body, value)
	}
}
