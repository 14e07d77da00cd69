package memcached

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
	"github.com/thaw-project/thaw/extension/rescue"
)

// TierOptions configures a Tier: the settings, and what they don't say.
type TierOptions struct {
	config.Config // whose Audience shares; stamps are off unless MaxAge is longer than ClockSkew. RefreshInterval 0: 5m; CacheTTL 0: 1h

	Client     *Client           // whose clock and log are the tier's, too
	Keys       *envelope.Keyring // nil: they come later, by Unlock
	Identity   string            // whose capabilities: they are per auth mount, role and principal inside the audience
	Role       string            // the name of the identity's role, by which all of its capabilities can be ended
	Everywhere bool              // the cursor's stamp is written to every node, for all instances, and not to the own one alone
}

// Origin is the origin as configured, which tells records of one from another's.
func (o *TierOptions) Origin() string { return strings.Join(o.Addrs, ",") }

// maxFuture is how far ahead of our clock a record may be dated. More is
// refused: it would look fresh for longer than it is.
const maxFuture = time.Second

// Tier is the shared tier for one audience: the instances that have a key, an
// origin, a namespace and an audience's name in common. It is safe for
// concurrent use. All calls return within milliseconds (a write of many records
// within a multiple of that), and what cannot be had is absent.
//
// Everything in memcached is a hint. A record counts only if it opens: if a
// holder of the key sealed it, under the very name it was found at, for this
// origin, audience, namespace, kind of record, path, query and operation, and,
// for capabilities, this identity. So forging, swapping, truncating and flipping bits
// make misses. What is left to who can write to memcached but has no key is to
// drop records and to put older ones back. That an older one was put back shows
// in its times, which are sealed too, and no reader takes a record for verified
// later than it says.
//
// Writers race. A record replaces another only by compare-and-swap, and only if
// it was verified by a request that was sent later; a late writer sees what is
// there, or loses the swap and looks again:
//
//	A: read v1 (sent at 1) ─────────────────────── gets: v2, sent at 2: leaves it
//	B:        rotate ─ read v2 (sent at 2) ─ add v2
//
// A removal leaves a tombstone with its time for one refresh interval, so that a
// read which was on its way meanwhile cannot bring back what was removed. Where
// the ring has several keys there are as many names for a record: all are read,
// the newest counts, the first is written and the others are emptied.
//
// A Tier whose keys come later (Unlock) holds nothing and keeps nothing until then.
// It asks memcached for nothing. What ends meanwhile is written once they are here.
type Tier struct {
	o         TierOptions
	unwritten unwritten
	sealer    atomic.Pointer[envelope.Sealer] // nil: the keys are not here yet
	strange   sync.Once                       // says that something did not open
	large     sync.Once                       // says that something was too large
}

// NewTier returns the tier of one audience.
func NewTier(o TierOptions) *Tier {
	o.RefreshInterval = cmp.Or(o.RefreshInterval, 5*time.Minute)
	o.CacheTTL = cmp.Or(o.CacheTTL, time.Hour)
	t := &Tier{o: o, unwritten: unwritten{ends: make(map[cache.Capability]cache.Confirmation), keys: make(map[cache.Key]time.Time)}}
	if o.Keys != nil {
		t.Unlock(o.Keys)
	}
	return t
}

// errNoKey is why nothing is kept.
var errNoKey = errors.New("the shared cache has no key yet")

// Unlock gives the tier keys that come later, and writes what ended meanwhile: what
// memcached holds of it counted until now.
func (t *Tier) Unlock(keys *envelope.Keyring) {
	t.sealer.Store(keys.Audience(envelope.Join(t.o.Origin(), t.o.Namespace, t.o.Audience)))
	t.write(context.Background(), t.unwritten.again(t))
}

// kind is what sort of record lies at a place.
type kind string

const (
	kindEntry      kind = "entry"
	kindCapability kind = "capability"
	kindStamp      kind = "stamp"
	kindCursor     kind = "cursor"
	kindLock       kind = "lock"
	kindState      kind = "state"
	kindMerged     kind = "merged"
)

// place is where a record lies and what it is bound to.
type place struct {
	sealer *envelope.Sealer // nil: there is no key, and nothing lies there
	names  []string         // the first is written
	aad    []string
	node   string // where it lies; empty: where the ring puts its names
}

// on is the same place on a node.
func (p place) on(node string) place {
	p.node = node
	return p
}

// place makes name and additional data of the same parts.
func (t *Tier) place(k kind, parts ...string) place {
	all := append([]string{string(k), t.o.Origin(), t.o.Namespace, t.o.Audience}, parts...)
	p := place{sealer: t.sealer.Load(), names: make([]string, 1), aad: all}
	if p.sealer != nil {
		p.names = p.sealer.Names(all...)
	}
	return p
}

// keyPlace is where the record of a key lies. An origin may filter a list by what
// the token may read (https://openbao.org/docs/rfcs/filtering-list), so a list is its
// identity's alone.
func (t *Tier) keyPlace(k kind, key cache.Key) place {
	if key.Op == cache.List {
		return t.place(k, key.Namespace, key.Path, key.Query, key.Method(), t.o.Identity)
	}
	return t.place(k, key.Namespace, key.Path, key.Query, key.Method())
}

func (t *Tier) keyPlaces(k kind, keys []cache.Key) []place {
	places := make([]place, len(keys))
	for i, key := range keys {
		places[i] = t.keyPlace(k, key)
	}
	return places
}

