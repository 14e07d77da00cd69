package memcached

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
)

// meta is what a sealed entry says before its body. Times are Unix nanoseconds.
type meta struct {
	Gone    bool        `json:"gone,omitempty"` // a tombstone: only At counts
	At      int64       `json:"at"`             // SentAt, or when it was removed
	Kind    cache.Kind  `json:"kind,omitempty"`
	Status  int         `json:"status,omitempty"`
	Header  http.Header `json:"header,omitempty"`
	Date    string      `json:"date,omitempty"`
	Version int         `json:"version,omitempty"`
	Fetched int64       `json:"fetched,omitempty"`
	Expires int64       `json:"expires,omitempty"`
	Applied uint64      `json:"applied,omitempty"`
	Active  string      `json:"active,omitempty"`
	Node    string      `json:"node,omitempty"`
	SeenAt  int64       `json:"seen,omitempty"` // the anchor's FirstSeen
	ReadAt  string      `json:"read_at,omitempty"`
}

// encode gives the plaintext of an entry: the length of the meta, the meta, the
// body.
func encode(e entry) []byte {
	j, err := json.Marshal(e.meta)
	if err != nil {
		panic(err) // only for types that JSON does not know
	}
	out := make([]byte, 0, binary.MaxVarintLen32+len(j)+len(e.body))
	out = binary.AppendUvarint(out, uint64(len(j)))
	return append(append(out, j...), e.body...)
}

// entry is what a sealed one opens to.
type entry struct {
	meta
	body []byte
}

func decode(plain []byte) (e entry, s standing, ok bool) {
	n, used := binary.Uvarint(plain)
	if used <= 0 || n > uint64(len(plain)-used) {
		return entry{}, standing{}, false
	}
	plain = plain[used:]
	if json.Unmarshal(plain[:n], &e.meta) != nil || e.At <= 0 {
		return entry{}, standing{}, false
	}
	e.body = plain[n:]
	s = standing{at: fromNanos(e.At), ends: e.Gone}
	if !e.Gone && e.Kind == cache.Data {
		s.version = e.Version
	}
	return e, s, true
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// Entries returns what of keys is there, asked for in one call. What does not
// open, is dated more than a second ahead, has expired or was removed is not.
func (t *Tier) Entries(ctx context.Context, keys []cache.Key) map[cache.Key]cache.Record {
	asked := t.sharedKeys(keys)
	return t.entries(asked, t.load(ctx, t.keyPlaces(kindEntry, asked)))
}

// sharedKeys leaves out what is never shared.
func (t *Tier) sharedKeys(keys []cache.Key) []cache.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k cache.Key) bool { return k.Personal != 0 || !t.shared(k.Path) })
}

// entries makes records of what was found for each of asked.
func (t *Tier) entries(asked []cache.Key, found [][]seen) map[cache.Key]cache.Record {
	out := make(map[cache.Key]cache.Record, len(asked))
	now := t.now()
	for i, at := range found {
		e, _ := newest(t, at, decode)
		if r, ok := e.record(asked[i], now); ok {
			out[asked[i]] = r
		}
	}
	return out
}

// record makes a cache.Record of what was sealed, if it is one that may be served.
func (m entry) record(k cache.Key, now time.Time) (cache.Record, bool) {
	r := cache.Record{
		Entry: cache.Entry{
			Key: k, Kind: m.Kind, Status: m.Status, Header: m.Header, Body: m.body, Version: m.Version,
			FetchedAt: fromNanos(m.Fetched), Expires: fromNanos(m.Expires), ReadAt: m.ReadAt,
		},
		Date: m.Date, SentAt: fromNanos(m.At),
		Index: cache.Index{Applied: m.Applied, ActiveTime: m.Active, Node: m.Node, FirstSeen: fromNanos(m.SeenAt)},
	}
	ok := !m.Gone && m.At > 0 && m.Fetched > 0 && !ahead(r.FetchedAt, now) && m.Kind != cache.Other && m.Kind <= cache.Preflight &&
		(m.Status == http.StatusOK || m.Status == http.StatusNotFound) && (r.Expires.IsZero() || now.Before(r.Expires))
	return r, ok
}

// Put stores records. One that was verified by a request sent later stays, and
// so does a tombstone that is not older; within the clocks' skew the higher
// version of a secret wins. They stay for TTL and StaleIfError, or until they
// expire. Left out are answers that are one identity's own, paths that are not
// shared, and what memcached has no room for in one item.
func (t *Tier) Put(ctx context.Context, records []cache.Record) {
	t.write(ctx, t.puts(ctx, records))
}

func (t *Tier) puts(ctx context.Context, records []cache.Record) []change {
	now := t.now()
	var changes []change
	for _, r := range records {
		if r.Key.Personal != 0 || r.Kind == cache.Other || !t.shared(r.Key.Path) || r.SentAt.IsZero() || r.FetchedAt.IsZero() || ahead(r.SentAt, now) || !plainText(r) {
			continue
		}
		ttl := t.o.CacheTTL + t.o.StaleIfError
		if !r.Expires.IsZero() {
			ttl = min(ttl, r.Expires.Sub(now))
		}
		if ttl <= 0 {
			continue
		}
		m := meta{
			At: nanos(r.SentAt), Kind: r.Kind, Status: r.Status, Header: r.Header, Date: r.Date, Version: r.Version,
			Fetched: nanos(r.FetchedAt), Expires: nanos(r.Expires), Applied: r.Index.Applied, Active: r.Index.ActiveTime, Node: r.Index.Node, SeenAt: nanos(r.Index.FirstSeen), ReadAt: r.ReadAt,
		}
		changes = append(changes, change{
			place: t.keyPlace(kindEntry, r.Key), merge: over(t, entry{m, r.Body}, encode, decode), ttl: ttl, path: r.Key.Path,
			large: func() { t.Remove(ctx, []cache.Key{r.Key}, r.SentAt) }, // what is there is older
		})
	}
	return changes
}

// plainText reports whether a record's texts survive JSON as they are.
func plainText(r cache.Record) bool {
	return utf8.ValidString(fmt.Sprint(r.Header, r.Date, r.ReadAt, r.Index.ActiveTime))
}

// Remove leaves tombstones for keys: what the origin was asked before at is not
// to be had from here any more, and not to be put here, for one refresh
// interval. Their stamps turn into ones that verify no answer. What was
// verified after at stays. It returns how many of these memcached did not take.
func (t *Tier) Remove(ctx context.Context, keys []cache.Key, at time.Time) (lost int) {
	return t.write(ctx, t.removals(keys, at))
}

func (t *Tier) removals(keys []cache.Key, at time.Time) []change {
	at = clock.Wall(at)
	tombstone := over(t, entry{meta: meta{Gone: true, At: nanos(at)}}, encode, decode)
	var changes []change
	for _, k := range t.sharedKeys(keys) {
		p := t.keyPlace(kindEntry, k)
		changes = append(changes, change{
			place: p, merge: tombstone, ttl: t.o.RefreshInterval, path: k.Path,
			lost: func() {
				if p.sealer == nil {
					t.unwritten.addKey(k, at)
				}
			},
		})
		if t.o.stamping() {
			changes = append(changes, t.stampChange(k, cache.Stamp{At: at}))
		}
	}
	return changes
}
