package memcached

import (
	"context"
	"encoding/binary"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// asBefore is what a binary from before capabilities had a version keeps: nine
// bytes of the kind "grant", whether it was revoked, and when.
func (t *Tier) asBefore(p cache.Capability) (at place, record func(revoked bool, at time.Time) []byte) {
	return t.place("grant", t.o.Identity, p.Namespace, p.Path, "read"), func(revoked bool, at time.Time) []byte {
		out := []byte{0}
		if revoked {
			out[0] = 1
		}
		return binary.BigEndian.AppendUint64(out, uint64(at.UnixNano()))
	}
}

// TestG2OldAndNewBinariesTakeNoCapabilityOfEachOthers: one upgrades, and rolls back.
func TestG2OldAndNewBinariesTakeNoCapabilityOfEachOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	tier, p, now := s.tier(t, nil), cache.Capability{Path: "a"}, s.clk.now()
	at, record := tier.asBefore(p)
	for _, revoked := range []bool{false, true} {
		must(t, s.m.Flush(ctx))
		must(t, s.c.Set(ctx, at.names[0], at.sealer.Seal(at.aad, record(revoked, now)), time.Hour))
		if got := tier.Capabilities(ctx, tier.o.Identity, tier.o.Role, []cache.Capability{p}); len(got) != 0 {
			t.Errorf("an old record counts: %v", got)
		}
		tier.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{p: readAt(now)})
		if got := tier.confirmed(ctx, []cache.Capability{p}); len(got) != 1 {
			t.Errorf("beside an old record, revoked %v: %v", revoked, got)
		}
		// A rollback finds its own record, and no other.
		if found := opened(tier.load(ctx, []place{at})[0]); len(found) != 1 || len(found[0]) != 9 {
			t.Errorf("the old binary finds %q", found)
		}
		must(t, s.c.Delete(ctx, at.names[0]))
		if found := opened(tier.load(ctx, []place{at})[0]); len(found) != 0 {
			t.Errorf("the old binary finds the new record: %q", found)
		}
	}
	// A record under our name, of a version that is not known.
	mine := tier.capabilityPlace(tier.o.Identity, p)
	later := encodeCapability(readAt(now))
	later[0]++
	must(t, s.c.Set(ctx, mine.names[0], mine.sealer.Seal(mine.aad, later), time.Hour))
	if got := tier.Capabilities(ctx, tier.o.Identity, tier.o.Role, []cache.Capability{p}); len(got) != 0 {
		t.Errorf("a record of another version counts: %v", got)
	}
}

// TestG2AnEndThatMemcachedDidNotTakeIsWrittenAgain: with whatever comes next.
func TestG2AnEndThatMemcachedDidNotTakeIsWrittenAgain(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(context.Context, *Tier){
		"a read":    func(ctx context.Context, x *Tier) { x.Fetch(ctx, []cache.Key{read("other")}) },
		"a record":  func(ctx context.Context, x *Tier) { x.Keep(ctx, nil, nil) },
		"a removal": func(ctx context.Context, x *Tier) { x.Drop(ctx, nil, nil, time.Time{}) },
	} {
		s := newSite(t)
		ctx := t.Context()
		var away atomic.Bool
		cut := client(t, Options{Nodes: []string{s.m.Addr()}, Now: s.clk.now, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if away.Load() {
				return nil, context.DeadlineExceeded
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}})
		writer, reader := s.tier(t, func(o *TierOptions) { o.Client = cut }), s.tier(t, nil)
		p := cache.Capability{Path: "a"}
		writer.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{p: readAt(s.clk.now().Add(-time.Minute))})
		away.Store(true)
		writer.o.Client.Thawed() // no connection is left
		s.clk.advance(time.Hour)
		cut.Thawed()
		writer.Drop(ctx, nil, []cache.Capability{p}, s.clk.now().Add(-time.Second))
		if got := reader.confirmed(ctx, []cache.Capability{p}); len(got) != 1 {
			t.Fatalf("%s: %v before it was written", name, got)
		}
		away.Store(false)
		s.clk.advance(time.Hour) // the breaker is closed again
		next(ctx, writer)
		next(ctx, writer)
		if got := reader.confirmed(ctx, []cache.Capability{p}); len(got) != 0 {
			t.Errorf("%s: the end was lost: %v", name, got)
		}
	}
}

// TestG2AListIsItsIdentitysAlone: an origin may show each identity another one. The
// warm-up is no identity of the audience, so nobody gets its lists.
func TestG2AListIsItsIdentitysAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	list := cache.Key{Path: "secret/metadata/app", Op: cache.List}
	as := func(identity string) *Tier { return s.tier(t, func(o *TierOptions) { o.Identity = identity }) }
	as("broad").Put(ctx, []cache.Record{s.record(list, "all", 0), s.record(read("a"), "v", 0)})
	as("").Put(ctx, []cache.Record{s.record(list, "all of the warm-up", 0)})
	for identity, want := range map[string]string{"broad": "all", "narrow": "miss", "": "all of the warm-up"} {
		if got := as(identity).body(ctx, list); got != want {
			t.Errorf("%q gets the list %q, want %q", identity, got, want)
		}
		if got := as(identity).body(ctx, read("a")); got != "v" {
			t.Errorf("%q gets the secret %q", identity, got)
		}
	}
	as("narrow").Put(ctx, []cache.Record{s.record(list, "few", 0)})
	as("narrow").PutStamps(ctx, cache.CursorStamp{}, map[cache.Key]cache.Stamp{list: {At: s.clk.now(), Fingerprint: [32]byte{1}}})
	if _, stamps := as("broad").Stamps(ctx, []cache.Key{list}); len(stamps) != 0 {
		t.Errorf("a stamp of another's list: %v", stamps)
	}
	if got := as("broad").body(ctx, list); got != "all" {
		t.Errorf("replaced by another's list: %q", got)
	}
}
