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

// Lock takes the lock name for ttl, unless somebody holds it: then taken. Where
// memcached does not say, it is neither held nor taken, and whoever asks need not wait. A
// lock that does not open, or whose time is over (one that was put back, say), counts as
// free. own: only instances with the same own node exclude each other.
func (t *Tier) Lock(ctx context.Context, name string, ttl time.Duration, own bool) (l Lease, held, taken bool) {
	defer t.o.Client.Use()()
	p := t.place(kindLock, name)
	if own {
		p = p.on(t.o.Client.Own(ctx))
	}
	l = Lease{t: t, place: p, ttl: ttl}
	_, _ = rand.Read(l.holder[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	var err error
	if len(p.names) == 1 { // then one that is free, as most are, takes one round trip
		held, err = t.replace(ctx, p, []seen{{}}, l.plain(), ttl)
	}
	if err == nil && !held {
		held = l.hold(ctx)
	}
	return l, held, err == nil && !held && !t.o.Client.On(p.node).out(p.names[0])
}

// Renew prolongs the lease to ttl from now. False means that it is not certain
// any more: another holds the lock, or memcached did not answer. A lock that
// memcached lost is taken again if nobody else has it.
func (l Lease) Renew(ctx context.Context) bool { return l.t != nil && l.hold(ctx) }

func (l Lease) plain() []byte { return lock{l.holder, l.t.now().Add(l.ttl)}.encode() }

// hold takes or keeps the lock by add or compare-and-swap. It looks twice: a
// write whose answer was lost may have been ours.
func (l Lease) hold(ctx context.Context) bool {
	now := l.t.now()
	for range 2 {
		found := l.t.load(ctx, []place{l.place})[0]
		for _, plain := range opened(found) {
			k, ok := decodeLock(plain)
			if ok && k.holder != l.holder && now.Before(k.until.Add(l.t.o.ClockSkew)) {
				return false
			}
		}
		if ok, _ := l.t.replace(ctx, l.place, found, l.plain(), l.ttl); ok {
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
	defer l.t.o.Client.Use()()
	for i, s := range l.t.load(ctx, []place{l.place})[0] {
		if k, ok := decodeLock(s.plain); ok && k.holder == l.holder {
			_, _ = l.t.o.Client.On(l.place.node).CompareAndSwap(ctx, l.place.names[i], nil, -1, s.cas)
		}
	}
}

// state is a value that is kept between runs.
type state[V any] struct {
	At    int64 `json:"at"` // when it was put, Unix nanoseconds
	Value V     `json:"value"`
}

func decodeState(plain []byte) (v state[json.RawMessage], s standing, ok bool) {
	err := json.Unmarshal(plain, &v)
	return v, standing{at: fromNanos(v.At)}, err == nil && v.At > 0
}

// State reads what PutState put under name. It reports false, and leaves into
// alone or half filled, when there is nothing that opens and fits.
func (t *Tier) State(ctx context.Context, name string, into any) bool {
	s, ok := newest(t, t.load(ctx, []place{t.place(kindState, name)})[0], decodeState)
	return ok && json.Unmarshal(s.Value, into) == nil
}

// PutState keeps v, as JSON, under name for ttl. The last to put wins; which is
// newer is for v itself to say.
func (t *Tier) PutState(ctx context.Context, name string, v any, ttl time.Duration) {
	plain, err := json.Marshal(state[any]{t.now().UnixNano(), v})
	if err != nil {
		t.o.Client.o.Log.Error("state that is not JSON is not kept", "name", name, "error", err)
		return
	}
	p := t.place(kindState, name)
	if p.sealer == nil {
		return
	}
	if err := t.o.Client.Set(ctx, p.names[0], p.sealer.Seal(p.aad, plain), ttl); err != nil {
		t.o.Client.o.Log.Debug("memcached write left out", "error", brief(err))
	}
}
