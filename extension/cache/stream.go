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
//
// Nor does everybody hear of everything: Vault leaves out, without a word, the
// events of paths on which the token lacks the capability "subscribe"
// (https://developer.hashicorp.com/vault/docs/concepts/events). So an entry
// counts only if that was asked for (Unheard, Hears); and a list never, as it
// is of paths that are not known.

// listening is what is known by it.
type listening struct {
	since  time.Time    // when it began; zero: there is none
	at     time.Time    // what was sent until then was heard
	recent []heard      // changes that reads on their way may have missed
	told   map[Key]bool // by place: whether its changes are told of; not there: not known
	asked  time.Time    // since when told was gathered
}

// place is what the changes of an entry are told of by.
func place(k Key) Key { return Key{Namespace: k.Namespace, Path: k.Path} }

// Unheard lists what is cached and of which it is not known whether the stream
// tells of its changes: by place the paths on which the extension's own token
// needs the capability "subscribe" for that. What was known for the refresh
// interval is asked for again.
func (c *Cache) Unheard() map[Key][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &c.stream
	if st.since.IsZero() {
		return nil
	}
	if now := c.o.Now(); st.told == nil || len(st.told) > maxTold || !Within(st.asked, now, c.o.RefreshInterval) {
		st.told, st.asked = make(map[Key]bool), now
	}
	out := make(map[Key][]string)
	for k, s := range c.slots {
		if _, known := st.told[place(k)]; known || k.Op == List {
			continue
		}
		switch paths := c.changersLocked(s.entry); {
		case len(paths) > 0:
			out[place(k)] = paths
		case s.entry.Kind != Other && s.entry.Kind != Preflight:
			st.told[place(k)] = false // polled
		}
	}
	return out
}

// maxTold bounds what is known of paths.
const maxTold = 8192

// maxPrefixes bounds the mounts that one path may be on; beyond it is polled.
const maxPrefixes = 4

// changersLocked are the paths by which a secret can change. Where the mount of
// a KV v2 secret is not known, each segment that its kind may stand in counts:
// the right to hear of one mount's changes says nothing of another's.
func (c *Cache) changersLocked(e *Entry) []string {
	var kind string
	switch e.Kind {
	case KV1:
		return []string{e.Key.Path}
	case Data:
		kind = "data"
	case Metadata:
		kind = "metadata"
	case Subkeys:
		kind = "subkeys"
	default:
		return nil
	}
	var at []target
	m, known := c.mountLocked(e.Key.Namespace, e.Key.Path)
	for _, t := range targets(e.Key.Path) {
		if t.prefix != "" && hasPathPrefix(e.Key.Path, t.prefix+"/"+kind) && (!known || m.Version != 2 || t.prefix == m.Path) {
			at = append(at, t)
		}
	}
	if len(at) > maxPrefixes {
		return nil
	}
	var out []string
	for _, t := range at {
		out = append(out, Kinds(t.prefix, t.rest)...)
	}
	return out
}

// Kinds are the paths by which the secret key of a KV v2 mount can change.
func Kinds(mount, key string) []string {
	var out []string
	for _, kind := range [...]string{"data", "metadata", "delete", "undelete", "destroy"} {
		out = append(out, mount+"/"+kind+"/"+key)
	}
	return out
}

// Hears records whether the stream tells of the changes of places.
func (c *Cache) Hears(told map[Key]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream.told != nil {
		for k, yes := range told {
			c.stream.told[k] = yes
		}
	}
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
	c.spoilWhereLocked(func(f *flight) bool { return w.affects(f.key) })
	var out []Check
	for k, s := range c.slots {
		if s.entry.Kind == Other || !w.affects(k) {
			continue
		}
		e := *s.entry
		e.Anchor = Anchor{} // the cursor has moved since then
		s.true = c.trueLocked(s)
		s.entry, s.mark, s.proof, s.changed, s.certain = &e, Mark{}, Mark{}, now, false
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
	if m.At.IsZero() || m.Epoch == sharedEpoch || !st.told[place(s.entry.Key)] || s.entry.Key.Op == List || !st.at.After(m.At) || st.at.Sub(m.At) > c.o.Reconcile {
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
