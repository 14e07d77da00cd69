package vault

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

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

// besideAStranger gives a client of two nodes that tell their health so late, and
// of one of another cluster, which is quicker.
func besideAStranger(t *testing.T, late time.Duration) (client *Client, stranger *cluster) {
	t.Helper()
	c, stranger := newCluster(t, RoleActive, RoleStandby), newCluster(t, RoleActive)
	o := quick([]string{serve(t, slowHealth{c.nodes[0], late}), serve(t, slowHealth{c.nodes[1], late}), stranger.nodes[0].addr})
	o.ConnTimeout = 10 * time.Second // busy machines are later still
	return newClient(t, o), stranger
}

func (c *cluster) sawNoToken(t *testing.T) {
	t.Helper()
	for _, m := range c.nodes {
		if n := m.tokens(); n != 0 {
			t.Errorf("the stranger saw %d tokens", n)
		}
	}
}

// The second request's round asks nobody: the questions of the first are out.
func TestASecondRequestDoesNotDecideHomeByTheQuickestNode(t *testing.T) {
	t.Parallel()
	client, foreign := besideAStranger(t, 400*time.Millisecond)
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
	foreign.sawNoToken(t)
}

// The nodes of ours take longer than a round is waited for.
func TestHomeIsNotDecidedByTheQuickestNode(t *testing.T) {
	t.Parallel()
	client, foreign := besideAStranger(t, 850*time.Millisecond)
	if res, err := client.Do(request(t, "GET", "/v1/x", "")); err == nil {
		res.Body.Close()
	} else {
		t.Log(err)
	}
	foreign.sawNoToken(t)
}

func TestNodesThatAreSlowToTellTheirHealthAreWaitedFor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
	var addrs []string
	for _, m := range c.nodes {
		addrs = append(addrs, serve(t, slowHealth{m, 1300 * time.Millisecond}))
	}
	client := newClient(t, Options{Config: config.Config{Addrs: addrs, MaxRetries: 2}})
	began := time.Now()
	res, err := client.Do(request(t, "GET", "/v1/x", ""))
	if err != nil {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	res.Body.Close()
}

func TestAStatusNobodyWaitsForDecidesNothing(t *testing.T) {
	t.Parallel()
	client, foreign := besideAStranger(t, 300*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	client.Status(ctx)
	if res, err := client.Do(request(t, "GET", "/v1/x", "")); err == nil {
		res.Body.Close()
	}
	foreign.sawNoToken(t)
}

func TestAStatusNobodyWaitsForLosesNoRole(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	client.Status(ctx)
	if client.active() == nil {
		t.Error("the leader is taken for unreachable because a caller left")
	}
}

func TestOurOwnRateLimitMakesNoNodeUnreachable(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby, RoleStandby)
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
	c := newCluster(t, RoleActive, RoleStandby)
	clock := newClock()
	f := fakeNet{"10.0.0.1:8200": hostOf(t, c.nodes[0].addr), "10.0.0.2:8200": hostOf(t, c.nodes[1].addr)}
	o := quick([]string{"http://vault.test:8200"})
	o.Dial, o.ActiveOnly, o.Now = f.dial, true, clock.Now
	var broken atomic.Bool
	o.LookupIP = func(context.Context, string, string) ([]netip.Addr, error) {
		if broken.Load() {
			return nil, errors.New("server misbehaving")
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}, nil
	}
	client := newClient(t, o)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	broken.Store(true)
	time.Sleep(2 * askGap)
	clock.advance(2 * time.Minute)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")) // nobody waits for the round
	time.Sleep(200 * time.Millisecond)
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
}

func TestACallerWhoLeavesMakesNoNodeUnreachable(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	n := client.views()[0].node
	client.note(n, func(s *state) { s.cluster = "" }) // as of a node that was sealed until now
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := client.begin(request(t, "GET", "/v1/x", "").WithContext(ctx), false)
	defer k.end()
	_ = trail{k, n}.belongs(n)
	if v := client.views()[0]; v.role == RoleUnreachable {
		t.Error("unreachable because a caller left")
	}
}
