package warmup

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/tests/standin"
)

// site is what an origin says of itself. Its answers to reads are the stand-in's, and name
// the same node.
type site struct {
	mu        sync.Mutex // guards the fields below
	health    vault.Health
	node      string // empty: answers name none
	term      string // active_time
	committed uint64
	applied   uint64
	down      error         // of sys/leader
	deaf      error         // of sys/health
	standby   bool          // it answers sys/leader
	slow      chan struct{} // sys/health waits for it; nil: for nothing
	later     time.Duration
}

func newSite(health vault.Health) *site {
	health.Status, health.Initialized = http.StatusOK, true
	if health.ClusterID == "" {
		health.ClusterID = "one"
	}
	return &site{health: health, term: "t1", committed: 7, applied: 7}
}

func (s *site) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.later)
}

func (s *site) Leader(context.Context) (vault.Leader, error) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return vault.Leader{SentAt: now, ReceivedAt: now, HAEnabled: true, IsSelf: !s.standby, ActiveTime: s.term, Node: s.node, Status: http.StatusOK, Committed: s.committed, Applied: s.applied}, s.down
}

func (s *site) Health(context.Context) (vault.Health, error) {
	if s.slow != nil {
		<-s.slow
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health, s.deaf
}

// warmed is a scene whose origin is a site, with a Warmer that lives through all runs.
type warmed struct {
	*scene
	*site
	w *Warmer
}

func newWarmed(t *testing.T, at *site) *warmed {
	s := newScene(t)
	s.tier.now = at.now
	s.put("a", "x")
	s.origin.SetFault(func(w http.ResponseWriter, _ *http.Request) bool {
		at.mu.Lock()
		defer at.mu.Unlock()
		if at.node != "" {
			w.Header().Set("X-Vault-Raft-Node-Id", at.node)
		}
		return false
	})
	return &warmed{s, at, s.warmer(func(o *Options) { o.Asker, o.Now = at, at.now }, "secret/")}
}

// told is what functions take from a run: the index that the secret was read at, that of
// the stamp that a look for changes leaves, and whether standbys are said to forward reads.
type told struct {
	read, stamp cache.Index
	forwards    string // "yes", "no"; empty: nothing is said
}

func (s *warmed) tell() told {
	s.tier.mu.Lock()
	clear(s.tier.records)
	clear(s.tier.learned)
	s.tier.cursor = cache.CursorStamp{}
	s.tier.mu.Unlock()
	s.run(s.w, Order{Full: true})
	s.run(s.w, Order{})
	s.tier.mu.Lock()
	defer s.tier.mu.Unlock()
	var out told
	out.read, out.stamp = s.tier.records[cache.Key{Path: "secret/data/a"}].Index, s.tier.cursor.Index()
	out.read.FirstSeen = time.Time{}
	if forwards, ok := s.tier.learned[s.term]; ok {
		out.forwards = map[bool]string{true: "yes", false: "no"}[forwards]
	}
	return out
}

// expect compares what functions take from the next run with an index that counts, or the
// zero one.
func (s *warmed) expect(what string, index cache.Index, forwards string) {
	s.t.Helper()
	if got, want := s.tell(), (told{index, index, forwards}); got != want {
		s.t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

var none cache.Index

func at(term, node string) cache.Index { return cache.Index{Applied: 7, ActiveTime: term, Node: node} }

// Origins, as sys/health tells them.
var (
	community  = vault.Health{Version: "1.21.0"}
	enterprise = vault.Health{Version: "1.21.0+ent", Enterprise: true}
	secondary  = vault.Health{Version: "1.21.0+ent", Enterprise: true, ReplicationPerformanceMode: "secondary"}
	bao24      = vault.Health{Version: "2.4.1", OpenBao: true}
	bao25      = vault.Health{Version: "2.5.0", OpenBao: true}
	baoHead    = vault.Health{Version: "2.0.0-HEAD", OpenBao: true}
	strange    = vault.Health{Version: "main"}
)

// TestG1WhoAnswersReadsIsToldOnlyWhereTheVersionSays: that standbys forward reads is no
// matter of node ids, which may be turned off.
func TestG1WhoAnswersReadsIsToldOnlyWhereTheVersionSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		health   vault.Health
		node     string
		index    cache.Index
		forwards string
	}{
		{"Vault", community, "", at("t1", ""), "yes"},
		{"Vault that names its nodes", community, "n", at("t1", "n"), "yes"},
		{"OpenBao before 2.5", bao24, "", at("t1", ""), "yes"},
		{"OpenBao 2.5", bao25, "", none, "no"},
		{"OpenBao 2.5 that names its nodes", bao25, "n", at("t1", "n"), "no"},
		{"OpenBao of an unknown build", baoHead, "", none, "no"},
		{"OpenBao of an unknown build that names its nodes", baoHead, "n", at("t1", "n"), "no"},
		{"a product that is not known", strange, "", none, "no"},
		{"a product that is not known and names its nodes", strange, "n", at("t1", "n"), "no"},
		{"Enterprise", enterprise, "", none, "no"},
		{"Enterprise that names its nodes", enterprise, "n", at("t1", "n"), "no"},
		{"a secondary", secondary, "", none, "no"},
		{"a secondary that names its nodes", secondary, "n", none, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newWarmed(t, newSite(c.health))
			s.node = c.node
			s.expect("at first", c.index, c.forwards)
			s.expect("later", c.index, c.forwards)
			if c.node == "" {
				return
			}
			s.node = "" // the header is turned off
			want := none
			if c.health.ForwardsReads() {
				want = at("t1", "")
			}
			s.expect("without the header", want, c.forwards)
			s.node, s.term = c.node, "t2" // and on again
			s.tell()                      // whose reads show it
			if c.index == none {
				return // nor is it asked who leads
			}
			s.expect("with it again", at("t2", "n"), c.forwards)
		})
	}
}

