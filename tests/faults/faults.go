// Package faults is a simulator: whole instances of the product, as the
// programs wire them, live through random schedules of trouble on a simulated
// clock, and what they answered is held against what they promise (G1 to G7 in
// the README).
//
// How it works. A seed makes a Schedule: a setup (how many instances, which
// settings) and a list of operations. A run executes it inside a
// testing/synctest bubble: the origin is tests/standin, memcached is
// tests/fakes/memcache, connections are pipes, and time stands still while
// anything can run, so that hours pass in milliseconds. Each instance has a
// wall clock of its own that can be stepped, and that jumps ahead of its
// monotonic clock in a freeze. Everything that happens gets a number in one
// order: each change of the origin's state, with what it would answer from then
// on, and each answer that a function got.
//
// After the run a model judges that history. The model knows the promises and
// nothing of the product's means to keep them: it asks, for instance, whether
// the secret in an unmarked answer was the origin's at some time that G1 still
// allows. In a third of the runs the origin has standbys that serve reads and lag,
// behind a load balancer: there an answer may be as old as the node that was asked
// lags, but for what the index verified. What a history cannot show is measured on the way: how long INVOKE
// and SHUTDOWN took (G6), what memory, goroutines and requests there were (G7).
//
// A run that breaks a promise is repeated with operations left out until none
// can be spared, and the rest is printed with the seed. The schedule is a
// function of the seed alone, and so is all randomness, but the order in which
// goroutines run at one instant is the scheduler's. It seldom matters, since
// requests take random time on the way; where it does, a seed may want several
// runs to fail again (-faults.repeat).
//
//	go test ./tests/faults                                   # the share of `make test`
//	go test ./tests/faults -run Promises -faults.ops=10000000 -timeout 0
//	go test ./tests/faults -run Promises -seed=42            # one run
package faults

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Setup is what stays the same in a run.
type Setup struct {
	Instances   int
	Shared      bool          // they share memcached
	MaxAge      time.Duration // THAW_MAX_AGE
	Refresh     time.Duration // THAW_CAPABILITY_REFRESH_INTERVAL
	Stale       time.Duration // THAW_STALE_IF_ERROR
	NegativeTTL time.Duration // THAW_NEGATIVE_TTL
	Pessimistic bool
	Small       bool // memory for a few secrets only
	PollRead    bool // THAW_POLL=read
	NoInit      bool // THAW_INIT=off
	Prefetch    bool // THAW_PREFETCH names some secrets
	Steps       bool // clocks may be stepped
	Service     bool // the extension logs in for a service token, not a batch token
	Debug       bool // log level
	OpenBao     bool // the origin is one: no mount_type, and lists show what who asks may see
	Lists       bool // OpenBao's lists with metadata are allowed, and there is a folder with more secrets
	NoIndex     bool // its storage has no raft index
	Roles       bool // instances have two roles, which share one audience
	Standbys    int  // the origin's, which serve reads
	Balancer    balancer
	Names       naming
}

// balancer is what hands requests to the nodes.
type balancer uint8

const (
	toActive     balancer = iota // health-checked
	roundRobin                   // each request to the next node
	byConnection                 // each connection to the next node
	splitReads                   // questions about the origin to the active node, all else to standbys
	splitSys                     // those to a standby, all else to the active node
	addresses                    // there is none: the instances know the nodes, and ask the active one
	anyAddress                   // likewise, and ask standbys, too (THAW_READS=standby)
	balancers
)

func (b balancer) String() string {
	return [...]string{"active", "round robin", "by connection", "reads to standbys", "questions to a standby", "addresses", "addresses of readers"}[b]
}

// naming is which nodes name themselves in their answers.
type naming uint8

const (
	all  naming = iota
	none        // so that the rule for the index has nothing but versions
	some        // the configuration is rolled out, and standbys don't have it yet
)

func (n naming) String() string { return [...]string{"all", "none", "some"}[n] }

// The settings that all runs share.
const (
	recheck        = time.Second
	clientTimeout  = 5 * time.Second
	connectTimeout = time.Second // THAW_CONNECT_TIMEOUT's default
	maxInFlight    = 16
	smallCache     = 24 << 10 // bytes of memory under Small
	largeValue     = 3 << 10  // bytes of a secret under Small
)

// Callers are functions that bring tokens of their own. At any time there are
// so many; each has one token now. They come with a policy, perhaps as the child
// of another's token, live for a while, and go: their token ends, an operator
// revokes it or the one that it hangs on, they revoke it through an instance, or
// they just ask no more. A token that was good once is tried again now and then.
const callers = 6

// policies are that of the extension's role (0), the callers', and that of the role
// that every other instance has under Roles.
const (
	callerPolicies = 4
	otherRole      = 1 + callerPolicies
	policies       = otherRole + 1
)

// unlimited is the number of a policy without a limit, for OpPolicy.
const unlimited = 4

// quotas is the fault of an origin that refuses callers for load, for OpFault.
const quotas = 4 + 8*4

// hadBefore names, among the tokens of a read, the one that a caller had before
// its present one.
const hadBefore = 14

// Kind is what an operation does.
type Kind uint8

// Kinds. What the numbers A, B, C and D of an operation mean is said where it
// is carried out; each is taken modulo what there is.
const (
	OpRead      Kind = iota // a function reads
	OpInvoke                // INVOKE reaches an instance
	OpFreeze                // everything stands still while time passes
	OpWait                  // time passes
	OpSettle                // all that is under way ends, and bounds are measured
	OpStep                  // wall clocks are set
	OpKill                  // an instance dies and a new one starts
	OpStop                  // SHUTDOWN, and a new one starts
	OpSeal                  // the origin is sealed
	OpUnseal                // or unsealed
	OpLead                  // another node leads the origin
	OpFault                 // an instance's way to the origin breaks, or its answers
	OpMend                  // and is well again
	OpRotate                // an operator writes a secret
	OpRemove                // deletes, undeletes, destroys it or all of it
	OpPolicy                // changes a policy
	OpRevoke                // a caller goes, its token revoked somehow or not; another comes
	OpOwnWrite              // a function writes through an instance
	OpMemcached             // memcached is flushed, hangs, lies, goes away, is well again
	OpMetrics               // somebody looks at the metrics
	opKinds
)

