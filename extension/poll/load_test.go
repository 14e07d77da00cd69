package poll

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/vault"
)

// TestG2ARefusalForLoadIsNoOutage: a caller that has its own requests refused keeps
// what it held for two more intervals at most while the origin answers others, and
// nothing at all where our own limits ended them. thaw's own identity keeps G4.
func TestG2ARefusalForLoadIsNoOutage(t *testing.T) {
	t.Parallel()
	const interval = 5 * time.Minute
	load, sealed := trouble(http.StatusTooManyRequests), trouble(http.StatusServiceUnavailable)
	limits := fails(&vault.Error{Kind: vault.Limited})
	onItsWay := fails(&vault.Error{Kind: vault.Timeout, Err: context.DeadlineExceeded})
	type want struct {
		served bool
		status int // of what the origin answered
	}
	served, asked, none := want{served: true}, want{status: http.StatusTooManyRequests}, want{}
	for name, c := range map[string]struct {
		refuse func() (*http.Response, error)
		alone  bool // the origin answers nobody else either
		after  time.Duration
		caller want
		own    want
	}{
		"load, the interval is over":                    {load, false, interval + time.Second, served, served},
		"load, two more are nearly":                     {load, false, 3*interval - time.Minute, served, served},
		"load, two more are":                            {load, false, 3*interval + time.Second, asked, served},
		"load, and a read is due":                       {load, false, 12*interval + time.Second, asked, served},
		"load for everybody":                            {load, true, 4 * interval, served, served},
		"our own limits":                                {limits, false, interval + time.Second, none, none},
		"our own limits, and a read is due":             {limits, false, 12*interval + time.Second, none, none},
		"our own limits, nobody is answered":            {limits, true, 4 * interval, none, none},
		"no answer to what was sent":                    {onItsWay, false, 4 * interval, served, served},
		"no answer to what was sent, and a read is due": {onItsWay, false, 12*interval + time.Second, served, served},
		"sealed": {sealed, false, 4 * interval, served, served},
	} {
		for i, others := range slices.Repeat([]int{http.StatusOK, http.StatusForbidden, http.StatusNotFound}, 2) {
			who, want := "alice", c.caller
			if i >= 3 {
				who, want = "", c.own
			}
			if c.alone && others != http.StatusOK {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(co *cache.Options, _ *Options) { co.StaleIfError = 24 * time.Hour })
				defer w.close()
				w.hold("secret/data/other")
				id := w.cache.Own()
				if who != "" {
					id = w.cache.Access().Caller(who)
				}
				key := cache.Key{Path: "secret/data/a"}
				w.cluster.put(key.Path)
				if _, err := w.cache.Load(t.Context(), cache.Want{Key: key, ID: id}); err != nil {
					t.Fatal(err)
				}
				w.cluster.answers(func(q request) (*http.Response, error) {
					switch {
					case q.path == leaderPath && c.alone:
						return nil, errDown
					case q.path == leaderPath || q.path == healthPath:
						return nil, nil
					case q.token == who || c.alone:
						return c.refuse()
					case others == http.StatusForbidden:
						return trouble(others)()
					}
					return nil, nil
				})
				reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
				var o Outcome
				began := time.Now()
				for time.Since(began) < c.after { // it asks again and again, until then
					if !c.alone {
						other := w.cache.Access().Caller("bob")
						if who == "alice" {
							other = w.cache.Own()
						}
						theirs := "secret/data/other"
						if w.cluster.put(theirs); others == http.StatusNotFound {
							theirs = "secret/data/none"
						}
						if a, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Path: theirs}, ID: other}); err == nil {
							a.Close()
						}
					}
					w.poller.Invoke(time.Now())
					o = reads.Ensure(t.Context(), Want{Key: key, ID: id, MaxAge: -1, StaleFor: -1})
					time.Sleep(min(time.Minute, max(time.Second, c.after-time.Since(began))))
				}
				w.poller.Invoke(time.Now())
				o = reads.Ensure(t.Context(), Want{Key: key, ID: id, MaxAge: -1, StaleFor: -1})
				got := o.Result == Hit || o.Result == Stale
				if got != want.served || o.Result == Miss && o.Answer.Status != want.status || o.Result == Miss == (want.status == 0) && !want.served {
					t.Errorf("%s, %q, others get %d: result %d, status %d, %v; want %+v", name, who, others, o.Result, o.Answer.Status, o.Err, want)
				}
			})
		}
	}
}

