package faults

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// maxInstances is how many clocks a moment has room for.
const maxInstances = 3

// moment is a place in the history: a number in the order of everything that
// happened, and what the clocks said.
type moment struct {
	seq  uint64
	at   time.Duration               // the bubble's clock, which is every instance's monotonic one
	wall [maxInstances]time.Duration // what each instance's wall clock was ahead of it
	far  time.Duration               // what the servers' was
}

// elapsed is the time from m to n as instance i can know it: the longer of what
// its two clocks say.
func elapsed(m, n moment, i int) time.Duration {
	mono := n.at - m.at
	return max(mono, mono+n.wall[i]-m.wall[i])
}

// state of one resource: what the origin would answer to a direct read by
// somebody who may.
type answerState struct {
	status      int
	body        string // without its request_id
	from, until moment // of the changes that made and ended it; until.seq 0: none did
	began       moment // when the change that ended it was sent
	write       int    // the write through an instance that ended it; 0: another's
}

// answer is what a function got for one read.
type answer struct {
	inst, inc int
	token     int // index in world.tokens; own: -1
	resource  string
	group     string
	namespace string // as sent; it makes another entry
	plain     bool   // no directives: what is cached may be served
	odd       bool   // an unusual spelling of the path
	encoded   bool   // odd, and the same path to the origin
	wrapped   bool   // it asked for a wrapped answer
	short     bool   // its invocation had little time left
	start     moment
	end       moment
	invoked   moment // the INVOKE that ran at start; seq 0: none
	left      bool   // the function gave up waiting
	err       error
	status    int
	body      string
	cache     string // X-Cache
	how       string // Cache-Status
	warning   string
	sure      bool // it was served before, and nothing happened since that could have evicted it
	since     moment
	shared    bool // it was read by another instance of the role, likewise
	filled    moment
}

func (a *answer) stale() bool { return a.warning != "" }
func (a *answer) hit() bool   { return a.cache == "HIT" }

// own says that an answer is the product's own words.
func (a *answer) own() bool { return strings.HasPrefix(a.body, `{"errors":["thaw: `) }

// birth is what makes a capability: a read under an identity.
type birth struct{ who, resource, namespace string }

// span is a time in which something held.
type span struct{ from, until moment } // until.seq 0: still

func (s span) open() bool { return s.until.seq == 0 }

// history is everything that matters to the model.
type history struct {
	mu       sync.Mutex // guards what follows
	seq      uint64
	truth    map[string][]*answerState // by resource
	rights   map[string][]span         // by policy and group: capabilities show that the policy lets read the group; with a way: it lets
	born     map[birth]moment          // the first read that the origin answered
	answers  []*answer
	ended    []ended                // tokens revoked through instances, and answered
	written  map[int]written        // writes through instances that were answered, by their names
	steps    []moment               // around each step of a clock
	began    map[process]moment     // when each process started
	lost     []loss                 // what roles lost
	upsets   []span                 // memcached was out, or was changed
	faults   [maxInstances][]span   // the origin was in trouble, as the instance sees it
	shaken   [maxInstances][]moment // connections broke, though the origin was well
	writing  [maxInstances][]span   // a write through the instance was under way
	outages  [maxInstances][]span   // the origin answered nothing at all but errors
	quotas   [maxInstances][]span   // it answered callers nothing but 429
	reads    [maxInstances][]moment // it answered a read
	problems []string
}

func newHistory() *history {
	return &history{truth: map[string][]*answerState{}, rights: map[string][]span{}, born: map[birth]moment{}, written: map[int]written{}, began: map[process]moment{}}
}

// broke notes a promise that was measured to be broken.
func (h *history) broke(problem string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.problems, problem) {
		h.problems = append(h.problems, problem)
	}
}

// canonical cuts the request_id with which an answer begins.
func canonical(body string) string {
	if rest, ok := strings.CutPrefix(body, `{"request_id":"`); ok {
		if i := strings.IndexByte(rest, '"'); i >= 0 {
			return rest[i:]
		}
	}
	return body
}

// written is a write through an instance whose answer was returned.
type written struct {
	inst, inc int
	at        moment
}

// ended is a token that was revoked through an instance.
type ended struct {
	token int
	written
}
