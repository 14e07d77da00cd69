package vault

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/standin"
)

func TestOneAddressIsAskedForNoRole(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, again(t, "PUT", "a"))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	if c.polls != 0 || client.Requests() != 2 {
		t.Errorf("%d questions for a role, %d requests", c.polls, client.Requests())
	}
}

func TestEverythingGoesToTheActiveNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleStandby, RoleActive, RolePerformanceStandby)
	client := newClient(t, quick(c.addrs()))
	for _, req := range []*http.Request{request(t, "GET", "/v1/x", ""), again(t, "PUT", "a"), request(t, "LIST", "/v1/x", "")} {
		if by, header := signedBy(t, client, req); by != c.nodes[1].addr || header != "" {
			t.Errorf("%s was answered by %s, header %q", req.Method, by, header)
		}
	}
	if c.nodes[0].tokens()+c.nodes[2].tokens() != 0 {
		t.Error("a standby was asked")
	}
	l, err := client.Leader(t.Context())
	if err != nil || !l.IsSelf {
		t.Errorf("Leader: %+v, %v", l, err)
	}
}

// signedBy is answeredBy, with the header NodeHeader.
func signedBy(t *testing.T, client *Client, req *http.Request) (addr, header string) {
	t.Helper()
	addr = answeredBy(t, func(req *http.Request) (*http.Response, error) {
		res, err := client.Do(req)
		if err == nil {
			header = res.Header.Get(NodeHeader)
		}
		return res, err
	}, req)
	return addr, header
}

func TestReadsGoToStandbysAndGoOnWithoutThem(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RolePerformanceStandby, RolePerformanceStandby)
	o := quick(c.addrs())
	o.StandbyReads = true
	client := newClient(t, o)
	read := func() string { return answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")) }
	read() // the first may come before a standby's role is known
	client.Status(t.Context())
	by := make(map[string]int)
	// On a busy machine one of the two may look slow for a while.
	for n := 0; n < 100 || n < 5000 && len(by) < 2; n++ {
		by[read()]++
	}
	if by[c.nodes[0].addr] != 0 || by[c.nodes[1].addr] == 0 || by[c.nodes[2].addr] == 0 {
		t.Errorf("the reads were served by %v", by)
	}
	if by, header := signedBy(t, client, request(t, "GET", "/v1/x", "")); by == c.nodes[0].addr || header != "standby" {
		t.Errorf("answered by %s, header %q", by, header)
	}
	if got := answeredBy(t, client.Do, again(t, "PUT", "a")); got != c.nodes[0].addr {
		t.Error("a write went to a standby")
	}
	active := request(t, "GET", "/v1/x", "")
	if got := answeredBy(t, client.Do, active.WithContext(ToActive(t.Context()))); got != c.nodes[0].addr {
		t.Error("a read for the active node went to a standby")
	}
	for _, m := range c.nodes[1:] {
		m.die()
	}
	for range 20 {
		if got := read(); got != c.nodes[0].addr {
			t.Errorf("answered by %s", got)
		}
	}
}

func TestAReadGoesOnlyToANodeThatHasAppliedTheIndex(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RolePerformanceStandby, RolePerformanceStandby)
	c.nodes[2].leadsSince(9, "")
	o := quick(c.addrs())
	o.StandbyReads = true
	client := newClient(t, o)
	client.Status(t.Context())
	for range 30 {
		req := request(t, "GET", "/v1/x", "")
		if got := answeredBy(t, client.Do, req.WithContext(AtLeast(t.Context(), 9))); got != c.nodes[2].addr {
			t.Fatalf("index 9 was read at %s", got)
		}
		if got := answeredBy(t, client.Do, req.WithContext(AtLeast(t.Context(), 10))); got != c.nodes[0].addr {
			t.Fatalf("index 10 was read at %s", got)
		}
	}
}

