package consistency

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// balancer hands each request to a node.
type balancer struct {
	name string
	pick func(c *standin.Cluster, r *http.Request, n int) *standin.Node
	// proves: the index proves something; every: one request for it in so many at most.
	proves bool
}

func about(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/sys/") }

func balancers() []balancer {
	nodes := func(c *standin.Cluster, n int) *standin.Node {
		return []*standin.Node{c.Active(), c.Standby(0), c.Standby(1)}[n%3]
	}
	return []balancer{
		{"the active node", func(c *standin.Cluster, _ *http.Request, _ int) *standin.Node { return c.Active() }, true},
		{"round robin", func(c *standin.Cluster, _ *http.Request, n int) *standin.Node { return nodes(c, n) }, false},
		{"by chance", func(c *standin.Cluster, _ *http.Request, _ int) *standin.Node { return nodes(c, rand.N(3)) }, false},
		{"split: reads to standbys", func(c *standin.Cluster, r *http.Request, n int) *standin.Node {
			if about(r) {
				return c.Active()
			}
			return c.Standby(n % 2)
		}, false},
		{"split: questions to a standby", func(c *standin.Cluster, r *http.Request, n int) *standin.Node {
			if about(r) {
				return c.Standby(0)
			}
			return c.Active()
		}, false},
	}
}

// through serves a cluster at vault.test through a balancer, and counts.
func (w *world) through(b balancer, leaders, all *atomic.Int64) {
	var n atomic.Int64
	w.serve("balanced.test:8200", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		all.Add(1)
		if r.URL.Path == "/v1/sys/leader" {
			leaders.Add(1)
		}
		b.pick(w.primary, r, int(n.Add(1))).ServeHTTP(rw, r)
	}))
}

// race writes and reads, and counts what the index proved, and what it proved
// although a write before the invocation had changed it.
func (w *world) race(x *instance, trials int) (proofs, wrong int) {
	for i := 1; i <= trials; i++ {
		key := fmt.Sprintf("race/%d", i%3)
		w.direct("POST", "secret/data/"+key, fmt.Sprintf(`{"data":{"n":%d}}`, i))
		time.Sleep(rand.N(30 * time.Millisecond)) // simulated
		for range 3 {
			x.invoke()
			a, n := x.read(key, "")
			count(a, n, i, &proofs, &wrong)
			time.Sleep(rand.N(30 * time.Millisecond))
		}
	}
	return proofs, wrong
}

// count counts an answer of value n if the index verified it: falsely, where want had
// been written before.
func count(a answer, n, want int, proofs, wrong *int) {
	if strings.Contains(a.header.Get("Cache-Status"), "verified=cursor") {
		*proofs++
		if n < want {
			*wrong++
		}
	}
}

// end ends the instance that was started last.
func (w *world) end() {
	w.stop[len(w.stop)-1]()
	w.stop = w.stop[:len(w.stop)-1]
}

// aim has fresh instances, which all ask for the index, read from a node that lags
// just after that: a read under an index that has the write already, of a value that
// has not. It counts as race does.
func (w *world) aim(trials int, settings ...string) (proofs, wrong int) {
	for i := 1; i <= trials; i++ {
		key := fmt.Sprintf("aim/%d", i)
		w.direct("POST", "secret/data/"+key, `{"data":{"n":0}}`)
		w.primary.Flush()
		x := w.start(settings...)
		x.invoke()
		x.read("other", "")
		x.read(key+"/none", "")
		x.invoke()
		x.read("other", "")
		w.direct("POST", "secret/data/"+key, fmt.Sprintf(`{"data":{"n":%d}}`, i))
		x.invoke()
		x.read("other", "") // its poll has asked for the index after the write
		x.read(key, "")
		time.Sleep(100 * time.Millisecond) // simulated: every node has the write
		x.invoke()
		a, n := x.read(key, "")
		count(a, n, i, &proofs, &wrong)
		w.end()
	}
	return proofs, wrong
}

