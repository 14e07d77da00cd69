package cache

import (
	"context"
	"time"
)

// A stream of events may stand in for polls: who hears of every change knows
// that what it heard nothing of is as it was. An entry is verified by the
// stream if it was read after the stream began, and after the last change of it
// that was heard of. An event may come before a node that lags has the change:
// so that read must have been answered by a node that had it for certain (see
// Change), or have been sent Lag later. No stream is sure to be whole (Vault's
// gives no guarantee of delivery, and not all that changes a secret makes an
// event), so each entry is read again after Reconcile all the same.

// listening is what is known by it.
type listening struct {
	since  time.Time // when it began; zero: there is none
	at     time.Time // what was sent until then was heard
	recent []heard   // changes that reads on their way may have missed
}

// heard is a change.
type heard struct {
	w  *Write
	at time.Time
}

// maxRecent bounds the changes remembered. Beyond it all is taken for changed.
const maxRecent = 1024

// Change says of a read that it follows a change. The Origin sets Weak if it
// could not make sure that a node with the change answers.
type Change struct {
	Index string // the state of the change; empty: not known
	Weak  bool
}

type changeKey struct{}

// ChangeIn returns what a read follows; nil: nothing in particular.
func ChangeIn(ctx context.Context) *Change {
	c, _ := ctx.Value(changeKey{}).(*Change)
	return c
}

// Streaming says that there is a stream since one time, and that what was sent
// on it until another was heard. A zero since says that there is none any more.
func (c *Cache) Streaming(since, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !since.Equal(c.stream.since) {
		c.stream = listening{since: since}
	}
	c.stream.at = at
}

// Changed takes in that a secret was changed: what w affects is not verified
// any more, and reads of it that are on their way leave nothing. It returns
// what to read again, with who may.
func (c *Cache) Changed(w *Write) []Check {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Now()
	c.rememberLocked(heard{w, now})
	for f := range c.running {
		if w.affects(f.key) {
			c.spoilLocked(f)
		}
	}
	var out []Check
	for k, s := range c.slots {
		if s.entry.Kind == Other || !w.affects(k) {
			continue
		}
		e := *s.entry
		e.Anchor = Anchor{} // the cursor has moved since then
		s.entry, s.mark, s.changed, s.certain = &e, Mark{}, now, false
		if id := c.readerLocked(k, now); id != nil {
			out = append(out, Check{k, id})
		}
	}
	return out
}

func (c *Cache) rememberLocked(h heard) {
	recent := c.stream.recent
	for len(recent) > 0 && !Within(recent[0].at, h.at, c.o.Lag+c.o.FetchTimeout) {
		recent = recent[1:]
	}
	if len(recent) >= maxRecent {
		recent = []heard{{&Write{all: true}, h.at}}
	}
	c.stream.recent = append(recent, h)
}

// changedLocked returns when key was last heard to change.
func (c *Cache) changedLocked(key Key) (at time.Time) {
	for _, h := range c.stream.recent {
		if h.at.After(at) && h.w.affects(key) {
			at = h.at
		}
	}
	return at
}

// streamedLocked returns the newest verification of s, by the stream or as m.
func (c *Cache) streamedLocked(s *slot, m Mark) Mark {
	st := &c.stream
	if m.At.IsZero() || m.Epoch == sharedEpoch || s.entry.Kind == Preflight || s.entry.Kind == Other || !st.at.After(m.At) || st.at.Sub(m.At) > c.o.Reconcile {
		return m
	}
	from := st.since
	if s.changed.After(from) {
		from = s.changed
	}
	if !s.certain || m != s.mark {
		from = from.Add(c.o.Lag)
	}
	if m.At.Before(from) {
		return m
	}
	return Mark{st.at, c.epoch}
}
