package memcached

import (
	"context"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

var _ cache.Shared = (*Tier)(nil)

// Fetch is Entries in one call with what is known of the capabilities that keys
// need.
func (t *Tier) Fetch(ctx context.Context, keys []cache.Key) ([]cache.Record, map[cache.Capability]cache.Confirmation) {
	defer t.o.Client.Use()()
	t.write(ctx, t.unwritten.again(t))
	asked := t.sharedKeys(keys)
	capabilities := make([]cache.Capability, len(asked))
	for i, k := range asked {
		capabilities[i] = k.Capability()
	}
	found := t.load(ctx, append(t.keyPlaces(kindEntry, asked), t.capabilityPlaces(t.o.Identity, t.o.Role, capabilities)...))
	entries := t.entries(asked, found[:len(asked)])
	records := make([]cache.Record, 0, len(entries))
	for _, k := range asked {
		if r, ok := entries[k]; ok {
			records = append(records, r)
			delete(entries, k) // a key that was asked for twice
		}
	}
	return records, t.held(capabilities, found[len(asked):])
}

// Keep is Put, and records confirmations of this identity's capabilities.
func (t *Tier) Keep(ctx context.Context, records []cache.Record, capabilities map[cache.Capability]cache.Confirmation) {
	t.write(ctx, slices.Concat(t.puts(ctx, records), t.capabilityChanges(t.o.Identity, capabilities), t.unwritten.again(t)))
}

// Drop is Remove, and ends capabilities of this identity: what was confirmed until at
// does not count any more.
func (t *Tier) Drop(ctx context.Context, keys []cache.Key, capabilities []cache.Capability, at time.Time) {
	ends := make(map[cache.Capability]cache.Confirmation, len(capabilities))
	for _, r := range capabilities {
		ends[r] = cache.Confirmation{Ended: at}
	}
	t.write(ctx, slices.Concat(t.removals(keys, at), t.capabilityChanges(t.o.Identity, ends), t.unwritten.again(t)))
}
