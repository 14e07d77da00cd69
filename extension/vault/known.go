package vault

import (
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// state is what is known of a node. Times are on the wall clock: a role that was
// learned before a freeze is as old as the freeze is long. It never changes once it
// is a node's; roster.note puts another in its place.
type state struct {
	pending    int               // requests that wait for the node's answer
	health     Health            // its last answer; the zero Health before the first
	role       Role              // of that answer, or RoleUnreachable
	cluster    string            // the last cluster_id it told; a sealed node tells none
	learned    time.Time         // when the role was learned; zero: it is in doubt
	led        time.Time         // when it was last asked who leads, and said that it does
	lastSeen   time.Time         // when it last answered anything
	activeTime time.Time         // when it became active, if it was asked
	applied    uint64            // the highest raft index it was seen to have applied
	remoteWAL  uint64            // performance_standby_last_remote_wal
	lostLead   time.Time         // when it ceased to be the active node; zero: it is, or was not
	leader     *node             // that its redirects may lead to: it was found to be of the same cluster; nil: none was
	trouble    *Error            // why it gave no health; nil: it did
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
func (s *state) failed(now, began time.Time) {
	s.learned = time.Time{}
	if began.Before(s.lastFailed) {
		return
	}
	s.lastFailed = time.Now()
	s.failures++
	if n := s.failures - breakAfter; n >= 0 {
		s.shutUntil = clock.Wall(now).Add(min(breakFirst<<min(n, 5), breakMost))
	}
}

// answered takes note of an answer to a request that took d. One that is not
// good does not show that the node is well.
func (s *state) answered(now time.Time, d time.Duration, good bool) {
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

// rests tells whether the breaker is open. A clock that went back keeps it open for
// no longer.
func (s *state) rests(now time.Time) bool {
	left := clock.Until(s.shutUntil, now)
	return !s.shutUntil.IsZero() && left > 0 && left <= breakMost
}

// cost orders nodes by how long an answer can be expected to take: the average
// time for each request that is on its way, and one more.
func (s *state) cost() time.Duration { return s.average * time.Duration(1+s.pending) }

// Hedging: a second try is made when an answer takes longer than 19 in 20 of
// the last ones did, and at least hedgeLeast; not before hedgeSamples are known.
const (
	hedgeLeast   = 20 * time.Millisecond
	hedgeSamples = 8
)

// usual is how long the node's answers mostly take at the most; ok is false while
// too few are known.
func (s *state) usual() (d time.Duration, ok bool) {
	n := min(s.lapCount, len(s.laps))
	if n < hedgeSamples {
		return 0, false
	}
	laps := slices.Sorted(slices.Values(s.laps[:n]))
	return max(laps[n*19/20], hedgeLeast), true
}

// take notes the answer to a question for the node's health.
func (s *state) take(h Health, now time.Time) {
	s.setRole(h.Role(), now)
	s.health, s.trouble = h, nil
	s.learned, s.lastSeen = clock.Wall(now), clock.Wall(now)
	if h.ClusterID != "" {
		s.cluster = h.ClusterID
	}
	if s.role != RoleActive {
		s.activeTime = time.Time{}
	}
}

// foreign tells whether the node told that it is of another cluster than home.
func (s *state) foreign(home string) bool { return home != "" && s.cluster != "" && s.cluster != home }

// lost notes that the node gave no health.
func (s *state) lost(e *Error, now time.Time) {
	s.setRole(RoleUnreachable, now)
	s.learned, s.trouble = clock.Wall(now), e
}

// became sets the role that an answer to some other request gave away.
func (s *state) became(r Role, now time.Time) {
	s.setRole(r, now)
	s.learned = time.Time{}
}

// setRole sets the role, and notes when a leader ceases to be one.
func (s *state) setRole(r Role, now time.Time) {
	if r == RoleActive {
		s.lostLead = time.Time{}
		s.shutUntil = time.Time{} // nobody stands in for it
	} else if s.role == RoleActive {
		s.lostLead = clock.Wall(now)
	}
	s.role = r
}

// indices notes what sys/leader told, and since when the node is active.
func (s *state) indices(l Leader, active time.Time) {
	s.applied = max(s.applied, l.Applied)
	s.remoteWAL = l.RemoteWAL
	if l.IsSelf {
		s.led = clock.Wall(l.SentAt)
	}
	s.activeTime = active
}

// heirTime is how long after a leader is lost an election is waited for, before
// the next leader is taken for out of reach from here: it takes some ten seconds
// at the most, mostly (raft's defaults in Vault: 5s for the heartbeat, then votes).
const heirTime = 10 * time.Second

// view is what was known of a node at one time, and what that means to routing.
type view struct {
	*node
	*state
	role     Role // the state's, or RoleForeign
	ours     bool // it told the cluster that is home: it may be sent a token
	copies   bool // it answers reads itself, from a copy
	fresh    bool // the role is not in doubt
	resting  bool
	justLost bool // it led until less than heirTime ago
}

func (n *node) viewLocked(home string, now time.Time) view {
	s := n.known
	v := view{
		// The one decision whether a node may be sent a token. Where one node is
		// configured, leads decides whom else.
		ours: home != "" && s.cluster == home,
		node: n, state: s, role: s.role, fresh: !s.learned.IsZero(), resting: s.rests(now),
		copies:   s.role == RolePerformanceStandby || s.role == RoleStandby && s.health.ServesReads(),
		justLost: clock.Within(s.lostLead, now, heirTime-1),
	}
	if s.foreign(home) {
		v.role, v.copies, v.justLost = RoleForeign, false, false
	}
	return v
}
