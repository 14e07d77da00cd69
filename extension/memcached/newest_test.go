package memcached

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

func TestTheNewerVerificationWins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	k := read("a")
	v := func(version int, age time.Duration) cache.Record {
		r := s.record(k, fmt.Sprint("v", version, " ", age), age)
		r.Version = version
		return r
	}
	kv1 := func(body string, age time.Duration) cache.Record {
		r := s.record(k, body, age)
		r.Kind, r.Version = cache.KV1, 0
		return r
	}
	for name, c := range map[string]struct {
		there, put cache.Record
		wins       bool
	}{
		"a later one":                      {v(1, 10*time.Second), v(2, 5*time.Second), true},
		"a late writer":                    {v(2, 5*time.Second), v(1, 10*time.Second), false},
		"a late writer, KV v1":             {kv1("new", time.Second), kv1("old", time.Second+1), false},
		"a later one, KV v1":               {kv1("old", time.Second+1), kv1("new", time.Second), true},
		"at the same time":                 {kv1("a", time.Second), kv1("b", time.Second), false},
		"a lower version, later (remade)":  {v(5, 10*time.Second), v(1, 5*time.Second), true},
		"a higher version, within skew":    {v(1, 2*time.Second), v(2, 3*time.Second), true},
		"a lower version, within skew":     {v(2, 3*time.Second), v(1, 2*time.Second), false},
		"a higher version, past the skew":  {v(1, 2*time.Second), v(2, 3*time.Second+1), false},
		"the same version, verified later": {v(2, 3*time.Second), v(2, 2*time.Second), true},
	} {
		must(t, s.m.Flush(t.Context()))
		tier := s.tier(t, nil)
		tier.Put(t.Context(), []cache.Record{c.there})
		tier.Put(t.Context(), []cache.Record{c.put})
		want := string(c.there.Body)
		if c.wins {
			want = string(c.put.Body)
		}
		if got := tier.body(t.Context(), k); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestARemovalStaysRemoved(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	k := read("a")
	for name, c := range map[string]struct {
		do   func(tier *Tier)
		want string
	}{
		"removed": {func(x *Tier) {
			x.Put(ctx, []cache.Record{s.record(k, "v", 2)})
			x.Remove(ctx, []cache.Key{k}, s.clk.now())
		}, "miss"},
		"never there, late writer": {func(x *Tier) {
			x.Remove(ctx, []cache.Key{k}, s.clk.now())
			x.Put(ctx, []cache.Record{s.record(k, "v", 1)})
		}, "miss"},
		"read when it was removed": {func(x *Tier) {
			x.Remove(ctx, []cache.Key{k}, s.clk.now())
			x.Put(ctx, []cache.Record{s.record(k, "v", 0)})
		}, "miss"},
		"read after it was removed": {func(x *Tier) {
			x.Remove(ctx, []cache.Key{k}, s.clk.now().Add(-1))
			x.Put(ctx, []cache.Record{s.record(k, "v", 0)})
		}, "v"},
		"removed before it was read": {func(x *Tier) {
			x.Put(ctx, []cache.Record{s.record(k, "v", 0)})
			x.Remove(ctx, []cache.Key{k}, s.clk.now().Add(-1))
		}, "v"},
		"removed as it was read": {func(x *Tier) {
			x.Put(ctx, []cache.Record{s.record(k, "v", 0)})
			x.Remove(ctx, []cache.Key{k}, s.clk.now())
		}, "miss"},
		"removed twice, backwards": {func(x *Tier) {
			x.Remove(ctx, []cache.Key{k}, s.clk.now())
			x.Remove(ctx, []cache.Key{k}, s.clk.now().Add(-10))
			x.Put(ctx, []cache.Record{s.record(k, "v", 5)})
		}, "miss"},
		"another key": {func(x *Tier) {
			x.Put(ctx, []cache.Record{s.record(k, "v", 2)})
			x.Remove(ctx, []cache.Key{read("b")}, s.clk.now())
		}, "v"},
		"put too large": {func(x *Tier) {
			x.Put(ctx, []cache.Record{s.record(k, "small", 2)})
			x.Put(ctx, []cache.Record{s.record(k, strings.Repeat("x", 1<<20), 1)})
		}, "miss"},
	} {
		must(t, s.m.Flush(ctx))
		tier := s.tier(t, nil)
		c.do(tier)
		if got := tier.body(ctx, k); got != c.want {
			t.Errorf("%s: %.20q, want %q", name, got, c.want)
		}
	}
}

func TestRemovingEndsStampsToo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	k := read("a")
	tier := s.tier(t, nil)
	now := s.clk.now()
	tier.PutStamps(ctx, cache.CursorStamp{At: now.Add(-3), Committed: 7, ActiveTime: "t"}, map[cache.Key]cache.Stamp{k: {At: now.Add(-3), Fingerprint: [32]byte{1}}})
	tier.Remove(ctx, []cache.Key{k}, now.Add(-2))
	tier.PutStamps(ctx, cache.CursorStamp{}, map[cache.Key]cache.Stamp{k: {At: now.Add(-3), Fingerprint: [32]byte{1}}})
	if _, st := tier.Stamps(ctx, []cache.Key{k}); st[k].Fingerprint != [32]byte{} {
		t.Errorf("a stamp from before the removal counts: %v", st)
	}
	tier.PutStamps(ctx, cache.CursorStamp{}, map[cache.Key]cache.Stamp{k: {At: now.Add(-1), Fingerprint: [32]byte{2}}})
	if c, st := tier.Stamps(ctx, []cache.Key{k}); st[k].Fingerprint != [32]byte{2} || c.Committed != 7 {
		t.Errorf("a stamp from after it does not: %v %v", c, st)
	}
	tier.PutStamps(ctx, cache.CursorStamp{At: now.Add(-1)}, nil)
	tier.PutStamps(ctx, cache.CursorStamp{At: now.Add(-2), Committed: 7, ActiveTime: "t"}, nil)
	if c, _ := tier.Stamps(ctx, nil); c != (cache.CursorStamp{}) {
		t.Errorf("a voided cursor counts: %v", c)
	}
}

func TestRevokedGrantsStayRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	r := cache.Capability{Path: "a"}
	now := s.clk.now()
	put := func(x *Tier, age time.Duration) {
		x.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: readAt(now.Add(-age))})
	}
	confirm := func(x *Tier, age time.Duration) {
		x.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: {Read: now.Add(-9 * time.Second), At: now.Add(-age)}})
	}
	revoke := func(x *Tier, age time.Duration) { x.Drop(ctx, nil, []cache.Capability{r}, now.Add(-age)) }
	for name, c := range map[string]struct {
		do   func(*Tier)
		want time.Duration // age; -1: none
	}{
		"confirmed":                   {func(x *Tier) { put(x, 2) }, 2},
		"no read, only confirmed":     {func(x *Tier) { revoke(x, 9*time.Second); confirm(x, 1) }, -1},
		"read, revoked, confirmed":    {func(x *Tier) { put(x, 9*time.Second); revoke(x, 5*time.Second); confirm(x, 1) }, -1},
		"confirmed with an old read":  {func(x *Tier) { put(x, 9*time.Second); confirm(x, 1) }, 1},
		"all of it revoked":           {func(x *Tier) { put(x, 2); x.EndAll(ctx, x.o.Identity, now.Add(-1)) }, -1},
		"its role revoked":            {func(x *Tier) { put(x, 2); x.EndAll(ctx, RoleEnd(x.o.Role), now.Add(-1)) }, -1},
		"another role revoked":        {func(x *Tier) { put(x, 2); x.EndAll(ctx, RoleEnd("another"), now.Add(-1)) }, 2},
		"all revoked, then given":     {func(x *Tier) { x.EndAll(ctx, x.o.Identity, now.Add(-5*time.Second)); put(x, 1) }, 1},
		"given within the skew":       {func(x *Tier) { revoke(x, time.Second); put(x, 1) }, -1},
		"confirmed again":             {func(x *Tier) { put(x, 2); put(x, 1) }, 1},
		"confirmed again, late":       {func(x *Tier) { put(x, 1); put(x, 2) }, 1},
		"revoked":                     {func(x *Tier) { put(x, 2); revoke(x, 1) }, -1},
		"revoked at the same time":    {func(x *Tier) { put(x, 1); revoke(x, 1); put(x, 1) }, -1},
		"revoked, late writer":        {func(x *Tier) { revoke(x, 1); put(x, 2) }, -1},
		"revoked, then given":         {func(x *Tier) { revoke(x, 3*time.Second); put(x, 1) }, 1},
		"given, then revoked earlier": {func(x *Tier) { put(x, 1); revoke(x, 3*time.Second) }, 1},
		"never":                       {func(*Tier) {}, -1},
	} {
		must(t, s.m.Flush(ctx))
		tier := s.tier(t, nil)
		c.do(tier)
		at, ok := tier.confirmed(ctx, []cache.Capability{r})[r]
		if ok != (c.want >= 0) || ok && !at.Equal(now.Add(-c.want)) {
			t.Errorf("%s: %v %v", name, at, ok)
		}
	}
}

// Many writers, in any order and all at once: the newest stays, and no reader
// ever sees one come back.
func TestRacingWritersLeaveTheNewest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	k := read("a")
	const writes = 60
	var records []cache.Record
	for i := range writes {
		r := s.record(k, fmt.Sprint(i), time.Duration(writes-i)*time.Millisecond)
		r.Kind, r.Version = cache.KV1, 0
		records = append(records, r)
	}
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	stop := make(chan struct{})
	var readers, wg sync.WaitGroup
	readers.Go(func() {
		tier := s.tier(t, nil)
		last := time.Time{}
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, ok := tier.Entries(ctx, []cache.Key{k})[k]
			if ok && r.SentAt.Before(last) {
				t.Errorf("%s came back", r.Body)
			}
			last = r.SentAt
		}
	})
	for w := range 4 {
		wg.Go(func() {
			tier := s.tier(t, nil)
			for i := w; i < writes; i += 4 {
				tier.Put(ctx, records[i:i+1])
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	if got := s.tier(t, nil).body(ctx, k); got != fmt.Sprint(writes-1) {
		t.Errorf("%s was left, want %d", got, writes-1)
	}
}

// A policy may look at the query, so the right to read with one is no right to
// read without it, nor the other way round.
func TestG2AGrantCountsForItsQueryOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	tier, now := s.tier(t, nil), s.clk.now()
	first := cache.Key{Path: "a", Query: "version=1"}
	keys := []cache.Key{first, {Path: "a", Query: "version=2"}, {Path: "a"}}
	tier.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{first.Capability(): readAt(now)})
	if _, grants := tier.Fetch(ctx, keys); len(grants) != 1 || grants[first.Capability()].At.IsZero() {
		t.Errorf("granted %v", grants)
	}
	tier.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{keys[2].Capability(): readAt(now)})
	tier.Drop(ctx, nil, []cache.Capability{first.Capability()}, now)
	if _, grants := tier.Fetch(ctx, keys); len(grants) != 2 || grants[first.Capability()].Ended.IsZero() || grants[keys[2].Capability()].At.IsZero() || !grants[keys[2].Capability()].Ended.IsZero() {
		t.Errorf("granted %v", grants)
	}
}
