package cache

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// origin is the stand-in behind the cache's interface, with what may come of its
// answers on their way. Whoever comes has a token there, which may do everything until
// a test denies it something.
type origin struct {
	*standin.Origin
	mu      sync.Mutex
	callers map[string]bool // who has a token
	reads   int
	hold    map[string]chan struct{} // by asked: the answer waits here
	arrived chan string              // gets what is asked for whenever an answer waits
	instead map[string]foreign       // by asked, alone or behind a token and a space, or for all (""): what answers in its place
	err     error                    // of every read while not nil
	header  http.Header              // what comes to each answer on its way
	cursors bool                     // it has integrated storage, and so an index
	now     func() time.Time         // its own clock
}

func newOrigin(bao bool, now func() time.Time) *origin {
	o := &origin{
		callers: map[string]bool{}, hold: map[string]chan struct{}{}, arrived: make(chan string, 100), instead: map[string]foreign{},
		header: http.Header{}, cursors: true, now: now,
	}
	o.Origin = standin.New(standin.Options{OpenBao: bao, Now: func() time.Time { return o.now() }})
	o.SetPolicy("everything", map[string][]string{"*": {"create", "read", "update", "delete", "list"}})
	o.admit("")
	return o
}

// asked is what k asks the origin for.
func asked(k Key) string {
	path := joined(k.Namespace, k.Path)
	if k.Op == List {
		path += "/"
	}
	if k.Query != "" {
		path += "?" + k.Query
	}
	return path
}

// admit gives a caller a token, once.
func (o *origin) admit(token string) string {
	id := cmp.Or(token, "own")
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.callers[token] {
		o.callers[token] = true
		o.AddTokenWith(standin.TokenOptions{ID: id, TTL: 100 * 365 * 24 * time.Hour, Policies: []string{"everything", "of " + id}})
	}
	return id
}

func (o *origin) write(path, body string) { o.Root(http.MethodPost, path, body) }

// put writes a secret past the cache, and "" deletes it. A mount that is not there yet
// comes to be, of KV version 2 where path has a /data/ in it.
func (o *origin) put(path, value string) {
	mount, name, v2 := strings.Cut(path, "/data/")
	body := fmt.Sprintf(`{"v":%q}`, value)
	switch {
	case value == "" && v2:
		o.Root(http.MethodDelete, mount+"/metadata/"+name, "")
	case value == "":
		o.Root(http.MethodDelete, path, "")
	case v2:
		o.Mount(mount, 2)
		o.write(path, `{"data":`+body+`}`)
	default:
		mount, _, _ = strings.Cut(path, "/")
		o.Mount(mount, 1)
		o.write(path, body)
	}
}

// database makes a role whose credentials have leases of so many seconds.
func (o *origin) database(role string, seconds int) {
	standin.Ask(o.Origin, "root", http.MethodPost, "sys/mounts/database", `{"type":"database"}`)
	o.write("database/roles/"+role, fmt.Sprintf(`{"db_name":"d","default_ttl":"%d"}`, seconds))
}

// answer has something else answer what is asked for; nil: the stand-in again. Most
// of it no Vault says, or one of another engine, or of before a change.
func (o *origin) answer(what string, f *foreign) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.instead, what)
	if f != nil {
		o.instead[what] = *f
	}
}

// trouble is an error of Vault's that says no more than its status.
func trouble(status int) *foreign { return &foreign{status, asJSON, `{"errors":["trouble"]}`} }

// says has what is asked for answered with a body of Vault's form, less its request_id.
func (o *origin) says(what, body string) {
	o.answer(what, &foreign{http.StatusOK, asJSON, `{"request_id":"1",` + body[1:]})
}

func (o *origin) Ready(context.Context, *Identity) error { return nil }

func (o *origin) Index(context.Context, uint64) Index {
	active, applied := o.Leader()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.cursors {
		return Index{}
	}
	return Index{Applied: applied, ActiveTime: active}
}

