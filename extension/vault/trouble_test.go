package vault

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Only the standby can be reached from here. The leader does what is handed on to
// it and dies; the standby says that nobody leads; then there is another leader.
func TestAWriteWhoseHandOverFailedIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	leader, applied, asked := "http://127.0.0.1:1", 0, 0
	standby := &fakeNode{cluster: "c1", standby: true, leader: leader}
	standby.extra = func(w http.ResponseWriter, r *http.Request) {
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
	}
	o := quick([]string{serve(t, standby), "http://127.0.0.1:1"})
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
	c := newCluster(t, "c1", RoleActive, RoleStandby, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, again(t, "PUT", "first"))
	c.nodes[0].server.CloseClientConnections()
	c.nodes[0].server.Close()
	c.change(func() {
		c.nodes[0].role = RoleUnreachable // c.leader still names it
		from := c.polls
		c.onPoll = func(polls int) {
			if polls == from+40 {
				c.leader, c.nodes[1].role, c.nodes[1].since = c.nodes[1], RoleActive, "2026-01-09T01:00:00Z"
			}
		}
	})
	client.dropIdle()
	if got := answeredBy(t, client.Do, again(t, "PUT", "second")); got != c.nodes[1].addr {
		t.Errorf("applied by %s", got)
	}
	if got := strings.Join(c.writes(), " "); got != "first second" {
		t.Errorf("applied: %s", got)
	}
}

// slowHealth delays sys/health.
type slowHealth struct {
	h http.Handler
	d time.Duration
}

func (s slowHealth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == healthPath {
		time.Sleep(s.d)
	}
	s.h.ServeHTTP(w, r)
}

// The second request's round asks nobody: the questions of the first are out.
func TestASecondRequestDoesNotDecideHomeByTheQuickestNode(t *testing.T) {
	t.Parallel()
	c, foreign := newCluster(t, "c1", RoleActive, RoleStandby), newCluster(t, "c2", RoleActive)
	addrs := []string{serve(t, slowHealth{c.nodes[0], 400 * time.Millisecond}), serve(t, slowHealth{c.nodes[1], 400 * time.Millisecond}), foreign.nodes[0].addr}
	o := quick(addrs)
	o.ConnTimeout = 10 * time.Second
	client := newClient(t, o)
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			time.Sleep(time.Duration(i) * 100 * time.Millisecond)
			if res, err := client.Do(request(t, "GET", "/v1/x", "")); err == nil {
				res.Body.Close()
			} else {
				t.Log(err)
			}
		})
	}
	all.Wait()
	foreign.mu.Lock()
	defer foreign.mu.Unlock()
	if foreign.nodes[0].tokens != 0 {
		t.Errorf("the stranger saw %d tokens", foreign.nodes[0].tokens)
	}
}

// The nodes of ours take longer than a round is waited for.
func TestHomeIsNotDecidedByTheQuickestNode(t *testing.T) {
	t.Parallel()
	c, foreign := newCluster(t, "c1", RoleActive, RoleStandby), newCluster(t, "c2", RoleActive)
	addrs := []string{serve(t, slowHealth{c.nodes[0], 850 * time.Millisecond}), serve(t, slowHealth{c.nodes[1], 850 * time.Millisecond}), foreign.nodes[0].addr}
	o := quick(addrs)
	o.ConnTimeout = 10 * time.Second
	client := newClient(t, o)
	if res, err := client.Do(request(t, "GET", "/v1/x", "")); err == nil {
		res.Body.Close()
	} else {
		t.Log(err)
	}
	foreign.mu.Lock()
	defer foreign.mu.Unlock()
	if foreign.nodes[0].tokens != 0 {
		t.Errorf("the stranger saw %d tokens", foreign.nodes[0].tokens)
	}
}

func TestNodesThatAreSlowToTellTheirHealthAreWaitedFor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby, RoleStandby)
	var addrs []string
	for _, m := range c.nodes {
		addrs = append(addrs, serve(t, slowHealth{m, 1300 * time.Millisecond}))
	}
	client := newClient(t, Options{Addrs: addrs, MaxRetries: 2})
	began := time.Now()
	res, err := client.Do(request(t, "GET", "/v1/x", ""))
	if err != nil {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	res.Body.Close()
}

