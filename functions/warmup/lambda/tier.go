package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/kms"
	"github.com/thaw-project/thaw/extension/memcached"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
	"github.com/thaw-project/thaw/functions/warmup"
)

// patience is how long a call of memcached may take here, where nobody waits
// for a read: what is late would have to be read from the origin again.
const patience = time.Second

func openMemcached(cfg config.Config, log *slog.Logger) (*memcached.Client, error) {
	o := memcached.Options{
		Nodes: cfg.Memcached, Discover: cfg.MemcachedDiscover, Timeout: max(cfg.MemcachedTimeout, patience),
		IdleConn: cfg.IdleConn, Log: log,
	}
	if cfg.MemcachedTLS {
		o.TLS = &memcached.TLS{}
	}
	c, err := memcached.New(o)
	if err != nil {
		return nil, fmt.Errorf("THAW_MEMCACHED: %w", err)
	}
	return c, nil
}

// openAudiences opens the tier of each audience.
// A key that KMS encrypted is decrypted here, for each audience that has none
// of its own, with that audience in the encryption context.
func openAudiences(cfg config.Config, client *memcached.Client, outside *http.Client, log *slog.Logger) ([]warmup.Audience, map[string]warmup.Sealer, error) {
	rows := cfg.Warm.Audiences
	if len(rows) == 0 {
		rows = []config.WarmAudience{{Audience: cfg.Audience, Namespace: cfg.Namespace, Paths: cfg.Warm.Paths}}
	}
	var list []warmup.Audience
	sealers := make(map[string]warmup.Sealer)
	for _, row := range rows {
		key := row.Key
		if key == "" {
			key = cfg.CacheKey
		}
		var ring *envelope.Keyring
		var err error
		switch {
		case key != "":
			ring, err = envelope.ParseKeys(string(key))
		case len(cfg.CacheKeyKMS) > 0:
			ring, err = unwrap(cfg, row.Audience, outside, log)
		default:
			err = errors.New("is missing: give each audience its key in THAW_WARM_AUDIENCES, or set THAW_CACHE_KEY or THAW_CACHE_KEY_KMS")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("audience %s: the key %w", row.Audience, err)
		}
		origin := strings.Join(cfg.Addrs, ",")
		t := memcached.NewTier(memcached.TierOptions{
			Client: client, Keys: ring, Origin: origin, Namespace: row.Namespace, Audience: row.Audience,
			MaxAge: cfg.MaxAge, Skew: cfg.ClockSkew, StaleIfError: cfg.StaleIfError, RefreshInterval: cfg.RefreshInterval,
			TTL: cfg.CacheTTL, NoShare: cfg.NoSharePaths, Log: log,
		})
		list = append(list, warmup.Audience{
			Name: row.Audience, Namespace: row.Namespace, Prefixes: row.Paths,
			Store: store{t}, Ledger: ledger{t}, Marks: marks{t},
		})
		sealers[row.Audience] = ring.Audience(envelope.Join("backup", origin, row.Namespace, row.Audience))
	}
	return list, sealers, nil
}

// keyTime bounds KMS's part of the start.
const keyTime = 10 * time.Second

// unwrap has KMS decrypt an audience's keys.
func unwrap(cfg config.Config, audience string, outside *http.Client, log *slog.Logger) (*envelope.Keyring, error) {
	creds, err := auth.AWSCredentials(auth.Options{AWS: cfg.Platform.AWS, HTTP: outside, Log: log})
	if err != nil {
		return nil, fmt.Errorf("in THAW_CACHE_KEY_KMS: %w", err)
	}
	client, err := kms.New(kms.Options{AWS: cfg.Platform.AWS, Region: cfg.Platform.Region, Credentials: creds, HTTP: outside})
	if err != nil {
		return nil, fmt.Errorf("in THAW_CACHE_KEY_KMS: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), keyTime)
	defer cancel()
	keys, err := client.DataKeys(ctx, cfg.CacheKeyKMS, audience)
	if err != nil {
		return nil, fmt.Errorf("in THAW_CACHE_KEY_KMS: %w", err)
	}
	defer clear(keys)
	return envelope.NewKeyring(keys...)
}

// The adapters between the tier and what the warm-up asks of it.
type (
	store  struct{ t *memcached.Tier }
	ledger struct{ t *memcached.Tier }
	marks  struct{ t *memcached.Tier }
)

func (s store) Entries(ctx context.Context, keys []cache.Key) map[cache.Key]cache.Record {
	found := s.t.Entries(ctx, keys)
	out := make(map[cache.Key]cache.Record, len(found))
	for k, r := range found {
		out[k] = cache.Record(r)
	}
	return out
}

func (s store) Put(ctx context.Context, records []cache.Record) {
	list := make([]memcached.Record, len(records))
	for i, r := range records {
		list[i] = memcached.Record(r)
	}
	s.t.Put(ctx, list)
}

func (s store) Remove(ctx context.Context, keys []cache.Key, at time.Time) { s.t.Remove(ctx, keys, at) }

func (l ledger) State(ctx context.Context, name string, into any) bool {
	return l.t.State(ctx, name, into)
}

func (l ledger) PutState(ctx context.Context, name string, v any, ttl time.Duration) {
	l.t.PutState(ctx, name, v, ttl)
}

func (l ledger) Lock(ctx context.Context, name string, ttl time.Duration) (warmup.Lease, bool) {
	return l.t.Lock(ctx, name, ttl)
}

func (m marks) PutStamps(ctx context.Context, cursor warmup.CursorStamp, entries map[cache.Key]warmup.Stamp) {
	stamps := make(map[cache.Key]memcached.Stamp, len(entries))
	for k, s := range entries {
		stamps[k] = memcached.Stamp(s)
	}
	m.t.PutStamps(ctx, memcached.CursorStamp(cursor), stamps)
}

// What the extension keeps in the same tier (extension/tier.go): the rights
// that its instances use, and what the origin is while one node leads.
const (
	directoryName = "rights"
	hearsayName   = "origin"
	hearsayTime   = 24 * time.Hour
)

func (m marks) Used(ctx context.Context) map[cache.Right]bool {
	var list []cache.Right
	if !m.t.State(ctx, directoryName, &list) {
		return nil
	}
	out := make(map[cache.Right]bool, len(list))
	for _, r := range list {
		out[r] = true
	}
	return out
}

func (m marks) Learned(ctx context.Context, activeTime string, forwards bool) {
	m.t.PutState(ctx, hearsayName, struct {
		ActiveTime string `json:"active_time"`
		Forwards   bool   `json:"forwards"`
	}{activeTime, forwards}, hearsayTime)
}
