package consistency

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// counted counts the requests to a handler, by method and what they are about.
type counted struct {
	http.Handler
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	about := strings.TrimPrefix(r.URL.Path, "/v1/")
	if !strings.HasPrefix(about, "sys/") {
		about, _, _ = strings.Cut(about, "/quiet")
	}
	c.mu.Lock()
	c.n[r.Method+" "+about]++
	c.mu.Unlock()
	c.Handler.ServeHTTP(w, r)
}

// take returns what was counted since it was called last.
func (c *counted) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = make(map[string]int)
	return n
}

// consul is an origin without integrated storage: its sys/leader tells no index.
func consul(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/leader" {
			h.ServeHTTP(w, r)
			return
		}
		res := httptest.NewRecorder()
		h.ServeHTTP(res, r)
		var body map[string]any
		if err := json.Unmarshal(res.Body.Bytes(), &body); err != nil {
			panic(err)
		}
		delete(body, "raft_committed_index")
		delete(body, "raft_applied_index")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(body) // an error means that the client is gone
	})
}

// The origins of docs/operations.md, "What Vault has to do".
type edition struct {
	name  string
	o     standin.ClusterOptions
	at    func(w *world) http.Handler
	index bool // one question verifies everything
	lists bool // a folder's list stands in for its secrets' reads
}

func editions() []edition {
	active := func(w *world) http.Handler { return w.primary.Active() }
	community := func(w *world) http.Handler { return w.origin }
	return []edition{
		{name: "community", at: community, index: true},
		{name: "Consul storage", at: func(w *world) http.Handler { return consul(w.origin) }},
		{name: "Enterprise", at: active},
		{name: "Enterprise, node ids", o: standin.ClusterOptions{NodeIDs: true}, at: active, index: true},
		{name: "OpenBao 2.4", o: standin.ClusterOptions{OpenBao: true, Version: "2.4.4"}, at: active, index: true},
		{name: "OpenBao", o: standin.ClusterOptions{OpenBao: true}, at: active, lists: true},
		{name: "OpenBao, node ids", o: standin.ClusterOptions{OpenBao: true, NodeIDs: true}, at: active, index: true, lists: true},
		{name: "a performance secondary", o: standin.ClusterOptions{NodeIDs: true}, at: func(w *world) http.Handler { return w.second.Active() }},
	}
}

// wanted is a read of a function.
type wanted struct {
	method, path, token string
}

// holding is what a function reads, and what each quiet invocation asks of an origin by
// whose index nothing is verified: re is one read of each entry, and lists is the same
// where folders are listed; nil: none is.
type holding struct {
	name      string
	make      func(w *world) []wanted
	re, lists map[string]int
	all       bool // whatever happens before
}

func secrets(n int, path func(i int) string) func(w *world) []wanted {
	return func(w *world) (all []wanted) {
		for i := range n {
			body := `{"data":{"n":1}}`
			if strings.HasPrefix(path(i), "kv/") {
				body = `{"n":1}`
			}
			w.direct("POST", path(i), body)
			all = append(all, wanted{"GET", path(i), ""})
		}
		return all
	}
}

func holdings() []holding {
	flat := func(i int) string { return fmt.Sprintf("secret/data/quiet/%d", i) }
	data := func(n int) map[string]int { return map[string]int{"GET secret/data": n} }
	folders := func(n int) map[string]int { return map[string]int{"LIST secret/detailed-metadata": n} }
	return []holding{
		{"one", secrets(1, flat), data(1), nil, false},
		{"three", secrets(3, flat), data(3), nil, false},
		{"four", secrets(4, flat), data(4), folders(1), true},
		{"thirty", secrets(30, flat), data(30), folders(1), false},
		{"ten in two folders", secrets(10, func(i int) string { return fmt.Sprintf("secret/data/quiet/%d/%d", i%2, i) }), data(10), folders(2), false},
		{"ten of version 1", secrets(10, func(i int) string { return fmt.Sprintf("kv/quiet/%d", i) }), map[string]int{"GET kv": 10}, nil, false},
		{"of each kind", func(w *world) []wanted {
			for i := range 3 {
				w.direct("POST", "secret/data/quiet/a", fmt.Sprintf(`{"data":{"n":%d}}`, i))
			}
			w.direct("POST", "kv/quiet/a", `{"n":1}`)
			return []wanted{
				{"GET", "secret/data/quiet/a", ""}, {"GET", "secret/data/quiet/a?version=3", ""}, {"GET", "secret/data/quiet/a?version=2", ""},
				{"GET", "secret/metadata/quiet/a", ""}, {"GET", "secret/subkeys/quiet/a", ""}, {"LIST", "secret/metadata/quiet", ""},
				{"GET", "kv/quiet/a", ""}, {"LIST", "kv/quiet", ""},
			}
		}, map[string]int{"GET secret/data": 3, "GET secret/metadata": 1, "GET secret/subkeys": 1, "LIST secret/metadata": 1, "GET kv": 1, "LIST kv": 1}, nil, true},
		{"what there is not", func(w *world) []wanted {
			w.direct("POST", "secret/data/quiet/a", `{"data":{"n":1}}`)
			return []wanted{{"GET", "secret/data/quiet/a", ""}, {"GET", "secret/data/quiet/none", ""}, {"GET", "kv/quiet/none", ""}, {"LIST", "secret/metadata/quiet/none", ""}}
		}, map[string]int{"GET secret/data": 2, "GET kv": 1, "LIST secret/metadata": 1}, nil, true},
		{"of three callers", func(w *world) (all []wanted) {
			w.direct("POST", "secret/data/quiet/a", `{"data":{"n":1}}`)
			for range 3 {
				token := w.token()
				all = append(all, wanted{"GET", "secret/data/quiet/a", token}, wanted{"LIST", "secret/metadata/quiet", token})
			}
			return all
		}, map[string]int{"GET secret/data": 1, "LIST secret/metadata": 3}, nil, false},
	}
}

