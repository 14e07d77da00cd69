package warmup

import (
	"slices"
	"sync"
)

// todo is what a pass has to read, and what of it is done. Workers claim one
// after another; what is claimed is done only once it is in the tier.
type todo struct {
	list []item // to be read, in the inventory's order
	from string // what came before them was done by an earlier run, up to this name

	spared int // of them need no read; set before any is claimed

	mu   sync.Mutex // guards the fields below
	next int        // index of the next to claim
	done []bool
}

// maxLeft bounds how many unfinished items among finished ones are named. More
// of them make the next run go on before the first.
const maxLeft = 5000

// newTodo takes what an earlier run left of items, which are sorted: those that
// it names as left, and those after the last that it claimed.
func newTodo(items []item, after string, left []string) *todo {
	t := &todo{from: after}
	left = slices.Sorted(slices.Values(left))
	for _, it := range items {
		_, again := slices.BinarySearch(left, it.path)
		if after == "" || again || it.path > after {
			t.list = append(t.list, it)
		}
	}
	t.done = make([]bool, len(t.list))
	return t
}

// claim gives a worker its next item.
func (t *todo) claim() (index int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.next < len(t.list) && t.done[t.next] {
		t.next++
	}
	if t.next == len(t.list) {
		return 0, false
	}
	t.next++
	return t.next - 1, true
}

// finish says that items are in the tier, or need not be.
func (t *todo) finish(indexes []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range indexes {
		t.done[i] = true
	}
}

// position says how far it is: everything up to after was claimed, and of that
// left is not done.
func (t *todo) position() (after string, left []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	after = t.from
	for i := range t.next {
		if n := t.list[i].path; n > after {
			after = n
		}
		if t.done[i] {
			continue
		}
		if len(left) == maxLeft {
			return t.before(left[0]), nil
		}
		left = append(left, t.list[i].path)
	}
	// What an earlier run had left and nobody claimed yet.
	for i := t.next; i < len(t.list) && t.list[i].path <= after && len(left) < maxLeft; i++ {
		left = append(left, t.list[i].path)
	}
	return after, left
}

// before is the name of the item before the one called name; empty: none.
func (t *todo) before(name string) string {
	at, _ := slices.BinarySearchFunc(t.list, name, cmpPath)
	if at == 0 {
		return ""
	}
	return t.list[at-1].path
}

// missing are the items that are not done. A nil todo has none.
func (t *todo) missing() []item {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []item
	for i, it := range t.list {
		if !t.done[i] {
			out = append(out, it)
		}
	}
	return out
}
