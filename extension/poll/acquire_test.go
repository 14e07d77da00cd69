package poll

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// directory is what other instances of the identity hold.
type directory map[cache.Capability]cache.Confirmation

func (d directory) Known(context.Context) map[cache.Capability]cache.Confirmation { return d }

func (d directory) Confirming(context.Context) bool { return false }

// TestOneCallConfirmsWhatOthersMayRead: a cold instance reads several secrets at
// once, each on a capability that another instance confirmed an hour ago. One call
// confirms all of them, and nothing is read.
func TestOneCallConfirmsWhatOthersMayRead(t *testing.T) {
	t.Parallel()
	paths := []string{"a", "b", "c", "d"}
	for name, known := range map[string]bool{"the directory names them": true, "it is lost": false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBoard(0)
			at := time.Now()
			dir := directory{}
			for _, path := range append(paths, "unused") {
				of := cache.Capability{Path: path}
				b.grants[of] = cache.Confirmation{Read: at, At: at}
				if known {
					dir[of] = b.grants[of]
				}
				b.records[cache.Key{Path: path}] = cache.Record{Entry: cache.Entry{Key: cache.Key{Path: path}, Kind: cache.Data, Status: http.StatusOK, Body: []byte(`{"data":{}}`), FetchedAt: at}, SentAt: at}
			}
			time.Sleep(30 * time.Minute)
			w := newWorldWith(t, newCluster(), b, func(co *cache.Options, _ *Options) { co.Shared = b })
			defer w.close()
			var asked []string
			w.cluster.set(func(k *cluster) { k.slow = 50 * time.Millisecond })
			w.cluster.answers(func(q request) (*http.Response, error) {
				w.cluster.set(func(*cluster) { asked = append(asked, q.paths()...) })
				return nil, nil
			})
			p := NewPermissions(w.cache, w.Session, dir, slog.New(slog.DiscardHandler), time.Now)
			var wg sync.WaitGroup
			for _, path := range paths {
				wg.Go(func() {
					key := cache.Key{Path: path}
					w.cache.FillShared(t.Context(), key)
					if s := w.state(path); s != cache.Unconfirmed {
						t.Errorf("%s: state %v before it is confirmed", path, s)
					}
					p.Confirm(t.Context(), w.cache.Own(), key.Capability())
				})
			}
			wg.Wait()
			for _, path := range paths {
				if s := w.state(path); s != cache.Unverified {
					t.Errorf("%s: %s: state %v, want it confirmed", name, path, s)
				}
			}
			calls := w.cluster.count(capabilitiesPath)
			slices.Sort(asked)
			if asked = slices.Compact(asked); known && (calls != 1 || len(asked) != len(paths)+1) || !known && calls > 2 {
				t.Errorf("%s: %d calls for %q", name, calls, asked)
			}
		})
	}
}

// TestG2WhatAnotherLostIsLostHere: an end counts from the next look at the shared
// cache on, though capabilities-self goes on saying read.
func TestG2WhatAnotherLostIsLostHere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(0)
		w := newWorldWith(t, newCluster(), b, func(co *cache.Options, _ *Options) { co.Shared = b })
		defer w.close()
		w.hold("secret/data/a")
		if s := w.state("secret/data/a"); s != cache.Fresh {
			t.Fatalf("state %v", s)
		}
		time.Sleep(time.Minute)
		b.grants[cache.Capability{Path: "secret/data/a"}] = cache.Confirmation{Ended: time.Now()}
		w.cache.FillNewer(t.Context(), []cache.Key{{Path: "secret/data/a"}})
		if s := w.state("secret/data/a"); s != cache.Absent {
			t.Errorf("state %v after another instance was refused", s)
		}
	})
}

// TestG4WhatAnotherReadMeanwhileIsServed: nothing was in the shared cache when a read
// asked the origin, which is away. What another instance had read is there when that
// fails, and is served as any instance would serve it.
func TestG4WhatAnotherReadMeanwhileIsServed(t *testing.T) {
	t.Parallel()
	for _, pessimistic := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBoard(0)
			w := newWorldWith(t, newCluster(), b, func(co *cache.Options, _ *Options) { co.Shared, co.Pessimistic = b, pessimistic })
			defer w.close()
			w.cluster.set(func(k *cluster) { k.slow, k.down = 100*time.Millisecond, errDown })
			key, at := cache.Key{Path: "secret/data/a"}, time.Now()
			time.AfterFunc(50*time.Millisecond, func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.grants[key.Capability()] = cache.Confirmation{Read: at, At: at}
				b.records[key] = cache.Record{Entry: cache.Entry{Key: key, Kind: cache.Data, Status: http.StatusOK, Body: []byte(`{"data":{}}`), FetchedAt: at}, SentAt: at}
			})
			reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
			o := reads.Ensure(t.Context(), Want{Key: key, ID: w.cache.Own(), MaxAge: -1, StaleFor: -1})
			if want := map[bool]Result{false: Stale, true: Failed}[pessimistic]; o.Result != want {
				t.Errorf("pessimistic %v: result %v, want %v; %v", pessimistic, o.Result, want, o.Err)
			}
		})
	}
}