// shared reports whether a path's records may leave the process.
func (t *Tier) shared(path string) bool { return !cache.MatchPath(t.o.NoSharePaths, path) }

// seen is what lies at a place under one of its names.
type seen struct {
	there bool   // something lies there
	plain []byte // nil: it does not open
	cas   uint64
}

// load asks for places and opens what is there: for each place one seen for
// each name.
func (t *Tier) load(ctx context.Context, places []place) [][]seen {
	out := make([][]seen, len(places))
	names := make(map[string][]string, 1) // by node
	for i, p := range places {
		out[i] = make([]seen, len(p.names))
		if p.sealer != nil {
			names[p.node] = append(names[p.node], p.names...)
		}
	}
	items := make(map[string]map[string]memcache.Item, len(names))
	for node, asked := range names {
		items[node] = t.o.Client.On(node).all(ctx, asked)
	}
	for i, p := range places {
		for j, name := range p.names {
			it, ok := items[p.node][name]
			if !ok {
				continue
			}
			plain, err := p.sealer.Open(p.aad, it.Value)
			if err != nil {
				t.strange.Do(func() {
					t.o.Client.o.Log.Warn("memcached holds something under our names that our keys do not open, and it counts as absent: check that all functions of this audience have the same THAW_CACHE_KEY, and who else can write there",
						"audience", t.o.Audience)
				})
			}
			out[i][j] = seen{there: true, plain: plain, cas: it.CasID}
		}
	}
	return out
}

// opened returns the plaintexts at a place.
func opened(at []seen) [][]byte {
	var out [][]byte
	for _, s := range at {
		if s.plain != nil {
			out = append(out, s.plain)
		}
	}
	return out
}

// change is a record to be written.
type change struct {
	place
	ttl   time.Duration
	merge func(old []seen) []byte // what replaces what is there; nil: nothing has to
	lost  func()                  // called when it was not written; may be nil
	path  string                  // for the log
	large func()                  // called when it is too large; may be nil
}

const (
	rounds  = 8   // tries of a write that others race with: one of them is done in each
	writers = 4   // at once
	writing = 200 // changes by one deadline
)

// write stores each change unless what is there is newer. It returns how many memcached
// did not take.
func (t *Tier) write(ctx context.Context, changes []change) (lost int) {
	defer t.o.Client.Use()()
	for part := range slices.Chunk(changes, writing) {
		for _, c := range t.writePart(ctx, part) {
			lost++
			if c.lost != nil {
				c.lost()
			}
		}
	}
	return lost
}

// writePart is bounded by the deadline of one call for each 10 changes, and 2
// more.
func (t *Tier) writePart(ctx context.Context, changes []change) (lost []change) {
	ctx, cancel := context.WithTimeout(ctx, t.o.Client.o.Timeout*time.Duration(2+len(changes)/10))
	defer cancel()
	for round := 0; round < rounds && len(changes) > 0 && ctx.Err() == nil; round++ {
		places := make([]place, len(changes))
		for i := range changes {
			places[i] = changes[i].place
		}
		found := t.load(ctx, places)
		var again []change
		var mu sync.Mutex // guards again and lost
		rescue.Each(t.o.Client.o.Log, "write to memcached", writers, len(changes), func(i int) {
			done, err := t.try(ctx, changes[i], found[i])
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				lost = append(lost, changes[i])
			case !done:
				again = append(again, changes[i])
			}
		})
		changes = again
	}
	return append(lost, changes...)
}

// try writes one change over what was found. It reports false when somebody
// else wrote meanwhile.
func (t *Tier) try(ctx context.Context, c change, found []seen) (done bool, err error) {
	plain := c.merge(found)
	if plain == nil {
		return true, nil
	}
	stored, err := t.replace(ctx, c.place, found, plain, c.ttl)
	switch {
	case errors.Is(err, ErrTooLarge):
		t.large.Do(func() {
			t.o.Client.o.Log.Warn("a secret is larger than a memcached item may be, and is not shared; the log says so once", "path", c.path, "bytes", len(plain)+envelope.Overhead)
		})
		if c.large != nil {
			c.large()
		}
		return true, nil
	case err != nil:
		t.o.Client.o.Log.Debug("memcached write left out", "error", brief(err))
		return false, err
	case !stored:
		return false, nil
	}
	for i, s := range found[1:] {
		if s.plain != nil {
			_ = t.o.Client.On(c.node).Delete(ctx, c.names[1+i])
		}
	}
	return true, nil
}

// replace seals a record and stores it in place of just what was found.
func (t *Tier) replace(ctx context.Context, p place, found []seen, plain []byte, ttl time.Duration) (stored bool, err error) {
	if p.sealer == nil {
		return false, errNoKey
	}
	on, sealed := t.o.Client.On(p.node), p.sealer.Seal(p.aad, plain)
	if found[0].there {
		return on.CompareAndSwap(ctx, p.names[0], sealed, ttl, found[0].cas)
	}
	return on.Add(ctx, p.names[0], sealed, ttl)
}

// ahead reports a time too far in the future.
func ahead(at, now time.Time) bool { return at.Sub(now) > maxFuture }

// now is the wall clock's time. What others wrote has no other.
func (t *Tier) now() time.Time { return clock.Wall(t.o.Client.o.Now()) }
