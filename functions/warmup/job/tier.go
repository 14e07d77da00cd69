package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/memcached"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/functions/warmup"
)

// patience is how long a call of memcached may take here, where nobody waits
// for a read: what is late would have to be read from the origin again.
const patience = time.Second

// openAudiences opens the tier of each audience.
// A key that a key service encrypted is decrypted here, for each audience that has none
// of its own, with that audience in the encryption context.
func openAudiences(cfg config.Config, client *memcached.Client, platform Options) (list []warmup.Audience, err error) {
	rows := cfg.Warm.Audiences
	if len(rows) == 0 {
		rows = []config.WarmAudience{{Audience: cfg.Audience, Namespace: cfg.Namespace, Paths: cfg.Warm.Paths}}
	}
	unwrap := platform.Unwrap
	if unwrap == nil {
		if unwrap, err = tier.KMS(cfg, platform.Log); err != nil {
			return nil, err
		}
	}
	for _, row := range rows {
		ring, err := keysOf(cfg, row, unwrap)
		if err != nil {
			return nil, fmt.Errorf("audience %s: the key %w", row.Audience, err)
		}
		o := memcached.TierOptions{Config: cfg, Client: client, Keys: ring, Everywhere: true}
		o.Namespace, o.Audience = row.Namespace, row.Audience
		t := memcached.NewTier(o)
		list = append(list, warmup.Audience{
			Name: row.Audience, Namespace: row.Namespace, Prefixes: row.Paths,
			Sealer: ring.Audience(envelope.Join("backup", o.Origin(), row.Namespace, row.Audience)),
			Tier:   shared{t, &tier.Index{Records: t, Keep: tier.Lasting(cfg), Now: time.Now}},
		})
	}
	return list, nil
}

// keysOf are an audience's keys.
func keysOf(cfg config.Config, row config.WarmAudience, unwrap tier.Unwrap) (*envelope.Keyring, error) {
	if key := cmp.Or(row.Key, cfg.CacheKey); key != "" {
		return envelope.ParseKeys(string(key))
	}
	if unwrap == nil {
		return nil, errors.New("is missing: give each audience its key in THAW_WARM_AUDIENCES, or set THAW_CACHE_KEY, THAW_CACHE_KEY_KMS or THAW_CACHE_KEY_KEYVAULT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), keyTime)
	defer cancel()
	ring, err := unwrap(ctx, row.Audience)
	switch {
	case err == nil:
		return ring, nil
	case len(cfg.CacheKeyVault) > 0:
		return nil, fmt.Errorf("in THAW_CACHE_KEY_KEYVAULT: %w", err)
	}
	return nil, fmt.Errorf("in THAW_CACHE_KEY_KMS: %w", err)
}

// keyTime bounds the key service's part of the start.
const keyTime = 10 * time.Second

// shared fits the tier to what the warm-up asks of it.
type shared struct {
	*memcached.Tier
	index *tier.Index // what the audience's identities hold
}

// Lock takes a lock that nobody holds.
func (s shared) Lock(ctx context.Context, name string, ttl time.Duration) (l warmup.Lease, held, taken bool) {
	return s.Tier.Lock(ctx, name, ttl, false)
}

// Held gives what is known of the capabilities of the audience's identities.
func (s shared) Held(ctx context.Context) []warmup.Held {
	var all []warmup.Held
	for _, who := range s.index.Identities(ctx) {
		held := warmup.Held{Identity: who.Name, Role: who.Role}
		asked := append([]cache.Capability{{}}, s.index.Of(ctx, who)...)
		for p, c := range s.Capabilities(ctx, who.Name, who.Role, asked) {
			held.Capabilities = append(held.Capabilities, warmup.Known{Capability: p, Confirmation: c})
		}
		all = append(all, held)
	}
	return all
}

// PutHeld merges what is known of an identity's capabilities with what is there.
func (s shared) PutHeld(ctx context.Context, held warmup.Held) {
	known := make(map[cache.Capability]cache.Confirmation, len(held.Capabilities))
	for _, k := range held.Capabilities {
		known[k.Capability] = k.Confirmation
	}
	s.PutCapabilities(ctx, held.Identity, known)
	delete(known, cache.Capability{})
	index := &tier.Index{Records: s.Tier, Keep: s.index.Keep, Now: s.index.Now} // it remembers one identity's, and until memcached loses all
	index.Enter(ctx, tier.Identity{Name: held.Identity, Role: held.Role}, slices.Collect(maps.Keys(known)))
}

// EndRole ends what the identities of a role hold.
func (s shared) EndRole(ctx context.Context, role string, at time.Time) bool {
	return s.EndAll(ctx, memcached.RoleEnd(role), at)
}

// Used returns the capabilities that some function of the audience holds.
func (s shared) Used(ctx context.Context) map[cache.Capability]bool {
	out := make(map[cache.Capability]bool)
	for _, who := range s.index.Identities(ctx) {
		for _, p := range s.index.Of(ctx, who) {
			out[p] = true
		}
	}
	return out
}

// Learned tells cold functions whether the active node answers reads.
func (s shared) Learned(ctx context.Context, activeTime string, forwards bool, at time.Time) {
	tier.SetForwards(ctx, s.Tier, activeTime, forwards, at)
}
