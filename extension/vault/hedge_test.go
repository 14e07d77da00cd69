package vault

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/tests/standin"
)

// countingHandler is a handler that answers after a delay and counts.
func countingHandler(delay *atomic.Int64) (http.HandlerFunc, *atomic.Int64) {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if wait.For(r.Context(), time.Duration(delay.Load())) != nil {
			return
		}
		_, _ = io.WriteString(w, "ok")
	}, &n
}

func TestAPollOnADeadConnectionAsksAgainOnAFreshOne(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "LIST", "HEAD", "SCAN"} {
		synctest.Test(t, func(t *testing.T) {
			var delay atomic.Int64
			h, asked := countingHandler(&delay)
			n := newMemNet(t, h)
			c := n.client(t, Options{})
			do(t, c.DoOnce, request(t, method, "/v1/x", ""))
			n.freeze(10 * time.Second)
			n.mu.Lock()
			n.stall = 20 * time.Millisecond
			n.mu.Unlock()
			start := time.Now()
			do(t, c.DoOnce, request(t, method, "/v1/x", ""))
			if took := time.Since(start); took != hedgeAfter+20*time.Millisecond {
				t.Errorf("%s took %v", method, took)
			}
			if asked.Load() != 2 || n.dialled() != 2 || c.Requests() != 3 {
				t.Errorf("%s: %d seen, %d dials, %d counted", method, asked.Load(), n.dialled(), c.Requests())
			}
			if c.places.Free() != c.o.MaxInFlight {
				t.Error("a slot leaked")
			}
			// And the connection that won is used again.
			do(t, c.DoOnce, request(t, method, "/v1/x", ""))
			if n.dialled() != 2 {
				t.Error("another connection was made")
			}
		})
	}
}

func TestLeaderAndHealthSurviveADeadConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newNodes(standin.ClusterOptions{}, RoleActive).nodes[0]
		f.tells(leaderPath, map[string]any{"raft_committed_index": 7})
		f.tells(healthPath, map[string]any{"cluster_id": "c1"})
		n := newMemNet(t, f.ServeHTTP)
		c := n.client(t, Options{})
		for range 3 {
			start := time.Now()
			if l, err := c.Leader(t.Context()); err != nil || l.Committed != 7 || !l.SentAt.Equal(start) {
				t.Errorf("Leader: %+v, %v", l, err)
			}
			if h, err := c.Health(t.Context()); err != nil || h.ClusterID != "c1" {
				t.Errorf("Health: %+v, %v", h, err)
			}
			n.freeze(5 * time.Second)
		}
	})
}

func TestAPollIsSentOnceWhileItsConnectionIsNotSuspect(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		sleep, delay time.Duration
		want         int64
	}{
		"slow, after a short sleep":          {time.Second, 400 * time.Millisecond, 1},
		"quick, after a long sleep":          {10 * time.Second, hedgeAfter - time.Millisecond, 1},
		"slow, after a long sleep":           {10 * time.Second, 400 * time.Millisecond, 2},
		"slow, after longer than IdleConn":   {time.Minute, 400 * time.Millisecond, 1},
		"slow, on the very first connection": {0, 400 * time.Millisecond, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var delay atomic.Int64
				h, asked := countingHandler(&delay)
				n := newMemNet(t, h)
				c := n.client(t, Options{})
				if tt.sleep > 0 {
					do(t, c.DoOnce, request(t, "GET", "/v1/x", ""))
					time.Sleep(tt.sleep)
				}
				delay.Store(int64(tt.delay))
				before := asked.Load()
				start := time.Now()
				do(t, c.DoOnce, request(t, "GET", "/v1/x", ""))
				if took := time.Since(start); took != tt.delay {
					t.Errorf("took %v", took)
				}
				if got := asked.Load() - before; got != tt.want {
					t.Errorf("sent %d times, want %d", got, tt.want)
				}
			})
		})
	}
}

func TestDoNeverSendsTwiceAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var delay atomic.Int64
		h, asked := countingHandler(&delay)
		n := newMemNet(t, h)
		c := n.client(t, Options{Config: config.Config{MaxRetries: 2}})
		do(t, c.Do, request(t, "GET", "/v1/database/creds/app", ""))
		time.Sleep(10 * time.Second)
		delay.Store(int64(5 * time.Second)) // the database takes its time
		do(t, c.Do, request(t, "GET", "/v1/database/creds/app", ""))
		if asked.Load() != 2 {
			t.Errorf("%d requests for two reads: a credential was made twice", asked.Load())
		}
	})
}

func TestAWriteNeverRidesOnAConnectionThatSlept(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		synctest.Test(t, func(t *testing.T) {
			var delay atomic.Int64
			h, asked := countingHandler(&delay)
			n := newMemNet(t, h)
			c := n.client(t, Options{})
			do(t, c.Do, request(t, "GET", "/v1/x", ""))
			n.freeze(2 * time.Second)
			start := time.Now()
			do(t, c.DoOnce, request(t, method, "/v1/auth/aws/login", "body"))
			if took := time.Since(start); took != 0 || asked.Load() != 2 || n.dialled() != 2 {
				t.Errorf("%s took %v; %d seen, %d dials", method, took, asked.Load(), n.dialled())
			}
		})
	}
}

func TestHedgesRespectTheRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var delay atomic.Int64
		h, asked := countingHandler(&delay)
		n := newMemNet(t, h)
		c := n.client(t, Options{Config: config.Config{RateLimit: 0.1, RateBurst: 2}})
		do(t, c.DoOnce, request(t, "GET", "/v1/x", ""))
		time.Sleep(5 * time.Second)
		delay.Store(int64(time.Second))
		do(t, c.DoOnce, request(t, "GET", "/v1/x", ""))
		if asked.Load() != 2 {
			t.Errorf("%d requests", asked.Load())
		}
	})
}

// A second copy of a request is one more request at the origin.
func TestG7HedgesRespectTheRequestsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, asked := countingHandler(new(atomic.Int64))
		n := newMemNet(t, h)
		c := n.client(t, Options{Config: config.Config{MaxInFlight: 1, ClientTimeout: time.Second}})
		do(t, c.DoOnce, request(t, "GET", "/v1/x", ""))
		n.freeze(10 * time.Second)
		res, err := c.DoOnce(request(t, "GET", "/v1/x", ""))
		if err == nil {
			res.Body.Close()
			t.Error("the dead connection answered")
		}
		if asked.Load() != 1 || n.dialled() != 1 {
			t.Errorf("%d seen, %d dials: with one slot there is no second copy", asked.Load(), n.dialled())
		}
		if c.places.Free() != c.o.MaxInFlight {
			t.Error("a slot leaked")
		}
	})
}

func TestBothHedgedRequestsFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var delay atomic.Int64
		h, _ := countingHandler(&delay)
		n := newMemNet(t, h)
		c := n.client(t, Options{Config: config.Config{ClientTimeout: 3 * time.Second}})
		do(t, c.DoOnce, request(t, "GET", "/v1/x", ""))
		n.freeze(10 * time.Second)
		delay.Store(int64(time.Hour))
		start := time.Now()
		_, err := c.DoOnce(request(t, "GET", "/v1/x", ""))
		wantKind(t, err, Timeout)
		if took := time.Since(start); took != 3*time.Second || c.places.Free() != c.o.MaxInFlight {
			t.Errorf("took %v, %d places", took, c.o.MaxInFlight-c.places.Free())
		}
	})
}
