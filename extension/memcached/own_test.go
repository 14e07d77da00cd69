package memcached

import (
	"fmt"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/harness"
)

// several are nodes that count.
func several(t *testing.T, n int) (nodes []*memcache.Server, ids []string) {
	t.Helper()
	for range n {
		m, err := memcache.Start(memcache.Options{})
		must(t, err)
		t.Cleanup(m.Close)
		nodes, ids = append(nodes, m), append(ids, m.Addr())
	}
	return nodes, ids
}

func open(nodes []*memcache.Server) (sum int) {
	for _, m := range nodes {
		n, _ := m.Conns()
		sum += n
	}
	return sum
}

// TestAFrozenEnvironmentHoldsOneConnection, to its own node, whatever it did before; one
// that never freezes keeps one to each node.
func TestAFrozenEnvironmentHoldsOneConnection(t *testing.T) {
	t.Parallel()
	nodes, ids := several(t, 5)
	for name, c := range map[string]struct {
		frozen bool
		idle   int
	}{"Lambda": {true, 1}, "thaw proxy": {false, 5}} {
		clk := newClock()
		cl := client(t, Options{Nodes: ids, Now: clk.now, Frozen: c.frozen})
		tier := (&site{nil, cl, clk}).tier(t, nil)
		uses := map[string]func(){
			"entries":      func() { tier.Put(t.Context(), many(clk, 50)) },
			"fetch":        func() { tier.Fetch(t.Context(), keysOf(many(clk, 50))) },
			"capabilities": func() { tier.Keep(t.Context(), nil, capabilitiesOf(clk, 50)) },
			"stamps":       func() { tier.Stamps(t.Context(), keysOf(many(clk, 50))) },
			"locks": func() {
				for i := range 20 {
					l, _, _ := tier.Lock(t.Context(), fmt.Sprint("lock", i), time.Second, false)
					l.Release(t.Context())
				}
			},
			"merge": func() {
				must(t, tier.Merge(t.Context(), "m", time.Minute, func([][]byte) []byte { return []byte("x") }))
			},
		}
		for range 3 {
			for use, do := range uses {
				do()
				most := c.idle
				harness.Eventually(t, patience, name+" after "+use+": closed", func() bool { return open(nodes) <= most })
				if own := cl.own(cl.top.Load()).id; c.frozen && cl.Stats().Conns > 0 && held(cl, own) != cl.Stats().Conns {
					t.Errorf("%s after %s: %d connections, %d to the own node", name, use, cl.Stats().Conns, held(cl, own))
				}
			}
			clk.advance(10 * time.Second) // a freeze
			tier.o.Client.Thawed()
		}
		tier.Stamps(t.Context(), nil)
		if n := cl.Stats().Conns; n != c.idle {
			t.Errorf("%s: %d connections, want %d", name, n, c.idle)
		}
		cl.Close()
		harness.Eventually(t, patience, "all closed", func() bool { return open(nodes) == 0 })
	}
}

func held(c *Client, id string) int { return int(c.top.Load().node(id).open.Load()) }

func many(clk *fakeClock, n int) (out []cache.Record) {
	s := &site{nil, nil, clk}
	for i := range n {
		out = append(out, s.record(read(fmt.Sprint("secret/data/", i)), "v", 0))
	}
	return out
}

func keysOf(records []cache.Record) (out []cache.Key) {
	for _, r := range records {
		out = append(out, r.Key)
	}
	return out
}

func capabilitiesOf(clk *fakeClock, n int) map[cache.Capability]cache.Confirmation {
	out := map[cache.Capability]cache.Confirmation{}
	for i := range n {
		out[cache.Capability{Path: fmt.Sprint("secret/data/", i)}] = readAt(clk.now())
	}
	return out
}

// TestAConnectionSurvivesAShortFreeze: one that nobody would use again is not worth
// keeping.
func TestAConnectionSurvivesAShortFreeze(t *testing.T) {
	t.Parallel()
	nodes, ids := several(t, 3)
	clk := newClock()
	tier := (&site{nil, client(t, Options{Nodes: ids, Now: clk.now, Frozen: true}), clk}).tier(t, nil)
	for range 100 {
		tier.Near(t.Context(), nil)
		clk.advance(time.Second)
		tier.o.Client.Thawed()
	}
	made := 0
	for _, m := range nodes {
		_, n := m.Conns()
		made += n
	}
	if made != 1 {
		t.Errorf("%d connections for 100 invocations, one second apart", made)
	}
}

// TestOwnNodesAreSpread over the nodes that are in use, and move no further than they
// must.
func TestOwnNodesAreSpread(t *testing.T) {
	t.Parallel()
	ids := []string{"a:1", "b:1", "c:1", "d:1"}
	const instances = 2000
	before, count := map[string]string{}, map[string]int{}
	made := func(name string, ids []string) *Client {
		return client(t, Options{Nodes: ids, Instance: name})
	}
	for i := range instances {
		name := fmt.Sprint("instance", i)
		before[name] = made(name, ids).Own(t.Context())
		count[before[name]]++
	}
	for id, n := range count {
		if n < instances/8 || n > instances*3/8 {
			t.Errorf("%s is the own node of %d of %d", id, n, instances)
		}
	}
	for name, was := range before {
		if now := made(name, ids[:3]).Own(t.Context()); was != "d:1" && now != was {
			t.Fatalf("%s moved from %s to %s when d left", name, was, now)
		}
		c := made(name, ids)
		n := c.top.Load().node(was)
		n.breaker.settle(c.o.Now(), false, bad)
		if now := c.Own(t.Context()); now == was {
			t.Fatalf("%s stays with %s, which is out", name, was)
		}
		n.breaker = breaker{}
		if now := c.Own(t.Context()); now != was {
			t.Fatalf("%s is with %s after %s came back", name, now, was)
		}
	}
	a, b := made("", ids), made("", ids)
	if drawn := a.instance(); drawn == b.instance() || drawn != a.instance() {
		t.Error("an instance's own draw is not its own")
	}
}

