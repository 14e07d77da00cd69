// Package tier opens the shared tier as the settings say, for every program:
// its memcached, its key, which a key service may give later (see deferred), and
// under which names an audience's instances and the warm-up find each other's
// records there.
package tier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/memcached"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
)

// Tier is the shared tier as the cache and the poll use it. A nil Tier is
// none: Thawed, AwaitKey and Close do nothing then.
type Tier struct {
	*memcached.Tier
	*memcached.Client
	*deferred
	who   Identity
	index Index
}

var _ cache.Shared = (*Tier)(nil)

// Unwrap has a key service decrypt the keys of an audience.
type Unwrap func(ctx context.Context, audience string) (*envelope.Keyring, error)

// Host is the machine as the tier sees it. Nil functions are the real ones.
type Host struct {
	Now    func() time.Time
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Frozen bool // it freezes between invocations
}

// New returns the shared tier, or nil where none is configured. It asks unwrap
// for the key, at the first Thawed, if the settings hold none.
func New(cfg config.Config, unwrap Unwrap, host Host, log *slog.Logger) (*Tier, error) {
	if !cfg.CacheEnable || len(cfg.Memcached) == 0 {
		return nil, nil
	}
	var keys *envelope.Keyring
	switch {
	case cfg.CacheKey != "":
		var err error
		if keys, err = envelope.ParseKeys(string(cfg.CacheKey)); err != nil {
			return nil, fmt.Errorf("THAW_CACHE_KEY: %w", err)
		}
	case unwrap == nil:
		return nil, errors.New("the shared cache needs THAW_CACHE_KEY or THAW_CACHE_KEY_KMS")
	}
	client, err := Open(cfg, cfg.MemcachedTimeout, host, log)
	if err != nil {
		return nil, err
	}
	who := identity(cfg)
	t := memcached.NewTier(memcached.TierOptions{Config: cfg, Client: client, Keys: keys, Identity: who.Name, Role: who.Role})
	d := newDeferred(func(ctx context.Context) error {
		keys, err := unwrap(ctx, cfg.Audience)
		if err == nil {
			t.Unlock(keys)
		}
		return err
	}, log)
	d.here.Store(keys != nil)
	d.now = clock.Of(host.Now)
	return &Tier{Tier: t, Client: client, who: who, index: Index{Records: t, Keep: Lasting(cfg), Now: d.now}, deferred: d}, nil
}

// Open returns a client of the memcached that cfg names. A call takes timeout
// at most.
func Open(cfg config.Config, timeout time.Duration, host Host, log *slog.Logger) (*memcached.Client, error) {
	o := memcached.Options{
		Nodes: cfg.Memcached, Discover: cfg.MemcachedDiscover, Timeout: timeout, IdleConn: cfg.IdleConn, Log: log,
		Now: host.Now, Dial: host.Dial, Frozen: host.Frozen,
	}
	if cfg.MemcachedTLS {
		o.TLS = &cfg.MemcachedFiles
	}
	c, err := memcached.New(o)
	if err != nil {
		return nil, fmt.Errorf("THAW_MEMCACHED: %w", err)
	}
	return c, nil
}

// Fetch waits for the key, too.
func (s *Tier) Fetch(ctx context.Context, keys []cache.Key) ([]cache.Record, map[cache.Capability]cache.Confirmation) {
	s.await(ctx)
	return s.Tier.Fetch(ctx, keys)
}

// Keep stores what was read from the origin. Reading it verified it: its stamp
// goes along.
func (s *Tier) Keep(ctx context.Context, records []cache.Record, confirmed map[cache.Capability]cache.Confirmation) {
	defer s.Use()()
	s.Tier.Keep(ctx, records, confirmed)
	s.index.Enter(ctx, s.who, slices.Collect(maps.Keys(confirmed)))
	s.PutStamps(ctx, cache.CursorStamp{}, cache.Stamps(records))
}

// Known implements poll.Directory.
func (s *Tier) Known(ctx context.Context) map[cache.Capability]cache.Confirmation {
	return s.Capabilities(ctx, s.who.Name, s.who.Role, s.index.Of(ctx, s.who))
}

// confirming is how long one instance's confirmation keeps others from it, at most.
const confirming = 2 * time.Second

// Confirming reports whether another instance of the identity confirms what that may
// read just now; else others are kept from it for a short while.
func (s *Tier) Confirming(ctx context.Context) bool {
	_, _, taken := s.Lock(ctx, "confirm\x00"+s.who.Name, confirming, false)
	return taken
}

// hearsay is what an audience knows of a cluster under one leader.
type hearsay struct {
	ActiveTime string    `json:"active_time"`
	Forwards   bool      `json:"forwards"`
	At         time.Time `json:"at"` // when sys/health said so
}

// Where hearsay is kept, and for how long.
const (
	hearsayName = "origin"
	hearsayTime = 24 * time.Hour
)

// Forwards implements cursor.Hearsay.
func (s *Tier) Forwards(ctx context.Context, activeTime string) (forwards bool, at time.Time) {
	var h hearsay
	if !s.State(ctx, hearsayName, &h) || h.ActiveTime != activeTime {
		return false, time.Time{}
	}
	return h.Forwards, h.At
}

// SetForwards implements cursor.Hearsay.
func (s *Tier) SetForwards(ctx context.Context, activeTime string, forwards bool, at time.Time) {
	SetForwards(ctx, s.Tier, activeTime, forwards, at)
}

// SetForwards is Tier.SetForwards for an audience's records alone.
func SetForwards(ctx context.Context, records *memcached.Tier, activeTime string, forwards bool, at time.Time) {
	records.PutState(ctx, hearsayName, hearsay{activeTime, forwards, clock.Wall(at)}, hearsayTime)
}

// AwaitKey gets the key on hosts that do not freeze.
func (s *Tier) AwaitKey(ctx context.Context) {
	if s != nil {
		s.watch(ctx)
	}
}

// Ready has the key asked for, where it is not here, and waits for what comes of it.
func (s *Tier) Ready(ctx context.Context) {
	if s != nil {
		s.ready(ctx)
	}
}

// Thawed is called at each INVOKE.
func (s *Tier) Thawed() {
	if s != nil {
		s.Client.Thawed()
		s.wake()
	}
}

// Close ends what runs for the tier.
func (s *Tier) Close() {
	if s != nil {
		_ = s.attempts.Close(context.Background())
		s.Client.Close()
	}
}
