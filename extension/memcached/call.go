package memcached

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/thaw-project/thaw/extension/rescue"
)

// groupSize is how many keys are asked for in one command.
const groupSize = 100

// maxValue is the largest value that is stored, in bytes: memcached's default
// item limit is 1 MiB with the key and a header of about 60 bytes.
const maxValue = 1<<20 - 512

// GetMulti returns what of keys is there. Within the deadline of one call, all
// nodes are asked at once, each for its keys in groups of 100. What came before
// a failure is returned; err, for logs, says what was not all asked.
func (a At) GetMulti(ctx context.Context, keys []string) (map[string]memcache.Item, error) {
	found := make(map[string]memcache.Item, len(keys))
	if len(keys) == 0 {
		return found, nil
	}
	c := a.c
	ctx, top, end, err := c.begin(ctx)
	defer end()
	if err != nil {
		c.counts.misses.Add(uint64(len(keys)))
		return found, err
	}
	groups := make(map[*node][]string, 1)
	for _, k := range keys {
		if n := a.of(top, k); n != nil {
			groups[n] = append(groups[n], k)
		}
	}
	var mu sync.Mutex // guards found and err
	asked := slices.Collect(maps.Keys(groups))
	rescue.Each(c.o.Log, "ask memcached", len(asked), len(asked), func(i int) {
		got, failure := asked[i].getMulti(ctx, groups[asked[i]])
		mu.Lock()
		defer mu.Unlock()
		maps.Copy(found, got)
		err = errors.Join(err, failure)
	})
	c.counts.hits.Add(uint64(len(found)))
	c.counts.misses.Add(uint64(len(keys) - len(found)))
	return found, err
}

// batch is how many names are asked for by one deadline. Whoever wants more, a
// warm-up, wants them all: its batches follow each other while they come.
const batch = 1000

// all asks for names, batch after batch.
func (a At) all(ctx context.Context, names []string) map[string]memcache.Item {
	items := make(map[string]memcache.Item, len(names))
	for part := range slices.Chunk(names, batch) {
		found, err := a.GetMulti(ctx, part)
		maps.Copy(items, found)
		if err != nil {
			a.c.o.Log.Debug("memcached read in part", "asked", len(names), "found", len(items), "error", brief(err))
			break
		}
	}
	return items
}

// getMulti asks one node, group after group, and stops at the first that fails.
func (n *node) getMulti(ctx context.Context, keys []string) (map[string]memcache.Item, error) {
	found := make(map[string]memcache.Item, len(keys))
	received := 0
	for group := range slices.Chunk(keys, groupSize) {
		if received > maxAnswer {
			return found, errTooMuch
		}
		err := n.do(ctx, len(group), false, func(mc *memcache.Client) error {
			items, err := mc.GetMulti(group)
			for _, k := range group {
				if it := items[k]; it != nil {
					found[k] = *it
					received += len(it.Value)
				}
			}
			return err
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// Set stores a value for ttl, rounded up to seconds; a ttl of 0 or less stores
// nothing.
func (a At) Set(ctx context.Context, key string, val []byte, ttl time.Duration) error {
	_, err := a.store(ctx, (*memcache.Client).Set, memcache.Item{Key: key, Value: val}, ttl)
	return err
}

// Add stores a value if there is none. It reports whether it did.
func (a At) Add(ctx context.Context, key string, val []byte, ttl time.Duration) (bool, error) {
	return a.store(ctx, (*memcache.Client).Add, memcache.Item{Key: key, Value: val}, ttl)
}

// CompareAndSwap stores a value if what is there is still the one that came
// with cas. It reports whether it did. A ttl below 0 removes what is there.
func (a At) CompareAndSwap(ctx context.Context, key string, val []byte, ttl time.Duration, cas uint64) (bool, error) {
	return a.store(ctx, (*memcache.Client).CompareAndSwap, memcache.Item{Key: key, Value: val, CasID: cas}, ttl)
}

// Delete removes a value.
func (a At) Delete(ctx context.Context, key string) error {
	return a.one(ctx, key, false, func(mc *memcache.Client) error { return mc.Delete(key) })
}

func (a At) store(ctx context.Context, f func(*memcache.Client, *memcache.Item) error, it memcache.Item, ttl time.Duration) (stored bool, err error) {
	if len(it.Value) > maxValue {
		return false, ErrTooLarge
	}
	if ttl == 0 {
		return false, nil
	}
	it.Expiration = expiration(ttl, a.c.o.Now())
	err = a.one(ctx, it.Key, true, func(mc *memcache.Client) error {
		err := f(mc, &it)
		stored = err == nil
		return err
	})
	return stored && err == nil, err
}

// begin begins a call: its time, which Close ends, and the nodes that there are.
func (c *Client) begin(ctx context.Context) (bounded context.Context, top *topology, end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	stop, used := context.AfterFunc(c.ctx, cancel), c.Use()
	top, err = c.nodes(ctx)
	return ctx, top, func() { stop(); cancel(); used() }, err
}

// one has an exchange about one key.
func (a At) one(ctx context.Context, key string, store bool, f func(*memcache.Client) error) error {
	ctx, top, end, err := a.c.begin(ctx)
	defer end()
	if err != nil {
		return err
	}
	n := a.of(top, key)
	if n == nil {
		return errLeft
	}
	return n.do(ctx, 0, store, f)
}

// expiration returns ttl as the protocol has it: seconds, or a Unix time when
// that is more than 30 days; below 0 is at once
// (https://github.com/memcached/memcached/blob/master/doc/protocol.txt, Expiration times).
func expiration(ttl time.Duration, now time.Time) int32 {
	if ttl < 0 {
		return -1
	}
	s := max(1, int64((ttl+time.Second-1)/time.Second))
	if s > 30*24*60*60 {
		s += now.Unix()
	}
	return int32(min(s, math.MaxInt32))
}

// out reports whether the node of key is not asked at the moment.
func (a At) out(key string) bool {
	n := a.of(a.c.top.Load(), key)
	return n == nil || n.breaker.out()
}

// Stats are totals since the start, and what holds now.
type Stats struct {
	Hits, Misses uint64 // keys
	Skipped      uint64 // exchanges not tried, as the node was out or being connected to
	Errors       uint64 // exchanges that failed, timeouts included
	Timeouts     uint64 // exchanges that ran out of time
	Late         uint64 // of those, for our own fault: throttled or frozen
	Refused      uint64 // values that a node would not store: it is full
	Nodes, Out   int    // nodes known, and those of them that are out
	Conns        int    // connections
}

// NodeState is a node as it is now.
type NodeState struct {
	Address string `json:"address"`
	Out     bool   `json:"out"` // it is not asked at the moment, since it failed
	Conns   int    `json:"connections"`
}

// Nodes returns the nodes that are known.
func (c *Client) Nodes() []NodeState {
	var out []NodeState
	for _, n := range c.top.Load().nodes {
		out = append(out, NodeState{n.id, n.breaker.out(), int(n.open.Load())})
	}
	return out
}

type counters struct {
	hits, misses, skipped, errors, timeouts, late, refused atomic.Uint64
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	s := Stats{
		Hits: c.counts.hits.Load(), Misses: c.counts.misses.Load(), Skipped: c.counts.skipped.Load(), Errors: c.counts.errors.Load(),
		Timeouts: c.counts.timeouts.Load(), Late: c.counts.late.Load(), Refused: c.counts.refused.Load(),
	}
	for _, n := range c.Nodes() {
		s.Nodes++
		s.Conns += n.Conns
		if n.Out {
			s.Out++
		}
	}
	return s
}
