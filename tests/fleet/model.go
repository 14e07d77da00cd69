// Package fleet says what a fleet of environments costs Vault and each node of
// memcached: a model on a simulated clock, for fleets that fit on no machine, held to
// the product for those that do (run_test.go).
package fleet

import (
	"math"
	"math/rand/v2"
	"time"
)

// Setup is a fleet whose environments read the same secrets in each invocation, before
// a Vault whose index verifies them and in which nothing is written meanwhile.
type Setup struct {
	Environments, Nodes int           // Nodes are memcached's; 0: there is no shared cache, and MaxAge is 0
	Rate                float64       // invocations a second of an environment
	MaxAge, Skew        time.Duration // THAW_MAX_AGE and THAW_CLOCK_SKEW
	Secrets             int
	Length              time.Duration // of each phase
	Verifying           time.Duration // what a verification takes; others of its node meanwhile wait
}

// Phase is what happens to the fleet. Each is the state that the ones before left.
type Phase int

// Phases.
const (
	Cold    Phase = iota // all environments start, with the shared cache filled
	Steady               // all are invoked, at Rate
	Outage               // the same, as Vault goes away
	Return               // the same, as Vault comes back
	Elected              // the same, as it has another leader: no index of before proves anything
	Death                // the same, as a node of memcached dies
	phases
)

func (p Phase) String() string {
	return [...]string{"storm of cold starts", "steady state", "Vault is away", "Vault is back", "another leader", "a memcached node dies"}[p]
}

// Figures are those of one phase.
type Figures struct {
	Vault       float64 // requests to Vault
	Peak        float64 // of them, in the worst second
	Calls       float64 // calls of memcached, of all nodes
	Connections float64 // to all nodes at the end
	Living      int     // nodes
}

// What the product does, in calls of memcached.
const (
	look   = 1 // at the own node's stamp, with each invocation
	take   = 2 // to take the lock of a verification, and to look once more
	keep   = 2 // to see what is there, and to replace it
	queued = 4 // to find the lock held, twice, and to look for the stamp meanwhile
	fetch  = 4 // records for each secret at a cold start: the entry, its capability, and two that could have ended it
)

// What an invocation costs in vain while Vault is away, without its look: the poll, and
// the reads of it that ask once more. They were counted in runs of the product.
const (
	failedAsks  = 1.05
	failedCalls = 7
)

// What else an environment asks of Vault, besides its secrets: at its start (login, health,
// index), and where it has to read again (its login with a shared cache, else health).
const (
	startAsks = 3
	againAsks = 1
)

// Model is a simulated fleet.
type Model struct {
	s        Setup
	dice     *rand.Rand
	now      time.Duration
	own      []uint16        // node of each environment
	verified []time.Duration // until when what each environment holds is verified
	open     []bool          // whether it holds its connection
	stamp    []time.Duration // until when the copy of each node counts
	busy     []time.Duration // until when somebody verifies on each node
	again    time.Duration   // until when the stamps of the secrets count that are read again
	knows    []int           // under which leader each environment read
	leader   int             // how many there were
	living   int
	away     bool
	second   map[int64]float64 // requests to Vault by second
	f        Figures
}

// New returns a fleet before its start.
func New(s Setup) *Model {
	m := &Model{s: s, dice: rand.New(rand.NewPCG(7, 7)), living: s.Nodes}
	m.own, m.verified, m.open = make([]uint16, s.Environments), make([]time.Duration, s.Environments), make([]bool, s.Environments)
	m.knows = make([]int, s.Environments)
	m.stamp, m.busy = make([]time.Duration, s.Nodes), make([]time.Duration, s.Nodes)
	for i := range m.own {
		m.own[i] = uint16(m.dice.IntN(max(1, s.Nodes)))
		m.verified[i] = -1
	}
	for i := range m.stamp {
		m.stamp[i], m.busy[i] = -1, -1
	}
	return m
}

// Run plays a phase.
func (m *Model) Run(p Phase) Figures {
	m.f, m.second = Figures{}, map[int64]float64{}
	switch p {
	case Death:
		m.living--
	case Outage:
		m.away = true
	case Return:
		m.away = false
	case Elected:
		m.leader, m.again = m.leader+1, -1
	}
	count := int(float64(m.s.Environments) * m.s.Rate * m.s.Length.Seconds())
	if p == Cold {
		count = m.s.Environments
	}
	step := float64(m.s.Length) / float64(count)
	began := m.now
	for i := range count {
		m.now = began + time.Duration(float64(i+1)*step)
		e := i % m.s.Environments
		if p == Cold {
			m.start()
		}
		m.invoke(e)
	}
	for _, n := range m.second {
		m.f.Peak = max(m.f.Peak, n)
	}
	for _, open := range m.open {
		if open {
			m.f.Connections++
		}
	}
	m.f.Living = m.living
	return m.f
}

// ask is n requests to Vault.
func (m *Model) ask(n float64) {
	m.f.Vault += n
	m.second[int64(m.now/time.Second)] += n
}

// start is what a cold start costs beside its first invocation: a look at the stamp in
// its init, what is known of the leader, and for each secret the nodes that have its
// records.
func (m *Model) start() {
	if m.s.Nodes == 0 {
		m.ask(startAsks - 1 + float64(m.s.Secrets)) // its invocation asks once more
		return
	}
	m.f.Calls += 2*look + float64(m.s.Secrets)*holders(m.living)
}

// holders is how many of the nodes have records of a secret, on average. Which ones do is
// chance, and stays so for as long as the nodes have the addresses that they have.
func holders(nodes int) float64 {
	return float64(nodes) * (1 - math.Pow(1-1/float64(nodes), fetch))
}

func (m *Model) invoke(e int) {
	if m.s.Nodes == 0 {
		m.alone(e)
		return
	}
	if int(m.own[e]) >= m.living { // the node is dead: a call finds out
		m.own[e] = uint16(m.dice.IntN(m.living))
		m.f.Calls += look
	}
	n := m.own[e]
	m.open[e] = true
	m.f.Calls += look
	if m.leader > 0 && m.now > m.again { // one reads for all, whatever the index says
		m.ask(againAsks + float64(m.s.Secrets))
		m.again = m.now + m.s.MaxAge - m.s.Skew
	}
	switch {
	case m.now <= m.stamp[n]:
		m.verified[e] = m.stamp[n]
	case m.now <= m.verified[e]:
	case m.away:
		m.f.Calls += failedCalls
		m.ask(failedAsks)
	case m.now <= m.busy[n]:
		m.f.Calls += queued
		m.verified[e] = m.busy[n] + m.s.MaxAge - m.s.Skew
	default:
		m.f.Calls += take + keep
		m.ask(1)
		m.busy[n], m.stamp[n] = m.now+m.s.Verifying, m.now+m.s.MaxAge-m.s.Skew
		m.verified[e] = m.stamp[n]
	}
}

// alone is an invocation where there is no shared cache.
func (m *Model) alone(e int) {
	switch {
	case m.away:
		m.ask(failedAsks)
		return
	case m.knows[e] != m.leader:
		m.ask(againAsks + float64(m.s.Secrets))
		m.knows[e] = m.leader
	}
	m.ask(1)
}
