package cache

import (
	"cmp"
	"unique"
)

// slot is an entry's place in the store, and what is known of its truth.
type slot struct {
	entry      *Entry
	truth      record
	leases     uint64 // the identity's when the entry was read; of one that was opted in
	aside      int32  // writes under way that may change it: it is not served while there are any
	shared     bool   // filled from the shared cache
	size       int64
	next, prev *slot
	at         int // in store.named
}

// store holds entries by key, in the order of their last use. It knows nothing
// of who may see them, nor whether they are true. Cache.mu guards it. It is no
// library's LRU: it counts bytes, and a walk over it stops between two pieces and
// goes on although entries come and go.
type store struct {
	limit  int64 // bytes
	slots  map[Key]*slot
	recent slot // list head: recent.next is the most recently used
	size   int64
	named  map[string][]*slot // by the last segment of the path
	heads  heads
	walks  map[*walk]struct{}
}

func newStore(limit int64) *store {
	s := &store{limit: limit, slots: make(map[Key]*slot), named: make(map[string][]*slot), walks: make(map[*walk]struct{})}
	s.recent.next, s.recent.prev = &s.recent, &s.recent
	return s
}

func (s *store) remove(sl *slot) {
	delete(s.slots, sl.entry.Key)
	s.size -= sl.size
	s.unlink(sl)
	name := lastSegment(sl.entry.Key.Path)
	named := s.named[name]
	last := len(named) - 1
	named[sl.at], named[last].at, named[last] = named[last], sl.at, nil
	if s.named[name] = named[:last]; last == 0 {
		delete(s.named, name)
	}
}

// insert puts a slot behind another; nil: it is the most recently used. It reports
// whether there is room for it at all. Its key must be free.
func (s *store) insert(sl, after *slot) bool {
	if sl.size = sl.entry.size(); sl.size > s.limit {
		return false
	}
	e := sl.entry                                                                 // not yet seen by anyone else
	e.Header, e.date[0] = s.heads.share(e.Header), unique.Make(e.date[0]).Value() // many answers are of one second
	s.slots[sl.entry.Key] = sl
	s.size += sl.size
	s.link(sl, after)
	name := lastSegment(sl.entry.Key.Path)
	sl.at, s.named[name] = len(s.named[name]), append(s.named[name], sl)
	return true
}

// use makes a slot the most recently used.
func (s *store) use(sl *slot) {
	if s.recent.next != sl {
		s.unlink(sl)
		s.link(sl, nil)
	}
}

func (s *store) link(sl, after *slot) {
	after = cmp.Or(after, &s.recent)
	sl.next, sl.prev = after.next, after
	sl.next.prev, sl.prev.next = sl, sl
}

func (s *store) unlink(sl *slot) {
	for w := range s.walks {
		if w.next == sl {
			w.next = sl.next
		}
	}
	sl.prev.next, sl.next.prev = sl.next, sl.prev
	sl.next, sl.prev = nil, nil
}

// walk is where a visit of all slots goes on.
type walk struct{ next *slot }

// walk visits all slots while visit wants more, the most recently used first. After each
// piece of so many it pauses, so that others may have the lock. What is used or stored
// meanwhile may be left out, since it was just verified.
func (s *store) walk(piece int, visit func(*slot) bool, pause func()) {
	w := &walk{s.recent.next}
	s.walks[w] = struct{}{}
	defer delete(s.walks, w)
	for n := 1; w.next != &s.recent; n++ {
		sl := w.next
		if w.next = sl.next; !visit(sl) {
			return
		}
		if n%piece == 0 {
			pause()
		}
	}
}