// TestG1AnotherLeaderIsAskedWhatItIs before its index counts, whatever failed meanwhile.
func TestG1AnotherLeaderIsAskedWhatItIs(t *testing.T) {
	t.Parallel()
	fails := func(s *warmed) {
		s.down = errors.New("cut off")
		s.tell()
		s.down = nil
	}
	waits := func(s *warmed) { s.later += 11 * time.Minute }
	leads := func(h vault.Health) func(*warmed) {
		return func(s *warmed) {
			h := newSite(h).health
			s.health, s.term = h, "t2"
		}
	}
	deaf := func(s *warmed) { s.term, s.deaf = "t2", errors.New("cut off") }
	for _, c := range []struct {
		name      string
		first     vault.Health
		meanwhile []func(*warmed)
		index     cache.Index
		forwards  string
	}{
		{"of the same version", community, []func(*warmed){leads(community)}, at("t2", ""), "yes"},
		{"after an upgrade", bao24, []func(*warmed){leads(bao25)}, none, "no"},
		{"after an upgrade and a failed question", bao24, []func(*warmed){fails, leads(bao25)}, none, "no"},
		{"after an upgrade, and the question fails then", bao24, []func(*warmed){leads(bao25), fails}, none, "no"},
		{"after a downgrade", bao25, []func(*warmed){leads(bao24), waits}, at("t2", ""), "yes"},
		{"that does not tell", community, []func(*warmed){deaf}, none, ""},
		{"that does not tell, after a failed question", community, []func(*warmed){fails, deaf}, none, ""},
		{"of a secondary", community, []func(*warmed){leads(secondary)}, none, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newWarmed(t, newSite(c.first))
			s.tell()
			for _, f := range c.meanwhile {
				f(s)
			}
			s.expect("the other leader", c.index, c.forwards)
			s.expect("later", c.index, c.forwards)
		})
	}
}