// aimLists is aim for lists that stand in for the reads of five secrets.
func (w *world) aimLists(trials int) (proofs, wrong int) {
	for i := 1; i <= trials; i++ {
		key := func(k int) string { return fmt.Sprintf("list%d/%d", i, k) }
		put := func(k, n int) { w.direct("POST", "secret/data/"+key(k), fmt.Sprintf(`{"data":{"n":%d}}`, n)) }
		for k := range 5 {
			put(k, 0)
		}
		w.primary.Flush()
		x := w.start("VAULT_ADDR=http://balanced.test:8200")
		all := func() (a answer, n int) {
			for k := range 5 {
				a, n = x.read(key(k), "")
			}
			return a, n
		}
		for range 2 {
			x.invoke()
			all()
			time.Sleep(10 * time.Millisecond) // simulated, as all sleeps here
		}
		put(4, i)
		x.invoke()
		time.Sleep(100 * time.Millisecond) // the poll has listed, and every node has the write
		x.invoke()
		a, n := all()
		count(a, n, i, &proofs, &wrong)
		w.end()
	}
	return proofs, wrong
}

// Where answers name their nodes, nothing but the active node's own answers is
// verified by its index, whatever stands before the nodes, and whatever version
// they say they are: standbys serve reads here, and lag.
func TestG1AnIndexProvesOnlyWhatItsNodeAnswered(t *testing.T) {
	t.Parallel()
	for _, bao := range []bool{true, false} {
		for _, b := range balancers() {
			t.Run(fmt.Sprintf("%s, OpenBao %v", b.name, bao), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, standin.ClusterOptions{OpenBao: bao, NodeIDs: true, CacheLag: 10 * time.Millisecond, Lag: func() time.Duration { return rand.N(60 * time.Millisecond) }})
					defer w.close()
					w.frozen = true
					var leaders, all atomic.Int64
					w.through(b, &leaders, &all)
					w.direct("POST", "secret/data/other", `{"data":{"n":1}}`)
					aimed, hit := w.aim(*pairs, "VAULT_ADDR=http://balanced.test:8200")
					if hit > 0 {
						t.Errorf("aimed: %d of %d proofs are false", hit, aimed)
					}
					lists, hit := w.aimLists(*pairs / 4)
					if hit > 0 || bao && b.proves && lists == 0 {
						t.Errorf("aimed at lists: %d of %d proofs are false", hit, lists)
					}
					t.Logf("aimed: %d proofs of %d, %d of %d by lists", aimed, *pairs, lists, *pairs/4)
					all.Store(0)
					leaders.Store(0)
					x := w.start("VAULT_ADDR=http://balanced.test:8200")
					proofs, wrong := w.race(x, *pairs)
					if wrong > 0 || b.proves && proofs < *pairs/2 {
						t.Errorf("%d proofs, %d of them false\n%s", proofs, wrong, x.log)
					}
					t.Logf("%d proofs of %d reads; %d requests, %d of them for the index", proofs, 3**pairs, all.Load(), leaders.Load())
					if most := all.Load()/20 + 10; !b.proves && leaders.Load() > most {
						t.Errorf("%d of %d requests ask for an index that proves little", leaders.Load(), all.Load())
					}
				})
			})
		}
	}
}

// The same race with the answers' names off and a version that lies finds what the
// names are for.
func TestWithoutNodeIDsALyingVersionIsBelieved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{OpenBao: true, Version: "2.4.4", Lag: func() time.Duration { return rand.N(60 * time.Millisecond) }})
		defer w.close()
		w.frozen = true
		var leaders, all atomic.Int64
		w.through(balancers()[3], &leaders, &all)
		if proofs, wrong := w.race(w.start("VAULT_ADDR=http://balanced.test:8200"), max(*pairs, 100)); wrong == 0 {
			t.Errorf("none of %d proofs is false: the race is not hit", proofs)
		}
	})
}

// A version that tells nothing is not believed.
func TestG1AVersionThatTellsNothingIsNotBelieved(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2.0.0-HEAD", "2.0.0-head", "unknown", "", "2.5.0-beta20260101", "3.0.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, standin.ClusterOptions{OpenBao: true, Version: version, Lag: func() time.Duration { return rand.N(60 * time.Millisecond) }})
				defer w.close()
				w.frozen = true
				var leaders, all atomic.Int64
				w.through(balancers()[3], &leaders, &all)
				if proofs, _ := w.race(w.start("VAULT_ADDR=http://balanced.test:8200"), 20); proofs > 0 && version != "" {
					t.Errorf("%d proofs by a version that tells nothing", proofs)
				}
			})
		})
	}
}