func TestAStatusNobodyWaitsForDecidesNothing(t *testing.T) {
	t.Parallel()
	c, foreign := newCluster(t, "c1", RoleActive, RoleStandby), newCluster(t, "c2", RoleActive)
	addrs := []string{serve(t, slowHealth{c.nodes[0], 300 * time.Millisecond}), serve(t, slowHealth{c.nodes[1], 300 * time.Millisecond}), foreign.nodes[0].addr}
	client := newClient(t, quick(addrs))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	client.Status(ctx)
	if res, err := client.Do(request(t, "GET", "/v1/x", "")); err == nil {
		res.Body.Close()
	}
	if foreign.nodes[0].tokens != 0 {
		t.Errorf("the stranger saw %d tokens", foreign.nodes[0].tokens)
	}
}

func TestAStatusNobodyWaitsForLosesNoRole(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	client.Status(ctx)
	if client.active() == nil {
		t.Error("the leader is taken for unreachable because a caller left")
	}
}

// The leader went after it had done the work, and the standby redirects to it.
func TestAWriteToOneAddressIsNotMadeAgainAfterAHandOver(t *testing.T) {
	t.Parallel()
	for name, sealed := range map[string]bool{"dead": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var applied atomic.Int32
			leader := &fakeNode{cluster: "c1"}
			var down atomic.Bool
			leader.extra = func(w http.ResponseWriter, r *http.Request) {
				if down.Load() {
					writeJSON(w, 503, map[string]any{"errors": []string{"Vault is sealed"}})
					return
				}
				writeJSON(w, 200, map[string]any{})
			}
			ls := httptest.NewServer(leader)
			defer ls.Close()
			standby := &fakeNode{cluster: "c1", standby: true, leader: ls.URL}
			standby.extra = func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "GET" {
					w.Header().Set("Location", ls.URL+r.URL.RequestURI())
					w.WriteHeader(307)
					return
				}
				if applied.Add(1) == 1 {
					// The leader did it, and went before it could answer.
					if sealed {
						down.Store(true)
					} else {
						ls.CloseClientConnections()
						ls.Close()
					}
					w.Header().Set("Location", ls.URL+r.URL.RequestURI())
					w.WriteHeader(307)
					return
				}
				writeJSON(w, 200, map[string]any{}) // handed on to the next leader
			}
			client := newClient(t, quick([]string{serve(t, standby)}))
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
	c := newCluster(t, "c1", RoleActive, RoleStandby, RoleStandby)
	named := &member{c: c, addr: strings.Replace(c.nodes[0].addr, "127.0.0.1", "localhost", 1), role: RoleUnreachable}
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.nodes[0].server.CloseClientConnections()
	c.nodes[0].server.Close()
	c.change(func() {
		c.leader = named
		from := c.polls
		c.onPoll = func(polls int) {
			if polls == from+40 {
				c.leader, c.nodes[1].role, c.nodes[1].since = c.nodes[1], RoleActive, "2026-01-09T01:00:00Z"
			}
		}
	})
	client.dropIdle()
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")) // by the new leader, or handed on to it
}

// The one address is a standby's.
func TestOneAddressWaitsForTheNextLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby)
	client := newClient(t, Options{Addrs: []string{c.nodes[1].addr}, MaxRetries: 2})
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.nodes[0].server.CloseClientConnections()
	c.nodes[0].server.Close()
	c.change(func() { c.nodes[0].role = RoleUnreachable })
	go func() {
		time.Sleep(2 * time.Second)
		c.change(func() { c.leader, c.nodes[1].role = c.nodes[1], RoleActive })
	}()
	began := time.Now()
	res, err := client.Do(request(t, "GET", "/v1/x", ""))
	if err != nil {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	res.Body.Close()
}

func TestWhatLostAHedgeDoesNotCountAsUnderWay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RolePerformanceStandby, RolePerformanceStandby)
	o := quick(c.addrs())
	o.StandbyReads = true
	client := newClient(t, o)
	client.Status(t.Context())
	for range 60 {
		answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	}
	hang := make(chan struct{})
	c.change(func() { c.nodes[1].hang = hang })
	for range 20 {
		req := request(t, "GET", "/v1/x", "")
		answeredBy(t, client.Do, req.WithContext(Repeatable(t.Context())))
	}
	close(hang)
	c.change(func() { c.nodes[1].hang = nil })
	for _, v := range client.views() {
		if n := v.known.flying.Load(); n != 0 {
			t.Errorf("%s: %d requests fly, though none is under way", v.addr(), n)
		}
	}
	by := map[string]int{}
	for range 1000 {
		by[answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))]++
	}
	t.Logf("by node: %v (the recovered one is %s)", by, c.nodes[1].addr)
}

