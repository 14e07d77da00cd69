package memcached

import (
	"context"
	"encoding/binary"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
)

// stamping reports whether stamps are of use: their age counts from the
// earliest that the writer's clock can mean.
func (t *Tier) stamping() bool { return t.o.MaxAge > t.o.Skew }

// young reports whether a stamp's age, the clocks' skew added, is within MaxAge.
func (t *Tier) young(at, now time.Time) bool {
	return !at.IsZero() && !ahead(at, now) && now.Sub(at)+t.o.Skew <= t.o.MaxAge
}

// clockTick is how early memcached may drop an item: its clock moves once a
// second (memcached.c, clock_handler). Whether a stamp counts its own time says.
const clockTick = time.Second

// Stamps returns the cursor's stamp and those of keys, asked for in one call. A
// stamp is there only if its age, with the clocks' skew added, is at most
// MaxAge; whoever reckons with At adds the skew as well. Without one nothing is
// known. The zero CursorStamp is none.
func (t *Tier) Stamps(ctx context.Context, keys []cache.Key) (cache.CursorStamp, map[cache.Key]cache.Stamp) {
	var cursor cache.CursorStamp
	out := make(map[cache.Key]cache.Stamp, len(keys))
	if !t.stamping() {
		return cursor, out
	}
	asked := t.sharedKeys(keys)
	places := append(make([]place, 0, 1+len(asked)), t.place(kindCursor))
	for _, k := range asked {
		places = append(places, t.keyPlace(kindStamp, k))
	}
	now := t.now()
	found := t.load(ctx, places)
	c, ok := cursorFormat().newest(found[0], func(c cache.CursorStamp) bool { return t.young(c.At, now) })
	if ok && c.Committed != 0 && c.ActiveTime != "" {
		cursor = c
	}
	for i, at := range found[1:] {
		if s, ok := stampFormat().newest(at, func(s cache.Stamp) bool { return t.young(s.At, now) }); ok {
			out[asked[i]] = s
		}
	}
	return cursor, out
}

// PutStamps records verifications; the zero CursorStamp is none. A stamp of a
// later one stays.
func (t *Tier) PutStamps(ctx context.Context, cursor cache.CursorStamp, entries map[cache.Key]cache.Stamp) {
	if !t.stamping() {
		return
	}
	now := t.now()
	var changes []change
	if t.young(cursor.At, now) {
		cursor.At = clock.Wall(cursor.At)
		changes = append(changes, change{
			place: t.place(kindCursor), plain: encodeCursor(cursor), ttl: t.o.MaxAge + clockTick,
			beats: cursorFormat().over(cursor, now),
		})
	}
	for k, s := range entries {
		if k.Personal == 0 && t.shared(k.Path) && t.young(s.At, now) {
			changes = append(changes, t.stampChange(k, s, now))
		}
	}
	t.write(ctx, changes)
}

func (t *Tier) stampChange(k cache.Key, s cache.Stamp, now time.Time) change {
	s.At = clock.Wall(s.At)
	return change{
		place: t.keyPlace(kindStamp, k), plain: encodeStamp(s), ttl: t.o.MaxAge + clockTick, path: k.Path,
		beats: stampFormat().over(s, now),
	}
}

func stampFormat() format[cache.Stamp] {
	return format[cache.Stamp]{decodeStamp, func(s cache.Stamp) time.Time { return s.At }, func(s cache.Stamp) bool { return s.Fingerprint == [32]byte{} }}
}

func cursorFormat() format[cache.CursorStamp] {
	return format[cache.CursorStamp]{decodeCursor, func(c cache.CursorStamp) time.Time { return c.At }, func(c cache.CursorStamp) bool { return c.Committed == 0 }}
}

func encodeStamp(s cache.Stamp) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(s.At.UnixNano())), s.Fingerprint[:]...)
}

func decodeStamp(plain []byte) (cache.Stamp, bool) {
	if len(plain) != 8+32 {
		return cache.Stamp{}, false
	}
	return cache.Stamp{At: time.Unix(0, int64(binary.BigEndian.Uint64(plain))), Fingerprint: [32]byte(plain[8:])}, true
}

func encodeCursor(c cache.CursorStamp) []byte {
	out := binary.BigEndian.AppendUint64(nil, uint64(c.At.UnixNano()))
	out = append(binary.BigEndian.AppendUint64(out, c.Committed), c.ActiveTime...)
	if c.Node != "" { // who does not know of nodes takes both for an active_time of nobody
		out = append(append(out, '\n'), c.Node...)
	}
	return out
}

func decodeCursor(plain []byte) (cache.CursorStamp, bool) {
	if len(plain) < 16 {
		return cache.CursorStamp{}, false
	}
	active, node, _ := strings.Cut(string(plain[16:]), "\n")
	at := time.Unix(0, int64(binary.BigEndian.Uint64(plain)))
	return cache.CursorStamp{At: at, Committed: binary.BigEndian.Uint64(plain[8:]), ActiveTime: active, Node: node}, true
}