func (o *origin) Read(ctx context.Context, q Question) (*http.Response, error) {
	what, id := asked(q.Key), o.admit(q.ID.Token)
	o.mu.Lock()
	o.reads++
	hold, err, header := o.hold[what], o.err, o.header.Clone()
	var between *foreign
	for _, by := range []string{"", what, q.ID.Token + " " + what} {
		if f, ok := o.instead[by]; ok {
			between = &f
		}
	}
	o.mu.Unlock()
	var res *http.Response
	switch {
	case err != nil:
	case between != nil:
		res = between.response()
	default:
		res = standin.Ask(o.Origin, id, q.Key.Method(), what, "").Result()
	}
	if res != nil {
		res.Header.Set("Date", o.now().UTC().Format(http.TimeFormat))
		maps.Copy(res.Header, header)
	}
	if hold != nil {
		o.arrived <- what
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return res, err
}

// v2 is the answer that another instance had of a secret of KV version 2.
func v2(value string, version int) string {
	return fmt.Sprintf(`{"lease_id":"","lease_duration":0,"data":{"data":{"v":%q},"metadata":{"version":%d,"destroyed":false}},"wrap_info":null,"auth":null,"mount_type":"kv"}`, value, version)
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

// world is a cache in front of an origin.
type world struct {
	t *testing.T
	*Cache
	*Access
	*Ledger
	*Mounts
	Stream
	origin *origin
	clock  *fakeClock
}

func newWorld(t *testing.T, change ...func(*Options)) *world { return worldOf(t, false, change...) }

// baoWorld is a world in front of an OpenBao, whose answers have no mount_type.
func baoWorld(t *testing.T, change ...func(*Options)) *world { return worldOf(t, true, change...) }

func worldOf(t *testing.T, bao bool, change ...func(*Options)) *world {
	w := &world{t: t, clock: newClock()}
	w.origin = newOrigin(bao, w.clock.now)
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

// deny changes the policy of a caller, who may read path no more.
func (w *world) deny(token, path string) {
	w.origin.SetPolicy("of "+w.origin.admit(token), map[string][]string{path: {"deny"}})
}

// allow takes back what deny did.
func (w *world) allow(token string) { w.origin.SetPolicy("of "+w.origin.admit(token), nil) }

// inBetween has something in between answer everything; nil: not any more.
func (w *world) inBetween(f *foreign) { w.origin.answer("", f) }

func key(path string) Key { return Key{Path: path} }

func (w *world) load(k Key, token string) Answer {
	w.t.Helper()
	return w.loadAs(Want{Key: k, ID: w.identity(token)})
}

// heldBy gives a world in which these callers hold a capability for a secret, "one".
func heldBy(t *testing.T, change func(*Options), tokens ...string) (w *world, k Key) {
	t.Helper()
	w, k = newWorld(t, change), key("secret/data/a")
	w.origin.put(k.Path, "one")
	for _, token := range tokens {
		w.load(k, token)
	}
	w.known(tokens...)
	return w, k
}

// stopped has do read what k asks for. It returns once the answer is on its way, where
// it waits until release is called; others pass.
func (w *world) stopped(k Key, do func()) (release func()) {
	w.t.Helper()
	what, hold, over := asked(k), make(chan struct{}), make(chan struct{})
	w.origin.mu.Lock()
	w.origin.hold[what] = hold
	w.origin.mu.Unlock()
	go func() {
		defer close(over)
		do()
	}()
	select {
	case <-w.origin.arrived:
	case <-over:
		w.t.Fatalf("%s was not asked for", what)
	}
	w.origin.mu.Lock()
	delete(w.origin.hold, what)
	w.origin.mu.Unlock()
	return func() {
		close(hold)
		<-over
	}
}

// held is stopped for a plain read of k.
func (w *world) held(k Key, token string) (release func()) {
	w.t.Helper()
	return w.stopped(k, func() { w.loadAs(Want{Key: k, ID: w.identity(token)}) })
}

// loadAs is load of another goroutine, or with more to say.
func (w *world) loadAs(want Want) Answer {
	w.t.Helper()
	a, err := w.Load(context.WithoutCancel(w.t.Context()), want)
	if err != nil {
		w.t.Errorf("load %s: %v", want.Key.Path, err)
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