func TestAHedgePrefersASlowAnswerToAQuickError(t *testing.T) {
	t.Parallel()
	var slow, bad atomic.Bool
	body := func(w http.ResponseWriter) { writeJSON(w, 200, map[string]any{"ok": true}) }
	mk := func(role int, f http.HandlerFunc) string {
		return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case healthPath:
				st := 200
				if role == 473 {
					st = 473
				}
				writeJSON(w, st, map[string]any{"initialized": true, "sealed": false, "standby": role == 473, "performance_standby": role == 473,
					"version": "1.21.0+ent", "enterprise": true, "cluster_id": "c1"})
			case leaderPath:
				writeJSON(w, 200, map[string]any{"ha_enabled": true, "is_self": role == 200})
			default:
				f(w, r)
			}
		}))
	}
	active := mk(200, func(w http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			writeJSON(w, 503, map[string]any{"errors": []string{"server overloaded, try again later"}})
			return
		}
		body(w)
	})
	ps := mk(473, func(w http.ResponseWriter, r *http.Request) {
		if slow.Load() {
			time.Sleep(150 * time.Millisecond)
		}
		body(w)
	})
	o := quick([]string{active, ps})
	o.StandbyReads = true
	client := newClient(t, o)
	client.Status(t.Context())
	for range 40 {
		do(t, client.Do, request(t, "GET", "/v1/x", ""))
	}
	bad.Store(true)
	for range 5 { // without a hedge all is well: the performance standby answers
		if st, b := do(t, client.Do, request(t, "GET", "/v1/x", "")); st != 200 {
			t.Fatal(st, b)
		}
	}
	slow.Store(true)
	if st, b := do(t, client.Do, request(t, "GET", "/v1/x", "")); st != 200 {
		t.Fatal("slow, no hedge:", st, b)
	}
	req := request(t, "GET", "/v1/x", "")
	if st, b := do(t, client.Do, req.WithContext(Repeatable(t.Context()))); st != 200 {
		t.Errorf("hedged: %d %s", st, b)
	}
}

func TestAHungStandbyIsNotAskedForItsIndexForLong(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RolePerformanceStandby)
	o := quick(c.addrs())
	o.StandbyReads, o.ClientTimeout, o.ConnTimeout = true, 6*time.Second, 100*time.Millisecond
	client := newClient(t, o)
	client.Status(t.Context())
	hang := make(chan struct{})
	defer close(hang)
	c.change(func() { c.nodes[1].hang = hang })
	req := request(t, "GET", "/v1/x", "")
	answeredBy(t, client.Do, req.WithContext(AtLeast(t.Context(), 9)))
}

func TestOurOwnRateLimitMakesNoNodeUnreachable(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby, RoleStandby)
	clock := newClock()
	o := quick(c.addrs())
	o.RateLimit, o.RateBurst, o.Now = 10, 10, clock.Now
	o.Sleep = nil
	o.ClientTimeout = 20 * time.Second
	client := newClient(t, o)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	clock.advance(2 * time.Minute) // the roles are due
	var all sync.WaitGroup
	var bad atomic.Int32
	for range 40 {
		all.Go(func() {
			res, err := client.Do(request(t, "GET", "/v1/x", ""))
			if err != nil {
				if bad.Add(1) == 1 {
					t.Errorf("%v", err)
				}
				return
			}
			res.Body.Close()
		})
	}
	time.Sleep(300 * time.Millisecond)
	client.learn(t.Context())
	time.Sleep(300 * time.Millisecond)
	for _, n := range client.Status(t.Context()).Nodes {
		if n.Role == RoleUnreachable.String() {
			t.Errorf("%s is unreachable: %s", n.Address, n.Error)
		}
	}
	all.Wait()
	t.Logf("%d of 40 failed", bad.Load())
}

