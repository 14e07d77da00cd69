package poll

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/standin"
)

func TestG1AQuietOriginCostsOneRequestAnInvocation(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 1000} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.close()
			w.poller.Invoke(time.Now())
			for i := range n {
				w.cluster.put(fmt.Sprintf("secret/data/%d", i))
			}
			w.ask()
			for i := range n {
				w.read(fmt.Sprintf("secret/data/%d", i))
			}
			synctest.Wait()
			w.cluster.requests()
			want := 1
			if n == 0 {
				want = 0
			}
			for range 5 {
				time.Sleep(3 * time.Second)
				w.invoke()
				if got := w.cluster.requests(); got != want {
					t.Errorf("%d secrets: %d requests, want %d", n, got, want)
				}
				for i := range n {
					if s := w.state(fmt.Sprintf("secret/data/%d", i)); s != cache.Fresh {
						t.Fatalf("secret %d: state %d", i, s)
					}
				}
			}
		})
	}
}

func TestG1AMovedCursorCostsOneAndEachSecret(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		for i := range 20 { // all before the first read: a busy cluster's polls go another way
			w.cluster.put(fmt.Sprintf("secret/data/%d", i))
		}
		w.poller.Invoke(time.Now())
		for i := range 20 {
			w.read(fmt.Sprintf("secret/data/%d", i))
		}
		w.invoke()
		synctest.Wait()
		w.cluster.requests()
		time.Sleep(time.Second)
		w.cluster.put("secret/data/3")
		w.invoke()
		if got := w.cluster.requests(); got != 21 {
			t.Errorf("%d requests, want 21", got)
		}
		if !strings.Contains(w.value("secret/data/3"), `"v":"2"`) {
			t.Errorf("the rotated one: %s", w.value("secret/data/3"))
		}
		w.invoke()
		if got := w.cluster.requests(); got != 1 {
			t.Errorf("quiet again: %d requests", got)
		}
	})
}

// The rule's reason: the index grows at append, the value changes at apply.
func TestG1AnAppendedWriteThatIsNotAppliedProvesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.put("secret/data/a")
		w.poller.Invoke(time.Now())
		// A write is appended; the read still gets the old value.
		apply := w.cluster.append("secret/data/a")
		w.ask()
		w.read("secret/data/a")
		// It is applied, and nothing else happens.
		apply()
		w.invoke()
		if !strings.Contains(w.value("secret/data/a"), `"v":"2"`) {
			t.Errorf("a false proof: %s", w.value("secret/data/a"))
		}
	})
}

// standby has a standby of a community server answer, which hands everything on.
func standby(c *cluster) {
	c.node = c.of(standin.ClusterOptions{Community: true, Standbys: 1}).Standby(0)
}

func TestOnlyTheActiveNodesWordCounts(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		change func(*cluster)
		proves bool
	}{
		{"community Vault", func(c *cluster) {}, true},
		{"OpenBao that forwards", func(c *cluster) { c.node = c.of(standin.ClusterOptions{OpenBao: true, Version: "2.4.1"}).Active() }, true},
		{"OpenBao whose standbys serve reads", func(c *cluster) { c.node = c.of(standin.ClusterOptions{OpenBao: true, Version: "2.5.0"}).Active() }, false},
		{"Enterprise", func(c *cluster) { c.node = c.of(standin.ClusterOptions{}).Active() }, false},
		{"a standby answers", standby, false},
		{"no integrated storage", func(c *cluster) { c.raft = false }, false},
	}
	for _, c := range cases {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.close()
			w.cluster.set(c.change)
			w.cluster.put("secret/data/a")
			w.cluster.put("secret/data/b")
			w.poller.Invoke(time.Now())
			w.read("secret/data/a")
			w.read("secret/data/b")
			w.invoke()
			synctest.Wait()
			w.cluster.requests()
			w.invoke()
			reread := w.cluster.count("secret/data/a")
			w.cluster.requests()
			if (reread == 0) != c.proves {
				t.Errorf("%s: read again %d times", c.name, reread)
			}
			if w.state("secret/data/a") != cache.Fresh {
				t.Errorf("%s: not verified", c.name)
			}
		})
	}
}

func TestAnotherLeaderProvesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.hold("secret/data/a")
		w.invoke()
		w.cluster.requests()
		// It leads since another time, at the same index: storage was restored meanwhile.
		said := standin.Ask(w.cluster.node, "", http.MethodGet, leaderPath, "").Body.String()
		active, _ := w.cluster.Origin.Leader()
		w.cluster.instead(func() (*http.Response, error) {
			return response(http.StatusOK, "application/json", strings.Replace(said, active, "2026-11-21T09:00:00Z", 1)), nil
		}, leaderPath)
		w.invoke()
		if w.cluster.count("secret/data/a") != 1 {
			t.Error("not read again after a change of leaders")
		}
	})
}

