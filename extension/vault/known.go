package vault

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// known is what is known of a node. Times are on the wall clock: a role that
// was learned before a freeze is as old as the freeze is long.
type known struct {
	pending atomic.Int32 // requests that wait for the node's answer

	mu         sync.Mutex        // guards the fields below
	health     Health            // its last answer; the zero Health before the first
	role       Role              // of that answer, or RoleUnreachable, or RoleForeign
	cluster    string            // the last cluster_id it told; a sealed node tells none
	learned    time.Time         // when the role was learned; zero: it is in doubt
	led        time.Time         // when it was last asked who leads, and said that it does
	lastSeen   time.Time         // when it last answered anything
	activeTime string            // when it became active, if it was asked
	applied    uint64            // the highest raft index it was seen to have applied
	remoteWAL  uint64            // performance_standby_last_remote_wal
	lostLead   time.Time         // when it ceased to be the active node; zero: it is, or was not
	trouble    *Error            // why it is RoleUnreachable
	said       bool              // the log says that it is foreign
	failures   int               // in a row
	lastFailed time.Time         // on the runtime clock
	shutUntil  time.Time         // the breaker is open; zero: closed
	laps       [32]time.Duration // times to an answer's head, the last ones
	lapCount   int               // how many there were in all
	average    time.Duration     // of them, newer ones weigh more
}

// The breaker: after breakAfter failures in a row a node rests for breakFirst,
// doubled with each further one up to breakMost. A node that rests is asked
// only if no other can be.
const (
	breakAfter = 3
	breakFirst = time.Second
	breakMost  = 30 * time.Second
)

// failed takes note of a request without an answer. The role is in doubt. What
// was under way when another failed is one failure with it: began, on the
// runtime's clock, is when the request was sent.
func (s *known) failed(now, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learned = time.Time{}
	if began.Before(s.lastFailed) {
		return
	}
	s.lastFailed = time.Now()
	s.failures++
	if s.failures >= breakAfter {
		rest := breakMost
		if n := s.failures - breakAfter; n < 5 {
			rest = min(breakFirst<<n, breakMost)
		}
		s.shutUntil = clock.Wall(now).Add(rest)
	}
}

// answered takes note of an answer to a request that took d. One that is not
// good does not show that the node is well.
func (s *known) answered(now time.Time, d time.Duration, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastSeen = clock.Wall(now)
	if good {
		s.failures, s.shutUntil = 0, time.Time{}
	}
	s.laps[s.lapCount%len(s.laps)] = d
	s.lapCount++
	if s.average == 0 {
		s.average = d
	}
	s.average += (d - s.average) / 8
}

// restsLocked tells whether the breaker is open. A clock that went back keeps it
// open for no longer.
func (s *known) restsLocked(now time.Time) bool {
	left := clock.Until(s.shutUntil, now)
	return !s.shutUntil.IsZero() && left > 0 && left <= breakMost
}

// cost orders nodes by how long an answer can be expected to take: the average
// time for each request that is on its way, and one more.
func (s *known) cost() time.Duration {
	s.mu.Lock()
	average := s.average
	s.mu.Unlock()
	return average * time.Duration(1+s.pending.Load())
}

// Hedging: a second try is made when an answer takes longer than 19 in 20 of
// the last ones did, and at least hedgeLeast; not before hedgeSamples are known.
const (
	hedgeLeast   = 20 * time.Millisecond
	hedgeSamples = 8
)

// usual is how long the node's answers mostly take at the most; ok is false while
// too few are known.
func (s *known) usual() (d time.Duration, ok bool) {
	s.mu.Lock()
	n := min(s.lapCount, len(s.laps))
	laps := s.laps
	s.mu.Unlock()
	if n < hedgeSamples {
		return 0, false
	}
	slices.Sort(laps[:n])
	return max(laps[n*19/20], hedgeLeast), true
}

