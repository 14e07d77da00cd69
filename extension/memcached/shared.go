package memcached

import (
	"context"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

var _ cache.Shared = (*Tier)(nil)

// Fetch is Entries, and Grants for the rights that keys need, in one call.
func (t *Tier) Fetch(ctx context.Context, keys []cache.Key) ([]Record, map[cache.Capability]time.Time) {
	asked := t.sharedKeys(keys)
	rights := make([]cache.Capability, 0, len(asked))
	places := make([]place, 0, 2*len(asked))
	for _, k := range asked {
		places = append(places, t.keyPlace(kindEntry, k))
		rights = append(rights, k.Capability())
	}
	found := t.load(ctx, append(places, t.grantPlaces(rights)...))
	entries := t.entries(asked, found[:len(asked)])
	records := make([]Record, 0, len(entries))
	for _, k := range asked {
		if r, ok := entries[k]; ok {
			records = append(records, r)
			delete(entries, k) // a key that was asked for twice
		}
	}
	return records, t.grants(rights, found[len(asked):])
}

// Keep is Put and PutGrants at once.
func (t *Tier) Keep(ctx context.Context, records []Record, grants map[cache.Capability]time.Time) {
	t.write(ctx, append(t.puts(ctx, records), t.confirmations(grants)...))
}

// Drop is Remove and RevokeGrants at once.
func (t *Tier) Drop(ctx context.Context, keys []cache.Key, rights []cache.Capability, at time.Time) {
	t.write(ctx, append(t.removals(keys, at), t.revocations(rights, at)...))
}
