package poll

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// board is a shared tier: entries, grants, stamps and locks, all of which end
// by themselves. It is a Stamps and a cache.Shared.
type board struct {
	mu      sync.Mutex // guards the fields below
	maxAge  time.Duration
	records map[cache.Key]cache.Record
	grants  map[cache.Capability]cache.Confirmation
	stamps  map[cache.Key]cache.Stamp
	cursor  cache.CursorStamp
	locks   map[string]time.Time // until when
	learned string               // the active_time under which the cluster's standbys forward
	heard   time.Time            // when that was said
	deaf    bool                 // nothing that is put arrives
}

const skew = time.Second

func newBoard(maxAge time.Duration) *board {
	return &board{maxAge: maxAge, records: map[cache.Key]cache.Record{}, grants: map[cache.Capability]cache.Confirmation{}, stamps: map[cache.Key]cache.Stamp{}, locks: map[string]time.Time{}}
}

func (b *board) young(at time.Time) bool {
	return !at.IsZero() && time.Since(at)+skew <= b.maxAge
}

func (b *board) Stamps(_ context.Context, keys []cache.Key) (cache.CursorStamp, map[cache.Key]cache.Stamp) {
	time.Sleep(time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[cache.Key]cache.Stamp{}
	for _, k := range keys {
		if s := b.stamps[k]; b.young(s.At) {
			out[k] = s
		}
	}
	if !b.young(b.cursor.At) {
		return cache.CursorStamp{}, out
	}
	return b.cursor, out
}

func (b *board) Near(ctx context.Context, keys []cache.Key) (cache.CursorStamp, map[cache.Key]cache.Stamp, []cache.Key) {
	cursor, stamps := b.Stamps(ctx, keys)
	return cursor, stamps, nil
}

func (b *board) PutStamps(_ context.Context, s cache.CursorStamp, _ map[cache.Key]cache.Stamp) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.At.After(b.cursor.At) && !b.deaf {
		b.cursor = s
	}
}

func (b *board) Taken(_ context.Context, key cache.Key, turn int) (free func(context.Context), taken bool) {
	time.Sleep(time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	name := fmt.Sprint(key, turn)
	if time.Now().Before(b.locks[name]) {
		return nothingHeld, true
	}
	b.locks[name] = time.Now().Add(2 * time.Second)
	return func(context.Context) {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.locks, name)
	}, false
}

