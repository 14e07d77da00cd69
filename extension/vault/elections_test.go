package vault

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/tests/standin"
)

// standbyOf gives a standby that names a leader which cannot be reached from here, and
// answers with f what it would hand on.
func standbyOf(t *testing.T, leader string, f http.HandlerFunc) *member {
	t.Helper()
	c := newCluster(t, RoleActive, RoleStandby)
	c.nodes[0].At(leader)
	c.nodes[1].answers(f)
	return c.nodes[1]
}

// Only the standby can be reached from here. The leader does what is handed on to
// it and dies; the standby says that nobody leads; then there is another leader.
func TestAWriteWhoseHandOverFailedIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	leader, applied, asked := "http://127.0.0.1:1", 0, 0
	standby := standbyOf(t, leader, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		switch {
		case asked > 10 && leader == "":
			leader = "http://127.0.0.1:1" // another one, as little in reach
		case leader != "" && r.Header.Get(noForwarding) == "":
			if applied++; applied > 1 {
				writeJSON(w, 200, map[string]any{})
				return
			}
			leader = ""
		}
		if leader == "" {
			writeJSON(w, 503, map[string]any{"errors": []string{"no active Vault instance found"}})
			return
		}
		w.Header().Set("Location", leader+r.URL.RequestURI())
		w.WriteHeader(307)
	})
	o := quick([]string{standby.addr, leader})
	o.ClientTimeout = 3 * time.Second
	client := newClient(t, o)
	res, err := client.Do(again(t, "PUT", "once"))
	if err == nil {
		res.Body.Close()
	}
	t.Logf("%v", err)
	if applied != 1 {
		t.Errorf("applied %d times", applied)
	}
}

// The standbys still name the dead leader.
func TestAWriteAfterTheLeadersDeathWaitsForTheNext(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, again(t, "PUT", "first"))
	c.nodes[0].die()
	c.nodes[0].Be(standin.Unreachable)
	c.nodes[1].leadLater()
	client.dropIdle()
	if got := answeredBy(t, client.Do, again(t, "PUT", "second")); got != c.nodes[1].addr {
		t.Errorf("applied by %s", got)
	}
	if got := strings.Join(c.writes(), " "); got != "first second" {
		t.Errorf("applied: %s", got)
	}
}

// The leader went after it had done the work, and the standby redirects to it.
func TestAWriteToOneAddressIsNotMadeAgainAfterAHandOver(t *testing.T) {
	t.Parallel()
	for name, sealed := range map[string]bool{"dead": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var applied atomic.Int32
			c := newCluster(t, RoleActive, RoleStandby)
			leader, standby := c.nodes[0], c.nodes[1]
			standby.answers(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == "GET":
				case applied.Add(1) > 1:
					writeJSON(w, 200, map[string]any{}) // handed on to the next leader
					return
				case sealed: // The leader did it, and went before it could answer.
					leader.Be(standin.Sealed)
				default:
					leader.die()
				}
				w.Header().Set("Location", leader.addr+r.URL.RequestURI())
				w.WriteHeader(307)
			})
			client := newClient(t, quick([]string{standby.addr}))
			do(t, client.Do, request(t, "GET", "/v1/x", "")) // a redirect was followed before: the leader is verified
			client.dropIdle()
			res, err := client.Do(again(t, "PUT", "once"))
			if err == nil {
				res.Body.Close()
			}
			t.Log(err)
			if n := applied.Load(); n != 1 {
				t.Errorf("applied %d times", n)
			}
		})
	}
}

// The nodes are listed by their addresses, and tell the leader by its name.
func TestADeadLeaderUnderAnotherNameIsWaitedOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.nodes[0].die()
	c.nodes[0].Be(standin.Unreachable)
	c.nodes[0].At(strings.Replace(c.nodes[0].addr, "127.0.0.1", "localhost", 1))
	c.nodes[1].leadLater()
	client.dropIdle()
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")) // by the new leader, or handed on to it
}

// atWait has f called at the client's n-th wait, and lets no wait take long.
func atWait(o Options, n int32, f func()) Options {
	var waits atomic.Int32
	o.Sleep = func(ctx context.Context, _ time.Duration) error {
		if waits.Add(1) == n {
			f()
		}
		return wait.For(ctx, time.Millisecond)
	}
	return o
}

// The one address is a standby's.
func TestOneAddressWaitsForTheNextLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	client := newClient(t, atWait(Options{Config: config.Config{Addrs: []string{c.nodes[1].addr}, MaxRetries: 2}}, 10, func() {
		c.elect(c.nodes[1])
	}))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.nodes[0].die()
	c.nodes[0].Be(standin.Unreachable)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
}

// It comes through a standby, since the leader cannot be reached from here.
func TestAPathsOwn503IsNotAnElection(t *testing.T) {
	t.Parallel()
	standby := standbyOf(t, "http://127.0.0.1:1", func(w http.ResponseWriter, _ *http.Request) { // handed on; the leader's answer
		writeJSON(w, 503, map[string]any{"errors": []string{"API access to this namespace has been locked by an administrator"}})
	})
	o := Options{Config: config.Config{Addrs: []string{standby.addr, "http://127.0.0.1:1"}, MaxRetries: 2, ClientTimeout: 8 * time.Second}}
	client := newClient(t, o)
	st, _ := do(t, client.Do, request(t, "GET", "/v1/x", ""))
	if n := len(besides(standby)); st != http.StatusServiceUnavailable || n > 1+o.MaxRetries {
		t.Errorf("%d after %d requests", st, n)
	}
}

func TestAStandbyIsNotBlamedForADeadLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
	o := quick(c.addrs())
	o.ClientTimeout = time.Second
	client := newClient(t, o)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.nodes[0].die()
	c.nodes[0].Be(standin.Unreachable)
	client.dropIdle()
	_, err := client.Do(request(t, "GET", "/v1/x", ""))
	t.Log(err)
	for _, n := range client.Status(t.Context()).Nodes[1:] {
		if n.Failures != 0 || n.Breaker != "closed" {
			t.Errorf("%s answered everything at once: %d failures, breaker %s", n.Address, n.Failures, n.Breaker)
		}
	}
}

// Its role is remembered; it was restarted, and is about to lead.
func TestARestartedLeaderIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, routed := range map[string]bool{"routed": true, "direct": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, RoleActive)
			client := newClient(t, atWait(Options{Config: config.Config{Addrs: c.addrs(), ActiveOnly: routed, MaxRetries: 2}}, 10, func() {
				c.elect(c.nodes[0])
			}))
			answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
			time.Sleep(2 * askGap) // else the next round is the one that has been
			c.Elect(c.nodes[0].Node)
			answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
		})
	}
}

// A standby hands on what the sealed leader says.
func TestALeadersSealIsNotTheStandbys(t *testing.T) {
	t.Parallel()
	standby := standbyOf(t, "http://127.0.0.1:1", func(w http.ResponseWriter, _ *http.Request) { // handed on; the leader's answer
		writeJSON(w, 503, map[string]any{"errors": []string{"Vault is sealed"}})
	})
	client := newClient(t, quick([]string{standby.addr, "http://127.0.0.1:1"}))
	res, err := client.DoOnce(request(t, "GET", "/v1/x", ""))
	if err == nil {
		res.Body.Close()
		t.Logf("%d", res.StatusCode)
	}
	if v := client.views()[0]; v.role != RoleStandby {
		t.Errorf("the standby is taken for %v", v.role)
	}
}

// The proxy before the node keeps the base path.
func TestARedirectToItselfBelowABasePathIsSeen(t *testing.T) {
	t.Parallel()
	self := newNode(t)
	self.c.Elect(self.Node)
	client := newClient(t, quick([]string{self.addr + "/base"}))
	res, err := client.Do(request(t, "GET", "/v1/x", ""))
	if err == nil {
		res.Body.Close()
		t.Errorf("the caller got %d, Location %s", res.StatusCode, res.Header.Get("Location"))
	}
}

// A leader that is being sealed drains its requests for up to 90s, and says to
// what is handed on that it is sealed (sealInternalWithOptions in vault/core.go of
// hashicorp/vault v1.21.0).
func TestAnElectionAfterASealIsWaitedFor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
	var sealing atomic.Bool
	for _, m := range c.nodes[1:] {
		m.answers(func(w http.ResponseWriter, r *http.Request) {
			if sealing.Load() && r.Header.Get(noForwarding) == "" {
				writeJSON(w, 503, map[string]any{"errors": []string{"Vault is sealed"}})
				return
			}
			m.Node.ServeHTTP(w, r)
		})
	}
	client := newClient(t, atWait(Options{Config: config.Config{Addrs: c.addrs(), MaxRetries: 2}}, 10, func() {
		c.elect(c.nodes[1])
		sealing.Store(false)
	}))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	time.Sleep(2 * askGap) // else the next round is the one that has been
	c.nodes[0].Be(standin.Sealed)
	sealing.Store(true)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
}

// The leader becomes known while the read is under way. A read may have an effect.
func TestAReadThatIsHandedOnIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
	var made atomic.Int32
	slow := func(m *member, health time.Duration) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case healthPath:
				time.Sleep(health)
				m.ServeHTTP(w, r)
			case leaderPath:
				m.ServeHTTP(w, r)
			default: // the leader's work, handed on or not
				made.Add(1)
				time.Sleep(2500 * time.Millisecond)
				writeJSON(w, 200, map[string]any{"lease_id": "x"})
			}
		})
	}
	addrs := []string{serve(t, slow(c.nodes[0], 900*time.Millisecond)), serve(t, slow(c.nodes[1], 0)), serve(t, slow(c.nodes[2], 0))}
	client := newClient(t, Options{Config: config.Config{Addrs: addrs, MaxRetries: 2}})
	began := time.Now()
	st, _ := do(t, client.Do, request(t, "GET", "/v1/database/creds/app", ""))
	if n := made.Load(); n != 1 {
		t.Errorf("%d after %v: %d credentials were made", st, time.Since(began), n)
	}
}

func TestActiveTimesAreComparedAcrossZones(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	c.nodes[0].leadsSince(7, "2026-01-09T02:00:00+02:00") // 00:00Z
	c.nodes[1].leadsSince(7, "2026-01-09T01:00:00Z")
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.elect(c.nodes[1])
	c.nodes[0].Be(standin.Deposed)
	client.learn(t.Context())
	client.Status(t.Context())
	if got := answeredBy(t, client.Do, again(t, "PUT", "a")); got != c.nodes[1].addr {
		t.Error("the old leader was asked")
	}
}