func TestAStandbyOfOpenBaoIsNotReadWhereTheActiveNodeIsWanted(t *testing.T) {
	t.Parallel()
	c := serveNodes(t, newNodes(standin.ClusterOptions{OpenBao: true}, RoleActive, RoleStandby))
	clock := newClock()
	o := quick(c.addrs())
	o.Now = clock.Now
	client := newClient(t, o)
	read := func() string { return answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")) }
	if got := read(); got != c.nodes[0].addr {
		t.Fatalf("answered by %s", got)
	}
	c.elect(c.nodes[1])
	// The old leader would answer from its copy, without a word.
	clock.advance(leaseLasts + time.Millisecond)
	if got := read(); got != c.nodes[1].addr {
		t.Errorf("answered by the old leader")
	}
}

func TestAWriteMovesOnOnlyWhereItWasNotApplied(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(c *cluster){
		"sealed": func(c *cluster) {
			c.nodes[0].Be(standin.Sealed)
			c.elect(c.nodes[1])
		},
		"stepped down": func(c *cluster) { c.elect(c.nodes[1]) },
		"dead": func(c *cluster) {
			c.nodes[0].die()
			c.elect(c.nodes[1])
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
			client := newClient(t, quick(c.addrs()))
			answeredBy(t, client.Do, again(t, "PUT", "first"))
			away(c)
			client.dropIdle() // a write into a connection that just ended may have been applied, as far as one can know
			if got := answeredBy(t, client.Do, again(t, "PUT", "second")); got != c.nodes[1].addr {
				t.Errorf("applied by %s", got)
			}
			if got := strings.Join(c.writes(), " "); got != "first second" {
				t.Errorf("applied: %s", got)
			}
		})
	}
}

// A standby that handed a write on and lost the connection answers 307, as if
// nothing had been done (forwardRequest, http/handler.go of hashicorp/vault
// v1.21.0).
func TestAWriteIsNotSentAgainAfterAHandOverThatFailed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	c.nodes[1].CutHandOver(true)
	// Only the standby can be reached from here.
	c.nodes[0].die()
	client := newClient(t, quick(c.addrs()))
	_, err := client.Do(again(t, "PUT", "once"))
	if err == nil {
		t.Fatal("the write was reported done")
	}
	if got := strings.Join(c.writes(), " "); got != "once" {
		t.Errorf("applied: %q", got)
	}
	// Where the hand-over works it is done.
	c.nodes[1].CutHandOver(false)
	answeredBy(t, client.Do, again(t, "PUT", "twice"))
	if got := strings.Join(c.writes(), " "); got != "once twice" {
		t.Errorf("applied: %q", got)
	}
}

// The active node of a performance secondary hands some writes on to the
// primary, so it is not told not to. When it has just stepped down, a redirect
// of it may follow a hand-over to its successor that went wrong.
func TestAWriteToASecondaryIsNotSentAgainEither(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	for _, m := range c.nodes {
		m.tells(healthPath, map[string]any{"replication_performance_mode": "secondary"})
	}
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, again(t, "PUT", "first"))
	c.elect(c.nodes[1])
	c.nodes[0].CutHandOver(true)
	_, err := client.Do(again(t, "PUT", "second"))
	wantKind(t, err, Redirect)
	if got := strings.Join(c.writes(), " "); got != "first second" {
		t.Errorf("applied: %s", got)
	}
}

func TestRequestsWaitForALeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleStandby, RoleStandby, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	// A poll does not wait: what is cached stands in.
	_, err := client.DoOnce(request(t, "GET", "/v1/x", ""))
	if err == nil {
		t.Log("a node's own answer")
	} else if wantKind(t, err, NoLeader); !Unavailable(err) || StatusFor(err) != http.StatusServiceUnavailable {
		t.Error("no leader is not an outage with 503")
	}
	c.nodes[2].leadLater()
	c.readAndWriteOnce(t, client)
}

// Between its election and its taking up the lead a node is a standby that
// names itself, and so sends requests back to itself.
func TestRequestsWaitForALeaderThatIsNotReadyYet(t *testing.T) {
	t.Parallel()
	for name, asked := range map[string]bool{"the old leader is still asked": true, "the roles are not known": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
			client := newClient(t, quick(c.addrs()))
			if asked {
				answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
			}
			c.Elect(c.nodes[1].Node)
			c.nodes[1].leadLater()
			c.readAndWriteOnce(t, client)
		})
	}
}

// A standby that has not noticed that the leader was sealed redirects to it.
// That the one is sealed does not make the other sealed, too.
func TestASealedLeadersStandbysAreNotTakenForSealed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.nodes[0].Be(standin.Sealed)
	c.nodes[1].leadLater()
	_, err := client.DoOnce(request(t, "GET", "/v1/x", ""))
	if err != nil {
		wantKind(t, err, NoLeader)
	}
	for _, v := range client.views() {
		if sealed := v.addr() == c.nodes[0].addr; sealed != (v.role == RoleSealed) {
			t.Errorf("%s is taken for %v", v.addr(), v.role)
		}
	}
	c.readAndWriteOnce(t, client)
}