// happening is what came before the quiet invocations.
type happening struct {
	name string
	come func(w *world, invocation func())
}

func happenings() []happening {
	other := func(w *world) {
		w.direct("POST", "secret/data/other", `{"data":{"n":1}}`)
		w.primary.Flush()
		w.second.Flush()
	}
	outage := func(w *world, c standin.Condition) {
		for _, n := range append(w.primary.Nodes(), w.second.Nodes()...) {
			n.Be(c)
		}
		w.origin.SetFault(nil)
		if c != standin.Serving {
			w.origin.SetFault(func(rw http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("X-Vault-Token") != "root" {
					rw.WriteHeader(http.StatusBadGateway)
				}
				return r.Header.Get("X-Vault-Token") != "root"
			})
		}
	}
	return []happening{
		{"nothing", func(*world, func()) {}},
		{"a write of another secret", func(w *world, _ func()) { other(w) }},
		{"a write before each of ten invocations", func(w *world, invocation func()) {
			for range 10 {
				other(w)
				invocation()
			}
		}},
		{"a write of each", func(w *world, _ func()) {
			for i := range 10 {
				w.direct("POST", fmt.Sprintf("secret/data/quiet/%d", i), `{"data":{"n":2}}`)
			}
			w.primary.Flush()
			w.second.Flush()
		}},
		{"an outage", func(w *world, invocation func()) {
			outage(w, standin.Unreachable)
			for range 4 {
				invocation()
			}
			outage(w, standin.Serving)
		}},
		{"a new leader", func(w *world, _ func()) { w.primary.Lead(w.primary.Standby(0)) }},
	}
}

// quiet is an instance whose function reads the same in each invocation.
type quiet struct {
	*instance
	reads []wanted
	gap   time.Duration
	hits  int // of the last invocation
}

func (q *quiet) invocation() {
	time.Sleep(q.gap) // simulated
	q.invoke()
	q.hits = 0
	for _, r := range q.reads {
		a := q.ask(r.method, r.path, r.token, "")
		if a.header.Get("X-Cache") == "HIT" && a.header.Get("Warning") == "" {
			q.hits++
		}
	}
	synctest.Wait()
}

// settled counts an invocation, the fourth from now: those before may cost more.
func (q *quiet) settled(front *counted) map[string]int {
	for range 3 {
		q.invocation()
	}
	front.take()
	q.invocation()
	return front.take()
}

// What a quiet invocation costs an origin, whatever happened before it, as
// docs/operations.md has it: one question where an index verifies everything, else one
// read of each entry, or one list of a folder. All that the index verified is a hit.
func TestWhatAQuietInvocationCosts(t *testing.T) {
	t.Parallel()
	for _, e := range editions() {
		for _, h := range holdings() {
			t.Run(e.name+"/"+h.name, func(t *testing.T) {
				t.Parallel()
				for i, b := range happenings() {
					if i > 1 && !h.all {
						continue
					}
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, e.o)
						defer w.close()
						w.frozen = true
						w.second = w.primary.Secondary(standin.ClusterOptions{NodeIDs: true}, nil)
						front := &counted{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { e.at(w).ServeHTTP(rw, r) }), n: map[string]int{}}
						w.serve("front.test:8200", front)
						q := &quiet{reads: h.make(w), gap: 5 * time.Second}
						w.primary.Flush()
						w.second.Flush()
						q.instance = w.start("VAULT_ADDR=http://front.test:8200", "THAW_NEGATIVE_TTL=1h", "THAW_CAPABILITY_REFRESH_INTERVAL=1h")
						for range 3 {
							q.invocation()
						}
						b.come(w, q.invocation)
						asked, want := q.settled(front), h.re
						delete(asked, "GET sys/health") // with a new connection
						switch {
						case e.index:
							want = map[string]int{"GET sys/leader": 1}
						case e.lists && h.lists != nil:
							want = h.lists
						}
						if !maps.Equal(asked, want) || e.index && q.hits != len(q.reads) {
							t.Errorf("after %s: %v, %d hits of %d, want %v", b.name, asked, q.hits, len(q.reads), want)
						}
					})
				}
			})
		}
	}
}

