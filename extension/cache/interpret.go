package cache

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/wire"
)

// reading makes an entry of a 200: the one place that says what kind of answer
// it is and how long it may be kept.
type reading struct {
	key    Key
	answer *Answer
	said   wire.Answer // the same, as it is read
	index  Index       // recorded before the request was sent; the entry's once that is made

	shape     shape
	preflight bool  // it asks which mount a path is on
	mount     Mount // the mount that key is on, or that the preflight names
	known     bool  // whether that is known
	kept      bool  // the entry that is there tells that it is KV
}

// parse looks at the answer. It is false for what must not be kept.
func (r *reading) parse() bool {
	var ok bool
	if r.shape, ok = parseShape(r.said); !ok || r.said.Member("wrap_info") != nil || r.said.Member("auth") != nil {
		return false
	}
	mounted, preflight := preflightPath(r.key.Path)
	if r.preflight = preflight && r.key.Op == Read && r.key.Query == ""; r.preflight {
		r.mount, ok = ParseMount(r.key.Namespace, r.answer.Body)
		r.known = ok && r.mount.holds(mounted)
		return r.known
	}
	return true
}

// entry makes the entry; nil: it must not be kept. Its kind is Other where it is
// not known to be KV.
func (r *reading) entry() *Entry {
	e := newEntry(r.key, r.answer)
	r.index = r.index.Of(r.answer.Header)
	if r.preflight {
		e.Key.Path, e.Kind = preflightPrefix+r.mount.Path, Preflight
		return e
	}
	kv := r.known && r.mount.Version > 0
	if isKV := r.shape.ofKV(kv || r.kept); isKV && r.shape.LeaseID == "" {
		if e.Kind = kindOf(r.key, r.mount, kv, r.shape); e.Kind != Other && !r.said.Genuine(r.key.endpoint()) {
			return nil // a request that opted in does with any shape
		}
	}
	if e.Kind == Data || e.Kind == Subkeys {
		e.Version = r.shape.version
	}
	if end := r.shape.deletion; e.Kind != Other && !end.IsZero() { // whatever is known of the mount
		date, _ := http.ParseTime(e.date[0]) // the zero time is long ago
		if e.Expires = onOurClock(end, date, r.answer.SentAt); !r.answer.SentAt.Before(e.Expires) {
			return nil
		}
	}
	return e
}

// onOurClock returns an end on a clock of which it is known that it was at least
// at passed when ours was at now. Ours may lag: then the end comes as much earlier
// on it.
func onOurClock(end, passed, now time.Time) time.Time {
	return end.Add(-max(0, clock.Until(passed, now)))
}

// contradicts reports whether the mount that is known would give another answer.
func (r *reading) contradicts() bool {
	kv, s := r.mount.Version > 0, &r.shape
	if s.ofKV(kv) != kv || kv && s.LeaseID != "" {
		return true
	}
	switch kind := kindOf(r.key, r.mount, kv, r.shape); {
	case kind == Listing:
		return r.mount.Version == 2 && !strings.Contains(r.key.Path, "metadata")
	case !kv && s.MountType != "":
		return false
	case !kv, kind == KV1:
		return kindOf(r.key, Mount{}, false, r.shape) != KV1
	case kind == Metadata:
		return !s.isKeyMetadata
	case kind == Other:
		return r.key.Path != r.mount.Path+"/config"
	}
	return !s.hasMetadata
}

// endpoint is the shape that the origin's answers about a key of KV have.
func (k Key) endpoint() wire.Endpoint {
	if k.Op == List {
		return wire.List
	}
	return wire.Secret
}

// Interpret makes a record of the origin's answer to key, as a cache that read
// it would store it: for the warm-up, which knows what it asked and keeps no
// cache. mount is the KV mount that key is on; for the mounts preflight it is
// not looked at. ok is false for whatever must not be cached, and for answers
// that something in between gave, since those verify nothing.
func Interpret(key Key, mount Mount, a Answer, index Index) (rec Record, ok bool) {
	r := reading{key: key, answer: &a, said: wire.New(a.Status, a.Header, a.Body), index: index, mount: mount, known: mount.holds(key.Path)}
	if a.Status != http.StatusOK || r.said.Word(key.endpoint()) != wire.Value || wire.FromCache(a.Header) || !r.parse() || !r.known || r.mount.Version == 0 {
		return Record{}, false
	}
	e := r.entry()
	if e == nil || e.Kind == Other {
		return Record{}, false
	}
	rec = Record{Entry: *e, Date: e.date[0], SentAt: a.SentAt}
	if e.Kind != Preflight { // the mount table is cached after it is stored
		rec.Index = r.index
	}
	return rec, true
}

// ResourceKeys lists the keys that can hold something of one secret: what a
// write to apiPath can change, and its versions from 1 to versions. apiPath is
// a path of the API or, without its data/ segment, of the command line: then
// every segment may be the last of the mount's path.
func ResourceKeys(namespace, apiPath string, versions int) []Key {
	all := make(map[Key]bool)
	paths := []string{apiPath}
	for i := range len(apiPath) {
		if apiPath[i] == '/' && i > 0 && i < len(apiPath)-1 {
			paths = append(paths, apiPath[:i]+"/data"+apiPath[i:])
		}
	}
	for _, p := range paths {
		NewWrite(namespace, p).keys(all, versions, math.MaxInt)
	}
	return slices.Collect(maps.Keys(all))
}