func (b *board) Fetch(_ context.Context, keys []cache.Key) ([]cache.Record, map[cache.Capability]cache.Confirmation) {
	time.Sleep(time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []cache.Record
	grants := map[cache.Capability]cache.Confirmation{}
	for _, k := range keys {
		if r, ok := b.records[k]; ok {
			out = append(out, r)
		}
		if c, ok := b.grants[k.Capability()]; ok {
			grants[k.Capability()] = c
		}
	}
	return out, grants
}

func (b *board) Keep(_ context.Context, records []cache.Record, grants map[cache.Capability]cache.Confirmation) {
	time.Sleep(time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deaf {
		return
	}
	for _, r := range records {
		if r.SentAt.After(b.records[r.Key].SentAt) {
			b.records[r.Key] = r
			b.stamps[r.Key] = cache.Stamp{At: r.SentAt, Fingerprint: cache.Fingerprint(r.Status, r.Body)}
		}
	}
	for r, at := range grants {
		b.grants[r] = at
	}
}

func (b *board) Forwards(_ context.Context, activeTime string) (forwards bool, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.learned != activeTime {
		return false, time.Time{}
	}
	return true, b.heard
}

func (b *board) SetForwards(_ context.Context, activeTime string, _ bool, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.learned, b.heard = activeTime, at
}

func (b *board) Drop(context.Context, []cache.Key, []cache.Capability, time.Time) {}

// instance is one of a fleet: it shares b and reads from c.
func instance(t *testing.T, c *cluster, b *board, more ...func(*Options)) *world {
	return newWorldWith(t, c, b, func(co *cache.Options, po *Options) {
		co.Shared, co.MaxAge, co.Skew, po.Stamps = b, b.maxAge, skew, b
		for _, f := range more {
			f(po)
		}
	})
}

// get reads path as the proxy does.
func (w *world) get(path string) {
	w.t.Helper()
	for range 3 {
		switch w.state(path) {
		case cache.Fresh:
			return
		case cache.Absent:
			if w.cache.FillShared(w.t.Context(), cache.Key{Path: path}) {
				continue
			}
			w.read(path)
		default:
			w.poller.Wait(w.t.Context(), cache.Key{})
		}
	}
	if w.state(path) != cache.Fresh {
		w.t.Errorf("%s is not verified", path)
	}
}

func secretName(i int) string { return fmt.Sprintf("secret/data/%d", i) }

// TestABusyFleetReadsEachSecretOnceAnAge: the cursor moves all the time, so each
// secret is read again whenever its stamp ends, by one of two hundred, and few
// of them ever log in.
func TestABusyFleetReadsEachSecretOnceAnAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const secrets, instances, maxAge, length = 10, 200, 3 * time.Second, 30 * time.Second
		c, b := newCluster(), newBoard(maxAge)
		c.slow = 5 * time.Millisecond
		for i := range secrets {
			c.put(secretName(i))
		}
		first := instance(t, c, b)
		first.poller.Invoke(time.Now())
		for i := range secrets {
			first.get(secretName(i))
		}
		first.close()
		c.requests()
		c.set(func(c *cluster) { c.times = nil })
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if c.put("secret/data/noise"); n%20 == 0 {
					c.put(secretName(n / 20 % secrets))
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		var mu sync.Mutex
		logins := 0
		for k := range instances {
			all.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(k)))
				time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
				var once sync.Once
				loggedIn := false // set by the first read, which needs a token
				w := instance(t, c, b, func(o *Options) {
					o.LoggedIn = func() bool { mu.Lock(); defer mu.Unlock(); return loggedIn }
				})
				w.login = func() {
					once.Do(func() { mu.Lock(); defer mu.Unlock(); loggedIn = true; logins++ })
				}
				defer w.close()
				for ctx.Err() == nil {
					w.poller.Invoke(time.Now())
					w.poller.Looked(ctx)
					for _, i := range random.Perm(secrets)[:3] {
						w.get(secretName(i))
					}
					time.Sleep(time.Duration(random.Int64N(int64(1600 * time.Millisecond))))
				}
			})
		}
		all.Wait()
		perSecret := int(length/(maxAge-skew)) + 2
		for i := range secrets {
			if n := c.count(secretName(i)); n > perSecret {
				t.Errorf("%s was read %d times in %s, want at most %d", secretName(i), n, length, perSecret)
			}
		}
		if n := c.count(leaderPath); n > perSecret {
			t.Errorf("the cursor was asked for %d times, want at most %d", n, perSecret)
		}
		for i := range c.times {
			if n := i - 11; n >= 0 && c.times[i].Sub(c.times[n]) < time.Second {
				t.Fatalf("more than 11 requests in the second up to %s", c.times[i])
			}
		}
		t.Logf("%d logins of %d instances, %d requests in all", logins, instances, c.requests())
		if logins > instances/4 {
			t.Errorf("%d of %d instances logged in", logins, instances)
		}
	})
}

// TestWhatNobodyWaitsForIsNotReadAgain: the process is frozen when its function
// is done, and a read for nobody would be lost with its lock held.
func TestWhatNobodyWaitsForIsNotReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, b := newCluster(), newBoard(3*time.Second)
		c.put(secretName(1))
		c.put(secretName(2))
		w := instance(t, c, b)
		defer w.close()
		w.poller.Invoke(time.Now())
		w.get(secretName(1))
		w.get(secretName(2))
		time.Sleep(3 * time.Second)
		c.put(secretName(1))
		c.requests()
		w.invoke()
		synctest.Wait()
		if n := c.count(secretName(1)) + c.count(secretName(2)); n != 0 {
			t.Errorf("%d reads for nobody", n)
		}
		w.get(secretName(1))
		if n, m := c.count(secretName(1)), c.count(leaderPath); n != 1 || m != 1 {
			t.Errorf("%d reads for one who waits, %d questions for the cursor", n, m)
		}
	})
}