// Two clusters whose nodes have equal names, behind one balancer: the first sight
// of both ends all proofs.
func TestG1TwoClustersBehindOneAddressProveNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{OpenBao: true, NodeIDs: true})
		defer w.close()
		other := newWorld(t, standin.ClusterOptions{OpenBao: true, NodeIDs: true})
		defer other.close()
		w.frozen = true
		var n atomic.Int64
		w.serve("balanced.test:8200", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			[]*world{w, other}[n.Add(1)%2].primary.Active().ServeHTTP(rw, r)
		}))
		x := w.start("VAULT_ADDR=http://balanced.test:8200")
		late := 0
		for i := range 100 {
			w.direct("POST", "secret/data/app", fmt.Sprintf(`{"data":{"n":%d}}`, i))
			other.direct("POST", "secret/data/app", fmt.Sprintf(`{"data":{"n":%d}}`, i))
			for range 3 {
				x.invoke()
				if a, _ := x.read("app", ""); i > 3 && strings.Contains(a.header.Get("Cache-Status"), "verified=cursor") {
					late++
				}
			}
		}
		if warned := strings.Count(x.log.String(), "two clusters"); late > 0 || warned != 1 {
			t.Errorf("%d proofs after both were seen, %d warnings\n%s", late, warned, x.log)
		}
	})
}

// A performance secondary's index says nothing of what its primary has written, though
// every answer names the same node.
func TestG1ASecondarysIndexProvesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{NodeIDs: true})
		defer w.close()
		w.frozen = true
		second := w.primary.Secondary(standin.ClusterOptions{NodeIDs: true}, func() time.Duration { return rand.N(60 * time.Millisecond) })
		second.Active().At("http://10.0.0.9:8200")
		var leaders atomic.Int64
		w.serve("10.0.0.9:8200", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/sys/leader" {
				leaders.Add(1)
			}
			second.Active().ServeHTTP(rw, r)
		}))
		x := w.start("VAULT_ADDR=http://10.0.0.9:8200")
		if proofs, _ := w.race(x, 30); proofs > 0 || leaders.Load() > 3 {
			t.Errorf("%d proofs by %d answers of a secondary", proofs, leaders.Load())
		}
	})
}

// One request per invocation where nothing changes, however many secrets, on OpenBao
// and on Vault Enterprise, whose standbys serve reads, wherever requests reach the
// active node: with one address, or with connections that a balancer keeps to a node.
// Where each request goes to the next node, an invocation costs a read of each secret,
// and one question in twenty besides.
func TestOneRequestPerQuietInvocation(t *testing.T) {
	t.Parallel()
	robin := balancers()[1]
	for _, secrets := range []int{1, 10, 100, 1000} {
		for _, bao := range []bool{true, false} {
			for _, b := range []balancer{balancers()[0], robin} {
				if secrets == 1000 && !b.proves {
					continue // as with 100, and slow
				}
				t.Run(fmt.Sprintf("%d secrets, %s, OpenBao %v", secrets, b.name, bao), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, standin.ClusterOptions{OpenBao: bao, NodeIDs: true})
						defer w.close()
						w.frozen = true
						var leaders, all atomic.Int64
						w.through(b, &leaders, &all)
						x := w.start("VAULT_ADDR=http://balanced.test:8200", "VAULT_LOG_LEVEL=error", "THAW_POLL_TIMEOUT=10s")
						w.quiet(x, secrets, b.proves, all.Load, func(n int64) {
							reads := int64(10 * secrets)
							if most := reads + reads/20 + 10; b.proves && n != 10 || n > most {
								t.Errorf("%d requests in 10 invocations, %d of them for the index\n%s", n, leaders.Load(), x.log)
							}
						})
					})
				})
			}
		}
	}
}

// quiet has ten invocations read secrets that nobody changes, after another was, all
// from the cache where hits is set, and tells how many requests that took.
func (w *world) quiet(x *instance, secrets int, hits bool, requests func() int64, tell func(int64)) {
	w.t.Helper()
	for i := range secrets {
		w.direct("POST", fmt.Sprintf("secret/data/quiet/%d", i), `{"data":{"n":1}}`)
	}
	w.primary.Flush()
	each := func(hit bool) {
		x.invoke()
		for i := range secrets {
			if a, n := x.read(fmt.Sprintf("quiet/%d", i), ""); n != 1 || hit && a.header.Get("X-Cache") != "HIT" {
				w.t.Fatalf("secret %d: %d %v", i, a.status, a.header)
			}
		}
	}
	for i := range 4 {
		if i == 2 {
			w.direct("POST", "secret/data/other", `{"data":{"n":1}}`) // moves the index
			w.primary.Flush()
		}
		each(false)
		synctest.Wait() // for what it asks beside its reads: no time passes here
	}
	before := requests()
	for range 10 {
		each(hits)
	}
	tell(requests() - before)
}
