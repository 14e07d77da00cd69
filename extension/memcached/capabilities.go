package memcached

import (
	"context"
	"encoding/binary"
	"maps"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
)

// A capability's record has the three times of a cache.Confirmation. Writers merge
// with what is there: of each time the later one stays. So an end is no record of
// its own: it stands beside what it ended, for as long as that could have counted,
// and only a read that was sent after it makes the capability count again. A record
// of the empty capability ends all of an identity, or of a role.

// capabilityVersion is the first byte of a record. Records of other versions are
// absent. Before the version, the kind was "grant" and the records had other names:
// neither binary finds the other's.
const capabilityVersion = 1

func encodeCapability(c cache.Confirmation) []byte {
	out := []byte{capabilityVersion}
	for _, t := range [...]time.Time{c.Read, c.At, c.Ended} {
		out = binary.BigEndian.AppendUint64(out, uint64(nanos(t)))
	}
	return out
}

func decodeCapability(plain []byte) (c cache.Confirmation, ok bool) {
	if len(plain) != 1+3*8 || plain[0] != capabilityVersion {
		return cache.Confirmation{}, false
	}
	for i, t := range [...]*time.Time{&c.Read, &c.At, &c.Ended} {
		*t = fromNanos(int64(binary.BigEndian.Uint64(plain[1+8*i:])))
	}
	return c, true
}

// capability is what lies at a place, and more, say together. Times too far ahead say
// nothing.
func (t *Tier) capability(at []seen, more ...cache.Confirmation) (out cache.Confirmation) {
	for _, plain := range opened(at) {
		if c, ok := decodeCapability(plain); ok {
			more = append(more, c)
		}
	}
	now := t.now()
	later := func(t *time.Time, u time.Time) {
		if u.After(*t) && !ahead(u, now) {
			*t = clock.Wall(u)
		}
	}
	for _, c := range more {
		later(&out.Read, c.Read)
		later(&out.At, c.At)
		later(&out.Ended, c.Ended)
	}
	return out
}

// RoleEnd names, in place of an identity, the record that ends the capabilities of
// all identities of a role.
func RoleEnd(role string) string { return "role\x00" + role }

func (t *Tier) capabilityPlace(identity string, r cache.Capability) place {
	parts := []string{identity, r.Namespace, r.Path, "read"}
	if r.List {
		parts[3] = "list"
	}
	if r.Query != "" {
		// A policy may look at the query: https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
		parts = append(parts, r.Query)
	}
	return t.place(kindCapability, parts...)
}

// capabilityPlaces are those of an identity's capabilities, and behind them those
// that end all of them.
func (t *Tier) capabilityPlaces(identity, role string, capabilities []cache.Capability) []place {
	places := make([]place, 0, len(capabilities)+2)
	for _, r := range capabilities {
		places = append(places, t.capabilityPlace(identity, r))
	}
	return append(places, t.capabilityPlace(identity, cache.Capability{}), t.capabilityPlace(RoleEnd(role), cache.Capability{}))
}

// held returns what is known of capabilities, of what was found at their places.
// Ended is set of those that have ended. Another identity's never count.
func (t *Tier) held(asked []cache.Capability, found [][]seen) map[cache.Capability]cache.Confirmation {
	out := make(map[cache.Capability]cache.Confirmation, len(asked))
	var all cache.Confirmation // when all ended
	for _, at := range found[len(asked):] {
		all.Ended = t.capability(at, all).Ended
	}
	for i, at := range found[:len(asked)] {
		c := t.capability(at, all)
		if !c.Ended.IsZero() && c.Read.Sub(c.Ended) > t.o.ClockSkew {
			c.Ended = time.Time{}
		}
		if c != (cache.Confirmation{}) {
			out[asked[i]] = c
		}
	}
	return out
}

// Capabilities returns what is known of the capabilities of an identity with a role.
func (t *Tier) Capabilities(ctx context.Context, identity, role string, asked []cache.Capability) map[cache.Capability]cache.Confirmation {
	return t.held(asked, t.load(ctx, t.capabilityPlaces(identity, role, asked)))
}

// PutCapabilities records what is known of an identity's capabilities.
func (t *Tier) PutCapabilities(ctx context.Context, identity string, known map[cache.Capability]cache.Confirmation) {
	t.write(ctx, t.capabilityChanges(identity, known))
}

// EndAll ends all capabilities of an identity, or of a role (RoleEnd), that were
// confirmed until at, and reports whether that was written.
func (t *Tier) EndAll(ctx context.Context, identity string, at time.Time) bool {
	return t.write(ctx, t.capabilityChanges(identity, map[cache.Capability]cache.Confirmation{{}: {Ended: at}})) == 0
}

// capabilityChanges record what is known of an identity's capabilities. An end that
// cannot be written is written again with what comes next.
func (t *Tier) capabilityChanges(identity string, known map[cache.Capability]cache.Confirmation) []change {
	var changes []change
	for r, c := range known {
		if !t.shared(r.Path) || t.capability(nil, c) == (cache.Confirmation{}) {
			continue
		}
		changes = append(changes, change{
			place: t.capabilityPlace(identity, r), ttl: max(t.o.RefreshInterval, t.o.StaleIfError), path: r.Path,
			merge: func(old []seen) []byte {
				is := t.capability(old, c)
				if is == t.capability(old) {
					return nil
				}
				return encodeCapability(is)
			},
			lost: func() {
				if identity == t.o.Identity && !c.Ended.IsZero() {
					t.unwritten.add(r, c)
				}
			},
		})
	}
	return changes
}

// unwritten is what memcached did not take: ends of the identity's capabilities, and, while
// there is no key to write them with, of entries.
type unwritten struct {
	mu   sync.Mutex // guards what follows
	ends map[cache.Capability]cache.Confirmation
	keys map[cache.Key]time.Time
}

// maxUnwritten bounds either.
const maxUnwritten = 1024

func (u *unwritten) add(r cache.Capability, c cache.Confirmation) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.ends) >= maxUnwritten { // then everything ends
		clear(u.ends)
		r = cache.Capability{}
	}
	if !c.Ended.Before(u.ends[r].Ended) {
		u.ends[r] = c
	}
}

func (u *unwritten) addKey(k cache.Key, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.keys) < maxUnwritten {
		u.keys[k] = at
	}
}

// again takes what is to be written again.
func (u *unwritten) again(t *Tier) []change {
	u.mu.Lock()
	ends, keys := maps.Clone(u.ends), maps.Clone(u.keys)
	clear(u.ends)
	clear(u.keys)
	u.mu.Unlock()
	changes := t.capabilityChanges(t.o.Identity, ends)
	for k, at := range keys {
		changes = append(changes, t.removals([]cache.Key{k}, at)...)
	}
	return changes
}
