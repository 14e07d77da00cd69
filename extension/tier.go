package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/memcached"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
	"github.com/thaw-project/thaw/extension/poll"
)

// lockTime is how long one instance's verification keeps others from doing it
// too, at most.
const lockTime = 2 * time.Second

// directoryTime is how long the directory lasts after it was last added to.
const directoryTime = 24 * time.Hour

// tier is the shared tier as the cache and the poll use it.
type tier struct {
	*late
	client *memcached.Client

	mu    sync.Mutex
	known map[cache.Right]bool // guarded by mu; rights in the directory, as far as seen here
}

var (
	_ cache.Shared   = (*tier)(nil)
	_ poll.Directory = (*tier)(nil)
	_ poll.Stamps    = stamps{}
	_ poll.Hearsay   = (*tier)(nil)
)

// newTier returns the shared tier, or nil where none is configured.
func newTier(cfg config.Config, http *http.Client, log *slog.Logger) (*tier, error) {
	if !cfg.CacheEnable || len(cfg.Memcached) == 0 {
		return nil, nil
	}
	var keys *envelope.Keyring
	var unwrap func(context.Context) (*envelope.Keyring, error)
	var err error
	switch {
	case cfg.CacheKey != "":
		if keys, err = envelope.ParseKeys(string(cfg.CacheKey)); err != nil {
			return nil, fmt.Errorf("THAW_CACHE_KEY: %w", err)
		}
	case len(cfg.CacheKeyKMS) > 0:
		if unwrap, err = wrappedKeys(cfg, http, log); err != nil {
			return nil, err
		}
	default:
		return nil, errNoKey
	}
	o := memcached.Options{
		Nodes: cfg.Memcached, Discover: cfg.MemcachedDiscover, Timeout: cfg.MemcachedTimeout, IdleConn: cfg.IdleConn, Log: log,
	}
	if cfg.MemcachedTLS {
		o.TLS = &memcached.TLS{}
	}
	client, err := memcached.New(o)
	if err != nil {
		return nil, fmt.Errorf("THAW_MEMCACHED: %w", err)
	}
	options := memcached.TierOptions{
		Client: client, Keys: keys, Origin: strings.Join(cfg.Addrs, ","), Namespace: cfg.Namespace, Audience: cfg.Audience,
		Identity: identity(cfg.Auth, cfg.Namespace), MaxAge: cfg.MaxAge, Skew: cfg.ClockSkew, StaleIfError: cfg.StaleIfError,
		RefreshInterval: cfg.RefreshInterval, TTL: cfg.CacheTTL, NoShare: cfg.NoSharePaths, Log: log,
	}
	l := newLate(nil, log)
	if keys != nil {
		l.at.Store(memcached.NewTier(options))
	} else {
		l.open = func(ctx context.Context) (*memcached.Tier, error) {
			own := options
			var err error
			if own.Keys, err = unwrap(ctx); err != nil {
				return nil, err
			}
			return memcached.NewTier(own), nil
		}
	}
	return &tier{client: client, known: make(map[cache.Right]bool), late: l}, nil
}

// Keep stores what was read from the origin. Reading it verified it: its stamp
// goes along.
func (s *tier) Keep(ctx context.Context, records []cache.Record, grants map[cache.Right]time.Time) {
	s.late.Keep(ctx, records, grants)
	if len(records) == 0 {
		return
	}
	verified := make(map[cache.Key]memcached.Stamp, len(records))
	for _, r := range records {
		verified[r.Key] = memcached.Stamp{At: r.SentAt, Fingerprint: cache.Fingerprint(r.Status, r.Body)}
	}
	s.PutStamps(ctx, memcached.CursorStamp{}, verified)
	s.enter(ctx, records)
}

// The directory is one record with the rights that the audience's instances
// use, so that a cold one can ask for all of them in one call. Instances that
// write it at once may lose an entry to each other: that costs a later call.
const (
	directoryName = "rights"
	directorySize = 1000
	warmedName    = "warm-up/rights" // what the warm-up read, by it
)

