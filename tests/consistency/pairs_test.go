package consistency

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// tally is what became of pairs.
type tally struct {
	pairs, old, behind, failed, hits atomic.Int64
	first                            atomic.Pointer[string]
}

func (c *tally) String() string {
	s := fmt.Sprintf("%d pairs: %d old, %d answered 412, %d failed, %d hits", c.pairs.Load(), c.old.Load(), c.behind.Load(), c.failed.Load(), c.hits.Load())
	if p := c.first.Load(); p != nil {
		s += "; first: " + *p
	}
	return s
}

// judge counts a read that must see n.
func (c *tally) judge(a answer, got, n int) {
	c.pairs.Add(1)
	switch {
	case a.status == http.StatusPreconditionFailed:
		c.behind.Add(1)
	case a.status != http.StatusOK && a.status != http.StatusNotFound:
		c.failed.Add(1)
		s := fmt.Sprintf("%d %s", a.status, a.body)
		c.first.CompareAndSwap(nil, &s)
	case got < n:
		c.old.Add(1)
		s := fmt.Sprintf("%d for %d: %v", got, n, a.header)
		c.first.CompareAndSwap(nil, &s)
	}
	if a.header.Get("X-Cache") == "HIT" {
		c.hits.Add(1)
	}
}

const workers = 20

// writeAndRead has one identity write through one instance and read through
// another, or the same, while another identity reads the same keys and so fills
// the cache with what a standby has. later is how long after the first read the
// writer reads once more.
func writeAndRead(to, from *instance, other string, n int, later time.Duration) *tally {
	c := new(tally)
	var wg sync.WaitGroup
	for k := range workers {
		key := fmt.Sprintf("%spair/%d", to.prefix, k)
		over := make(chan struct{})
		wg.Go(func() {
			defer close(over)
			for i := 1; i <= max(1, n/workers); i++ {
				a := to.write(key, to.writer, i)
				for ; a.status == http.StatusPreconditionFailed; a = to.write(key, to.writer, i) {
					time.Sleep(200 * time.Millisecond) // simulated: under fail it is the client that tries again
				}
				if a.status >= 300 {
					c.failed.Add(1)
					s := fmt.Sprintf("write: %d %s", a.status, a.body)
					c.first.CompareAndSwap(nil, &s)
					continue
				}
				a, got := from.read(key, to.writer)
				c.judge(a, got, i)
				if i%3 == 0 { // once more, from the cache where it may be
					time.Sleep(later) // simulated
					a, got = from.read(key, to.writer)
					c.judge(a, got, i)
				}
			}
		})
		wg.Go(func() {
			pause := time.NewTicker(100 * time.Millisecond) // simulated
			defer pause.Stop()
			for {
				select {
				case <-over:
					return
				case <-pause.C:
					from.read(key, other)
				}
			}
		})
	}
	wg.Wait()
	return c
}

func TestAnIdentityReadsWhatItWrote(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		settings   []string
		forwarding bool
		caller     bool // the identity is a caller's, not thaw's own
		old        bool // violations are to be seen
		behind     bool // and these are 412
	}{
		{name: "never", old: true},
		{name: "retry", settings: []string{"THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry"}},
		{name: "retry for a caller", settings: []string{"THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry"}, caller: true},
		{name: "retry among standbys", settings: []string{nodes, "THAW_READS=standby", "THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry"}},
		{name: "forward", settings: []string{"THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=forward"}, forwarding: true},
		{name: "forward where the server does not", settings: []string{"THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=forward"}},
		{name: "fail", settings: []string{"THAW_ENFORCE_CONSISTENCY=always"}, behind: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, standin.ClusterOptions{Forwarding: tt.forwarding})
				defer w.close()
				other := w.token()
				x := w.start(tt.settings...)
				if tt.caller {
					x.writer = w.token()
				}
				c := writeAndRead(x, x, other, *pairs, 0)
				t.Log(c, w.primary.Counts())
				if c.failed.Load() > 0 || (c.old.Load() > 0) != tt.old || (c.behind.Load() > 0) != tt.behind {
					t.Errorf("%v\n%s", c, x.log)
				}
			})
		})
	}
}

func TestAnInstanceReadsWhatAnotherOfTheAudienceWrote(t *testing.T) {
	t.Parallel()
	for _, scope := range []string{"instance", "audience"} {
		t.Run(scope, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, standin.ClusterOptions{})
				defer w.close()
				other := w.token()
				settings := append(w.memcached(), "THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry", "THAW_CONSISTENCY_SCOPE="+scope, "VAULT_ADDR=http://vault.test:8200")
				one := w.start(settings...)
				two := w.start(settings...)
				c := writeAndRead(one, two, other, *pairs, 0)
				t.Log(c, w.primary.Counts())
				if c.failed.Load() > 0 || c.behind.Load() > 0 || (c.old.Load() > 0) != (scope == "instance") {
					t.Errorf("%v\n%s%s", c, one.log, two.log)
				}
			})
		})
	}
}

// On a performance secondary the active node lags, too: forwarding to it is no
// protection, as Vault's documentation says.
func TestASecondaryIsProtectedByRetryAndFailOnly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		when        string
		old, behind bool
	}{
		{when: "retry"}, {when: "fail", behind: true}, {when: "forward", old: true},
	} {
		t.Run(tt.when, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, standin.ClusterOptions{})
				defer w.close()
				other := w.token()
				second := w.primary.Secondary(standin.ClusterOptions{Standbys: 1, Lag: lag, Forwarding: true}, lag)
				w.serve("second.test:8200", second.Standby(0))
				x := w.start("VAULT_ADDR=http://second.test:8200", "THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT="+tt.when)
				c := writeAndRead(x, x, other, *pairs/5, 0)
				t.Log(c, second.Counts())
				if c.failed.Load() > 0 || (c.old.Load() > 0) != tt.old || (c.behind.Load() > 0) != tt.behind {
					t.Errorf("%v\n%s", c, x.log)
				}
			})
		})
	}
}

// The cache answers the writer from what it read late enough, and from nothing
// that another identity brought from a node that lags.
func TestTheCacheAnswersTheWriterFromWhatWasReadLateEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{})
		defer w.close()
		other := w.token()
		x := w.start("THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry")
		c, poisoned := new(tally), 0
		for i := 1; i <= *pairs; i++ {
			x.write("one", "", i)
			x.read("one", other) // fills the cache with what the standby has
			if a, n := x.read("one", other); n < i && a.header.Get("X-Cache") == "HIT" {
				poisoned++
			}
			for range 2 {
				a, n := x.read("one", "")
				c.judge(a, n, i)
			}
			w.primary.Flush()
		}
		t.Log(c, poisoned)
		if c.failed.Load() > 0 || c.old.Load() > 0 || c.behind.Load() > 0 || int(c.hits.Load()) != *pairs {
			t.Errorf("%v\n%s", c, x.log)
		}
		if poisoned < *pairs/2 {
			t.Errorf("the cache held an old answer %d times only: nothing was tested", poisoned)
		}
	})
}
