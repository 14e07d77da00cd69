package cache

import (
	"context"
	"encoding/json"
)

// goneLocked takes in a 404: what is cached is no more.
func (c *Cache) goneLocked(f *flight, s *slot) {
	f.refused = true
	c.spoilWhereLocked(func(other *flight) bool {
		return other != f && other.key == f.key && !other.began.After(f.began)
	})
	if s != nil {
		c.removeLocked(s)
		c.counters.Invalidated++
	}
}

// keepGone keeps a 404 of KV for NegativeTTL. It says nothing of its mount, so
// that is asked for where it is not known; what was cached is gone by then.
func (c *Cache) keepGone(ctx context.Context, f *flight, w Want) {
	a := &f.answer
	if c.o.NegativeTTL <= 0 || MatchPath(c.o.NoCache, w.Key.Path) || !askable(w.Key.Path) || !nothingThere(a.Body) {
		return
	}
	c.mu.Lock()
	m, known := c.mountLocked(w.Key.Namespace, w.Key.Path)
	ask := !known && !f.spoiled
	c.mu.Unlock()
	if ask {
		var elsewhere bool
		if m, known, elsewhere = c.mountOf(ctx, w); elsewhere {
			c.noteRefusal(w) // not learned: reads of what is created there later go past the cache otherwise
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !known || m.Version == 0 || f.spoiled || c.findLocked(w.Key, w.ID) != nil { // one that is there was read later
		return
	}
	s, _ := parseShape(a.Body)
	e := newEntry(w.Key, a)
	switch e.Kind = kindOf(w.Key, m, true, s); e.Kind {
	case Other:
		e.Kind = Data
	case Listing:
		e.Key.Personal = w.ID.listsFor()
	}
	e.Expires, e.ReadAt = a.SentAt.Add(c.o.NegativeTTL), f.readAt
	c.grantToLocked(w.ID, e.Key, a.SentAt)
	if _, ok := w.ID.grants[e.Key.right()]; ok {
		c.insertLocked(&slot{entry: e, mark: Mark{a.SentAt, f.epoch}, changed: c.changedLocked(e.Key)})
		a.Stored = c.slots[e.Key] != nil
	}
}

// nothingThere reports whether a 404 is a backend's that has nothing at the
// path: it names no error. One of a path without a mount, or of a path that the
// backend does not have, does (RespondErrorCommon in sdk/logical/response_util.go
// and routeCommon in vault/router.go of hashicorp/vault v1.21.0).
func nothingThere(body []byte) bool {
	var answer struct {
		Errors []string `json:"errors"`
	}
	return json.Unmarshal(body, &answer) == nil && len(answer.Errors) == 0
}
