package poll

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// TestAPollReadsAgainWhatIsAskedFor where the index moves all the time: not what no
// invocation of the last four asked for. That is verified by its own next read, so no
// change is missed, and read again often enough to be there in an outage.
func TestAPollReadsAgainWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	for _, stale := range []time.Duration{24 * time.Hour, 0} {
		synctest.Test(t, func(t *testing.T) {
			const secrets = 20
			w := newWorld(t, func(co *cache.Options, _ *Options) { co.StaleIfError, co.RefreshInterval = stale, 24*time.Hour })
			defer w.close()
			reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
			ask := func(n int) (Outcome, string) {
				o := reads.Ensure(t.Context(), Want{Key: cache.Key{Path: fmt.Sprint("secret/data/", n)}, ID: w.cache.Own(), MaxAge: -1, StaleFor: -1})
				if o.Hit.Entry != nil {
					return o, string(o.Hit.Entry.Body)
				}
				return o, string(o.Answer.Body)
			}
			for n := range secrets {
				w.hold(fmt.Sprint("secret/data/", n))
			}
			// invocation is one a minute, which asks for secret 0. It returns how many secrets
			// were read again.
			invocation := func() (reread uint64) {
				time.Sleep(time.Minute)
				w.cluster.put("secret/data/other")
				before := w.poller.Counts().Reread
				w.invoke()
				if o, _ := ask(0); o.Result > Miss {
					t.Errorf("the secret that is asked for: %v, %v", o.Result, o.Err)
				}
				return w.poller.Counts().Reread - before
			}
			for range 5 {
				invocation()
			}
			total := uint64(0)
			for range 50 {
				n := invocation()
				if total += n; n != 1 {
					t.Fatalf("%d secrets were read again, want the one that is asked for", n)
				}
			}
			// The change of one that nobody asked for is seen by whoever asks.
			w.cluster.put("secret/data/7")
			invocation()
			if o, got := ask(7); o.Result > Miss || !strings.Contains(got, `"version":2`) {
				t.Errorf("the one that changed: %v %s", o.Result, got)
			}
			// It is read again with the other one for four more invocations. In the end, a part of
			// the time has passed in which the others may be served in an outage.
			total = 0
			for range 65 {
				total += invocation()
			}
			least, most := uint64(65+4), uint64(65+4)
			if stale > 0 {
				least, most = least+secrets-2, most+secrets
			}
			if total < least || total > most {
				t.Errorf("%v: %d read again in an hour, want %d to %d", stale, total, least, most)
			}
			w.cluster.set(func(c *cluster) { c.down = errDown })
			time.Sleep(time.Minute)
			w.invoke()
			for n := range secrets {
				if o, _ := ask(n); (o.Result == Stale) != (stale > 0) {
					t.Errorf("in an outage, secret %d: %v", n, o.Result)
				}
			}
		})
	}
}

// What a poll has nobody's token to read with, the next polls leave out: else each of
// them would go through all that many callers hold, who wait meanwhile. It is looked at
// again when it is asked for, and after a minute.
func TestWhatNobodyLendsATokenForIsLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const secrets = 50
		w := newWorld(t, func(o *cache.Options, _ *Options) { o.RefreshInterval, o.StaleIfError = 24*time.Hour, time.Minute })
		defer w.close()
		alice := w.cache.Access().Caller("alice")
		name := func(n int) cache.Key { return cache.Key{Path: fmt.Sprint("secret/data/", n)} }
		for n := range secrets {
			w.cluster.put(name(n).Path)
			if _, err := w.cache.Load(t.Context(), cache.Want{Key: name(n), ID: alice}); err != nil {
				t.Fatal(err)
			}
		}
		// poll has the index move, and returns how many secrets there are to read again,
		// before the poll and after it, and how many it read.
		poll := func() (before, after, read int) {
			time.Sleep(time.Second)
			w.cluster.put("secret/data/other")
			w.cache.Ledger().Begin(time.Now())
			before = len(w.cache.Ledger().Unverified(time.Now()))
			had := w.poller.Counts().Reread
			w.poller.Wait(t.Context(), name(0))
			w.poller.Over(t.Context())
			return before, len(w.cache.Ledger().Unverified(time.Now())), int(w.poller.Counts().Reread - had)
		}
		want := func(what string, before, after, read int) {
			t.Helper()
			if b, a, r := poll(); b != before || a != after || r != read {
				t.Errorf("%s: %d to read again, %d after the poll, %d read; want %d, %d, %d", what, b, a, r, before, after, read)
			}
		}
		want("nothing is known of the token", secrets, 0, 0)
		want("just afterwards", 0, 0, 0)
		w.cache.Lookup(name(3), alice, false, time.Now())
		want("one is asked for", 1, 0, 0)
		w.cache.Access().Learned(alice, cache.Token{})
		want("the token may be lent now", 0, 0, 0)
		w.cache.Lookup(name(3), alice, false, time.Now())
		want("one is asked for again", 1, 0, 1)
		time.Sleep(time.Minute) // StaleIfError: they are to be there in an outage
		want("after a minute", secrets, 0, secrets)
	})
}
