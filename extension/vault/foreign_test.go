package vault

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// A node of another cluster has no say in what is verified, least of all while
// every node that has is away: it could repeat the leader's last words.
func TestG1AForeignNodeIsNoLeader(t *testing.T) {
	t.Parallel()
	home, foreign := newCluster(t, RoleActive, RoleStandby), newNode(t)
	for _, m := range []*member{home.nodes[0], foreign} {
		m.leadsSince(7, "2026-01-09T00:11:46.439409062Z")
	}
	var minutes atomic.Int64
	c := newClient(t, Options{Config: config.Config{Addrs: append([]string{foreign.addr}, home.addrs()...), ConnTimeout: time.Second},
		Now: func() time.Time { return time.Now().Add(time.Duration(minutes.Load()) * time.Minute) }})
	if l, err := c.Leader(t.Context()); err != nil || !l.IsSelf || l.Applied != 7 {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, v := range c.views() { // before it was clear whose it is, it was asked like the others
		if call := c.questions.Running(v.node); call != nil {
			<-call.Done()
		}
	}
	asked := len(foreign.requests())
	for _, m := range home.nodes {
		m.die()
	}
	for range 6 {
		minutes.Add(2)
		<-time.After(askGap) // real time: it spaces rounds of questions
		if l, err := c.Leader(t.Context()); err == nil {
			t.Errorf("with every node of the cluster away: %+v", l)
		}
	}
	for _, r := range foreign.requests()[asked:] {
		if r.URL.Path != healthPath {
			t.Errorf("the foreign node was asked %s", r.URL.Path)
		}
	}
	for _, r := range foreign.requests() {
		if r.Header.Get("X-Vault-Token") != "" {
			t.Errorf("the foreign node has a token")
		}
	}
}