// take notes the answer to a question for the node's health. home is the
// cluster that the client belongs to.
func (s *known) take(h Health, home string, now time.Time) (foreign bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setRoleLocked(h.Role(), now)
	s.health, s.trouble = h, nil
	s.learned, s.lastSeen = clock.Wall(now), clock.Wall(now)
	if h.ClusterID != "" {
		s.cluster = h.ClusterID
	}
	if s.role != RoleActive {
		s.activeTime = ""
	}
	return s.placeLocked(home)
}

// place marks a node of another cluster than home. It reports whether that is
// news.
func (s *known) place(home string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.placeLocked(home)
}

func (s *known) placeLocked(home string) bool {
	if home == "" || s.cluster == "" || s.cluster == home {
		return false
	}
	s.role = RoleForeign
	news := !s.said
	s.said = true
	return news
}

// of tells whether the node told that it is of a cluster. It is the one decision
// whether a node may be sent a token: of home, or of the cluster of the one node
// that is configured.
func (s *known) of(cluster string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ofLocked(cluster)
}

func (s *known) ofLocked(cluster string) bool {
	return cluster != "" && s.cluster == cluster && s.role != RoleForeign
}

// clusterID is the last cluster_id that the node told; empty: none.
func (s *known) clusterID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cluster
}

// why is what kept the node from telling its health; nil: nothing did.
func (s *known) why() *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// lost notes that the node gave no health.
func (s *known) lost(e *Error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.role != RoleForeign {
		s.setRoleLocked(RoleUnreachable, now)
	}
	s.learned, s.trouble = clock.Wall(now), e
}

// became sets the role that an answer to some other request gave away.
func (s *known) became(r Role, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.role != RoleForeign {
		s.setRoleLocked(r, now)
		s.learned = time.Time{}
	}
}

// doubt puts the role in doubt.
func (s *known) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learned = time.Time{}
}

// setRoleLocked sets the role, and notes when a leader ceases to be one.
func (s *known) setRoleLocked(r Role, now time.Time) {
	if r == RoleActive {
		s.lostLead = time.Time{}
		s.shutUntil = time.Time{} // nobody stands in for it
	} else if s.role == RoleActive {
		s.lostLead = clock.Wall(now)
	}
	s.role = r
}

// indices notes what sys/leader told.
func (s *known) indices(l Leader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = max(s.applied, l.Applied)
	s.remoteWAL = l.RemoteWAL
	if l.IsSelf && !l.Cached {
		s.led = clock.Wall(l.SentAt)
	}
	if s.activeTime = ""; l.IsSelf && !l.ahead {
		s.activeTime = l.ActiveTime
	}
}

// heirTime is how long after a leader is lost an election is waited for, before
// the next leader is taken for out of reach from here: it takes some ten seconds
// at the most, mostly (raft's defaults in Vault: 5s for the heartbeat, then votes).
const heirTime = 10 * time.Second

// view is what routing looks at.
type view struct {
	*node
	role       Role
	ours       bool // it told the cluster that is home: it may be sent a token
	copies     bool // it answers reads itself, from a copy
	fresh      bool // the role is not in doubt
	learned    time.Time
	led        time.Time
	resting    bool
	activeTime string
	applied    uint64
	secondary  bool // of a performance secondary cluster
	justLost   bool // it led until less than heirTime ago
	forwards   bool // the product's standbys hand reads on to the active node
}

func (n *node) view(home string, now time.Time) view {
	s := &n.known
	s.mu.Lock()
	defer s.mu.Unlock()
	v := view{
		node: n, role: s.role, ours: s.ofLocked(home), learned: s.learned, led: s.led,
		fresh: !s.learned.IsZero(), resting: s.restsLocked(now), activeTime: s.activeTime, applied: s.applied,
		secondary: s.health.ReplicationPerformanceMode == "secondary", forwards: s.health.ForwardsReads(),
	}
	v.justLost = !s.lostLead.IsZero() && clock.Within(s.lostLead, now, heirTime-1)
	v.copies = v.role == RolePerformanceStandby || v.role == RoleStandby && s.health.ServesReads()
	return v
}