// credentials is a function that reads what no index verifies: dynamic credentials.
func credentials(w *world) []wanted {
	w.direct("POST", "sys/mounts/database", `{"type":"database"}`)
	w.direct("POST", "database/roles/quiet", `{"db_name":"x","default_ttl":"1h"}`)
	return []wanted{{"GET", "database/creds/quiet", ""}}
}

// What half a minute of an invocation a second asks by the settings: a verification
// counts for THAW_MAX_AGE, and where nothing wants one, nothing is asked.
func TestWhatTheSettingsSpare(t *testing.T) {
	t.Parallel()
	shared := []string{"CACHE_ENABLE=true"}
	age := []string{"THAW_MAX_AGE=10s"}
	optIn := []string{"VAULT_DEFAULT_CACHE_ENABLED=true", "VAULT_DEFAULT_CACHE_TTL=1h"}
	for _, tt := range []struct {
		name     string
		holding  string
		settings []string
		want     map[string]int // at most
	}{
		{"a poll for each", "four", nil, map[string]int{"GET sys/leader": 30}},
		{"a poll for each reader", "four", []string{"THAW_POLL=read"}, map[string]int{"GET sys/leader": 30}},
		{"a maximum age", "four", age, map[string]int{"GET sys/leader": 3}},
		{"a maximum age, and what there is not", "what there is not", age, map[string]int{"GET sys/leader": 3}},
		{"a maximum age, polls at each INVOKE", "four", append(age, "THAW_POLL=invoke"), map[string]int{"GET sys/leader": 3}},
		{"a maximum age, shared", "four", append(shared, age...), map[string]int{"GET sys/leader": 4}},
		{"a maximum age, what there is not, shared", "what there is not", append(shared, age...), map[string]int{"GET sys/leader": 4}},
		{"shared", "four", shared, map[string]int{"GET sys/leader": 30}},
		{"credentials that are kept", "", optIn, map[string]int{}},
		{"credentials that are kept, polls at each INVOKE", "", append(optIn, "THAW_POLL=invoke"), map[string]int{}},
		{"credentials", "", nil, map[string]int{"GET database/creds": 30}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, standin.ClusterOptions{})
				defer w.close()
				w.frozen = true
				front := &counted{Handler: w.origin, n: map[string]int{}}
				w.serve("front.test:8200", front)
				settings := []string{"VAULT_ADDR=http://front.test:8200", "THAW_NEGATIVE_TTL=1h", "THAW_CAPABILITY_REFRESH_INTERVAL=1h"}
				if slices.Contains(tt.settings, shared[0]) {
					settings = append(settings, w.memcached()...)
				}
				q := &quiet{gap: time.Second}
				if tt.holding == "" {
					q.reads = credentials(w)
				} else {
					q.reads = holdings()[slices.IndexFunc(holdings(), func(h holding) bool { return h.name == tt.holding })].make(w)
				}
				q.instance = w.start(append(settings, tt.settings...)...)
				for range 15 {
					q.invocation()
				}
				front.take()
				for range 30 {
					q.invocation()
				}
				got := front.take()
				for what, n := range got {
					if n > tt.want[what] {
						t.Errorf("%v, want at most %v", got, tt.want)
						break
					}
				}
			})
		})
	}
}

// Where the nodes' addresses are known, what sys/leader tells of its node spares asking
// whether it still leads, for the reads that follow at once, too.
func TestKnownAddressesCostNoMoreThanOne(t *testing.T) {
	t.Parallel()
	for _, bao := range []bool{true, false} {
		for _, b := range happenings() {
			t.Run(fmt.Sprint("OpenBao ", bao, ", after ", b.name), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, standin.ClusterOptions{OpenBao: bao, NodeIDs: true})
					defer w.close()
					w.frozen = true
					w.second = w.primary.Secondary(standin.ClusterOptions{}, nil)
					all := &counted{Handler: http.NotFoundHandler(), n: map[string]int{}}
					for _, n := range w.primary.Nodes() {
						n.SetFault(func(_ http.ResponseWriter, r *http.Request) bool {
							all.ServeHTTP(httptest.NewRecorder(), r)
							return false
						})
					}
					q := &quiet{reads: secrets(4, func(i int) string { return fmt.Sprintf("secret/data/quiet/%d", i) })(w), gap: 5 * time.Second}
					w.primary.Flush()
					q.instance = w.start(nodes, "THAW_CAPABILITY_REFRESH_INTERVAL=1h")
					for range 3 {
						q.invocation()
					}
					b.come(w, q.invocation)
					for range 6 { // a node that failed rests
						q.invocation()
					}
					all.take()
					for range 10 {
						q.invocation()
					}
					got := all.take()
					if got["GET sys/health"] <= 3 { // with new connections
						delete(got, "GET sys/health")
					}
					if want := map[string]int{"GET sys/leader": 10}; !maps.Equal(got, want) {
						t.Errorf("%v, want %v", got, want)
					}
				})
			})
		}
	}
}
