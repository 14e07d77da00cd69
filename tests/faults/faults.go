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
// allows. What a history cannot show is measured on the way: how long INVOKE
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
	"slices"
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
	Roles       bool // instances have two roles, which share one audience
}

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
	total := 0
	for _, w := range weights {
		total += w
	}
	for len(s.Ops) < ops {
		if one(60) {
			s.Ops = append(s.Ops, together(r)...)
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

// together are operations that chance alone seldom brings together: one
// instance's invocations begin just while a secret that it reads is written, and
// just after; reads are under way while the function writes what they read; a
// caller who was just refused asks again while the origin is away; an instance
// starts in the middle of an outage; or a caller loses what it had.
func together(r *rand.Rand) []Op {
	x, hot := r.IntN(1<<16), 2*r.IntN(1<<15)
	op := func(k Kind, a, b int) Op {
		return Op{Kind: k, A: a, B: b, C: r.IntN(4) + 1<<10, D: 10 * r.IntN(1<<10), Apart: true}
	}
	// theirs is a read by caller i, or with the token that it had before.
	theirs := func(i int, before bool) Op {
		o := op(OpRead, x, hot)
		if o.D = 2*i + 1; before {
			o.D = 2*(hadBefore+16*i) + 1
		}
		return o
	}
	wait, invoke := op(OpWait, 1, 0), op(OpInvoke, x, 0)
	switch r.IntN(11) {
	case 0:
		read := theirs(r.IntN(callers), false)
		may := func(groups int) []Op { return []Op{op(OpPolicy, 1, groups), op(OpPolicy, 2, groups)} }
		return slices.Concat([]Op{read, wait}, may(4), []Op{invoke, read, wait, op(OpSeal, 0, 0), invoke, read, wait, op(OpUnseal, 0, 0)}, may(0))
	case 1:
		write := op(OpOwnWrite, x, hot)
		write.C = 1
		read := op(OpRead, x, hot)
		return []Op{write, read, read, read, op(OpWait, 1, 0), read}
	case 2:
		read := theirs(r.IntN(callers), false)
		return []Op{
			op(OpRead, x, hot), read, wait, op(OpSeal, 0, 0), op(OpKill, x, 0), invoke, op(OpRead, x, hot), read, wait,
			op(OpUnseal, 0, 0), invoke, op(OpRead, x, hot), read, wait,
		}
	case 3: // a caller revokes its own token through the instance, and tries it again
		i, leave := r.IntN(callers), op(OpRevoke, x, 3)
		leave.D = i
		return []Op{op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 1+i%callerPolicies, 0), invoke, theirs(i, false), wait, leave, wait, op(OpRead, x, hot), wait, theirs(i, true), wait, theirs(i, true)}
	case 4: // a policy ends a caller's capability while it asks nothing
		freeze := op(OpFreeze, 0, 3)
		freeze.C = 0
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 1, 0), invoke, theirs(0, false), op(OpRead, x, hot), wait, op(OpPolicy, 1, 4), freeze, invoke,
			op(OpRead, x, hot), wait, theirs(0, false), wait, theirs(0, false), wait, op(OpPolicy, 1, 0),
		}
	case 5: // two callers list a mount of which they may see different parts
		lists := func(i int) Op {
			o := theirs(i, false)
			o.C = 15 + 64*12
			return o
		}
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 1, 0), op(OpPolicy, 2, 2), invoke, lists(1), wait, lists(4), wait, lists(1), wait,
		}
	case 7: // a policy begins to ask for a parameter, and what capabilities show stays the same
		may := func(limit int) Op { o := op(OpPolicy, 1, 0); o.C = limit; return o }
		freeze := op(OpFreeze, 0, 3+r.IntN(2))
		freeze.C = 0
		read, own := theirs(0, false), op(OpRead, x, hot)
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), may(unlimited), invoke, own, read, wait, may(0), invoke, own, wait, read, wait,
			freeze, invoke, own, wait, read, wait, invoke, read, wait, may(unlimited),
		}
	case 8: // a caller loses what it had while it is refused for load
		read, later := theirs(0, false), op(OpWait, 4, 0)
		ops := []Op{op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 1, 0), invoke, read, op(OpRead, x, hot), wait, op(OpFault, x, quotas), op(OpPolicy, 1, 4)}
		for range 4 {
			ops = append(ops, later, op(OpRotate, hot+1, 0), op(OpRead, x, hot), wait, read, wait)
		}
		return append(ops, op(OpMend, x, 0), op(OpPolicy, 1, 0))
	case 6: // a function reads nothing for a while, and then again, all within a moment
		read := op(OpRead, x, hot)
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), invoke, read, op(OpWait, 0, 0), invoke, invoke, invoke, invoke, op(OpRotate, hot, 0), wait, invoke, read,
		}
	}
	return []Op{
		op(OpRead, x, hot), op(OpWait, 0, 0), op(OpRotate, hot, 0), op(OpInvoke, x, 0), op(OpRead, x, hot), op(OpWait, 1, 0),
		op(OpInvoke, x, 0), op(OpRead, x, hot),
	}
}
