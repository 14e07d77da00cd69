package memcached

import (
	"context"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

var _ cache.Shared = (*Tier)(nil)

// Fetch is Entries in one call with when the capabilities that keys need were
// confirmed.
func (t *Tier) Fetch(ctx context.Context, keys []cache.Key) ([]Record, map[cache.Capability]time.Time) {
	asked := t.sharedKeys(keys)
	capabilities := make([]cache.Capability, 0, len(asked))
	places := make([]place, 0, 2*len(asked))
	for _, k := range asked {
		places = append(places, t.keyPlace(kindEntry, k))
		capabilities = append(capabilities, k.Capability())
	}
	found := t.load(ctx, append(places, t.capabilityPlaces(capabilities)...))
	entries := t.entries(asked, found[:len(asked)])
	records := make([]Record, 0, len(entries))
	for _, k := range asked {
		if r, ok := entries[k]; ok {
			records = append(records, r)
			delete(entries, k) // a key that was asked for twice
		}
	}
	return records, t.held(capabilities, found[len(asked):])
}

// Keep is Put, and records confirmations of this identity's capabilities.
func (t *Tier) Keep(ctx context.Context, records []Record, capabilities map[cache.Capability]time.Time) {
	t.write(ctx, append(t.puts(ctx, records), t.confirmations(capabilities)...))
}

// Drop is Remove, and ends capabilities of this identity.
func (t *Tier) Drop(ctx context.Context, keys []cache.Key, capabilities []cache.Capability, at time.Time) {
	t.write(ctx, append(t.removals(keys, at), t.revocations(capabilities, at)...))
}
