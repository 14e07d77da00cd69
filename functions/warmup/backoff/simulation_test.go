package backoff

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// quota is a rate limit as origins have it. It lives in a synctest bubble.
type quota struct {
	mu      sync.Mutex // guards the fields below
	most    int
	window  time.Duration
	headers bool
	steady  bool          // a bucket that fills all the time, instead of windows
	others  float64       // requests a second of somebody else
	start   time.Time     // of the first window
	tick    int64         // the window that left belongs to
	left    float64       //
	filled  time.Time     // when a steady bucket was last filled
	stolen  time.Time     // until when the others' requests are counted
	phase   time.Duration // how far into a window the first request comes
	allowed int
	refused int
}

// ask is one request: what the origin answers after its latency.
func (q *quota) ask() (int, http.Header) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.start.IsZero() {
		q.start, q.filled, q.stolen, q.left = now.Add(-q.phase), now, now, float64(q.most)
	}
	reset := time.Second
	if q.steady {
		q.left = min(float64(q.most), q.left+now.Sub(q.filled).Seconds()*float64(q.most)/q.window.Seconds())
		q.filled = now
	} else {
		if tick := int64(now.Sub(q.start) / q.window); tick != q.tick {
			q.tick, q.left = tick, float64(q.most)
		}
		reset = q.start.Add(time.Duration(q.tick+1) * q.window).Sub(now)
	}
	q.left = max(0, q.left-now.Sub(q.stolen).Seconds()*q.others)
	q.stolen = now
	h := http.Header{}
	ok := q.left >= 1
	if ok {
		q.left--
		q.allowed++
	} else {
		q.refused++
	}
	if q.headers {
		in := strconv.Itoa(int((reset + time.Second - 1) / time.Second))
		h.Set(headerLimit, strconv.Itoa(q.most))
		h.Set(headerRemaining, strconv.Itoa(int(q.left)))
		h.Set(headerReset, in)
		if !ok {
			h.Set("Retry-After", in)
		}
	}
	if !ok {
		return http.StatusTooManyRequests, h
	}
	return http.StatusOK, h
}

// run sends n requests by some workers and returns how long that took and how
// many were not sent, because the backoff gave up.
func run(t *testing.T, g *Backoff, q *quota, workers, n int, latency time.Duration) (took time.Duration, missing int) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for {
				mu.Lock()
				if n == 0 {
					mu.Unlock()
					return
				}
				n--
				mu.Unlock()
				for {
					ticket, err := g.Enter(t.Context())
					if errors.Is(err, ErrGivenUp) {
						mu.Lock()
						missing++
						mu.Unlock()
						break
					}
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(latency/2 + time.Duration(random.Int64N(int64(latency))))
					status, header := q.ask()
					g.Leave(ticket, status, header, nil)
					if status == http.StatusOK {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began), missing
}

// TestEveryRequestPassesUnderAQuotaWithFewRefusals is the promise: all done,
// at most 5% and two seconds slower than the quota allows, at most 1% refused.
func TestEveryRequestPassesUnderAQuotaWithFewRefusals(t *testing.T) {
	t.Parallel()
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	for _, headers := range []bool{true, false} {
		for _, phase := range []time.Duration{0, 300 * time.Millisecond, 700 * time.Millisecond, 950 * time.Millisecond} {
			for seed := range seeds {
				t.Run(fmt.Sprintf("headers=%t phase=%s seed=%d", headers, phase, seed), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						const workers, n, most = 3, 5000, 500
						random := rand.New(rand.NewPCG(2, seed))
						g := New(Options{Attempts: workers * 10, Rand: random.Int64N})
						q := &quota{most: most, window: time.Second, headers: headers, phase: phase}
						took, missing := run(t, g, q, workers, n, time.Millisecond)
						t.Logf("%s, %d refused, %+v", took, q.refused, g.Stats())
						if missing > 0 || q.allowed != n {
							t.Errorf("%d requests missing", missing)
						}
						if limit := time.Duration(1.05*n/most*float64(time.Second)) + 2*time.Second; took > limit {
							t.Errorf("took %s, want at most %s", took, limit)
						}
						if q.refused > n/100 || q.refused > workers*10 {
							t.Errorf("%d refused of %d", q.refused, n)
						}
					})
				})
			}
		}
	}
}

// TestTheGateFitsManyQuotas runs other windows, workers and neighbours.
func TestTheGateFitsManyQuotas(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		q       *quota
		workers int
		n       int
		latency time.Duration
		most    time.Duration // 0: not judged
		refused int
	}{
		"one a second":                    {&quota{most: 1, window: time.Second, headers: true}, 3, 30, time.Millisecond, 36 * time.Second, 3},
		"five a second":                   {&quota{most: 5, window: time.Second, headers: true}, 3, 100, time.Millisecond, 25 * time.Second, 3},
		"five a second, no headers":       {&quota{most: 5, window: time.Second}, 3, 100, time.Millisecond, 35 * time.Second, 12},
		"600 a minute":                    {&quota{most: 600, window: time.Minute, headers: true}, 3, 1500, time.Millisecond, 170 * time.Second, 4},
		"600 a minute, joined late":       {&quota{most: 600, window: time.Minute, headers: true, phase: 50 * time.Second}, 3, 1500, time.Millisecond, 170 * time.Second, 4},
		"600 a minute, no headers":        {&quota{most: 600, window: time.Minute}, 3, 1500, time.Millisecond, 4 * time.Minute, 24},
		"steady bucket":                   {&quota{most: 200, window: time.Second, steady: true}, 3, 4000, time.Millisecond, 24 * time.Second, 12},
		"many workers":                    {&quota{most: 500, window: time.Second, headers: true}, 16, 5000, 20 * time.Millisecond, 12 * time.Second, 50},
		"many workers, no headers":        {&quota{most: 500, window: time.Second}, 16, 5000, 20 * time.Millisecond, 13 * time.Second, 100},
		"others take half":                {&quota{most: 500, window: time.Second, headers: true, others: 250}, 3, 2500, time.Millisecond, 25 * time.Second, 25},
		"others take half, no headers":    {&quota{most: 500, window: time.Second, others: 250}, 3, 2500, time.Millisecond, 25 * time.Second, 25},
		"slow origin below its own limit": {&quota{most: 5000, window: time.Second, headers: true}, 3, 600, 50 * time.Millisecond, 12 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(3, 4))
				g := New(Options{Attempts: c.workers * 10, Rand: random.Int64N})
				took, missing := run(t, g, c.q, c.workers, c.n, c.latency)
				t.Logf("%s, %d refused, %+v", took, c.q.refused, g.Stats())
				if missing > 0 {
					t.Errorf("%d requests missing", missing)
				}
				if took > c.most {
					t.Errorf("took %s, want at most %s", took, c.most)
				}
				if c.q.refused > c.refused {
					t.Errorf("%d refused, want at most %d", c.q.refused, c.refused)
				}
			})
		})
	}
}
