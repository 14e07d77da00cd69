package vault

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

func TestWhatLostAHedgeDoesNotCountAsUnderWay(t *testing.T) {
	t.Parallel()
	c, client, free := hedging(t)
	for range 20 {
		req := request(t, "GET", "/v1/x", "")
		answeredBy(t, client.Do, req.WithContext(Repeatable(t.Context())))
	}
	free()
	c.change(func() { c.nodes[1].hang = nil })
	for _, v := range client.views() {
		if n := v.known.pending.Load(); n != 0 {
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