// TestAFrozenVerifierCostsATurn: the others wait for it once, then one of them
// verifies.
func TestAFrozenVerifierCostsATurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, b := newCluster(), newBoard(3*time.Second)
		c.put(secretName(1))
		fleet := make([]*world, 20)
		for i := range fleet {
			fleet[i] = instance(t, c, b)
			defer fleet[i].close()
			fleet[i].poller.Invoke(time.Now())
			fleet[i].get(secretName(1))
		}
		time.Sleep(3 * time.Second)
		c.put(secretName(1)) // the cursor proves nothing
		c.requests()
		b.Taken(t.Context(), cache.Key{Path: secretName(1)}, 0) // and is never heard of again
		began := time.Now()
		var all sync.WaitGroup
		for _, w := range fleet {
			all.Go(func() {
				w.poller.Invoke(time.Now())
				w.get(secretName(1))
			})
		}
		all.Wait()
		if n := c.count(secretName(1)); n != 1 {
			t.Errorf("%d reads, want 1", n)
		}
		if took := time.Since(began); took > 400*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

// TestALockOfAnEarlierVerificationIsNotWaitedFor any longer than it lasts.
func TestALockOfAnEarlierVerificationIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, b := newCluster(), newBoard(3*time.Second)
		c.put(secretName(1))
		w := instance(t, c, b, func(o *Options) { o.Timeout = 5 * time.Second })
		defer w.close()
		w.poller.Invoke(time.Now())
		w.get(secretName(1))
		time.Sleep(1900 * time.Millisecond)
		b.Taken(t.Context(), cache.Key{Path: secretName(1)}, 0)
		time.Sleep(1900 * time.Millisecond) // 100ms are left of it
		c.put(secretName(1))
		c.requests()
		began := time.Now()
		w.poller.Invoke(time.Now())
		w.get(secretName(1))
		if took := time.Since(began); took > 200*time.Millisecond || c.count(secretName(1)) != 1 {
			t.Errorf("took %s, %d reads", took, c.count(secretName(1)))
		}
	})
}

// TestWhoAsksForTheCursorInVainFreesItsLock: an answer between append and apply
// is no stamp, and nobody waits for one.
func TestWhoAsksForTheCursorInVainFreesItsLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, b := newCluster(), newBoard(3*time.Second)
		c.put(secretName(1))
		fleet := []*world{instance(t, c, b), instance(t, c, b), instance(t, c, b)}
		for _, w := range fleet {
			defer w.close()
			w.poller.Invoke(time.Now())
			w.get(secretName(1))
		}
		time.Sleep(3 * time.Second)
		defer c.append("secret/data/noise")()
		for _, w := range fleet {
			began := time.Now()
			w.poller.Invoke(time.Now())
			w.get(secretName(1))
			if took := time.Since(began); took > 50*time.Millisecond {
				t.Errorf("took %s", took)
			}
		}
	})
}

// TestAMemcachedThatTakesNothingHoldsNobodyUp: without stamps everybody reads,
// within the poll's budget.
func TestAMemcachedThatTakesNothingHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, b := newCluster(), newBoard(3*time.Second)
		c.put(secretName(1))
		fleet := make([]*world, 5)
		for i := range fleet {
			fleet[i] = instance(t, c, b)
			defer fleet[i].close()
			fleet[i].poller.Invoke(time.Now())
			fleet[i].get(secretName(1))
		}
		b.mu.Lock()
		b.deaf = true
		b.mu.Unlock()
		time.Sleep(3 * time.Second)
		c.put(secretName(1))
		began := time.Now()
		var all sync.WaitGroup
		for _, w := range fleet {
			all.Go(func() {
				w.poller.Invoke(time.Now())
				w.get(secretName(1))
			})
		}
		all.Wait()
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("took %s, the whole budget", took)
		}
	})
}
