package tier

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
)

// Index names what the audience's identities hold, since memcached cannot be
// listed: one record has the identities, and each identity one record with its
// capabilities. What is known of those is in their own records. So a cold instance
// confirms all of its identity's capabilities in one call, and the warm-up knows what
// to back up.
type Index struct {
	Records Merger
	Keep    time.Duration // how long a record lasts after it was last written
	Now     func() time.Time

	mu      sync.Mutex
	entered map[cache.Capability]time.Time // guarded by mu; when this process last saw to it that a capability is in the index
}

// Merger keeps records that several write.
type Merger interface {
	Merged(ctx context.Context, name string) [][]byte
	Merge(ctx context.Context, name string, ttl time.Duration, merge func(old [][]byte) []byte) error
}

// Bounds of the index.
const (
	maxIndexed    = 1000 // capabilities of an identity
	maxIdentities = 1000
	lookAgain     = 5 * time.Minute // whether memcached still names a capability: it may have lost everything
)

// Names of its records, with the version of their form.
const (
	identitiesName   = "identities/1"
	capabilitiesName = "capabilities/1/" // and the identity's name
)

// Lasting is how long a capability, and what names it, is kept.
func Lasting(cfg config.Config) time.Duration { return max(cfg.RefreshInterval, cfg.StaleIfError) }

// Enter sees to it that an identity's capabilities are in the index.
func (x *Index) Enter(ctx context.Context, who Identity, held []cache.Capability) {
	now := x.Now()
	x.mu.Lock()
	if x.entered == nil {
		x.entered = make(map[cache.Capability]time.Time)
	}
	missing := slices.DeleteFunc(held, func(p cache.Capability) bool {
		at, ok := x.entered[p]
		young := clock.Within(at, now, lookAgain)
		if !young && (ok || len(x.entered) < maxIndexed) {
			x.entered[p] = now
		}
		return young
	})
	x.mu.Unlock()
	if len(missing) > 0 {
		add(ctx, x, capabilitiesName+who.Name, missing, maxIndexed)
		add(ctx, x, identitiesName, []Identity{who}, maxIdentities)
	}
}

// Identities are those of the audience.
func (x *Index) Identities(ctx context.Context) []Identity {
	return listed[Identity](x.Records.Merged(ctx, identitiesName)).Names
}

// Of are the capabilities that an identity may hold.
func (x *Index) Of(ctx context.Context, who Identity) []cache.Capability {
	return listed[cache.Capability](x.Records.Merged(ctx, capabilitiesName+who.Name)).Names
}

// list is a record: some names, and when it was last written.
type list[T comparable] struct {
	At    time.Time `json:"at"`
	Names []T       `json:"names"`
}

// listed is what records say together.
func listed[T comparable](records [][]byte) (out list[T]) {
	for _, raw := range records {
		var l list[T]
		if json.Unmarshal(raw, &l) != nil {
			continue
		}
		if l.At.After(out.At) {
			out.At = l.At
		}
		out.Names = united(out.Names, l.Names)
	}
	return out
}

// united is what two lists name, each once.
func united[T comparable](names, more []T) []T {
	for _, name := range more {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// add adds names to a record, unless they are in it and it lasts for long. Of too
// many the oldest go.
func add[T comparable](ctx context.Context, x *Index, name string, more []T, most int) {
	now := clock.Wall(x.Now())
	_ = x.Records.Merge(ctx, name, x.Keep, func(old [][]byte) []byte { // what is lost is entered by another
		l := listed[T](old)
		known := len(l.Names)
		l.Names = united(l.Names, more)
		if now.Sub(l.At) < x.Keep/2 && len(l.Names) == known {
			return nil
		}
		l.At, l.Names = now, l.Names[max(0, len(l.Names)-most):]
		raw, _ := json.Marshal(l) // texts and flags, so it never fails
		return raw
	})
}