func (k Kind) String() string {
	return [...]string{
		"read", "invoke", "freeze", "wait", "settle", "step", "kill", "stop", "seal", "unseal", "lead", "fault", "mend",
		"rotate", "remove", "policy", "revoke", "write", "memcached", "metrics",
	}[k]
}

// Op is one operation.
type Op struct {
	Kind       Kind
	A, B, C, D int
	Apart      bool // the next one does not wait until this one has come to rest
}

func (o Op) String() string {
	s := fmt.Sprintf("%s %d %d %d %d", o.Kind, o.A, o.B, o.C, o.D)
	if o.Apart {
		s += " &"
	}
	return s
}

// Schedule is one run.
type Schedule struct {
	Seed  uint64
	Setup Setup
	Ops   []Op
}

func (s Schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d operations, %+v\n", s.Seed, len(s.Ops), s.Setup)
	for i, o := range s.Ops {
		fmt.Fprintf(&b, "%4d  %s\n", i, o)
	}
	return b.String()
}

// weights say how often a kind of operation comes, per thousand.
var weights = [opKinds]int{
	OpRead: 590, OpInvoke: 110, OpFreeze: 40, OpWait: 60, OpSettle: 10, OpStep: 8, OpKill: 5, OpStop: 3, OpSeal: 5, OpUnseal: 12,
	OpLead: 4, OpFault: 15, OpMend: 25, OpRotate: 45, OpRemove: 15, OpPolicy: 10, OpRevoke: 14, OpOwnWrite: 20, OpMemcached: 10, OpMetrics: 5,
}

// NewSchedule makes the schedule of a seed.
func NewSchedule(seed uint64, ops int) Schedule {
	r := rand.New(rand.NewPCG(seed, 0x7468_6177))
	one := func(n int) bool { return r.IntN(n) == 0 }
	s := Schedule{Seed: seed, Setup: Setup{
		Instances: 1 + r.IntN(3), Shared: one(2), Pessimistic: one(4), Small: one(5), PollRead: one(6), Service: one(3), Debug: one(4), OpenBao: one(3),
		Refresh: []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute}[r.IntN(3)],
		Stale:   []time.Duration{24 * time.Hour, time.Minute, 0}[min(r.IntN(4), 2)],
	}}
	if one(3) {
		s.Setup.MaxAge = []time.Duration{500 * time.Millisecond, 3 * time.Second, 10 * time.Second}[r.IntN(3)]
	}
	if one(4) {
		s.Setup.NegativeTTL = 5 * time.Second
	}
	s.Setup.Steps = one(2) && !s.Setup.Shared
	s.Setup.NoInit, s.Setup.Prefetch = one(4), one(3)
	s.Setup.Roles = one(3)
	nodes := rand.New(rand.NewPCG(seed, 0x6e6f_6465)) // of its own: what it adds leaves the rest of a schedule as it was
	if nodes.IntN(8) == 0 {                           // a fleet with two roles, for outages
		s.Setup.Shared, s.Setup.Roles, s.Setup.OpenBao, s.Setup.Instances = true, true, true, max(2, s.Setup.Instances)
		s.Setup.Stale, s.Setup.Pessimistic, s.Setup.Small, s.Setup.Steps = 24*time.Hour, false, false, false
	}
	if nodes.IntN(3) == 0 {
		s.Setup.Standbys, s.Setup.Balancer = 1+nodes.IntN(2), balancer(nodes.IntN(int(balancers)))
		s.Setup.Names = []naming{all, all, none, some}[nodes.IntN(4)]
		s.Setup.OpenBao = nodes.IntN(2) == 0
	}
	lists := rand.New(rand.NewPCG(seed, 0x6c69_7374)) // likewise
	if s.Setup.OpenBao && lists.IntN(2) == 0 {
		s.Setup.Lists, s.Setup.NoIndex = true, lists.IntN(2) == 0
	}
	total := 0
	for _, w := range weights {
		total += w
	}
	for len(s.Ops) < ops {
		if one(60) {
			s.Ops = append(s.Ops, together(r)...)
		}
		if s.Setup.Shared && nodes.IntN(60) == 0 {
			s.Ops = append(s.Ops, newcomers(nodes, s.Setup)...)
		}
		if s.Setup.Standbys > 0 && nodes.IntN(40) == 0 {
			s.Ops = append(s.Ops, aimed(nodes)...)
		}
		if s.Setup.Lists && lists.IntN(40) == 0 {
			s.Ops = append(s.Ops, browse(lists)...)
		}
		if s.Setup.Standbys > 0 && s.Setup.OpenBao && s.Setup.Names == none && lists.IntN(15) == 0 { // where only the version tells who answers
			s.Ops = append(s.Ops, aimed(lists)...)
		}
		n, k := r.IntN(total), Kind(0)
		for n >= weights[k] {
			n -= weights[k]
			k++
		}
		if k == OpStep && !s.Setup.Steps || k == OpMemcached && !s.Setup.Shared {
			k = OpRead
		}
		s.Ops = append(s.Ops, Op{Kind: k, A: r.IntN(1 << 16), B: r.IntN(1 << 16), C: r.IntN(1 << 16), D: r.IntN(1 << 16), Apart: one(3)})
	}
	s.Ops = s.Ops[:ops]
	return s
}
