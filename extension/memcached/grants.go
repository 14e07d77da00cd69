package memcached

import (
	"encoding/binary"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
)

// grant is a confirmation of a right, or its end.
type grant struct {
	revoked bool
	at      time.Time
}

func (g grant) encode() []byte {
	out := []byte{0}
	if g.revoked {
		out[0] = 1
	}
	return binary.BigEndian.AppendUint64(out, uint64(g.at.UnixNano()))
}

func grantFormat() format[grant] {
	return format[grant]{decodeGrant, func(g grant) time.Time { return g.at }, func(g grant) bool { return g.revoked }}
}

func decodeGrant(plain []byte) (grant, bool) {
	if len(plain) != 9 || plain[0] > 1 {
		return grant{}, false
	}
	return grant{plain[0] == 1, time.Unix(0, int64(binary.BigEndian.Uint64(plain[1:])))}, true
}

func (t *Tier) grantPlace(r cache.Capability) place {
	op := "read"
	if r.List {
		op = "list"
	}
	if r.Query != "" {
		// A policy may look at the query: https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
		return t.place(kindGrant, t.o.Identity, r.Namespace, r.Path, op, r.Query)
	}
	return t.place(kindGrant, t.o.Identity, r.Namespace, r.Path, op)
}

func (t *Tier) grantPlaces(rights []cache.Capability) []place {
	places := make([]place, len(rights))
	for i, r := range rights {
		places[i] = t.grantPlace(r)
	}
	return places
}

// grants returns when this identity's rights were last confirmed, of what was
// found for each of asked: when the confirming request was sent, by the clock of
// who sent it. A right confirmed longer ago than the refresh interval, less the
// clocks' skew, is absent, and so is one that was revoked. Another identity's
// never count.
func (t *Tier) grants(asked []cache.Capability, found [][]seen) map[cache.Capability]time.Time {
	out := make(map[cache.Capability]time.Time, len(asked))
	now := t.now()
	for i, at := range found {
		g, ok := grantFormat().newest(at, func(g grant) bool { return !ahead(g.at, now) })
		if ok && !g.revoked && now.Sub(g.at)+t.o.Skew <= t.o.RefreshInterval {
			out[asked[i]] = g.at
		}
	}
	return out
}

// confirmations records confirmations of this identity's rights. A later one, or
// a revocation that is not older, stays.
func (t *Tier) confirmations(grants map[cache.Capability]time.Time) []change {
	var changes []change
	now := t.now()
	for r, at := range grants {
		if at.IsZero() || now.Sub(at) > t.o.RefreshInterval {
			continue
		}
		changes = t.grantChange(changes, r, grant{at: clock.Wall(at)}, now)
	}
	return changes
}

// revocations ends rights of this identity: what was confirmed until at does not
// count any more.
func (t *Tier) revocations(rights []cache.Capability, at time.Time) []change {
	var changes []change
	now := t.now()
	for _, r := range rights {
		changes = t.grantChange(changes, r, grant{revoked: true, at: clock.Wall(at)}, now)
	}
	return changes
}

func (t *Tier) grantChange(to []change, r cache.Capability, g grant, now time.Time) []change {
	if !t.shared(r.Path) || ahead(g.at, now) {
		return to
	}
	return append(to, change{
		place: t.grantPlace(r), plain: g.encode(), ttl: t.o.RefreshInterval, path: r.Path,
		beats: grantFormat().over(g, now),
	})
}