func TestNodesStayWhileTheNameServerFails(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby)
	clock := newClock()
	f := fakeNet{"10.0.0.1:8200": hostOf(t, c.nodes[0].addr), "10.0.0.2:8200": hostOf(t, c.nodes[1].addr)}
	o := quick([]string{"http://vault.test:8200"})
	o.Dial, o.ActiveOnly, o.Now = f.dial, true, clock.Now
	var broken atomic.Bool
	o.LookupIP = func(context.Context, string) ([]netip.Addr, error) {
		if broken.Load() {
			return nil, errors.New("server misbehaving")
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}, nil
	}
	client := newClient(t, o)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	broken.Store(true)
	time.Sleep(2 * roundGap)
	clock.advance(2 * time.Minute)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")) // nobody waits for the round
	time.Sleep(200 * time.Millisecond)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
}

// It comes through a standby, since the leader cannot be reached from here.
func TestAPathsOwn503IsNotAnElection(t *testing.T) {
	t.Parallel()
	standby := &fakeNode{cluster: "c1", standby: true, leader: "http://127.0.0.1:1"}
	standby.extra = func(w http.ResponseWriter, _ *http.Request) { // handed on; the leader's answer
		writeJSON(w, 503, map[string]any{"errors": []string{"API access to this namespace has been locked by an administrator"}})
	}
	o := Options{Addrs: []string{serve(t, standby), "http://127.0.0.1:1"}, MaxRetries: 2, ClientTimeout: 8 * time.Second}
	client := newClient(t, o)
	st, _ := do(t, client.Do, request(t, "GET", "/v1/x", ""))
	if n := len(besides(standby)); st != http.StatusServiceUnavailable || n > 1+o.MaxRetries {
		t.Errorf("%d after %d requests", st, n)
	}
}

func TestAStandbyIsNotBlamedForADeadLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby, RoleStandby)
	o := quick(c.addrs())
	o.ClientTimeout = time.Second
	client := newClient(t, o)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.nodes[0].server.CloseClientConnections()
	c.nodes[0].server.Close()
	c.change(func() { c.nodes[0].role = RoleUnreachable })
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
			c := newCluster(t, "c1", RoleActive)
			client := newClient(t, Options{Addrs: c.addrs(), ActiveOnly: routed, MaxRetries: 2})
			answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
			c.change(func() { c.nodes[0].role = RoleStandby })
			go func() {
				time.Sleep(2 * time.Second)
				c.change(func() { c.nodes[0].role = RoleActive })
			}()
			began := time.Now()
			res, err := client.Do(request(t, "GET", "/v1/x", ""))
			if err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
			res.Body.Close()
		})
	}
}

// A standby hands on what the sealed leader says.
func TestALeadersSealIsNotTheStandbys(t *testing.T) {
	t.Parallel()
	standby := &fakeNode{cluster: "c1", standby: true, leader: "http://127.0.0.1:1"}
	standby.extra = func(w http.ResponseWriter, _ *http.Request) { // handed on; the leader's answer
		writeJSON(w, 503, map[string]any{"errors": []string{"Vault is sealed"}})
	}
	client := newClient(t, quick([]string{serve(t, standby), "http://127.0.0.1:1"}))
	res, err := client.DoOnce(request(t, "GET", "/v1/x", ""))
	if err == nil {
		res.Body.Close()
		t.Logf("%d", res.StatusCode)
	}
	if v := client.views()[0]; v.role != RoleStandby {
		t.Errorf("the standby is taken for %v", v.role)
	}
}

func TestAReadGoesOnFromANodeThatAnswersGarbage(t *testing.T) {
	t.Parallel()
	var garbage atomic.Bool
	ps := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if garbage.Load() {
			nc, _, _ := w.(http.Hijacker).Hijack()
			_, _ = nc.Write([]byte("\x15\x03\x01\x00\x02\x02\x46 not http\r\n\r\n"))
			_ = nc.Close()
			return
		}
		switch r.URL.Path {
		case healthPath:
			writeJSON(w, 473, map[string]any{"initialized": true, "sealed": false, "standby": true, "performance_standby": true, "version": "1.21.0+ent", "enterprise": true, "cluster_id": "c1"})
		default:
			writeJSON(w, 200, map[string]any{})
		}
	}))
	active := &fakeNode{cluster: "c1", token: theToken}
	o := quick([]string{serve(t, active), ps})
	o.StandbyReads = true
	client := newClient(t, o)
	client.Status(t.Context())
	do(t, client.Do, request(t, "GET", "/v1/x", ""))
	garbage.Store(true)
	do(t, client.Do, request(t, "GET", "/v1/x", ""))
}

