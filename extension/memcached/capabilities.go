package memcached

import (
	"encoding/binary"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
)

// confirmation says when a capability was confirmed, or that it ended then.
type confirmation struct {
	revoked bool
	at      time.Time
}

func (g confirmation) encode() []byte {
	out := []byte{0}
	if g.revoked {
		out[0] = 1
	}
	return binary.BigEndian.AppendUint64(out, uint64(g.at.UnixNano()))
}

func capabilityFormat() format[confirmation] {
	return format[confirmation]{decodeConfirmation, func(g confirmation) time.Time { return g.at }, func(g confirmation) bool { return g.revoked }}
}

func decodeConfirmation(plain []byte) (confirmation, bool) {
	if len(plain) != 9 || plain[0] > 1 {
		return confirmation{}, false
	}
	return confirmation{plain[0] == 1, time.Unix(0, int64(binary.BigEndian.Uint64(plain[1:])))}, true
}

func (t *Tier) capabilityPlace(r cache.Capability) place {
	op := "read"
	if r.List {
		op = "list"
	}
	if r.Query != "" {
		// A policy may look at the query: https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
		return t.place(kindCapability, t.o.Identity, r.Namespace, r.Path, op, r.Query)
	}
	return t.place(kindCapability, t.o.Identity, r.Namespace, r.Path, op)
}

func (t *Tier) capabilityPlaces(capabilities []cache.Capability) []place {
	places := make([]place, len(capabilities))
	for i, r := range capabilities {
		places[i] = t.capabilityPlace(r)
	}
	return places
}

// held returns when this identity's capabilities were last confirmed, of what was
// found for each of asked: when the confirming request was sent, by the clock of
// who sent it. A capability confirmed longer ago than the refresh interval, less the
// clocks' skew, is absent, and so is one that was revoked. Another identity's
// never count.
func (t *Tier) held(asked []cache.Capability, found [][]seen) map[cache.Capability]time.Time {
	out := make(map[cache.Capability]time.Time, len(asked))
	now := t.now()
	for i, at := range found {
		g, ok := capabilityFormat().newest(at, func(g confirmation) bool { return !ahead(g.at, now) })
		if ok && !g.revoked && now.Sub(g.at)+t.o.Skew <= t.o.RefreshInterval {
			out[asked[i]] = g.at
		}
	}
	return out
}

// confirmations records confirmations of this identity's capabilities. A later one, or
// a revocation that is not older, stays.
func (t *Tier) confirmations(capabilities map[cache.Capability]time.Time) []change {
	var changes []change
	now := t.now()
	for r, at := range capabilities {
		if at.IsZero() || now.Sub(at) > t.o.RefreshInterval {
			continue
		}
		changes = t.confirmationChange(changes, r, confirmation{at: clock.Wall(at)}, now)
	}
	return changes
}

// revocations ends capabilities of this identity: what was confirmed until at does not
// count any more.
func (t *Tier) revocations(capabilities []cache.Capability, at time.Time) []change {
	var changes []change
	now := t.now()
	for _, r := range capabilities {
		changes = t.confirmationChange(changes, r, confirmation{revoked: true, at: clock.Wall(at)}, now)
	}
	return changes
}

func (t *Tier) confirmationChange(to []change, r cache.Capability, g confirmation, now time.Time) []change {
	if !t.shared(r.Path) || ahead(g.at, now) {
		return to
	}
	return append(to, change{
		place: t.capabilityPlace(r), plain: g.encode(), ttl: t.o.RefreshInterval, path: r.Path,
		beats: capabilityFormat().over(g, now),
	})
}
