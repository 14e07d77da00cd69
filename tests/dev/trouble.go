package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// trouble stands before the stand-in and makes it as bad as it is told to.
type trouble struct {
	next  http.Handler
	token string // put in the place of whatever callers send; empty: theirs counts
	share float64
	delay time.Duration

	mu     sync.Mutex
	random *rand.Rand // guarded by mu
	down   bool       // guarded by mu
	asked  int        // guarded by mu; requests, those that failed included
}

func newTrouble(next http.Handler, s settings, root string) *trouble {
	t := &trouble{next: next, share: s.fail, delay: s.delay, down: s.down, random: rand.New(rand.NewPCG(s.seed, s.seed))}
	if s.token == "" {
		t.token = root
	}
	return t
}

// setDown takes the origin away, or brings it back.
func (t *trouble) setDown(down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = down
}

// toggle is setDown to what it is not.
func (t *trouble) toggle() (down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = !t.down
	return t.down
}

// state tells whether the origin is down, and how often it was asked.
func (t *trouble) state() (down bool, asked int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.down, t.asked
}

// decide says what becomes of a request: whether its connection is cut, and the
// status of a failure, or 0.
func (t *trouble) decide() (cut bool, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	if t.share > 0 && t.random.Float64() < t.share {
		status = []int{http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}[t.random.IntN(4)]
	}
	return t.down, status
}

func (t *trouble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cut, status := t.decide()
	if cut {
		panic(http.ErrAbortHandler) // the connection ends without an answer
	}
	if !pause(r.Context(), t.delay) {
		return
	}
	if status != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"errors":["thaw-dev: this answer fails on purpose (-fail)"]}` + "\n"))
		return
	}
	if t.token != "" && (r.Header.Get("X-Vault-Token") != "" || r.Header.Get("Authorization") != "") {
		r = r.Clone(r.Context())
		r.Header.Del("Authorization")
		r.Header.Set("X-Vault-Token", t.token)
	}
	t.next.ServeHTTP(w, r)
}

// pause waits d, and reports false where the caller left meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