// TestG2APollsQuestionIsAnAnswerOfTheOrigin: it tells an outage from a front that restyles
// refusals, where nothing else is asked. It is no read: a refusal for load is told by those.
func TestG2APollsQuestionIsAnAnswerOfTheOrigin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*cluster)
		speaks bool
	}{
		"it leads":          {func(c *cluster) { c.instead(trouble(http.StatusServiceUnavailable), capabilitiesPath) }, true},
		"it is a standby":   {func(c *cluster) { c.set(standby) }, true},
		"it is sealed":      {func(c *cluster) { c.Seal() }, false},
		"it is a page":      {func(c *cluster) { c.instead(page(http.StatusOK)) }, false},
		"it is not reached": {func(c *cluster) { c.instead(fails(errDown)) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(o *cache.Options, _ *Options) { o.RefreshInterval = time.Minute })
			defer w.close()
			w.hold("secret/data/a")
			w.invoke()
			time.Sleep(2 * time.Minute)
			if w.cache.Ledger().Heard().Anything(time.Now()) {
				t.Error("it was not asked for two intervals, and speaks")
			}
			c.change(w.cluster)
			w.poller.Invoke(time.Now())
			synctest.Wait()
			if w.cache.Ledger().Heard().Anything(time.Now()) != c.speaks {
				t.Errorf("%s: speaks %v, want %v", name, !c.speaks, c.speaks)
			}
		})
	}
}

func TestG4AFailingOriginIsToldFromASlowOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*cluster)
		want   cache.State
	}{
		{"refuses connections", func(c *cluster) { c.down = errDown }, cache.Failing},
		{"silent", func(c *cluster) { c.slow = time.Hour }, cache.Failing},
		{"sealed", func(c *cluster) { c.Seal() }, cache.Failing},
		{"rate limiting", func(c *cluster) {
			c.between = func(request) (*http.Response, error) { return trouble(http.StatusTooManyRequests)() }
		}, cache.Failing},
		{"slow but answering", func(c *cluster) { c.slow = 300 * time.Millisecond; c.raft = false }, cache.Unverified},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(_ *cache.Options, o *Options) { o.Concurrency = 1 })
			defer w.close()
			w.poller.Invoke(time.Now())
			for i := range 10 {
				w.cluster.put(fmt.Sprintf("secret/data/%d", i))
				w.read(fmt.Sprintf("secret/data/%d", i))
			}
			time.Sleep(time.Second)
			w.cluster.set(c.change)
			began := time.Now()
			w.invoke()
			if took := time.Since(began); took > 1600*time.Millisecond {
				t.Errorf("%s: the poll took %v", c.name, took)
			}
			// The least recently used is the one a budget does not reach.
			if s := w.state("secret/data/0"); s != c.want {
				t.Errorf("%s: state %d, want %d", c.name, s, c.want)
			}
			w.cluster.set(func(c *cluster) { c.slow = 0 })
		})
	}
}

func TestAFailedPollIsNotRepeatedForEachRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.hold("secret/data/a")
		w.cluster.set(func(c *cluster) { c.down = errDown })
		w.invoke()
		w.cluster.requests()
		for range 100 {
			w.poller.Wait(t.Context(), cache.Key{})
		}
		if n := w.cluster.requests(); n != 0 {
			t.Errorf("%d requests within THAW_RECHECK of a failed poll", n)
		}
		time.Sleep(time.Second + time.Millisecond)
		w.cluster.set(func(c *cluster) { c.down = nil })
		w.poller.Wait(t.Context(), cache.Key{})
		if s := w.state("secret/data/a"); s != cache.Fresh {
			t.Errorf("state %d after the origin came back", s)
		}
	})
}

func TestAPollOfAnOlderEpochIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.hold("secret/data/a")
		w.cluster.set(func(c *cluster) { c.slow = 400 * time.Millisecond })
		w.poller.Invoke(time.Now())
		time.Sleep(100 * time.Millisecond)
		w.cluster.set(func(c *cluster) { c.slow = 0 })
		w.invoke()
		if s := w.state("secret/data/a"); s != cache.Fresh {
			t.Errorf("state %d", s)
		}
		if n := w.poller.Counts().Failed; n != 0 {
			t.Errorf("%d polls failed: one was given up, the other verified", n)
		}
	})
}

func TestPollModeReadSparesInvocationsThatReadNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ *cache.Options, o *Options) { o.Mode = config.PollRead })
		defer w.close()
		w.hold("secret/data/a")
		synctest.Wait()
		w.cluster.requests()
		w.invoke()
		if n := w.cluster.requests(); n != 0 {
			t.Errorf("%d requests without a read", n)
		}
		w.poller.Wait(t.Context(), cache.Key{})
		if n := w.cluster.requests(); n != 1 || w.state("secret/data/a") != cache.Fresh {
			t.Errorf("%d requests, state %d", n, w.state("secret/data/a"))
		}
	})
}

