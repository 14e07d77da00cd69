package warmup

import (
	"slices"
	"sync"
)

// todo is what a pass has to read. Workers claim one after another.
type todo struct {
	list []item // in the inventory's order
	from string // what came before them was done by an earlier run, up to this name

	mu   sync.Mutex // guards the fields below
	next int        // index of the next to claim
	done []bool     // by index: it is in the tier, or need not be
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
		if _, again := slices.BinarySearch(left, it.path); after == "" || again || it.path > after {
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

// position says how far it is: everything up to after was claimed, by this run or an
// earlier one, and of that left is not done.
func (t *todo) position() (after string, left []string) {
	missing := t.missing() // what is claimed from here on is among them
	t.mu.Lock()
	after = t.from
	if t.next > 0 {
		after = max(after, t.list[t.next-1].path)
	}
	t.mu.Unlock()
	left = pathsOf(slices.DeleteFunc(missing, func(it item) bool { return it.path > after }))
	if len(left) <= maxLeft {
		return after, left
	}
	first, _ := slices.BinarySearchFunc(t.list, left[0], cmpPath)
	if first == 0 {
		return "", nil
	}
	return t.list[first-1].path, nil
}

// missing are the items that are not done.
func (t *todo) missing() []item {
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
