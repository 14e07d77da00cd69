package ha

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// deadline is VAULT_CLIENT_TIMEOUT in the mixed runs: longer than an election.
const deadline = time.Minute

// tally is what came of the requests of one kind.
type tally struct {
	mu     sync.Mutex // guards the fields below
	sent   int
	failed int
	stale  int
	took   []time.Duration
	why    map[string]int // of what failed
	bad    []string       // what may not happen
}

func (y *tally) add(took time.Duration, ok, stale bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.sent++
	if !ok {
		y.failed++
	}
	if stale {
		y.stale++
	}
	y.took = append(y.took, took)
}

// note counts why a request failed.
func (y *tally) note(r *harness.Response, err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	why := fmt.Sprint(err)
	if r != nil {
		why = fmt.Sprintf("%d %.160s", r.Status, strings.TrimSpace(string(r.Body)))
	}
	if y.why == nil {
		y.why = make(map[string]int)
	}
	y.why[why]++
}

func (y *tally) wrong(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.bad = append(y.bad, fmt.Sprintf(format, args...))
}

// report logs the figures and fails the test for what may not be.
func (y *tally) report(t *testing.T, kind string) {
	t.Helper()
	t.Logf("%s: %d requests, %d failed, %d stale, median %v, 99th percentile %v, longest %v", kind, y.sent, y.failed, y.stale,
		quantile(y.took, 0.5), quantile(y.took, 0.99), quantile(y.took, 1))
	for why, n := range y.why {
		t.Logf("%s: %d times %s", kind, n, why)
	}
	for _, b := range y.bad[:min(len(y.bad), 10)] {
		t.Errorf("%s: %s", kind, b)
	}
}

// mixed is a run of cached reads, uncached reads and writes.
type mixed struct {
	t       *testing.T
	p       *thaw
	c       *harness.Cluster
	token   string
	watch   watch
	permits chan struct{} // one for each read
	pens    chan struct{} // one for each write

	cached, uncached, writes tally
}

// TestMixedRequestsThroughEveryWayToLoseTheLeader: cached reads never fail,
// uncached reads wait for the next leader, no write is applied twice, and none
// that was reported done is lost.
func TestMixedRequestsThroughEveryWayToLoseTheLeader(t *testing.T) {
	c := harness.Raft3(t, harness.ClusterConfig{Front: true})
	m := &mixed{t: t, c: c, token: c.Nodes[0].RootToken(), permits: make(chan struct{}), pens: make(chan struct{})}
	m.p = start(t, harness.Settings{
		"THAW_VAULT_ADDRS": c.String(), "VAULT_TOKEN": m.token, "VAULT_CLIENT_TIMEOUT": deadline.String(), "VAULT_LOG_LEVEL": "DEBUG",
	})
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	const secrets, casWriters, plainWriters = 20, 3, 2
	leader, err := c.Leader(ctx)
	harness.Must(t, err)
	for i := range secrets {
		_, err := leader.Put(ctx, "secret", fmt.Sprint("held-", i), map[string]any{"v": fmt.Sprint(i)})
		harness.Must(t, err)
		if r, err := m.p.send(ctx, harness.Call{Method: http.MethodGet, Path: fmt.Sprint("secret/data/held-", i)}); err != nil || r.Status != http.StatusOK {
			t.Fatalf("fill: %v, %v", r, err)
		}
	}
	var observer, workers sync.WaitGroup
	watching, stop := context.WithCancel(ctx)
	observer.Go(func() { m.watch.run(watching, c) })
	for i := range 4 {
		workers.Go(func() { m.readHeld(ctx, i, secrets) })
		workers.Go(func() { m.readPlain(ctx, i, secrets) })
	}
	var ledgers []*ledger
	for i := range casWriters + plainWriters {
		l := &ledger{key: fmt.Sprint("written-", i), cas: i < casWriters, done: make(map[int]int)}
		_, err := leader.Root(ctx, http.MethodPost, "secret/metadata/"+l.key, map[string]any{"max_versions": 100000})
		harness.Must(t, err)
		ledgers = append(ledgers, l)
		workers.Go(func() { m.write(ctx, l) })
	}
	m.pace(ctx)
	workers.Wait()
	stop()
	observer.Wait()
	m.cached.report(t, "cached reads")
	m.uncached.report(t, "uncached reads")
	m.writes.report(t, "writes")
	leader, err = c.Leader(ctx)
	harness.Must(t, err)
	for _, l := range ledgers {
		l.check(ctx, t, leader)
	}
}