// TestG1TwoClustersEndTheIndex: of two clusters, or two leaders, behind one address no
// index counts, neither one that was received nor one to come.
func TestG1TwoClustersEndTheIndex(t *testing.T) {
	t.Parallel()
	for _, node := range []string{"", "n"} {
		s := newWarmed(t, newSite(community))
		s.node = node
		s.expect("one cluster", at("t1", node), "yes")
		s.term, s.health.ClusterID = "t2", "two"
		s.expect("another", none, "")
		s.expect("and again", none, "")
		s.term, s.health.ClusterID = "t1", "one"
		s.expect("the first one again", none, "")
		s.later += 11 * time.Minute
		s.expect("after ten minutes of one", at("t1", node), "yes")
	}
	s := newWarmed(t, newSite(community))
	s.expect("one leader", at("t1", ""), "yes")
	s.term = "t2"
	s.expect("another", at("t2", ""), "yes")
	s.term = "t1"
	s.expect("the first one again", none, "")
	s.term = "t2"
	s.expect("by turns", none, "")
}

// TestWhatTheOriginIsIsKnownWithoutAnIndex, so that OpenBao is listed in one request also
// with another storage, or behind a balancer that gives the first question to a standby.
func TestWhatTheOriginIsIsKnownWithoutAnIndex(t *testing.T) {
	t.Parallel()
	for name, is := range map[string]func(*site){
		"no integrated storage": func(s *site) { s.committed, s.applied = 0, 0 },
		"a standby answers":     func(s *site) { s.standby = true },
	} {
		origin := newSite(bao25)
		is(origin)
		s := newBao(t, standin.Options{})
		sum := s.run(s.warmer(func(o *Options) { o.Asker = origin }, "secret/"), Order{})
		if n := s.origin.Counts()["SCAN /v1/secret/detailed-metadata"]; !sum.Complete || n == 0 {
			t.Errorf("%s: not listed in one request: %v", name, s.origin.Counts())
		}
	}
	// What a standby said counts for no leader that is met later.
	s := newWarmed(t, newSite(community))
	s.standby = true
	s.expect("a standby", none, "")
	s.standby, s.deaf = false, errors.New("cut off")
	s.expect("a leader that does not tell", none, "")
	s.deaf = nil
	s.expect("one that does", at("t1", ""), "yes")
}

// TestG1NoStampBetweenAppendAndApply: a function that reads the old value then
// would hold it for the new one's.
func TestG1NoStampBetweenAppendAndApply(t *testing.T) {
	t.Parallel()
	n := newSite(community)
	n.applied = 6
	c := cursor.NewForPasses(n, slog.New(slog.DiscardHandler), time.Now)
	if stamp, _, err := c.Where(t.Context()); err != nil || !stamp.At.IsZero() {
		t.Error("an entry was appended and not applied")
	}
	n.applied = 7
	if stamp, _, err := c.Where(t.Context()); err != nil || stamp.At.IsZero() {
		t.Error("everything was applied")
	}
}

// mute is a site whose sys/health is silent.
type mute struct {
	*site
	asked    chan struct{}
	outlived atomic.Bool // it was waited for as long as may be
}

func (m *mute) Health(ctx context.Context) (vault.Health, error) {
	select {
	case m.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		m.outlived.Store(true)
	}
	return vault.Health{}, ctx.Err()
}

// TestARunThatIsCutOffWaitsForNoAnswer: whoever ends the program waits for the run.
func TestARunThatIsCutOffWaitsForNoAnswer(t *testing.T) {
	t.Parallel()
	s, m := newScene(t), &mute{site: newSite(community), asked: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-m.asked
		cancel()
	}()
	if sum := s.warmer(func(o *Options) { o.Asker = m }, "secret/").Run(ctx, Order{}); sum.Complete || m.outlived.Load() {
		t.Errorf("outlived: %t, %+v", m.outlived.Load(), sum)
	}
}
