package cache

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// BeginWrite sets aside what w can change, and keeps reads that begin until EndWrite
// from being stored. Every BeginWrite needs its EndWrite.
func (c *Cache) BeginWrite(w *Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes[w] = struct{}{}
	now := c.o.Now()
	c.touchedLocked(w, func(s *slot) {
		s.aside++
		c.ledger.doubtLocked(s, now)
	})
}

// EndWrite drops what w can change: it is called when the origin has answered and
// before that answer is returned. inVain says that the write certainly changed
// nothing. What it set aside comes back then, unverified, unless another write still
// may change it.
func (c *Cache) EndWrite(w *Write, inVain bool) {
	c.mu.Lock()
	delete(c.writes, w)
	now := c.o.Now()
	if inVain {
		c.touchedLocked(w, func(s *slot) { s.aside, s.truth.since = max(0, s.aside-1), now })
		c.mu.Unlock()
		return
	}
	if c.o.Shared != nil {
		c.written.add(w, now, maxEnded)
	}
	shared, keys := c.o.Shared != nil && !w.all, make(map[Key]bool)
	if shared {
		w.keys(keys, 0, maxDropped) // a version's own answer is verified by other means
	}
	if w.all {
		c.mounts.reset()
	}
	c.touchedLocked(w, func(s *slot) {
		if shared && s.entry.Key.Personal == 0 {
			keys[s.entry.Key] = true
		}
		c.removeLocked(s)
		c.counters.Invalidated++
	})
	c.mu.Unlock()
	if len(keys) > 0 {
		c.o.Shared.Drop(context.Background(), slices.Collect(maps.Keys(keys)), nil, now)
	}
}

// maxDropped bounds the keys of one write that the shared tier is told of unseen: whoever
// makes up a path chooses how many it may stand for. Others' polls see the write all the same.
const maxDropped = 512

// touchedLocked visits what w can change, and has the fills of that forgotten.
func (c *Cache) touchedLocked(w *Write, visit func(*slot)) {
	c.forgetFillsLocked(func(f *fill) bool { return w.affects(f.key) })
	c.affectedLocked(w, visit)
}

// affectedLocked visits what w can change. Anyone may write, so it looks at no more of
// what others have there than w's path names.
func (c *Cache) affectedLocked(w *Write, visit func(*slot)) {
	if w.all {
		for _, s := range c.store.slots {
			visit(s)
		}
		return
	}
	for _, name := range w.names() {
		for _, s := range slices.Backward(c.store.named[name]) { // the last takes the place of one that is dropped
			if w.affects(s.entry.Key) {
				visit(s)
			}
		}
	}
}

// Purge drops the entries whose path begins with prefix, in one namespace.
func (c *Cache) Purge(namespace, prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropWhereLocked(func(k Key) bool { return k.Namespace == namespace && strings.HasPrefix(k.Path, prefix) })
}

// maxEnded bounds what is known of own writes one by one.
const maxEnded = 64

// changes are the latest writes, in order, and when each was known to be over: what was
// read before may be of before. With a shared tier they are those through the proxy: what
// it holds may be older, whether Drop got there or not.
type changes struct {
	known []change
	rest  time.Time // when the last of those that are not kept was over
}

type change struct {
	w  *Write
	at time.Time
}

// add takes in one more, of which at most most are kept.
func (c *changes) add(w *Write, at time.Time, most int) {
	c.known = slices.DeleteFunc(c.known, func(o change) bool { return o.w.namespace == w.namespace && o.w.path == w.path })
	if len(c.known) == most {
		c.rest = c.known[0].at
		c.known = c.known[1:]
	}
	c.known = append(c.known, change{w, at})
}

// of returns when the last change of k was over that an answer verified by a
// request sent at sentAt may not have seen; zero: it has seen all.
func (c *changes) of(k Key, sentAt time.Time) time.Time {
	var last time.Time
	if !sentAt.After(c.rest) {
		last = c.rest
	}
	for _, o := range c.known {
		if !sentAt.After(o.at) && o.w.affects(k) {
			last = o.at // they are in order
		}
	}
	return last
}