// Known implements poll.Directory.
func (s *tier) Known(ctx context.Context) []cache.Right {
	used := s.used(ctx)
	var warmed []cache.Right
	if len(used) < directorySize && s.State(ctx, warmedName, &warmed) {
		used = append(used, warmed[:min(len(warmed), directorySize-len(used))]...)
	}
	return used
}

// used is what the audience's instances entered.
func (s *tier) used(ctx context.Context) []cache.Right {
	var list []cache.Right
	if !s.State(ctx, directoryName, &list) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range list {
		s.known[r] = true
	}
	return list
}

// enter adds the rights that records need to the directory.
func (s *tier) enter(ctx context.Context, records []cache.Record) {
	s.mu.Lock()
	added := false
	for _, r := range records {
		right := r.Key.Right()
		if r.Kind != cache.Preflight && !s.known[right] && len(s.known) < directorySize {
			s.known[right], added = true, true
		}
	}
	s.mu.Unlock()
	if !added {
		return
	}
	s.used(ctx) // what others entered meanwhile stays
	s.mu.Lock()
	list := make([]cache.Right, 0, len(s.known))
	for r := range s.known {
		list = append(list, r)
	}
	s.mu.Unlock()
	s.PutState(ctx, directoryName, list, directoryTime)
}

// stamps are the tier's as the poll uses them.
type stamps struct{ t *late }

// Stamps implements poll.Stamps.
func (s stamps) Stamps(ctx context.Context, keys []cache.Key) (poll.CursorStamp, map[cache.Key]poll.Stamp) {
	cursor, found := s.t.Stamps(ctx, keys)
	out := make(map[cache.Key]poll.Stamp, len(found))
	for k, v := range found {
		out[k] = poll.Stamp(v)
	}
	return poll.CursorStamp{At: cursor.At, Anchor: cache.Anchor{Applied: cursor.Committed, ActiveTime: cursor.ActiveTime}}, out
}

// PutCursor implements poll.Stamps.
func (s stamps) PutCursor(ctx context.Context, c poll.CursorStamp) {
	s.t.PutStamps(ctx, memcached.CursorStamp{At: c.At, Committed: c.Anchor.Applied, ActiveTime: c.Anchor.ActiveTime}, nil)
}

// Lock implements poll.Stamps.
func (s stamps) Lock(ctx context.Context, key cache.Key, turn int) bool {
	_, ok := s.t.Lock(ctx, "verify\x00"+strconv.Itoa(turn)+"\x00"+key.Namespace+"\x00"+key.Method()+"\x00"+key.Path+"\x00"+key.Query, lockTime)
	return ok
}

// hearsay is what is known of a cluster under one leader.
type hearsay struct {
	ActiveTime string `json:"active_time"`
	Forwards   bool   `json:"forwards"`
}

const hearsayName = "origin"

// Forwards implements poll.Hearsay.
func (s *tier) Forwards(ctx context.Context, activeTime string) (forwards, ok bool) {
	var h hearsay
	ok = s.State(ctx, hearsayName, &h) && h.ActiveTime == activeTime
	return ok && h.Forwards, ok
}

// SetForwards implements poll.Hearsay.
func (s *tier) SetForwards(ctx context.Context, activeTime string, forwards bool) {
	s.PutState(ctx, hearsayName, hearsay{activeTime, forwards}, directoryTime)
}

// awaitKey gets the key on hosts that do not freeze.
func (s *tier) awaitKey(ctx context.Context) {
	if s != nil {
		s.watch(ctx)
	}
}

// thawed is called at each INVOKE.
func (s *tier) thawed() {
	if s != nil {
		s.client.Thawed()
		s.wake()
	}
}

func (s *tier) close() {
	if s != nil {
		s.late.close()
		s.client.Close()
	}
}
