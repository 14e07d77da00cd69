package memcached

import (
	"fmt"
	"slices"
	"testing"
)

func ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("cache-%d.example:11211", i)
	}
	return out
}

func TestAddingANodeMovesAboutItsShareAndNothingElse(t *testing.T) {
	t.Parallel()
	const keys = 20000
	for _, n := range []int{1, 2, 3, 5, 10, 40} {
		before, after := newRing(ids(n)), newRing(ids(n+1))
		added := ids(n + 1)[n]
		moved := 0
		for i := range keys {
			key := fmt.Sprint("key", i)
			a, b := before.ids[before.pick(key, nil)], after.ids[after.pick(key, nil)]
			if a == b {
				continue
			}
			moved++
			if b != added {
				t.Fatalf("%d nodes: %s moved from %s to %s, which is not the new one", n, key, a, b)
			}
		}
		share := float64(keys) / float64(n+1)
		if f := float64(moved) / share; f < 0.7 || f > 1.35 {
			t.Errorf("%d nodes and one more: %d keys moved, %.2f times its share", n, moved, f)
		}
	}
}

func TestNodesShareTheKeysEvenly(t *testing.T) {
	t.Parallel()
	const n, keys = 5, 50000
	r := newRing(ids(n))
	counts := make([]int, n)
	for i := range keys {
		counts[r.pick(fmt.Sprint(i), nil)]++
	}
	for i, c := range counts {
		if f := float64(c) / (keys / n); f < 0.75 || f > 1.3 {
			t.Errorf("node %d has %.2f times its share", i, f)
		}
	}
}

func TestEveryInstancePicksTheSameNode(t *testing.T) {
	t.Parallel()
	list := ids(4)
	turned := append(slices.Clone(list[2:]), list[0], list[1], list[1])
	a, b := newRing(list), newRing(turned)
	for i := range 1000 {
		key := fmt.Sprint(i)
		if a.ids[a.pick(key, nil)] != b.ids[b.pick(key, nil)] {
			t.Fatalf("the order of the nodes changes where %s is", key)
		}
	}
	// Instances of different releases share nodes: this must not change.
	got := []int{a.pick("thaw1.a", nil), a.pick("thaw1.b", nil), a.pick("thaw1.c", nil), a.pick("thaw1.d", nil), a.pick("thaw1.e", nil), a.pick("", nil)}
	if want := []int{0, 2, 0, 1, 3, 1}; !slices.Equal(got, want) {
		t.Errorf("keys are on nodes %v, want %v", got, want)
	}
}