// TestG2ALoginThatFailsIsNobodyElsesOutage: a caller whose token works gets what it may
// read, verified, and what it may not read no more, however often others ask without a
// token of their own. What thaw itself may read is served as in an outage.
func TestG2ALoginThatFailsIsNobodyElsesOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		key := cache.Key{Path: "secret/data/a"}
		w.hold(key.Path)
		alice := w.cache.Access().Caller("alice")
		reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
		read := func(id *cache.Identity) Outcome {
			return reads.Ensure(t.Context(), Want{Key: key, ID: id, MaxAge: -1, StaleFor: -1})
		}
		read(alice)
		w.cache.Access().Learned(alice, cache.Token{})
		w.refused = errors.New("no credentials")
		for i := range 3 {
			time.Sleep(6 * time.Minute)
			w.cluster.put(key.Path)
			if i == 2 {
				w.cluster.RevokeToken("alice")
			}
			w.invoke()
			if o := read(w.cache.Own()); o.Result != Hit && o.Result != Stale {
				t.Errorf("%d: the extension gets result %d, %v", i, o.Result, o.Err)
			}
			if o := read(alice); i < 2 && o.Result != Hit && o.Answer.Status != http.StatusOK || i == 2 && o.Answer.Status != http.StatusForbidden {
				t.Errorf("%d: the caller gets result %d, status %d, %v", i, o.Result, o.Answer.Status, o.Err)
			}
		}
	})
}

// TestARefusalOfOneCallerForLoadIsNobodyElsesOutage: whoever else reads the secret at
// that moment asks under the own token.
func TestARefusalOfOneCallerForLoadIsNobodyElsesOutage(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"", "bob"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(co *cache.Options, _ *Options) { co.StaleIfError = 24 * time.Hour })
			defer w.close()
			key, other := cache.Key{Path: "secret/data/a"}, w.cache.Access().Caller("alice")
			id := w.cache.Own()
			if who != "" {
				id = w.cache.Access().Caller(who)
			}
			w.cluster.put(key.Path)
			for _, id := range []*cache.Identity{id, other} {
				if _, err := w.cache.Load(t.Context(), cache.Want{Key: key, ID: id}); err != nil {
					t.Fatal(err)
				}
			}
			w.cluster.answers(func(q request) (*http.Response, error) {
				switch {
				case q.path == leaderPath:
					return nil, errDown // so that each read is by itself
				case q.token == "alice":
					return trouble(http.StatusTooManyRequests)()
				}
				return nil, nil
			})
			w.poller.Invoke(time.Now())
			w.poller.Over(t.Context())
			time.Sleep(time.Second)
			a, err := w.cache.Load(t.Context(), cache.Want{Key: key, ID: other, Anew: true})
			if a.Close(); err != nil || a.Failure == nil {
				t.Fatalf("alice is not refused: %v", err)
			}
			reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
			o := reads.Ensure(t.Context(), Want{Key: key, ID: id, MaxAge: -1, StaleFor: -1})
			if o.Answer.Close(); o.Result == Stale || o.Result == Failed {
				t.Errorf("%q: result %d, %v", who, o.Result, o.Err)
			}
		})
	}
}

// TestG2ARefusalOfAPollsReadIsNobodyElsesOutage: what a poll reads again under a token that
// is refused for load says nothing of what others read.
func TestG2ARefusalOfAPollsReadIsNobodyElsesOutage(t *testing.T) {
	t.Parallel()
	for _, refused := range []string{"alice", "bob", ""} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(_ *cache.Options, o *Options) { o.Concurrency = 1 })
			defer w.close()
			reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
			read := func(who string) Outcome {
				id := w.cache.Own()
				if who != "" {
					id = w.cache.Access().Caller(who)
				}
				return reads.Ensure(t.Context(), Want{Key: cache.Key{Path: "secret/data/of-" + who}, ID: id, MaxAge: -1, StaleFor: -1})
			}
			for _, who := range []string{"alice", "bob", ""} {
				w.cluster.put("secret/data/of-" + who)
				if read(who); who != "" {
					w.cache.Access().Learned(w.cache.Access().Caller(who), cache.Token{})
				}
			}
			polls := 0
			for range 6 {
				time.Sleep(2 * time.Second)
				for _, who := range []string{"alice", "bob", ""} {
					w.cluster.put("secret/data/of-" + who)
				}
				w.cluster.refuse(func(token string) (*http.Response, error) {
					if token == refused {
						polls++
						return trouble(http.StatusTooManyRequests)()
					}
					return nil, nil
				})
				w.invoke()
				for _, who := range []string{"alice", "bob", ""} {
					if o := read(who); who != refused && (o.Result != Hit && o.Result != Miss || o.Result == Miss && o.Answer.Status != http.StatusOK) {
						t.Errorf("%q is refused: %q gets result %d, %v", refused, who, o.Result, o.Err)
					}
				}
			}
			if polls == 0 {
				t.Errorf("%q was never refused", refused)
			}
		})
	}
}