// TestEachNodeHasItsCopyOfTheIndexsStamp: an instance reads and writes its own node's,
// and waits only for a verification that will be there. The warm-up writes all.
func TestEachNodeHasItsCopyOfTheIndexsStamp(t *testing.T) {
	t.Parallel()
	nodes, ids := several(t, 2)
	clk := newClock()
	s := &site{nil, nil, clk}
	with := func(node string, change func(*TierOptions)) *Tier {
		for i := 0; ; i++ {
			c := client(t, Options{Nodes: ids, Now: clk.now, Instance: fmt.Sprint(i)})
			if c.Own(t.Context()) == node {
				return s.tier(t, func(o *TierOptions) {
					if o.Client = c; change != nil {
						change(o)
					}
				})
			}
		}
	}
	ctx := t.Context()
	a, mate, b := with(ids[0], nil), with(ids[0], nil), with(ids[1], nil)
	cursor := func(x *Tier) uint64 {
		c, _, _ := x.Near(ctx, nil)
		return c.Committed
	}
	if _, _, taken := a.Lock(ctx, "index", time.Minute, true); taken {
		t.Error("a lock that nobody held")
	}
	if _, _, taken := mate.Lock(ctx, "index", time.Minute, true); !taken {
		t.Error("two of one node verify")
	}
	if _, _, taken := b.Lock(ctx, "index", time.Minute, true); taken {
		t.Error("an instance waits for a stamp of another node")
	}
	a.PutStamps(ctx, cache.CursorStamp{At: clk.now(), Committed: 7, ActiveTime: "t"}, nil)
	if cursor(a) != 7 || cursor(mate) != 7 || cursor(b) != 0 {
		t.Errorf("the index is %d, %d and %d", cursor(a), cursor(mate), cursor(b))
	}
	clk.advance(time.Second)
	with(ids[0], func(o *TierOptions) { o.Everywhere = true }).PutStamps(ctx, cache.CursorStamp{At: clk.now(), Committed: 9, ActiveTime: "t"}, nil)
	if cursor(a) != 9 || cursor(b) != 9 {
		t.Errorf("the warm-up's stamp is %d and %d", cursor(a), cursor(b))
	}
	// Another binary puts and looks for it where the ring says: with the same name.
	name := a.place(kindCursor).names[0]
	old := a.o.Client.top.Load()
	if items, _ := a.o.Client.GetMulti(ctx, []string{name}); len(items) != 1 {
		t.Error("who knows of no copies finds none")
	}
	home := old.ring.ids[old.ring.pick(name, nil)]
	with(home, nil).PutStamps(ctx, cache.CursorStamp{At: clk.now().Add(time.Millisecond), Committed: 11, ActiveTime: "t"}, nil)
	if items, _ := a.o.Client.GetMulti(ctx, []string{name}); len(items) != 1 || cursor(with(home, nil)) != 11 {
		t.Error("the two do not share the copy of the ring's node")
	}
	// A node that is lost takes its copy along, and no other's.
	a.o.Client.top.Load().node(ids[0]).breaker.settle(clk.now(), false, bad)
	if cursor(a) != cursor(b) {
		t.Error("an instance whose node is out does not use another's copy")
	}
	for _, m := range nodes {
		if v := m.Violations(); len(v) > 0 {
			t.Error(v)
		}
	}
}

// TestAnInvocationAsksItsOwnNodeAlone, while the index's stamp is there; else each
// stamp where it lies.
func TestAnInvocationAsksItsOwnNodeAlone(t *testing.T) {
	t.Parallel()
	nodes, ids := several(t, 4)
	clk := newClock()
	c := client(t, Options{Nodes: ids, Now: clk.now, Frozen: true})
	tier := (&site{nil, c, clk}).tier(t, nil)
	records := many(clk, 40)
	stamps := map[cache.Key]cache.Stamp{}
	for _, r := range records {
		stamps[r.Key] = cache.Stamp{At: clk.now(), Fingerprint: [32]byte{1}}
	}
	tier.PutStamps(t.Context(), cache.CursorStamp{}, stamps)
	if _, got, far := tier.Near(t.Context(), keysOf(records)); len(got) != 40 || len(far) != 0 {
		t.Errorf("without the index's stamp: %d stamps, %d left over", len(got), len(far))
	}
	tier.PutStamps(t.Context(), cache.CursorStamp{At: clk.now(), Committed: 7, ActiveTime: "t"}, nil)
	before := map[string]int{}
	for _, m := range nodes {
		before[m.Addr()] = m.Commands()
	}
	_, got, far := tier.Near(t.Context(), keysOf(records))
	if len(far) == 0 || len(got)+len(far) != 40 {
		t.Errorf("%d stamps, %d left over", len(got), len(far))
	}
	for _, m := range nodes {
		want := 0
		if m.Addr() == c.Own(t.Context()) {
			want = 1
		}
		if n := m.Commands() - before[m.Addr()]; n != want {
			t.Errorf("%d commands for a node, want %d", n, want)
		}
	}
	if _, got := tier.Stamps(t.Context(), far); len(got) != len(far) {
		t.Errorf("%d of %d stamps of other nodes", len(got), len(far))
	}
}
