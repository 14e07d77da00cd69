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
func (o *TierOptions) stamping() bool { return o.MaxAge > o.ClockSkew }

// young reports whether a stamp's age, the clocks' skew added, is within MaxAge.
func (o *TierOptions) young(at, now time.Time) bool {
	return !at.IsZero() && !ahead(at, now) && now.Sub(at)+o.ClockSkew <= o.MaxAge
}

// clockTick is how early memcached may drop an item: its clock moves once a
// second (memcached.c, clock_handler). Whether a stamp counts its own time says.
const clockTick = time.Second

// Every node has a copy of the cursor's stamp, under the name by which the ring would
// put it on one of them: so instances that know of no copies share that one's. Each
// instance reads and writes its own node's. Stamps of entries have no copies.

// Stamps returns the cursor's stamp, the own node's copy, and those of keys. A
// stamp is there only if its age, with the clocks' skew added, is at most
// MaxAge; whoever reckons with At adds the skew as well. Without one nothing is
// known. The zero CursorStamp is none.
func (t *Tier) Stamps(ctx context.Context, keys []cache.Key) (cache.CursorStamp, map[cache.Key]cache.Stamp) {
	cursor, out, far := t.Near(ctx, keys)
	t.stampsOf(out, far, t.load(ctx, t.keyPlaces(kindStamp, far)))
	return cursor, out
}

// Near is Stamps in one call of the own node. Where the cursor's stamp is there, the
// keys whose stamps lie on other nodes are left over (far): it mostly verifies them, too.
func (t *Tier) Near(ctx context.Context, keys []cache.Key) (cursor cache.CursorStamp, stamps map[cache.Key]cache.Stamp, far []cache.Key) {
	stamps = make(map[cache.Key]cache.Stamp, len(keys))
	if !t.o.stamping() {
		return cursor, stamps, nil
	}
	defer t.o.Client.Use()()
	own := t.o.Client.Own(ctx)
	asked := t.sharedKeys(keys)
	places := []place{t.place(kindCursor).on(own)}
	var near []cache.Key
	for i, p := range t.keyPlaces(kindStamp, asked) {
		if own == "" || t.o.Client.puts(own, p.names) {
			places, near = append(places, p.on(own)), append(near, asked[i])
		} else {
			far = append(far, asked[i])
		}
	}
	now := t.now()
	found := t.load(ctx, places)
	t.stampsOf(stamps, near, found[1:])
	c, _ := newest(t, found[0], decodeCursor)
	if t.o.young(c.At, now) && c.Committed != 0 && c.ActiveTime != "" {
		return c, stamps, far
	}
	t.stampsOf(stamps, far, t.load(ctx, t.keyPlaces(kindStamp, far)))
	return cursor, stamps, nil
}

// stampsOf adds to out the stamps of keys that were found and are young.
func (t *Tier) stampsOf(out map[cache.Key]cache.Stamp, keys []cache.Key, found [][]seen) {
	now := t.now()
	for i, at := range found {
		if s, _ := newest(t, at, decodeStamp); t.o.young(s.At, now) {
			out[keys[i]] = s
		}
	}
}

// PutStamps records verifications; the zero CursorStamp is none. A stamp of a
// later one stays.
func (t *Tier) PutStamps(ctx context.Context, cursor cache.CursorStamp, entries map[cache.Key]cache.Stamp) {
	if !t.o.stamping() {
		return
	}
	now := t.now()
	var changes []change
	if t.o.young(cursor.At, now) {
		cursor.At = clock.Wall(cursor.At)
		nodes := []string{t.o.Client.Own(ctx)}
		if all := t.o.Client.top.Load().ring.ids; t.o.Everywhere && len(all) > 0 {
			nodes = all
		}
		for _, node := range nodes {
			changes = append(changes, change{
				place: t.place(kindCursor).on(node), merge: over(t, cursor, encodeCursor, decodeCursor), ttl: t.o.MaxAge + clockTick,
			})
		}
	}
	for k, s := range entries {
		if k.Personal == 0 && t.shared(k.Path) && t.o.young(s.At, now) {
			changes = append(changes, t.stampChange(k, s))
		}
	}
	t.write(ctx, changes)
}

func (t *Tier) stampChange(k cache.Key, s cache.Stamp) change {
	s.At = clock.Wall(s.At)
	return change{
		place: t.keyPlace(kindStamp, k), merge: over(t, s, encodeStamp, decodeStamp), ttl: t.o.MaxAge + clockTick, path: k.Path,
	}
}

func encodeStamp(s cache.Stamp) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(s.At.UnixNano())), s.Fingerprint[:]...)
}

func decodeStamp(plain []byte) (v cache.Stamp, s standing, ok bool) {
	if len(plain) != 8+32 {
		return v, s, false
	}
	v = cache.Stamp{At: time.Unix(0, int64(binary.BigEndian.Uint64(plain))), Fingerprint: [32]byte(plain[8:])}
	return v, standing{at: v.At, ends: v.Fingerprint == [32]byte{}}, true
}

func encodeCursor(c cache.CursorStamp) []byte {
	out := binary.BigEndian.AppendUint64(nil, uint64(c.At.UnixNano()))
	out = append(binary.BigEndian.AppendUint64(out, c.Committed), c.ActiveTime...)
	if c.Node != "" { // who does not know of nodes takes both for an active_time of nobody
		out = append(append(out, '\n'), c.Node...)
	}
	return out
}

func decodeCursor(plain []byte) (v cache.CursorStamp, s standing, ok bool) {
	if len(plain) < 16 {
		return v, s, false
	}
	v = cache.CursorStamp{At: time.Unix(0, int64(binary.BigEndian.Uint64(plain))), Committed: binary.BigEndian.Uint64(plain[8:])}
	v.ActiveTime, v.Node, _ = strings.Cut(string(plain[16:]), "\n")
	return v, standing{at: v.At, ends: v.Committed == 0}, true
}
