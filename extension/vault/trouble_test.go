package vault

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/standin"
)

func TestWhatLostAHedgeDoesNotCountAsUnderWay(t *testing.T) {
	t.Parallel()
	c, client, free := hedging(t)
	for range 20 {
		req := request(t, "GET", "/v1/x", "")
		answeredBy(t, client.Do, req.WithContext(Repeatable(t.Context())))
	}
	free()
	for _, v := range client.views() {
		if n := v.pending; n != 0 {
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
	c := newCluster(t, RoleActive, RolePerformanceStandby)
	c.nodes[0].answers(func(w http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			writeJSON(w, 503, map[string]any{"errors": []string{"server overloaded, try again later"}})
			return
		}
		c.nodes[0].Node.ServeHTTP(w, r)
	})
	c.nodes[1].answers(func(w http.ResponseWriter, r *http.Request) {
		if slow.Load() {
			time.Sleep(150 * time.Millisecond)
		}
		c.nodes[1].Node.ServeHTTP(w, r)
	})
	o := quick(c.addrs())
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
	synctest.Test(t, func(t *testing.T) {
		c, client := inBubble(t, Options{Config: config.Config{StandbyReads: true, ClientTimeout: 6 * time.Second, ConnTimeout: 100 * time.Millisecond}}, RoleActive, RolePerformanceStandby)
		client.Status(t.Context())
		c.nodes[1].Be(standin.Silent)
		req := request(t, "GET", "/v1/x", "")
		answeredBy(t, client.Do, req.WithContext(AtLeast(t.Context(), 9)))
	})
}

func TestAReadGoesOnFromANodeThatAnswersGarbage(t *testing.T) {
	t.Parallel()
	var garbage atomic.Bool
	c := newCluster(t, RoleActive, RolePerformanceStandby)
	standby := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !garbage.Load() {
			c.nodes[1].ServeHTTP(w, r)
			return
		}
		nc, _, _ := w.(http.Hijacker).Hijack()
		_, _ = nc.Write([]byte("\x15\x03\x01\x00\x02\x02\x46 not http\r\n\r\n"))
		_ = nc.Close()
	}))
	o := quick([]string{c.nodes[0].addr, standby})
	o.StandbyReads = true
	client := newClient(t, o)
	client.Status(t.Context())
	do(t, client.Do, request(t, "GET", "/v1/x", ""))
	garbage.Store(true)
	do(t, client.Do, request(t, "GET", "/v1/x", ""))
}

func TestTheBreakerOpensForErrorsOfANode(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	c := newCluster(t, RoleActive, RolePerformanceStandby)
	standby := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == healthPath {
			c.nodes[1].ServeHTTP(w, r)
			return
		}
		n.Add(1)
		w.WriteHeader(502)
	}))
	o := quick([]string{c.nodes[0].addr, standby})
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
