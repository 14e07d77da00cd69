package memcached

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// stamping reports whether stamps are of use: their age counts from the
// earliest that the writer's clock can mean.
func (t *Tier) stamping() bool { return t.o.MaxAge > t.o.Skew }

// young reports whether a stamp's age, the clocks' skew added, is within MaxAge.
func (t *Tier) young(at, now time.Time) bool {
	return !at.IsZero() && !t.ahead(at, now) && now.Sub(at)+t.o.Skew <= t.o.MaxAge
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
	for _, plain := range opened(found[0]) {
		if c, ok := decodeCursor(plain); ok && t.young(c.At, now) && c.At.After(cursor.At) {
			cursor = c
		}
	}
	if cursor.Committed == 0 || cursor.ActiveTime == "" {
		cursor = cache.CursorStamp{}
	}
	for i, at := range found[1:] {
		var newest cache.Stamp
		for _, plain := range opened(at) {
			if s, ok := decodeStamp(plain); ok && t.young(s.At, now) && s.At.After(newest.At) {
				newest = s
			}
		}
		if !newest.At.IsZero() {
			out[asked[i]] = newest
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
		cursor.At = cursor.At.Round(0)
		changes = append(changes, change{
			place: t.place(kindCursor), plain: encodeCursor(cursor), ttl: t.o.MaxAge + clockTick,
			beats: func(old []byte) bool {
				o, ok := decodeCursor(old)
				return !ok || o.At.Sub(now) > maxFuture || cursor.At.After(o.At) || cursor.At.Equal(o.At) && cursor.Committed == 0
			},
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
	s.At = s.At.Round(0)
	return change{
		place: t.keyPlace(kindStamp, k), plain: encodeStamp(s), ttl: t.o.MaxAge + clockTick, path: k.Path,
		beats: func(old []byte) bool {
			o, ok := decodeStamp(old)
			return !ok || o.At.Sub(now) > maxFuture || s.At.After(o.At) || s.At.Equal(o.At) && s.Fingerprint == [32]byte{}
		},
	}
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
	return append(binary.BigEndian.AppendUint64(out, c.Committed), c.ActiveTime...)
}

func decodeCursor(plain []byte) (cache.CursorStamp, bool) {
	if len(plain) < 16 {
		return cache.CursorStamp{}, false
	}
	return cache.CursorStamp{At: time.Unix(0, int64(binary.BigEndian.Uint64(plain))), Committed: binary.BigEndian.Uint64(plain[8:]), ActiveTime: string(plain[16:])}, true
}