func TestALeaderThatSendsRequestsBackToItselfIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.answers(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, n.addr+r.RequestURI, http.StatusTemporaryRedirect)
	})
	client := newClient(t, quick([]string{n.addr, "http://127.0.0.1:1"}))
	_, err := client.Do(request(t, "GET", "/v1/x", ""))
	if e := wantKind(t, err, Redirect); !strings.Contains(e.Error(), "leads back") {
		t.Errorf("got %v", e)
	}
}

func TestAnotherClustersNodeNeverSeesAToken(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]int{"last": {0, 1, 2}, "first": {2, 0, 1}, "beside one, which is first": {0, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, foreign := newCluster(t, RoleActive, RoleStandby), newCluster(t, RoleActive)
			all := append(c.addrs(), foreign.addrs()...)
			var addrs []string
			for _, i := range order {
				addrs = append(addrs, all[i])
			}
			var log strings.Builder
			o := quick(addrs)
			o.StandbyReads = true
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			client := newClient(t, o)
			for range 5 {
				answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
				answeredBy(t, client.Do, again(t, "PUT", "a"))
			}
			asked := client.askRoles()
			if _, err := asked.Wait(t.Context()); err != nil { // until each has said whose it is
				t.Fatal(err)
			}
			// Not even when all of ours are gone.
			for _, m := range c.nodes {
				m.die()
			}
			if _, err := client.Do(request(t, "GET", "/v1/x", "")); err == nil {
				t.Error("somebody answered")
			}
			client.Close()
			if foreign.nodes[0].tokens() != 0 || len(besides(foreign.nodes[0])) != 0 {
				t.Errorf("the stranger saw %d tokens", foreign.nodes[0].tokens())
			}
			if !strings.Contains(log.String(), "another cluster") || !strings.Contains(log.String(), foreign.nodes[0].addr) {
				t.Errorf("the log: %s", log.String())
			}
		})
	}
}

func TestOfTwoThatSayTheyLeadTheLaterOneDoes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	c.elect(c.nodes[1])
	c.nodes[0].Be(standin.Deposed) // it was stopped, and has not noticed
	client.learn(t.Context())
	client.Status(t.Context())
	if got := answeredBy(t, client.Do, again(t, "PUT", "a")); got != c.nodes[1].addr {
		t.Error("the old leader was asked")
	}
}

func TestAReadLeavesANodeThatKeepsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, client := inBubble(t, Options{Config: config.Config{ConnTimeout: 100 * time.Millisecond}}, RoleActive, RoleStandby)
		answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
		c.elect(c.nodes[1])
		c.nodes[0].Be(standin.Silent)
		if got := answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")); got != c.nodes[1].addr {
			t.Errorf("answered by %s", got)
		}
	})
}

func TestQuestionsAboutANodePassWithoutAToken(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleSealed, RoleSealed)
	client := newClient(t, quick(c.addrs()))
	if status, body := do(t, client.Do, request(t, "GET", "/v1/sys/health?standbyok=true", "")); status != 503 || !strings.Contains(body, `"sealed":true`) {
		t.Errorf("got %d %s", status, body)
	}
	_, err := client.Do(request(t, "GET", "/v1/x", ""))
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Error(), "sealed") {
		t.Errorf("got %v", err)
	}
	if c.nodes[0].tokens()+c.nodes[1].tokens() != 0 {
		t.Error("a node of no known cluster saw a token")
	}
}

func TestASlowReadThatChangesNothingGoesToASecondNode(t *testing.T) {
	t.Parallel()
	c, client, free := hedging(t)
	for range 20 {
		req := request(t, "GET", "/v1/x", "")
		if got := answeredBy(t, client.Do, req.WithContext(Repeatable(t.Context()))); got == c.nodes[1].addr {
			t.Error("the node that hangs answered")
		}
	}
	// A read that may have an effect is not doubled.
	before := client.Requests()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 8 {
			if res, err := client.Do(request(t, "GET", "/v1/x", "")); err == nil {
				res.Body.Close()
			}
		}
	}()
	free()
	<-done
	if n := client.Requests() - before; n != 8 {
		t.Errorf("8 reads made %d requests", n)
	}
}

func TestAReadThatIsCutHalfWayIsReadElsewhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	c.nodes[0].answers(func(w http.ResponseWriter, _ *http.Request) { // the connection to it breaks
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half"))
		panic(http.ErrAbortHandler)
	})
	c.nodes[1].answers(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, map[string]string{"whole": "yes"}) })
	client := newClient(t, quick(c.addrs()))
	if status, body := do(t, client.Do, request(t, "GET", "/v1/x", "")); status != 200 || !strings.Contains(body, "yes") {
		t.Errorf("got %d %s", status, body)
	}
}
