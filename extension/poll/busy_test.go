package poll

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// busy is a function that reads secrets in each invocation, all at once, before a
// cluster that is a round trip away. In its first it read one after the other, on one connection.
type busy struct {
	*world
	reads *Reads
	paths []string
}

func newBusy(t *testing.T, secrets int, inTurn bool) *busy {
	b := &busy{world: newWorld(t, func(co *cache.Options, o *Options) {
		co.RefreshInterval, o.Shared = time.Hour, inTurn // nothing but verification is asked for
	})}
	b.reads = NewReads(ReadOptions{Cache: b.cache, Poll: b.poller, Permissions: b.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
	for i := range secrets {
		b.paths = append(b.paths, fmt.Sprint("secret/data/", i))
		b.cluster.put(b.paths[i])
	}
	b.poller.Invoke(time.Now())
	b.ask()
	for _, p := range b.paths {
		b.read(p)
	}
	synctest.Wait() // what runs beside ends, too
	b.cluster.set(func(c *cluster) { c.pooled, c.free, c.slow = true, 1, trip })
	b.cluster.requests()
	return b
}

// invocation is one, 3 seconds later. moved: somebody wrote something else before it. It
// returns how long the function waited, and the requests that were made.
func (b *busy) invocation(moved bool) (took time.Duration, requests int) {
	b.t.Helper()
	time.Sleep(3 * time.Second)
	if moved {
		b.cluster.put("secret/data/other")
	}
	began := time.Now()
	b.poller.Invoke(began)
	var all sync.WaitGroup
	for _, p := range b.paths {
		all.Go(func() {
			o := b.reads.Ensure(b.t.Context(), Want{Key: cache.Key{Path: p}, ID: b.cache.Own(), MaxAge: -1, StaleFor: -1})
			if o.Result > Miss {
				b.t.Errorf("%s: %v, %v", p, o.Result, o.Err)
			}
		})
	}
	all.Wait()
	took = time.Since(began)
	synctest.Wait()
	time.Sleep(time.Second) // what runs beside ends, too
	return took, b.cluster.requests()
}

// TestABusyClusterCostsOneRoundTrip from the third poll that finds the index moved, also where that
// one needs a connection more than there were before, and no more than a tenth more requests than
// if the re-reads waited for the index, and were asked for alone in seven of eight polls.
func TestABusyClusterCostsOneRoundTrip(t *testing.T) {
	t.Parallel()
	for _, secrets := range []int{1, 2, 3, 5, 8} {
		sum := map[bool]int{}
		for _, inTurn := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				b := newBusy(t, secrets, inTurn)
				defer b.close()
				for i := range 100 {
					took, n := b.invocation(true)
					sum[inTurn] += n
					want := trip
					switch {
					case i == 0 && secrets > 1: // the index, connections, and the re-reads
						want = 3 * trip
					case i < 2 || inTurn && i < 7:
						want = 2 * trip
					case inTurn:
						want = took // the index is left out now and then
					}
					if took != want {
						t.Errorf("%d secrets, in turn %v, invocation %d waited %v, want %v", secrets, inTurn, i, took, want)
					}
				}
			})
		}
		if before := 100*secrets + 8 + 2*100/16; float64(sum[false]) > 1.1*float64(min(sum[true], before)) {
			t.Errorf("%d secrets: %d requests, %d in turn, %d where the index was left out longest", secrets, sum[false], sum[true], before)
		}
		t.Logf("%d secrets, 100 invocations: %d requests, %d in turn", secrets, sum[false], sum[true])
	}
}

// TestWhatIsReadInVainAfterALongBusyTimeIsBounded, however many secrets there are: the index is
// left out for the shorter, the more would be read in vain.
func TestWhatIsReadInVainAfterALongBusyTimeIsBounded(t *testing.T) {
	t.Parallel()
	for _, secrets := range []int{2, 3, 5, 8, 20} {
		for busyFor := 8; busyFor < 24; busyFor++ {
			synctest.Test(t, func(t *testing.T) {
				b := newBusy(t, secrets, false)
				defer b.close()
				for range busyFor {
					b.invocation(true)
				}
				vain := 0
				for n := 0; n != 1; { // until the index alone is asked for
					_, n = b.invocation(false)
					vain += n
				}
				if most := 14 + 3*(secrets+1); vain > most {
					t.Errorf("%d secrets, busy for %d invocations: %d requests in vain, at most %d are expected", secrets, busyFor, vain, most)
				}
			})
		}
	}
}

// TestAClusterThatFallsQuietCostsOneRoundInVain: from then on an invocation costs one
// request, until it is busy again.
func TestAClusterThatFallsQuietCostsOneRoundInVain(t *testing.T) {
	t.Parallel()
	for _, after := range []int{1, 2, 3, 5} { // before the index is left out
		synctest.Test(t, func(t *testing.T) {
			b := newBusy(t, 5, false)
			defer b.close()
			for round := range 2 {
				for range after {
					b.invocation(true)
				}
				var quiet []int
				for range 4 {
					took, n := b.invocation(false)
					quiet = append(quiet, n)
					if took != trip {
						t.Errorf("after %d: it waited %v", after, took)
					}
				}
				vain := 0
				for i, n := range quiet {
					if n == 1+len(b.paths) && i == 0 {
						vain++
					} else if n != 1 {
						t.Errorf("after %d moves, round %d: requests of the quiet invocations: %v", after, round, quiet)
						break
					}
				}
				if vain > 1 {
					t.Errorf("%d rounds in vain", vain)
				}
			}
		})
	}
}

// TestG1WhatIsReadBesideTheIndexIsVerified: a secret is rotated in each invocation of a
// busy cluster, just before it, while the check is on its way, or between the two answers.
func TestG1WhatIsReadBesideTheIndexIsVerified(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Duration{0, trip / 4, trip / 2, trip, 3 * trip / 2} {
		synctest.Test(t, func(t *testing.T) {
			b := newBusy(t, 5, false)
			defer b.close()
			for range 5 {
				b.invocation(true)
			}
			for i := range 20 {
				path := b.paths[i%len(b.paths)]
				if at == 0 {
					b.cluster.put(path)
				} else {
					time.AfterFunc(3*time.Second+at, func() { b.cluster.put(path) })
				}
				b.invocation(i%3 == 0)
				// The next invocation sees whatever was written before it.
				b.invocation(false)
				want := b.cluster.versionOf(path)
				if got := b.value(path); !strings.Contains(got, fmt.Sprintf(`"v":"%d"`, want)) {
					t.Errorf("rotated %v after the INVOKE: %s, want version %d", at, got, want)
				}
			}
		})
	}
}