// pace hands out as many permits as there are requests: a share while all is
// well, and a share while the leader is away, in turns. When the leader does not
// come back, the next share waits for it.
func (m *mixed) pace(ctx context.Context) {
	defer close(m.pens)
	defer close(m.permits)
	give := func(n int) {
		for n := range n {
			if n%4 == 0 {
				select {
				case m.pens <- struct{}{}:
					continue
				default: // every writer is at it
				}
			}
			select {
			case m.permits <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}
	share := *requests / (3 * len(outages()))
	left := *requests
	disrupt(ctx, m.t, m.c, func(during func(hold func())) {
		give(share) // before
		var giving sync.WaitGroup
		giving.Go(func() { give(share) })
		during(giving.Wait)
		giving.Wait()
		give(share)
		left -= 3 * share
	})
	give(left)
}

// readHeld reads secrets that are cached: every read must be answered.
func (m *mixed) readHeld(ctx context.Context, i, secrets int) {
	for range m.permits {
		i++
		path := fmt.Sprint("secret/data/held-", i%secrets)
		began := time.Now()
		r, err := m.p.send(ctx, harness.Call{Method: http.MethodGet, Path: path})
		ok := err == nil && r.Status == http.StatusOK && strings.Contains(string(r.Body), fmt.Sprintf(`"v":"%d"`, i%secrets))
		m.cached.add(time.Since(began), ok, ok && r.Header.Get("Warning") != "")
		if !ok {
			m.cached.wrong("%s failed: %v, %v", path, r, err)
		}
	}
}

// readPlain reads past the cache.
func (m *mixed) readPlain(ctx context.Context, i, secrets int) {
	for range m.permits {
		i++
		path := fmt.Sprintf("secret/metadata/held-%d?n=%d", i%secrets, i) // an unknown parameter: not cached
		began := time.Now()
		r, err := m.p.send(ctx, harness.Call{Method: http.MethodGet, Path: path})
		end := time.Now()
		ok := err == nil && r.Status == http.StatusOK
		m.uncached.add(end.Sub(began), ok, false)
		if ok && r.Header.Get("X-Cache") != "MISS" {
			m.uncached.wrong("%s came from the cache", path)
		}
		if gone := m.watch.without(began, end); !ok && gone < end.Sub(began)*9/10 {
			m.uncached.wrong("%s failed after %v, of which there was no leader for %v: %v, %v", path, end.Sub(began), gone, r, err)
		} else if !ok && end.Sub(began) < deadline-time.Second {
			m.uncached.wrong("%s did not wait for a leader: it failed after %v: %v, %v", path, end.Sub(began), r, err)
		}
	}
}

// ledger is what one writer knows of its key. Nobody else writes it.
type ledger struct {
	key  string
	cas  bool
	done map[int]int // version to the number written, of writes that were reported done
	// maybe counts writes whose fate is not known.
	maybe int
}

// write writes numbers, one after the other, under check-and-set or without.
func (m *mixed) write(ctx context.Context, l *ledger) {
	version := 0
	unsure := false // whether the last write was applied is not known
	n := 0
	for range m.pens {
		n++
		body := map[string]any{"data": map[string]int{"n": n}}
		if l.cas {
			if unsure {
				version = m.version(ctx, l.key)
				unsure = false
			}
			body["options"] = map[string]int{"cas": version}
		}
		began := time.Now()
		r, err := m.p.send(ctx, harness.Call{Method: http.MethodPost, Path: "secret/data/" + l.key, Body: body})
		ok := err == nil && r.Status == http.StatusOK
		m.writes.add(time.Since(began), ok, false)
		if !ok {
			l.maybe++
			unsure = true
			m.writes.note(r, err)
			if err == nil && r.Status == http.StatusBadRequest {
				m.writes.wrong("%s: %s: the write met itself: it was sent twice, or an earlier one lay in wait", l.key, r.Body)
			}
			continue
		}
		var answer struct {
			Data struct {
				Version int `json:"version"`
			} `json:"data"`
		}
		if err := json.Unmarshal(r.Body, &answer); err != nil {
			m.writes.wrong("%s: %v", l.key, err)
			continue
		}
		version = answer.Data.Version
		if other, twice := l.done[version]; twice {
			m.writes.wrong("%s: version %d was given to %d and to %d", l.key, version, other, n)
		}
		l.done[version] = n
	}
}

// version asks the cluster itself how far a key is.
func (m *mixed) version(ctx context.Context, key string) int {
	at := 0
	_ = await(ctx, func() bool {
		leader := m.c.Active(ctx)
		if leader == nil {
			return false
		}
		r, err := leader.Do(ctx, harness.Call{Method: http.MethodGet, Path: "secret/metadata/" + key, Token: m.token})
		if err != nil || r.Status != http.StatusOK {
			return false
		}
		var body struct {
			Data struct {
				Current int `json:"current_version"`
			} `json:"data"`
		}
		err = json.Unmarshal(r.Body, &body)
		at = body.Data.Current
		return err == nil
	})
	return at
}

// check compares what is there with what was reported.
func (l *ledger) check(ctx context.Context, t *testing.T, leader *harness.Vault) {
	t.Helper()
	seen := make(map[int]int) // number to version
	last := 0
	for version := 1; ; version++ {
		r, err := leader.Do(ctx, harness.Call{Method: http.MethodGet, Path: fmt.Sprintf("secret/data/%s?version=%d", l.key, version), Token: leader.RootToken()})
		if err != nil {
			t.Fatal(err)
		}
		if r.Status == http.StatusNotFound {
			break
		}
		var body struct {
			Data struct {
				Data struct {
					N int `json:"n"`
				} `json:"data"`
			} `json:"data"`
		}
		harness.Must(t, r.Err(), json.Unmarshal(r.Body, &body))
		n := body.Data.Data.N
		if before, twice := seen[n]; twice {
			t.Errorf("%s: %d was applied twice, as versions %d and %d", l.key, n, before, version)
		}
		seen[n], last = version, version
		if want, reported := l.done[version]; reported && want != n {
			t.Errorf("%s: version %d was reported for %d and holds %d", l.key, version, want, n)
		}
	}
	for version, n := range l.done {
		if seen[n] != version {
			t.Errorf("%s: %d was reported done as version %d and is lost", l.key, n, version)
		}
	}
	if most := len(l.done) + l.maybe; last > most {
		t.Errorf("%s: %d versions for %d writes", l.key, last, most)
	}
	t.Logf("%s: %d reported done, %d of unknown fate, %d applied", l.key, len(l.done), l.maybe, last)
}
