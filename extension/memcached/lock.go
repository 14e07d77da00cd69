package memcached

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"time"
)

// Lease is a lock that is held, as far as memcached knows. It excludes work
// done twice, not writes: a memcached that loses or is robbed of the lock lets
// another in, so what is done under it must bear being done twice.
type Lease struct {
	t      *Tier
	place  place
	holder [16]byte
	ttl    time.Duration
}

// lock is what lies at a lock's place.
type lock struct {
	holder [16]byte
	until  time.Time
}

func (l lock) encode() []byte {
	return binary.BigEndian.AppendUint64(l.holder[:], uint64(l.until.UnixNano()))
}

func decodeLock(plain []byte) (lock, bool) {
	if len(plain) != 24 {
		return lock{}, false
	}
	return lock{[16]byte(plain), time.Unix(0, int64(binary.BigEndian.Uint64(plain[16:])))}, true
}

// Lock takes the lock name for ttl, unless somebody holds it or memcached does
// not say. A lock that does not open, or whose time is over (one that was put
// back, say), counts as free.
func (t *Tier) Lock(ctx context.Context, name string, ttl time.Duration) (Lease, bool) {
	l := Lease{t: t, place: t.place(kindLock, name), ttl: ttl}
	if ttl <= 0 {
		return l, false
	}
	_, _ = rand.Read(l.holder[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	if len(l.place.names) == 1 {
		// Mostly it is free, and one round trip does.
		if ok, err := t.o.Client.Add(ctx, l.place.names[0], l.sealed(t.now()), ttl); ok || err != nil {
			return l, ok
		}
	}
	return l, l.hold(ctx)
}

// Taken takes the lock name for ttl, if it is free, and reports whether another
// holds it. Where memcached does not say, nobody is known to: whoever asks need
// not wait.
func (t *Tier) Taken(ctx context.Context, name string, ttl time.Duration) (Lease, bool) {
	l := Lease{t: t, place: t.place(kindLock, name), ttl: ttl}
	_, _ = rand.Read(l.holder[:])
	if len(l.place.names) == 1 {
		if ok, err := t.o.Client.Add(ctx, l.place.names[0], l.sealed(t.now()), ttl); ok || err != nil {
			return l, false
		}
	}
	return l, !l.hold(ctx) && !t.o.Client.out(l.place.names[0])
}

// Renew prolongs the lease to ttl from now. False means that it is not certain
// any more: another holds the lock, or memcached did not answer. A lock that
// memcached lost is taken again if nobody else has it.
func (l Lease) Renew(ctx context.Context) bool { return l.t != nil && l.hold(ctx) }

func (l Lease) sealed(now time.Time) []byte {
	return l.t.sealer.Seal(l.place.aad, lock{l.holder, now.Add(l.ttl)}.encode())
}

// hold takes or keeps the lock by add or compare-and-swap. It looks twice: a
// write whose answer was lost may have been ours.
func (l Lease) hold(ctx context.Context) bool {
	now := l.t.now()
	for range 2 {
		found := l.t.load(ctx, []place{l.place})[0]
		for _, plain := range opened(found) {
			k, ok := decodeLock(plain)
			if ok && k.holder != l.holder && now.Before(k.until.Add(l.t.o.Skew)) {
				return false
			}
		}
		var ok bool
		if found[0].there {
			ok, _ = l.t.o.Client.CompareAndSwap(ctx, l.place.names[0], l.sealed(now), l.ttl, found[0].cas)
		} else {
			ok, _ = l.t.o.Client.Add(ctx, l.place.names[0], l.sealed(now), l.ttl)
		}
		if ok {
			return true
		}
	}
	return false
}

// Release ends the lease, if it is still ours.
func (l Lease) Release(ctx context.Context) {
	if l.t == nil {
		return
	}
	for i, s := range l.t.load(ctx, []place{l.place})[0] {
		if k, ok := decodeLock(s.plain); ok && k.holder == l.holder {
			_, _ = l.t.o.Client.CompareAndSwap(ctx, l.place.names[i], nil, -1, s.cas)
		}
	}
}

// state is a value that is kept between runs.
type state struct {
	At    int64           `json:"at"` // when it was put, Unix nanoseconds
	Value json.RawMessage `json:"value"`
}

// State reads what PutState put under name. It reports false, and leaves into
// alone or half filled, when there is nothing that opens and fits.
func (t *Tier) State(ctx context.Context, name string, into any) bool {
	now := t.now()
	var newest state
	for _, plain := range opened(t.load(ctx, []place{t.place(kindState, name)})[0]) {
		var s state
		if json.Unmarshal(plain, &s) == nil && s.At > newest.At && !t.ahead(fromNanos(s.At), now) {
			newest = s
		}
	}
	return newest.At > 0 && json.Unmarshal(newest.Value, into) == nil
}

// PutState keeps v, as JSON, under name for ttl. The last to put wins; which is
// newer is for v itself to say.
func (t *Tier) PutState(ctx context.Context, name string, v any, ttl time.Duration) {
	value, err := json.Marshal(v)
	if err != nil {
		t.o.Log.Error("state that is not JSON is not kept", "name", name, "error", err)
		return
	}
	plain, err := json.Marshal(state{t.now().UnixNano(), value})
	if err != nil {
		t.o.Log.Error("state that is not JSON is not kept", "name", name, "error", err)
		return
	}
	p := t.place(kindState, name)
	if err := t.o.Client.Set(ctx, p.names[0], t.sealer.Seal(p.aad, plain), ttl); err != nil {
		t.o.Log.Debug("memcached write left out", "error", brief(err))
	}
}
