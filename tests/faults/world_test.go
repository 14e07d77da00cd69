package faults

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/standin"
)

// rootToken is the model's own; no instance ever sees it.
const rootToken = "root-of-the-simulation"

// mark begins every secret's value: where it turns up tells a leak.
const mark = "S3CR3T-"

// secret is a path in a KV mount, and how often it was written.
type secret struct {
	mount, group, name string
	v2                 bool
	writes             int
}

func (s *secret) key() string { return s.group + "/" + s.name }

// world is one run.
type world struct {
	setup  Setup
	began  time.Time
	h      *history
	clock  clock // the origin's and memcached's
	origin *standin.Origin
	nodes  *standin.Cluster // in front of it; nil: it is one node
	asked  atomic.Uint64    // requests that the balancer handed on
	conns  atomic.Uint64    // and connections
	server *http.Server
	up     *listener // where the origin listens
	cache  *memcache.Server
	side   *listener // where memcached does
	copies []memcache.Copy
	turn   chan struct{} // holds one while the origin's state changes
	base   int           // goroutines before the first instance

	roleID, secretID [2]string // what the instances log in with, by role

	seed   uint64
	diceMu sync.Mutex     // guards thrown
	thrown map[string]int // how often dice were thrown for a name

	secrets []*secret
	names   []string // of resources, in order; guarded by h.mu

	mu     sync.Mutex // guards the fields below
	tokens []*token
	index  map[string]int // of tokens, by id
	asking map[[2]int]int // by instance and token: what its caller waits for
	slotOf [callers]int   // index in tokens of what each caller uses now
	before [callers]int   // and of what it used before
	sealed bool
	writes int // through instances; names them
	slots  [maxInstances]*instance
	mode   [maxInstances]trouble
	way    [maxInstances]state
	hung   state // of memcached, for those that come
	warm   map[warmth]moment
	fleet  map[common]moment // what instances that share memcached have to serve in an outage
	cold   int               // how often warm was made to forget

	reads sync.WaitGroup // what functions wait for
	dying sync.WaitGroup // instances that end
	wait  int            // functions that wait; guarded by mu
}

// trouble is what the origin's answers to an instance are like.
type trouble uint8

const (
	fine trouble = iota
	slow
	limited // 429
	failing // 500, 502, 503, 504
	babble  // answers of something else in between
	quota   // 429 to callers, and to nobody else
	troubles
)

// warmth is something that was served.
type warmth struct {
	inst, inc, token int
	resource         string
	namespace        string
}

func newWorld(s Schedule) *world {
	w := &world{
		setup: s.Setup, began: time.Now(), h: newHistory(), up: newListener(), turn: make(chan struct{}, 1),
		seed: s.Seed, thrown: map[string]int{}, warm: map[warmth]moment{}, fleet: map[common]moment{}, index: map[string]int{}, asking: map[[2]int]int{},
	}
	w.origin = standin.New(standin.Options{Now: w.now, RootToken: rootToken, OpenBao: s.Setup.OpenBao, NoIndex: s.Setup.NoIndex && s.Setup.Standbys == 0})
	if s.Setup.Standbys > 0 {
		w.cluster()
	}
	w.root(http.MethodPost, "sys/mounts/other", `{"type":"kv","options":{"version":"2"}}`)
	for _, m := range []struct {
		mount string
		v2    bool
		names []string
	}{{"secret", true, []string{"a/db", "a/Db", "b/db", "b/api"}}, {"other", true, []string{"a/db", "b/db"}}, {"kv", false, []string{"a/db", "a/api", "b/db"}}} {
		for _, n := range m.names {
			group, name, _ := strings.Cut(n, "/")
			w.secrets = append(w.secrets, &secret{mount: m.mount, group: group, name: name, v2: m.v2})
		}
	}
	if s.Setup.Lists {
		if len(w.secrets) != firstOfMany {
			panic("browse means other secrets")
		}
		for i := range many {
			w.secrets = append(w.secrets, &secret{mount: "secret", group: "a", name: fmt.Sprint("many", i), v2: true})
		}
	}
	if s.Setup.Small {
		for i := range 8 {
			w.secrets = append(w.secrets, &secret{mount: "secret", group: "a", name: fmt.Sprint("more", i), v2: true})
		}
	}
	for p := range policies {
		w.setPolicy(p, firstRights[p], limit{})
	}
	for _, sec := range w.secrets {
		w.rotate(sec)
	}
	for _, m := range []string{"secret", "other", "kv"} {
		w.observe("GET sys/internal/ui/mounts/"+m, moment{}, w.moment(), 0)
	}
	for i := range callers {
		w.arrive(i)
	}
	lifetime := time.Duration(0) // longer than any run
	if s.Setup.Service {
		lifetime = time.Hour
	}
	for i, policy := range []int{0, otherRole} {
		w.roleID[i], w.secretID[i] = w.origin.AddAppRole(fmt.Sprint("fn", i), standin.AppRole{
			Policies: []string{fmt.Sprint("p", policy)}, TTL: lifetime, Batch: !s.Setup.Service,
		})
	}
	w.origin.BetweenAppendAndApply(func() { time.Sleep(5 * w.dice("append").lag()) })
	w.server = &http.Server{Handler: http.HandlerFunc(w.serve), ErrorLog: quiet, ConnContext: w.connected}
	w.dying.Go(func() { w.server.Serve(w.up) })
	if s.Setup.Shared {
		w.side = newListener()
		var err error
		if w.cache, err = memcache.Start(memcache.Options{Now: w.now, Listener: w.side}); err != nil {
			panic(err)
		}
	}
	if w.nodes != nil {
		w.nodes.Flush() // what was there before the run
	}
	w.base = runtime.NumGoroutine()
	for i := range s.Setup.Instances {
		w.start(i, 0)
	}
	return w
}