func TestABusyCursorIsLeftOutAndFoundAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.hold("secret/data/a")
		for range 12 {
			w.cluster.put("secret/data/other")
			w.invoke()
			if w.state("secret/data/a") != cache.Fresh {
				t.Fatal("not verified while the cursor moves")
			}
		}
		w.cluster.requests()
		w.cluster.put("secret/data/other")
		w.invoke()
		if n := w.cluster.count(leaderPath); n != 0 {
			t.Errorf("the cursor was asked %d times although it always moves", n)
		}
		for range 40 {
			w.invoke() // the cluster is quiet now
		}
		w.cluster.requests()
		w.invoke()
		if w.cluster.count(leaderPath) != 1 || w.cluster.count("secret/data/a") != 0 {
			t.Errorf("the cursor was not found again: %v", w.cluster.requests())
		}
	})
}

func TestPermissionsOneCallForAllPathsOfAToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.poller.Invoke(time.Now())
		for i := range 50 {
			w.cluster.put(fmt.Sprintf("secret/data/%d", i))
			w.read(fmt.Sprintf("secret/data/%d", i))
		}
		w.invoke()
		time.Sleep(6 * time.Minute)
		w.cluster.requests()
		w.cluster.deny(own, "secret/data/7")
		w.cluster.answers(func(q request) (*http.Response, error) {
			if strings.HasPrefix(q.path, "secret/") { // the index moved with the policy: what is read again comes later
				return nil, q.takes(10 * time.Millisecond)
			}
			return nil, nil
		})
		w.invoke()
		if n := w.cluster.count(capabilitiesPath); n != 1 {
			t.Errorf("%d calls", n)
		}
		if w.state("secret/data/7") != cache.Absent || w.state("secret/data/8") != cache.Fresh {
			t.Errorf("states %d %d", w.state("secret/data/7"), w.state("secret/data/8"))
		}
		// Refused altogether: nothing may be served.
		time.Sleep(6 * time.Minute)
		w.cluster.RevokeToken(own)
		w.invoke()
		if w.state("secret/data/8") != cache.Absent {
			t.Errorf("state %d", w.state("secret/data/8"))
		}
	})
}

func TestPermissionsFailingOrigin(t *testing.T) {
	t.Parallel()
	for _, pessimistic := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(o *cache.Options, _ *Options) { o.Pessimistic = pessimistic })
			defer w.close()
			w.hold("secret/data/a")
			time.Sleep(6 * time.Minute)
			w.cluster.instead(trouble(http.StatusInternalServerError), capabilitiesPath)
			w.invoke()
			want := cache.Fresh
			if pessimistic {
				want = cache.Absent
			}
			if s := w.state("secret/data/a"); s != want {
				t.Errorf("pessimistic %v: state %d, want %d", pessimistic, s, want)
			}
		})
	}
}

func TestAheadVerifiesOnceBeforeItIsNeededWithoutACursor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.set(func(c *cluster) { c.raft = false })
		w.hold("secret/data/a")
		for range 3 {
			time.Sleep(800 * time.Millisecond)
			w.cluster.requests()
			before := w.poller.Counts()
			for range 100 { // as many reads
				w.poller.Ahead()
				synctest.Wait()
			}
			after := w.poller.Counts()
			if after.Polls-before.Polls != 1 || after.Reread-before.Reread != 1 {
				t.Errorf("%d polls that read %d secrets again, want one of each", after.Polls-before.Polls, after.Reread-before.Reread)
			}
			time.Sleep(300 * time.Millisecond)
			if s := w.state("secret/data/a"); s != cache.Fresh {
				t.Errorf("state %d although it was verified ahead", s)
			}
		}
	})
}

func TestWhatHangsOnAPollOutlivesItsBudgetAndEndsWithTheEpoch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, ended := make(chan struct{}, 2), make(chan time.Duration, 2)
		w := newWorld(t, func(_ *cache.Options, o *Options) {
			o.After = func(ctx context.Context) {
				at := time.Now()
				began <- struct{}{}
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Second): // four budgets
				}
				ended <- time.Since(at)
			}
		})
		defer w.close()
		w.hold("secret/data/a")
		<-began // what hangs on a poll goes by a list of its own, with an empty cache too
		w.poller.Invoke(time.Now())
		<-ended
		<-began
		if took := <-ended; took != 2*time.Second {
			t.Errorf("ended after %v with the budget", took)
		}
		w.poller.Invoke(time.Now())
		<-began
		time.Sleep(time.Second) // the budget is over
		w.poller.Invoke(time.Now())
		if took := <-ended; took != time.Second {
			t.Errorf("went on for %v into the next epoch", took)
		}
	})
}
