package cache

import (
	"maps"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Stream is a subscription to the origin's events. It may stand in for polls: who
// is notified of every change knows that all else is as it was. An entry is
// verified by the stream if it was read after the stream began, and after the last
// change of it that was notified. An event may come before a node that lags has
// the change: so that read must have been answered by a node that had it for
// certain (see Change), or have been sent Lag later. No stream is sure to be whole
// (Vault's gives no guarantee of delivery, and not all that changes a secret makes
// an event), so each entry is read again after Reconcile all the same.
//
// Nor is everybody notified of everything: Vault leaves out, without a word, the
// events of paths on which the token lacks the capability "subscribe"
// (https://developer.hashicorp.com/vault/docs/concepts/events). So an entry
// counts only if that was asked for (Uncovered, Cover); and a list never, as it
// is of paths that are not known.
type Stream struct{ c *Cache }

// listening is what is known by it. Cache.mu guards it.
type listening struct {
	since   time.Time    // when it began; zero: there is none
	at      time.Time    // what was sent until then is here
	recent  changes      // that reads on their way may have missed
	covered map[Key]bool // by place: whether its changes are notified; not there: not known
	asked   time.Time    // since when covered was gathered
}

// place is what the changes of an entry are notified by.
func place(k Key) Key { return Key{Namespace: k.Namespace, Path: k.Path} }

// Uncovered lists what is cached and of which it is not known whether the stream
// notifies of its changes: by place the paths on which the extension's own token
// needs the capability "subscribe" for that. What was known for the refresh
// interval is asked for again.
func (t Stream) Uncovered() map[Key][]string {
	c, st := t.c, &t.c.ledger.moment.stream
	c.mu.Lock()
	now, ended := c.o.Now(), st.since.IsZero()
	if !ended && (st.covered == nil || len(st.covered) > max(maxCovered, 2*len(c.store.slots)) || !clock.Within(st.asked, now, c.o.RefreshInterval)) {
		st.covered, st.asked = make(map[Key]bool), now
	}
	c.mu.Unlock()
	if ended {
		return nil
	}
	out := make(map[Key][]string)
	c.ledger.walk(func(s *slot) bool {
		k := place(s.entry.Key)
		if _, known := st.covered[k]; st.covered == nil || known || s.entry.Key.Op == List {
			return st.covered != nil // else the stream ended meanwhile
		}
		switch paths := changers(s.entry, c.mounts); {
		case len(paths) > 0:
			out[k] = paths
		case s.entry.Kind != Other && s.entry.Kind != Preflight:
			st.covered[k] = false // polled
		}
		return true
	})
	return out
}

// maxCovered bounds what is known of paths, where no more than half as many are cached.
const maxCovered = 8192

// maxPrefixes bounds the mounts that one path may be on; beyond it is polled.
const maxPrefixes = 4

// changers are the paths by which a secret can change. Where the mount of
// a KV v2 secret is not known, each segment that its kind may stand in counts:
// the capability for one mount's changes says nothing of another's.
func changers(e *Entry, mounts *Mounts) []string {
	kind := e.Kind.segment()
	if e.Kind == KV1 {
		return []string{e.Key.Path}
	} else if kind == "" {
		return nil
	}
	var at []target
	m, known := mounts.Knows(e.Key.Namespace, e.Key.Path)
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

// Cover records whether the stream notifies of the changes of places.
func (t Stream) Cover(places map[Key]bool) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if covered := t.c.ledger.moment.stream.covered; covered != nil {
		maps.Copy(covered, places)
	}
}

// maxRecent bounds the changes remembered one by one.
const maxRecent = 1024

// Whole says that there is a stream since one time, and that what was sent on it
// until another is here. A zero since says that there is none any more.
func (t Stream) Whole(since, at time.Time) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	st := &t.c.ledger.moment.stream
	if !since.Equal(st.since) {
		*st = listening{since: since}
	}
	st.at = at
}

// Check is an entry that wants verification, and an identity that may read it.
type Check struct {
	Key Key
	ID  *Identity
}

// Changed takes in that a secret was changed: what w affects is not verified
// any more, and reads of it that are on their way leave nothing. It returns
// what to read again, with who may.
func (t Stream) Changed(w *Write) []Check {
	c := t.c
	c.mu.Lock()
	defer c.mu.Unlock()
	now, recent := c.o.Now(), &c.ledger.moment.stream.recent
	for len(recent.known) > 0 && !clock.Within(recent.known[0].at, now, c.o.Lag+c.o.FetchTimeout) {
		recent.known, recent.rest = recent.known[1:], time.Time{} // no read missed it, nor what was before
	}
	recent.add(w, now, maxRecent)
	var out []Check
	c.touchedLocked(w, func(s *slot) {
		if s.entry.Kind == Other {
			return
		}
		c.ledger.doubtLocked(s, now)
		s.truth.since = now
		if id := c.access.Reader(s.entry.Key, now); id != nil {
			out = append(out, Check{s.entry.Key, id})
		}
	})
	return out
}

// verifies reports whether the stream verifies an entry whose newest verification
// by a request is v, and as of when.
func (st *listening) verifies(e *Entry, r *record, v Revalidation, o *Options) (at time.Time, ok bool) {
	if st.since.IsZero() || v.At.IsZero() || v.Epoch == sharedEpoch || e.Key.Op == List || !st.covered[place(e.Key)] {
		return time.Time{}, false
	}
	from := later(st.since, r.since)
	return st.at, st.at.After(v.At) && st.at.Sub(v.At) <= o.Reconcile && !v.At.Before(from.Add(o.Lag))
}