// The proxy before the node keeps the base path.
func TestARedirectToItselfBelowABasePathIsSeen(t *testing.T) {
	t.Parallel()
	self := &fakeNode{cluster: "c1", token: theToken, standby: true}
	addr := serve(t, self)
	self.leader = addr
	client := newClient(t, quick([]string{addr + "/base"}))
	res, err := client.Do(request(t, "GET", "/v1/x", ""))
	if err == nil {
		res.Body.Close()
		t.Errorf("the caller got %d, Location %s", res.StatusCode, res.Header.Get("Location"))
	}
}

func TestTheBreakerOpensForErrorsOfANode(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	ps := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == healthPath {
			writeJSON(w, 473, map[string]any{"initialized": true, "sealed": false, "standby": true, "performance_standby": true, "version": "1.21.0+ent", "enterprise": true, "cluster_id": "c1"})
			return
		}
		n.Add(1)
		w.WriteHeader(502)
	}))
	active := &fakeNode{cluster: "c1", token: theToken}
	o := quick([]string{serve(t, active), ps})
	o.StandbyReads = true
	client := newClient(t, o)
	client.Status(t.Context())
	for range 30 {
		do(t, client.Do, request(t, "GET", "/v1/x", ""))
	}
	if n := n.Load(); n > 10 {
		t.Errorf("30 reads asked the broken node %d times", n)
	}
}

func TestACallerWhoLeavesMakesNoNodeUnreachable(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	n := client.views()[0].node
	n.known.mu.Lock()
	n.known.cluster = "" // as of a node that was sealed until now
	n.known.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := client.begin(request(t, "GET", "/v1/x", "").WithContext(ctx), false)
	defer k.end()
	k.belongs(n)
	if v := client.views()[0]; v.role == RoleUnreachable {
		t.Error("unreachable because a caller left")
	}
}

// A leader that is being sealed drains its requests for up to 90s, and says to
// what is handed on that it is sealed (sealInternalWithOptions in vault/core.go of
// hashicorp/vault v1.21.0).
func TestAnElectionAfterASealIsWaitedFor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby, RoleStandby)
	var sealing atomic.Bool
	addrs := []string{c.nodes[0].addr}
	for _, m := range c.nodes[1:] {
		addrs = append(addrs, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sealing.Load() && r.URL.Path != healthPath && r.URL.Path != leaderPath && r.Header.Get(noForwarding) == "" {
				writeJSON(w, 503, map[string]any{"errors": []string{"Vault is sealed"}})
				return
			}
			m.ServeHTTP(w, r)
		})))
	}
	client := newClient(t, Options{Addrs: addrs, MaxRetries: 2})
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	time.Sleep(2 * roundGap)
	c.change(func() { c.nodes[0].role = RoleSealed })
	sealing.Store(true)
	go func() {
		time.Sleep(3 * time.Second)
		c.change(func() { c.leader, c.nodes[1].role = c.nodes[1], RoleActive })
		sealing.Store(false)
	}()
	began := time.Now()
	st, body := do(t, client.Do, request(t, "GET", "/v1/x", ""))
	if st != 200 {
		t.Errorf("after %v: %d %s", time.Since(began), st, body)
	}
}

// The leader becomes known while the read is under way. A read may have an effect.
func TestAReadThatIsHandedOnIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby, RoleStandby)
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
	client := newClient(t, Options{Addrs: addrs, MaxRetries: 2})
	began := time.Now()
	st, _ := do(t, client.Do, request(t, "GET", "/v1/database/creds/app", ""))
	if n := made.Load(); n != 1 {
		t.Errorf("%d after %v: %d credentials were made", st, time.Since(began), n)
	}
}

func TestActiveTimesAreComparedAcrossZones(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1", RoleActive, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	c.change(func() { c.nodes[0].since = "2026-01-09T02:00:00+02:00" }) // 00:00Z
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.elect(c.nodes[1]) // 01:00Z
	c.change(func() { c.nodes[0].role = RoleActive })
	client.learn(t.Context())
	client.Status(t.Context())
	if got := answeredBy(t, client.Do, again(t, "PUT", "a")); got != c.nodes[1].addr {
		t.Error("the old leader was asked")
	}
}
