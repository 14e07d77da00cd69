package memcached

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
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

func decodeGrant(plain []byte) (grant, bool) {
	if len(plain) != 9 || plain[0] > 1 {
		return grant{}, false
	}
	return grant{plain[0] == 1, time.Unix(0, int64(binary.BigEndian.Uint64(plain[1:])))}, true
}

func (t *Tier) grantPlace(r cache.Right) place {
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

// Grants returns when this identity's rights were last confirmed: when the
// confirming request was sent, by the clock of who sent it. A right confirmed
// longer ago than the refresh interval, less the clocks' skew, is absent, and so
// is one that was revoked. Another identity's never count.
func (t *Tier) Grants(ctx context.Context, rights []cache.Right) map[cache.Right]time.Time {
	asked := t.sharedRights(rights)
	return t.grants(asked, t.load(ctx, t.grantPlaces(asked)))
}

func (t *Tier) grantPlaces(rights []cache.Right) []place {
	places := make([]place, len(rights))
	for i, r := range rights {
		places[i] = t.grantPlace(r)
	}
	return places
}

// sharedRights leaves out what is never shared.
func (t *Tier) sharedRights(rights []cache.Right) []cache.Right {
	out := make([]cache.Right, 0, len(rights))
	for _, r := range rights {
		if t.shared(r.Path) {
			out = append(out, r)
		}
	}
	return out
}

// grants makes times of what was found for each of asked.
func (t *Tier) grants(asked []cache.Right, found [][]seen) map[cache.Right]time.Time {
	out := make(map[cache.Right]time.Time, len(asked))
	now := t.now()
	for i, at := range found {
		var newest grant
		for _, plain := range opened(at) {
			g, ok := decodeGrant(plain)
			if ok && !t.ahead(g.at, now) && (g.at.After(newest.at) || g.at.Equal(newest.at) && g.revoked) {
				newest = g
			}
		}
		if !newest.at.IsZero() && !newest.revoked && now.Sub(newest.at)+t.o.Skew <= t.o.RefreshInterval {
			out[asked[i]] = newest.at
		}
	}
	return out
}

// PutGrants records confirmations of this identity's rights. A later one, or a
// revocation that is not older, stays.
func (t *Tier) PutGrants(ctx context.Context, grants map[cache.Right]time.Time) {
	t.write(ctx, t.confirmations(grants))
}

func (t *Tier) confirmations(grants map[cache.Right]time.Time) []change {
	var changes []change
	now := t.now()
	for r, at := range grants {
		if at.IsZero() || now.Sub(at) > t.o.RefreshInterval {
			continue
		}
		changes = t.grantChange(changes, r, grant{at: at.Round(0)}, now)
	}
	return changes
}

// RevokeGrants ends rights of this identity: what was confirmed until at does
// not count any more.
func (t *Tier) RevokeGrants(ctx context.Context, rights []cache.Right, at time.Time) {
	t.write(ctx, t.revocations(rights, at))
}

func (t *Tier) revocations(rights []cache.Right, at time.Time) []change {
	var changes []change
	now := t.now()
	for _, r := range rights {
		changes = t.grantChange(changes, r, grant{revoked: true, at: at.Round(0)}, now)
	}
	return changes
}

func (t *Tier) grantChange(to []change, r cache.Right, g grant, now time.Time) []change {
	if !t.shared(r.Path) || t.ahead(g.at, now) {
		return to
	}
	return append(to, change{
		place: t.grantPlace(r), plain: g.encode(), ttl: t.o.RefreshInterval, path: r.Path,
		beats: func(old []byte) bool {
			o, ok := decodeGrant(old)
			return !ok || o.at.Sub(now) > maxFuture || g.at.After(o.at) || g.at.Equal(o.at) && g.revoked && !o.revoked
		},
	})
}