// now is the servers' time: they run while the instances are frozen.
func (w *world) now() time.Time { return w.clock.now().Round(0) }

// trace prints what happens, when that is asked for.
func (w *world) trace(format string, args ...any) {
	if *traceFlag {
		fmt.Printf("%12v  %s\n", time.Since(w.began), fmt.Sprintf(format, args...))
	}
}

// end ends everything that runs.
func (w *world) end() {
	w.reads.Wait()
	for i := range w.setup.Instances {
		w.retire(w.slots[i])
	}
	w.server.Close()
	w.dying.Wait()
	if w.cache != nil {
		w.check5Memcached()
		w.cache.Close()
	}
}

// dice are random numbers for what no schedule names, such as how long a
// request takes: the same for the nth of its name in every run of the seed,
// whatever else there is in the schedule.
type dice struct{ *rand.Rand }

func (w *world) dice(name string) dice {
	w.diceMu.Lock()
	defer w.diceMu.Unlock()
	w.thrown[name]++
	h := fnv.New64a()
	fmt.Fprint(h, name, w.thrown[name])
	return dice{rand.New(rand.NewPCG(w.seed, h.Sum64()))}
}

// lag is how long something takes that usually takes no time.
func (d dice) lag() time.Duration {
	switch n := d.IntN(20); {
	case n < 11:
		return 0
	case n < 18:
		return time.Duration(d.IntN(3000)) * time.Microsecond
	}
	return time.Duration(d.IntN(40)) * time.Millisecond
}

// moment is now.
func (w *world) moment() moment {
	m := moment{at: time.Since(w.began), far: w.clock.offset()}
	w.mu.Lock()
	for i, x := range w.slots {
		if x != nil {
			m.wall[i] = x.clock.offset()
		}
	}
	w.mu.Unlock()
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.h.seq++
	m.seq = w.h.seq
	return m
}

// root asks the origin as the model, whatever trouble there is.
func (w *world) root(method, path, body string) (int, string) {
	r, err := http.NewRequest(method, "http://"+originAddr+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("X-Vault-Token", rootToken)
	rec := newRecorder()
	w.active().ServeHTTP(rec, r)
	return rec.status, rec.body.String()
}

// change changes the origin's state, one change at a time, and notes what it
// answers from then on for the resources named.
func (w *world) change(write int, resources []string, f func()) {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	before := w.moment()
	f()
	after := w.moment()
	for _, r := range resources {
		w.observe(r, before, after, write)
	}
}

// observe notes a resource's answer after a change that began at before and
// was over at after.
func (w *world) observe(resource string, before, after moment, write int) {
	method, path, _ := strings.Cut(resource, " ")
	status, body := w.root(method, path, "")
	if status == http.StatusServiceUnavailable {
		return // sealed: nothing changed
	}
	body = canonical(body)
	w.h.mu.Lock()
	all := w.h.truth[resource]
	if all == nil {
		w.names = append(w.names, resource)
	} else if last := all[len(all)-1]; last.status == status && last.body == body {
		w.h.mu.Unlock()
		return
	} else {
		last.until, last.began, last.write = after, before, write
	}
	w.h.truth[resource] = append(all, &answerState{status: status, body: body, from: before})
	w.h.mu.Unlock()
	if status != http.StatusOK {
		w.forget(func(k warmth) bool { return k.resource == resource })
	}
}

// secret picks one: half of the time one of two, so that much happens to them.
func (w *world) secret(n int) *secret {
	if n%2 == 0 {
		return w.secrets[(int(w.seed%97)+n/2%2)%len(w.secrets)]
	}
	return pick(w.secrets, n/2)
}

// resources are what a write to a secret can change.
func (s *secret) resources() []string {
	if !s.v2 {
		return []string{"GET " + s.mount + "/" + s.key(), "LIST " + s.mount + "/" + s.group}
	}
	out := []string{
		"GET " + s.mount + "/data/" + s.key(), "GET " + s.mount + "/metadata/" + s.key(), "GET " + s.mount + "/subkeys/" + s.key(),
		"LIST " + s.mount + "/metadata/" + s.group,
	}
	for v := 1; v <= 3; v++ {
		out = append(out, fmt.Sprintf("GET %s/data/%s?version=%d", s.mount, s.key(), v))
	}
	return out
}

// value is a new value of the secret: no other secret, and no other version of
// this one, ever has it.
func (w *world) value(s *secret) string {
	w.mu.Lock()
	s.writes++
	n := s.writes
	w.mu.Unlock()
	pad := ""
	if w.setup.Small {
		pad = strings.Repeat("x", largeValue)
	}
	return fmt.Sprintf("%s%s/%s#%d#%s", mark, s.mount, s.key(), n, pad)
}

// writeRequest is a write of a new value.
func (w *world) writeRequest(s *secret) (path, body string) {
	v := w.value(s)
	if s.v2 {
		return s.mount + "/data/" + s.key(), `{"data":{"value":"` + v + `"}}`
	}
	return s.mount + "/" + s.key(), `{"value":"` + v + `"}`
}

func (w *world) rotate(s *secret) {
	path, body := w.writeRequest(s)
	w.change(0, s.resources(), func() { w.root(http.MethodPost, path, body) })
}

// forget makes the model less sure of what must be served.
func (w *world) forget(which func(warmth) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cold++
	for k := range w.warm {
		if which(k) {
			delete(w.warm, k)
		}
	}
	for c := range w.fleet {
		for i := range w.setup.Instances { // whatever its role: entries are everybody's
			if which(warmth{i, 0, -1, c.resource, c.namespace}) {
				delete(w.fleet, c)
			}
		}
	}
}
