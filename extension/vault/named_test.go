package vault

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/standin"
)

// lockedText is a log that several goroutines write.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An index whose node is not certain tells nothing: one that names two nodes, and
// one that names none although answers of this origin did in the last ten minutes.
func TestG1AnIndexOfNobodyTellsNothing(t *testing.T) {
	t.Parallel()
	var named []string
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Vault-Raft-Node-Id"] = named
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(raftLeader))
	}))
	cl := newClock()
	c := newClient(t, Options{Config: config.Config{Addrs: []string{s}}, Now: cl.Now})
	for i, step := range []struct {
		after time.Duration
		named []string
		tells bool
		node  string
	}{
		{0, nil, true, ""},
		{time.Second, []string{"a"}, true, "a"},
		{time.Second, nil, false, ""},
		{time.Second, []string{"a", "b"}, false, ""},
		{time.Second, []string{"b"}, true, "b"},
		{9 * time.Minute, nil, false, ""},
		{2 * time.Minute, nil, true, ""},
	} {
		cl.advance(step.after)
		named = step.named
		l, err := c.Leader(t.Context())
		if err != nil || l.Tells() != step.tells || l.Node != step.node {
			t.Errorf("step %d: %+v, %v", i, l, err)
		}
	}
}

// Of two that claim to lead the one that has applied more does, then the one that
// became active last, unless that is in the future. While two claim, neither's index
// tells anything.
func TestOfTwoLeadersTheOneThatIsAheadGetsRequests(t *testing.T) {
	t.Parallel()
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)
	for _, tt := range []struct {
		indexes [2]uint64
		since   [2]string
		leads   int
	}{
		{[2]uint64{9, 7}, [2]string{"2026-01-09T00:00:00Z", "2026-01-09T01:00:00Z"}, 0},
		{[2]uint64{7, 9}, [2]string{"2026-01-09T01:00:00Z", "2026-01-09T00:00:00Z"}, 1},
		{[2]uint64{7, 7}, [2]string{"2026-01-09T00:00:00Z", "2026-01-09T01:00:00Z"}, 1},
		{[2]uint64{7, 7}, [2]string{"2026-01-09T01:00:00Z", "2026-01-09T00:00:00Z"}, 0},
		{[2]uint64{7, 7}, [2]string{future, "2026-01-09T00:00:00Z"}, 1},
		{[2]uint64{8, 7}, [2]string{"2026-01-09T00:00:00Z", future}, 0},
	} {
		c := newCluster(t, RoleActive, RoleActive, RoleStandby)
		for i := range 2 {
			c.nodes[i].leadsSince(tt.indexes[i], tt.since[i])
		}
		var log lockedText
		o := quick(c.addrs())
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		client := newClient(t, o)
		client.Status(t.Context()) // all are asked for their health
		client.Status(t.Context())
		if a := client.active(); a == nil || a.addr() != c.nodes[tt.leads].addr {
			t.Errorf("%v since %v: %v leads, want node %d", tt.indexes, tt.since, a, tt.leads)
		}
		if l, err := client.Leader(t.Context()); err != nil || l.Tells() {
			t.Errorf("%v since %v: an index tells while two claim to lead: %+v, %v", tt.indexes, tt.since, l, err)
		}
		if n := strings.Count(log.text(), "say that they lead"); n != 1 {
			t.Errorf("%d warnings\n%s", n, log.text())
		}
		c.elect(c.nodes[tt.leads])
		c.nodes[tt.leads].Be(standin.Serving)
		c.nodes[1-tt.leads].Be(standin.Forwarding)
		client.Status(t.Context())
		if l, err := client.Leader(t.Context()); err != nil || !l.Tells() {
			t.Errorf("%v since %v: the index of the one that is left tells nothing: %+v, %v", tt.indexes, tt.since, l, err)
		}
	}
}

// What a version says of standbys.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		health   Health
		forwards bool
	}{
		{Health{Version: "1.21.0", edition: true}, true},
		{Health{Version: "1.9.4"}, true},
		{Health{Version: "1.21.0+ent", edition: true, Enterprise: true}, false},
		{Health{Version: "1.15.0+ent.hsm"}, false},
		{Health{Version: "2.4.4", OpenBao: true}, true},
		{Health{Version: "v2.4.0-beta20250101", OpenBao: true}, true},
		{Health{Version: "2.5.0-beta20260101", OpenBao: true}, false},
		{Health{Version: "2.5.5", OpenBao: true}, false},
		{Health{Version: "3.0.0", OpenBao: true}, false},
		{Health{Version: "2.0.0-HEAD", OpenBao: true}, false},
		{Health{Version: "2.0.0-head+abc", OpenBao: true}, false},
		{Health{Version: "2.0.0-dev1", OpenBao: true}, false},
		{Health{Version: "HEAD", OpenBao: true}, false},
		{Health{Version: ""}, false},
		{Health{Version: "2.4.4", OpenBao: true, mixed: true}, false},
		{Health{Version: "1.21.0", edition: true, mixed: true}, false},
	} {
		if got := tt.health.ForwardsReads(); got != tt.forwards {
			t.Errorf("%+v: %v", tt.health, got)
		}
	}
}

// In a rolling upgrade the leader is the last that says the new version.
func TestTheStandbysVersionsCountWhereTheirAddressesAreKnown(t *testing.T) {
	t.Parallel()
	for _, upgraded := range []int{-1, 1, 2} {
		t.Run(fmt.Sprint(upgraded), func(t *testing.T) {
			t.Parallel()
			c := serveNodes(t, newNodes(standin.ClusterOptions{OpenBao: true, Version: "2.4.4"}, RoleActive, RoleStandby, RoleStandby))
			if upgraded > 0 {
				c.nodes[upgraded].tells(healthPath, map[string]any{"version": "2.5.0"})
			}
			h, err := newClient(t, quick(c.addrs())).Health(t.Context())
			if err != nil || h.Version != "2.4.4" || h.ForwardsReads() != (upgraded < 0) {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}
