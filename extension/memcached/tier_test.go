package memcached

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
	"github.com/thaw-project/thaw/tests/harness"
)

func keyring(t testing.TB, keys ...byte) *envelope.Keyring {
	t.Helper()
	var all [][envelope.KeySize]byte
	for _, b := range keys {
		all = append(all, [envelope.KeySize]byte(bytes.Repeat([]byte{b}, envelope.KeySize)))
	}
	k, err := envelope.NewKeyring(all...)
	must(t, err)
	return k
}

// site is a memcached, a client of it, and a clock.
type site struct {
	m   *harness.Memcached
	c   *Client
	clk *clock
}

func newSite(t testing.TB) *site {
	t.Helper()
	real(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	clk := newClock()
	return &site{m, client(t, Options{Nodes: []string{m.Addr()}, Now: clk.now}), clk}
}

// tier makes one; change alters its options.
func (s *site) tier(t testing.TB, change func(*TierOptions)) *Tier {
	t.Helper()
	o := TierOptions{
		Client: s.c, Keys: keyring(t, 1), Origin: "https://vault:8200", Audience: "prod", Identity: "aws/app",
		MaxAge: time.Minute, Skew: time.Second, StaleIfError: time.Hour, RefreshInterval: 5 * time.Minute, TTL: time.Hour, Now: s.clk.now,
	}
	if change != nil {
		change(&o)
	}
	return NewTier(o)
}

func read(path string) cache.Key { return cache.Key{Path: path} }

func (s *site) record(k cache.Key, body string, age time.Duration) Record {
	sent := s.clk.now().Add(-age)
	return Record{
		Key: k, Kind: cache.Data, Status: 200, Header: http.Header{"Content-Type": {"application/json"}, "X-Two": {"a", "b"}},
		Date: "Sat, 21 Nov 2026 08:01:58 GMT", Body: []byte(body), Version: 3, FetchedAt: sent.Add(-time.Minute), SentAt: sent,
		Anchor: cache.Anchor{Applied: 37, ActiveTime: "2026-11-21T07:59:40.873986362Z", FirstSeen: sent.Add(-time.Hour)},
	}
}

func (t *Tier) body(ctx context.Context, k cache.Key) string {
	r, ok := t.Entries(ctx, []cache.Key{k})[k]
	if !ok {
		return "miss"
	}
	return string(r.Body)
}

func TestEntriesComeBackAsTheyWerePut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.tier(t, nil), s.tier(t, nil) // two instances
	var records []Record
	for i, k := range []cache.Key{
		read("secret/data/app"), {Path: "secret/data/app", Query: "version=2"}, {Path: "secret/metadata/app", Op: cache.List}, {Path: "secret/metadata/app"},
		{Namespace: "team", Path: "secret/data/app"}, read("kv/a b ü\t"), read(strings.Repeat("long/", 400) + "x"),
	} {
		r := s.record(k, fmt.Sprintf(`{"n":%d}`, i), time.Second)
		r.Kind = cache.Kind(1 + i%6)
		records = append(records, r)
	}
	records[1].Status, records[1].Body = 404, nil
	records[2].Expires = s.clk.now().Add(time.Minute)
	records[3].Anchor, records[3].Header, records[3].Version = cache.Anchor{}, nil, 0
	a.Put(t.Context(), records)
	var keys []cache.Key
	for _, r := range records {
		keys = append(keys, r.Key)
	}
	got := b.Entries(t.Context(), append(keys, read("secret/data/other"), read("secret/data/app/")))
	if len(got) != len(records) {
		t.Errorf("%d of %d", len(got), len(records))
	}
	for _, want := range records {
		r := got[want.Key]
		for _, times := range [][2]*time.Time{{&r.SentAt, &want.SentAt}, {&r.FetchedAt, &want.FetchedAt}, {&r.Expires, &want.Expires}, {&r.Anchor.FirstSeen, &want.Anchor.FirstSeen}} {
			if !times[0].Equal(*times[1]) {
				t.Errorf("%v: a time came back as %v, was %v", want.Key, times[0], times[1])
			}
			*times[0] = *times[1]
		}
		if len(r.Body) == 0 && len(want.Body) == 0 {
			r.Body = want.Body
		}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("got  %+v\nwant %+v", r, want)
		}
	}
}

// What differs in anything that tells records apart shares nothing.
func TestG3NothingCrossesAudiencesNamespacesOrKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.tier(t, nil).Put(t.Context(), []Record{s.record(read("secret/data/app"), "mine", 0)})
	for name, change := range map[string]func(*TierOptions){
		"audience":  func(o *TierOptions) { o.Audience = "dev" },
		"origin":    func(o *TierOptions) { o.Origin = "https://vault:8201" },
		"namespace": func(o *TierOptions) { o.Namespace = "team" },
		"key":       func(o *TierOptions) { o.Keys = keyring(t, 2) },
		"moved":     func(o *TierOptions) { o.Origin, o.Namespace = "https://vault", ":8200" },
	} {
		if got := s.tier(t, change).body(t.Context(), read("secret/data/app")); got != "miss" {
			t.Errorf("another %s read %q", name, got)
		}
	}
	for _, k := range []cache.Key{
		{Path: "secret/data/app", Op: cache.List}, {Path: "secret/data/app", Query: "version=1"}, {Path: "secret/data/ap"}, {Path: "secret/data/App"},
		{Namespace: "secret", Path: "data/app"}, {Namespace: "ns", Path: "secret/data/app"}, {Path: "secret/data/app", Personal: 7}, {Path: "secret/data/appGET"},
	} {
		if got := s.tier(t, nil).body(t.Context(), k); got != "miss" {
			t.Errorf("%+v read %q", k, got)
		}
	}
	if got := s.tier(t, func(o *TierOptions) { o.Identity = "other"; o.MaxAge = 0 }).body(t.Context(), read("secret/data/app")); got != "mine" {
		t.Errorf("another identity of the audience, which may hold a grant of its own, got %q", got)
	}
}

func TestG2AGrantOfAnotherIdentityNeverCounts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	mine := s.tier(t, nil)
	now := s.clk.now()
	right := cache.Right{Path: "secret/data/app"}
	mine.PutGrants(t.Context(), map[cache.Right]time.Time{right: now})
	if got := mine.Grants(t.Context(), []cache.Right{right}); !got[right].Equal(now) {
		t.Fatalf("%v", got)
	}
	for name, change := range map[string]func(*TierOptions){
		"identity": func(o *TierOptions) { o.Identity = "aws/other" }, "no identity": func(o *TierOptions) { o.Identity = "" },
		"audience": func(o *TierOptions) { o.Audience = "dev" }, "key": func(o *TierOptions) { o.Keys = keyring(t, 9) },
		"moved": func(o *TierOptions) { o.Audience, o.Identity = "prodaws/", "app" },
	} {
		if got := s.tier(t, change).Grants(t.Context(), []cache.Right{right}); len(got) != 0 {
			t.Errorf("another %s has %v", name, got)
		}
	}
	for _, r := range []cache.Right{{Path: right.Path, List: true}, {Namespace: "ns", Path: right.Path}, {Path: "secret/data/ap"}} {
		if got := mine.Grants(t.Context(), []cache.Right{r}); len(got) != 0 {
			t.Errorf("%+v has %v", r, got)
		}
	}
}

// raw gives and takes values in memcached without a tier.
func (s *site) dump(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := s.m.Keys(t.Context())
	must(t, err)
	items, err := s.c.GetMulti(t.Context(), names)
	must(t, err)
	out := map[string][]byte{}
	for k, it := range items {
		out[k] = it.Value
	}
	return out
}

// Whoever can write to memcached, and has no key, makes misses: every byte of
// every kind of value flipped, cut anywhere, and every value under every name.
func TestG5TamperingMakesMisses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tier := s.tier(t, nil)
	other := s.tier(t, func(o *TierOptions) { o.Audience = "dev" })
	ns := s.tier(t, func(o *TierOptions) { o.Namespace = "team" })
	ctx := t.Context()
	now := s.clk.now()
	keys := []cache.Key{read("a"), read("b"), {Path: "a", Query: "version=1"}, {Path: "a", Op: cache.List}, {Namespace: "n", Path: "a"}}
	rights := []cache.Right{{Path: "a"}, {Path: "b"}, {Path: "a", List: true}}
	for _, x := range []*Tier{tier, other, ns} {
		for _, k := range keys {
			x.Put(ctx, []Record{s.record(k, fmt.Sprintf("%s %+v", x.o.Audience+x.o.Namespace, k), 0)})
			x.PutStamps(ctx, CursorStamp{now, 7, "t"}, map[cache.Key]Stamp{k: {now, [32]byte{byte(len(k.Path))}}})
		}
		for _, r := range rights {
			x.PutGrants(ctx, map[cache.Right]time.Time{r: now})
		}
		x.PutState(ctx, "s", x.o.Audience, time.Hour)
	}
	// answers is all that the tier believes, as text.
	answers := func() map[string]string {
		out := map[string]string{}
		for k, r := range tier.Entries(ctx, keys) {
			out[fmt.Sprint("entry", k)] = string(r.Body) + fmt.Sprint(r.SentAt.UnixNano())
		}
		for r, at := range tier.Grants(ctx, rights) {
			out[fmt.Sprint("grant", r)] = fmt.Sprint(at.UnixNano())
		}
		cursor, stamps := tier.Stamps(ctx, keys)
		if cursor != (CursorStamp{}) {
			out["cursor"] = fmt.Sprint(cursor)
		}
		for k, st := range stamps {
			out[fmt.Sprint("stamp", k)] = fmt.Sprint(st)
		}
		var v string
		if tier.State(ctx, "s", &v) {
			out["state"] = v
		}
		return out
	}
	whole, truth := s.dump(t), answers()
	if len(truth) != 2*len(keys)+len(rights)+2 || len(whole) != 3*len(truth) {
		t.Fatalf("%d answers of %d values", len(truth), len(whole))
	}
	believe := func(what string) {
		t.Helper()
		for k, v := range answers() {
			if truth[k] != v {
				t.Fatalf("%s: %s is believed to be %q, was %q", what, k, v, truth[k])
			}
		}
	}
	names := make([]string, 0, len(whole))
	for name := range whole {
		names = append(names, name)
	}
	slices.Sort(names)
	set := func(name string, v []byte) { must(t, s.c.Set(ctx, name, v, time.Hour)) }

	// Every value under every other name, all names of a round at once.
	for shift := 1; shift < len(names); shift++ {
		for i, name := range names {
			set(name, whole[names[(i+shift)%len(names)]])
		}
		if got := answers(); len(got) != 0 {
			t.Fatalf("values moved by %d names: believed %v", shift, got)
		}
	}
	// Bytes flipped, in all values at once; the longest says how often.
	longest := 0
	for _, v := range whole {
		longest = max(longest, len(v))
	}
	for i := range longest {
		for _, name := range names {
			v := bytes.Clone(whole[name])
			v[i%len(v)] ^= byte(1 << rand.IntN(8))
			set(name, v)
		}
		if got := answers(); len(got) != 0 {
			t.Fatalf("byte %d flipped: believed %v", i, got)
		}
		for _, name := range names {
			set(name, whole[name][:i%len(whole[name])])
		}
		if got := answers(); len(got) != 0 {
			t.Fatalf("cut at %d: believed %v", i, got)
		}
	}
	// Names flipped: a value under a name that nobody asks for.
	must(t, s.m.Flush(ctx))
	for _, name := range names {
		b := []byte(name)
		b[len(b)-1] ^= 1
		set(string(b), whole[name])
	}
	if got := answers(); len(got) != 0 {
		t.Fatalf("names flipped: believed %v", got)
	}
	// Noise, and values of the kind's right length.
	for range 50 {
		for _, name := range names {
			v := make([]byte, len(whole[name]))
			for i := range v {
				v[i] = byte(rand.Uint32())
			}
			copy(v, whole[name][:9]) // the version and the key ID are no secret
			set(name, v)
		}
		if got := answers(); len(got) != 0 {
			t.Fatalf("noise: believed %v", got)
		}
	}
	// Writers go over what does not open, and everything is as before.
	for _, k := range keys {
		tier.Put(ctx, []Record{s.record(k, fmt.Sprintf("%s %+v", "prod", k), 0)})
	}
	believe("after writing again")
	if got := tier.Entries(ctx, keys); len(got) != len(keys) {
		t.Errorf("%d of %d entries after writing over noise", len(got), len(keys))
	}
	if tier.Stats().Unsealed == 0 {
		t.Error("nobody counted")
	}
}

// A value that was put back is the old one, with its old times: it never passes
// for verified later than it was.
func TestAReplayedValueKeepsItsTimes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tier := s.tier(t, nil)
	ctx := t.Context()
	k, right := read("a"), cache.Right{Path: "a"}
	first := s.record(k, "old", 0)
	tier.Put(ctx, []Record{first})
	tier.PutStamps(ctx, CursorStamp{first.SentAt, 7, "t"}, map[cache.Key]Stamp{k: {first.SentAt, [32]byte{1}}})
	tier.PutGrants(ctx, map[cache.Right]time.Time{right: first.SentAt})
	old := s.dump(t)
	s.clk.advance(10 * time.Minute)
	tier.Put(ctx, []Record{s.record(k, "new", 0)})
	for name, v := range old {
		must(t, s.c.Set(ctx, name, v, 24*time.Hour))
	}
	if r := tier.Entries(ctx, []cache.Key{k})[k]; string(r.Body) != "old" || !r.SentAt.Equal(first.SentAt) {
		t.Errorf("%q of %v", r.Body, r.SentAt)
	}
	if c, st := tier.Stamps(ctx, []cache.Key{k}); c != (CursorStamp{}) || len(st) != 0 {
		t.Errorf("stamps put back count: %v %v", c, st)
	}
	if got := tier.Grants(ctx, []cache.Right{right}); len(got) != 0 {
		t.Errorf("a grant put back counts: %v", got)
	}
	tier.Put(ctx, []Record{s.record(k, "new", 0)})
	if got := tier.body(ctx, k); got != "new" {
		t.Errorf("a value put back stays: %q", got)
	}
}

func TestTheNewerVerificationWins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	k := read("a")
	v := func(version int, age time.Duration) Record {
		r := s.record(k, fmt.Sprint("v", version, " ", age), age)
		r.Version = version
		return r
	}
	kv1 := func(body string, age time.Duration) Record {
		r := s.record(k, body, age)
		r.Kind, r.Version = cache.KV1, 0
		return r
	}
	for name, c := range map[string]struct {
		there, put Record
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
		tier.Put(t.Context(), []Record{c.there})
		tier.Put(t.Context(), []Record{c.put})
		want := string(c.there.Body)
		if c.wins {
			want = string(c.put.Body)
		}
		if got := tier.body(t.Context(), k); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if (tier.Stats().Lost == 1) == c.wins {
			t.Errorf("%s: %+v", name, tier.Stats())
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
		"removed":                  {func(x *Tier) { x.Put(ctx, []Record{s.record(k, "v", 2)}); x.Remove(ctx, []cache.Key{k}, s.clk.now()) }, "miss"},
		"never there, late writer": {func(x *Tier) { x.Remove(ctx, []cache.Key{k}, s.clk.now()); x.Put(ctx, []Record{s.record(k, "v", 1)}) }, "miss"},
		"read when it was removed": {func(x *Tier) { x.Remove(ctx, []cache.Key{k}, s.clk.now()); x.Put(ctx, []Record{s.record(k, "v", 0)}) }, "miss"},
		"read after it was removed": {func(x *Tier) {
			x.Remove(ctx, []cache.Key{k}, s.clk.now().Add(-1))
			x.Put(ctx, []Record{s.record(k, "v", 0)})
		}, "v"},
		"removed before it was read": {func(x *Tier) {
			x.Put(ctx, []Record{s.record(k, "v", 0)})
			x.Remove(ctx, []cache.Key{k}, s.clk.now().Add(-1))
		}, "v"},
		"removed as it was read": {func(x *Tier) { x.Put(ctx, []Record{s.record(k, "v", 0)}); x.Remove(ctx, []cache.Key{k}, s.clk.now()) }, "miss"},
		"removed twice, backwards": {func(x *Tier) {
			x.Remove(ctx, []cache.Key{k}, s.clk.now())
			x.Remove(ctx, []cache.Key{k}, s.clk.now().Add(-10))
			x.Put(ctx, []Record{s.record(k, "v", 5)})
		}, "miss"},
		"another key": {func(x *Tier) {
			x.Put(ctx, []Record{s.record(k, "v", 2)})
			x.Remove(ctx, []cache.Key{read("b")}, s.clk.now())
		}, "v"},
		"put too large": {func(x *Tier) {
			x.Put(ctx, []Record{s.record(k, "small", 2)})
			x.Put(ctx, []Record{s.record(k, strings.Repeat("x", 1<<20), 1)})
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
	tier.PutStamps(ctx, CursorStamp{now.Add(-3), 7, "t"}, map[cache.Key]Stamp{k: {now.Add(-3), [32]byte{1}}})
	tier.Remove(ctx, []cache.Key{k}, now.Add(-2))
	tier.PutStamps(ctx, CursorStamp{}, map[cache.Key]Stamp{k: {now.Add(-3), [32]byte{1}}})
	if _, st := tier.Stamps(ctx, []cache.Key{k}); st[k].Fingerprint != [32]byte{} {
		t.Errorf("a stamp from before the removal counts: %v", st)
	}
	tier.PutStamps(ctx, CursorStamp{}, map[cache.Key]Stamp{k: {now.Add(-1), [32]byte{2}}})
	if c, st := tier.Stamps(ctx, []cache.Key{k}); st[k].Fingerprint != [32]byte{2} || c.Committed != 7 {
		t.Errorf("a stamp from after it does not: %v %v", c, st)
	}
	tier.PutStamps(ctx, CursorStamp{At: now.Add(-1)}, nil)
	tier.PutStamps(ctx, CursorStamp{now.Add(-2), 7, "t"}, nil)
	if c, _ := tier.Stamps(ctx, nil); c != (CursorStamp{}) {
		t.Errorf("a voided cursor counts: %v", c)
	}
}

func TestRevokedGrantsStayRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	r := cache.Right{Path: "a"}
	now := s.clk.now()
	put := func(x *Tier, age time.Duration) { x.PutGrants(ctx, map[cache.Right]time.Time{r: now.Add(-age)}) }
	revoke := func(x *Tier, age time.Duration) { x.RevokeGrants(ctx, []cache.Right{r}, now.Add(-age)) }
	for name, c := range map[string]struct {
		do   func(*Tier)
		want time.Duration // age; -1: none
	}{
		"confirmed":                   {func(x *Tier) { put(x, 2) }, 2},
		"confirmed again":             {func(x *Tier) { put(x, 2); put(x, 1) }, 1},
		"confirmed again, late":       {func(x *Tier) { put(x, 1); put(x, 2) }, 1},
		"revoked":                     {func(x *Tier) { put(x, 2); revoke(x, 1) }, -1},
		"revoked at the same time":    {func(x *Tier) { put(x, 1); revoke(x, 1); put(x, 1) }, -1},
		"revoked, late writer":        {func(x *Tier) { revoke(x, 1); put(x, 2) }, -1},
		"revoked, then given":         {func(x *Tier) { revoke(x, 2); put(x, 1) }, 1},
		"given, then revoked earlier": {func(x *Tier) { put(x, 1); revoke(x, 2) }, 1},
		"never":                       {func(*Tier) {}, -1},
	} {
		must(t, s.m.Flush(ctx))
		tier := s.tier(t, nil)
		c.do(tier)
		at, ok := tier.Grants(ctx, []cache.Right{r})[r]
		if ok != (c.want >= 0) || ok && !at.Equal(now.Add(-c.want)) {
			t.Errorf("%s: %v %v", name, at, ok)
		}
	}
}

func TestClocksThatLieApart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	k, r := read("a"), cache.Right{Path: "a"}
	for name, c := range map[string]struct {
		age                   time.Duration // of the writing, by our clock; negative: the writer's clock is ahead
		entry, stamp, granted bool
	}{
		"now":                       {0, true, true, true},
		"a second ahead":            {-time.Second, true, true, true},
		"more than a second ahead":  {-time.Second - 1, false, false, false},
		"an hour ahead":             {-time.Hour, false, false, false},
		"as old as a stamp may be":  {time.Minute - time.Second, true, true, true},
		"older than a stamp may be": {time.Minute - time.Second + 1, true, false, true},
		"as old as a grant may be":  {5*time.Minute - time.Second, true, false, true},
		"older than a grant may be": {5*time.Minute - time.Second + 1, true, false, false},
		"very old":                  {24 * time.Hour, true, false, false},
	} {
		must(t, s.m.Flush(ctx))
		// The writer's own clock shows the time of its writing.
		at := s.clk.now().Add(-c.age)
		writer := s.tier(t, func(o *TierOptions) { o.Now = func() time.Time { return at } })
		record := s.record(k, "v", c.age)
		writer.Put(ctx, []Record{record})
		writer.PutStamps(ctx, CursorStamp{at, 7, "t"}, map[cache.Key]Stamp{k: {at, [32]byte{1}}})
		writer.PutGrants(ctx, map[cache.Right]time.Time{r: at})
		reader := s.tier(t, nil)
		if got := reader.body(ctx, k) == "v"; got != c.entry {
			t.Errorf("%s: the entry counts: %v", name, got)
		}
		cursor, stamps := reader.Stamps(ctx, []cache.Key{k})
		if (cursor.Committed == 7) != c.stamp || (len(stamps) == 1) != c.stamp {
			t.Errorf("%s: stamps count: %v %v", name, cursor, stamps)
		}
		if got := len(reader.Grants(ctx, []cache.Right{r})) == 1; got != c.granted {
			t.Errorf("%s: the grant counts: %v", name, got)
		}
		if c.age < -maxFuture {
			if reader.Stats().Future == 0 {
				t.Errorf("%s: not counted", name)
			}
			// What is refused keeps nobody from writing.
			reader.Put(ctx, []Record{s.record(k, "w", 0)})
			reader.PutStamps(ctx, CursorStamp{s.clk.now(), 8, "t"}, map[cache.Key]Stamp{k: {s.clk.now(), [32]byte{2}}})
			reader.PutGrants(ctx, map[cache.Right]time.Time{r: s.clk.now()})
			cursor, stamps = reader.Stamps(ctx, []cache.Key{k})
			if reader.body(ctx, k) != "w" || cursor.Committed != 8 || stamps[k].Fingerprint != [32]byte{2} || len(reader.Grants(ctx, []cache.Right{r})) != 1 {
				t.Errorf("%s: what is dated ahead is not replaced", name)
			}
		}
	}
}

func TestStampsAreOffAtOrBelowTheSkew(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	k := read("a")
	for _, maxAge := range []time.Duration{0, time.Millisecond, time.Second} {
		tier := s.tier(t, func(o *TierOptions) { o.MaxAge = maxAge })
		tier.PutStamps(ctx, CursorStamp{s.clk.now(), 7, "t"}, map[cache.Key]Stamp{k: {s.clk.now(), [32]byte{1}}})
		tier.Remove(ctx, []cache.Key{read("b")}, s.clk.now())
		s.tier(t, nil).PutStamps(ctx, CursorStamp{s.clk.now(), 7, "t"}, map[cache.Key]Stamp{k: {s.clk.now(), [32]byte{1}}})
		if c, st := tier.Stamps(ctx, []cache.Key{k}); c != (CursorStamp{}) || len(st) != 0 {
			t.Errorf("%v: %v %v", maxAge, c, st)
		}
		must(t, s.m.Flush(ctx))
	}
}

func TestWhatIsNotSharedStaysOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	tier := s.tier(t, func(o *TierOptions) { o.NoShare = []string{"secret/data/prod/*", "kv/+/x"} })
	now := s.clk.now()
	personal, other, expired, latin := s.record(cache.Key{Path: "p", Personal: 1}, "v", 0), s.record(read("o"), "v", 0), s.record(read("e"), "v", 0), s.record(read("l"), "v", 0)
	other.Kind = cache.Other
	expired.Expires = now
	latin.Header = http.Header{"X": {"\xe4"}} // would not come back as it was
	ahead := s.record(read("f"), "v", -2*time.Second)
	undated := s.record(read("u"), "v", 0)
	undated.SentAt = time.Time{}
	tier.Put(ctx, []Record{s.record(read("secret/data/prod/a"), "v", 0), s.record(read("kv/b/x"), "v", 0), personal, other, expired, latin, ahead, undated})
	for _, p := range []string{"secret/data/prod/a", "kv/b/x"} {
		tier.PutGrants(ctx, map[cache.Right]time.Time{{Path: p}: now})
		tier.PutStamps(ctx, CursorStamp{}, map[cache.Key]Stamp{read(p): {now, [32]byte{1}}})
		tier.Remove(ctx, []cache.Key{read(p)}, now)
		tier.RevokeGrants(ctx, []cache.Right{{Path: p}}, now)
		// What another member shares is not read either.
		s2 := s.tier(t, nil)
		s2.Put(ctx, []Record{s.record(read(p), "v", 0)})
		s2.PutGrants(ctx, map[cache.Right]time.Time{{Path: p}: now})
		if tier.body(ctx, read(p)) != "miss" || len(tier.Grants(ctx, []cache.Right{{Path: p}})) != 0 {
			t.Errorf("%s was taken from another", p)
		}
		must(t, s.m.Flush(ctx))
	}
	if got := s.dump(t); len(got) != 0 {
		t.Errorf("%d values were shared", len(got))
	}
}

func TestRotationSeesOldAndNewNames(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	k, r := read("a"), cache.Right{Path: "a"}
	ring := func(keys ...byte) *Tier {
		return s.tier(t, func(o *TierOptions) { o.Keys = keyring(t, keys...) })
	}
	old, added, moved, dropped := ring(1), ring(1, 2), ring(2, 1), ring(2)
	old.Put(ctx, []Record{s.record(k, "old", 9)})
	old.PutGrants(ctx, map[cache.Right]time.Time{r: s.clk.now().Add(-9)})
	for name, x := range map[string]*Tier{"added": added, "moved": moved} {
		if x.body(ctx, k) != "old" || len(x.Grants(ctx, []cache.Right{r})) != 1 {
			t.Errorf("%s: what the old key wrote is not found", name)
		}
	}
	if dropped.body(ctx, k) != "miss" {
		t.Error("a key that was dropped still opens")
	}
	// A late writer loses, under whichever name.
	moved.Put(ctx, []Record{s.record(k, "older", 10)})
	moved.PutGrants(ctx, map[cache.Right]time.Time{r: s.clk.now().Add(-10)})
	if got := added.body(ctx, k); got != "old" {
		t.Errorf("a late writer with the new key won: %q", got)
	}
	// A newer one wins, and leaves nothing under the old name to come back.
	moved.Put(ctx, []Record{s.record(k, "new", 5)})
	if a, b, c := added.body(ctx, k), dropped.body(ctx, k), old.body(ctx, k); a != "new" || b != "new" || c != "miss" {
		t.Errorf("%q %q %q", a, b, c)
	}
	added.Put(ctx, []Record{s.record(k, "older", 7)})
	if got := moved.body(ctx, k); got != "new" {
		t.Errorf("a late writer with the old key won: %q", got)
	}
	moved.RevokeGrants(ctx, []cache.Right{r}, s.clk.now())
	moved.Remove(ctx, []cache.Key{k}, s.clk.now())
	added.Put(ctx, []Record{s.record(k, "older", 1)})
	added.PutGrants(ctx, map[cache.Right]time.Time{r: s.clk.now().Add(-1)})
	for name, x := range map[string]*Tier{"old": old, "added": added, "moved": moved, "dropped": dropped} {
		if got := x.body(ctx, k); got != "miss" {
			t.Errorf("%s: removed, and found %q", name, got)
		}
		if got := x.Grants(ctx, []cache.Right{r}); len(got) != 0 {
			t.Errorf("%s: revoked, and granted %v", name, got)
		}
	}
	// Locks exclude across the rotation.
	if _, ok := old.Lock(ctx, "l", time.Minute); !ok {
		t.Fatal("not locked")
	}
	if _, ok := moved.Lock(ctx, "l", time.Minute); ok {
		t.Error("locked twice, under two names")
	}
	old.PutState(ctx, "s", 1, time.Hour)
	s.clk.advance(1)
	moved.PutState(ctx, "s", 2, time.Hour)
	var n int
	if added.State(ctx, "s", &n); n != 2 {
		t.Errorf("state %d", n)
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
	var records []Record
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

func TestALockHasOneHolder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	a, b := s.tier(t, nil), s.tier(t, nil)
	mine, ok := a.Lock(ctx, "l", 10*time.Second)
	if !ok {
		t.Fatal("not locked")
	}
	if _, ok := b.Lock(ctx, "l", time.Minute); ok {
		t.Error("locked twice")
	}
	if _, ok := b.Lock(ctx, "other", time.Minute); !ok {
		t.Error("another name is locked")
	}
	if _, ok := s.tier(t, func(o *TierOptions) { o.Audience = "dev" }).Lock(ctx, "l", time.Minute); !ok {
		t.Error("another audience is locked out")
	}
	if !mine.Renew(ctx) {
		t.Error("not renewed")
	}
	// Held past its time, by the wall clock: another takes it, and the first
	// neither renews nor releases it any more.
	s.clk.advance(12 * time.Second)
	theirs, ok := b.Lock(ctx, "l", 10*time.Second)
	if !ok {
		t.Fatal("a lease that is over still holds")
	}
	if mine.Renew(ctx) {
		t.Error("renewed what another holds")
	}
	mine.Release(ctx)
	if !theirs.Renew(ctx) {
		t.Error("released by who no longer held it")
	}
	theirs.Release(ctx)
	if l, ok := a.Lock(ctx, "l", time.Minute); !ok {
		t.Error("released, and still held")
	} else {
		l.Release(ctx)
	}
	// Lost by memcached: whoever is first has it.
	if !mine.Renew(ctx) || theirs.Renew(ctx) {
		t.Error("a lost lock is not one holder's")
	}
	// Nonsense in its place, or an old lease put back, locks nobody out.
	name := a.place(kindLock, "l").names[0]
	old := s.dump(t)[name]
	must(t, s.c.Set(ctx, name, []byte("x"), time.Hour))
	if _, ok := b.Lock(ctx, "l", time.Second); !ok {
		t.Error("nonsense holds the lock")
	}
	s.clk.advance(time.Minute)
	must(t, s.c.Set(ctx, name, old, time.Hour))
	if _, ok := b.Lock(ctx, "l", time.Second); !ok {
		t.Error("a lease put back holds the lock")
	}
	var zero Lease
	if zero.Renew(ctx) {
		t.Error("the zero lease is held")
	}
	zero.Release(ctx)
	must(t, s.m.Flush(ctx))
	var wg sync.WaitGroup
	won := make(chan bool, 20)
	for range 20 {
		wg.Go(func() {
			if _, ok := s.tier(t, nil).Lock(ctx, "race", time.Minute); ok {
				won <- true
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d won a race for the lock", len(won))
	}
}

func TestStateIsKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	type progress struct {
		Full time.Time
		Next string
	}
	a, b := s.tier(t, nil), s.tier(t, nil)
	var got progress
	if b.State(ctx, "warm", &got) {
		t.Error("state from nowhere")
	}
	want := progress{s.clk.now().UTC(), "secret/x"}
	a.PutState(ctx, "warm", want, time.Hour)
	if !b.State(ctx, "warm", &got) || !got.Full.Equal(want.Full) || got.Next != want.Next {
		t.Errorf("%+v", got)
	}
	if b.State(ctx, "other", &got) || s.tier(t, func(o *TierOptions) { o.Audience = "dev" }).State(ctx, "warm", &got) {
		t.Error("another's state")
	}
	var number int
	if b.State(ctx, "warm", &number) {
		t.Error("state of another shape")
	}
	a.PutState(ctx, "warm", func() {}, time.Hour) // not JSON: what was there stays
	if !b.State(ctx, "warm", &got) {
		t.Error("gone")
	}
	s.clk.advance(-2 * time.Second)
	if b.State(ctx, "warm", &got) {
		t.Error("state from the future")
	}
}

// The tier over three nodes that fail in turn, filled beyond their memory: 10,000
// reads, none wrong.
func TestG4TheTierNeverServesAWrongRecord(t *testing.T) {
	t.Parallel()
	real(t)
	ca, err := harness.NewCA()
	must(t, err)
	var nodes []*harness.Memcached
	var ids []string
	for range 3 {
		m := harness.Memcache(t, harness.MemcachedConfig{CA: ca, MemoryMB: 2})
		nodes, ids = append(nodes, m), append(ids, m.Addr())
	}
	clk := newClock()
	var logs bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logs, nil))
	c := client(t, Options{Nodes: ids, Timeout: 200 * time.Millisecond, Now: clk.now, TLS: &TLS{CAFile: nodes[0].CAFile()}, Log: log})
	// All use one authority, and each its own file of it.
	s := &site{nil, c, clk}
	tier := s.tier(t, func(o *TierOptions) { o.Log = log })
	const n = 300
	keys := make([]cache.Key, n)
	for i := range keys {
		keys[i] = read(fmt.Sprint("secret/data/", i))
	}
	body := func(i int) string { return strings.Repeat(fmt.Sprint(i, " "), 8000) } // more than the nodes hold
	hits := 0
	for i := range 2000 {
		switch i {
		case 300:
			must(t, nodes[0].Freeze(t.Context()))
		case 600:
			must(t, nodes[0].Thaw())
		case 700:
			nodes[1].Kill()
		case 1000:
			must(t, nodes[1].Restart(t.Context()))
		case 1200:
			tier.Thawed()
		}
		at := rand.IntN(n - 5)
		got := tier.Entries(t.Context(), keys[at:at+5])
		hits += len(got)
		var missing []Record
		for j, k := range keys[at : at+5] {
			r, ok := got[k]
			switch {
			case !ok && i%3 == 0:
				missing = append(missing, s.record(k, body(at+j), 0))
			case ok && string(r.Body) != body(at+j):
				t.Fatalf("read %d: %s is %.20q", i, k.Path, r.Body)
			}
		}
		tier.Put(t.Context(), missing)
		clk.advance(20 * time.Millisecond)
	}
	st := c.Stats()
	t.Logf("%d hits of 10000, %+v, %+v", hits, st, tier.Stats())
	if hits < 1000 || st.Timeouts == 0 || st.Timeouts > 20 {
		t.Errorf("%d hits, %d timeouts\n%s", hits, st.Timeouts, logs.String())
	}
	if tier.Stats().Unsealed != 0 {
		t.Errorf("%+v", tier.Stats())
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(meta{At: 1, Kind: cache.Data, Status: 200, Fetched: 1, Header: http.Header{"A": {"b"}}}, []byte("body")))
	f.Add(encode(meta{At: 1, Gone: true}, nil))
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, plain []byte) {
		m, body, ok := decode(plain)
		if ok && (m.At <= 0 || len(body) > len(plain)) {
			t.Fatal(m)
		}
		_, _ = m.record(cache.Key{}, body, time.Now())
		if g, ok := decodeGrant(plain); ok && !bytes.Equal(g.encode(), plain) {
			t.Fatal(g)
		}
		if s, ok := decodeStamp(plain); ok && !bytes.Equal(s.encode(), plain) {
			t.Fatal(s)
		}
		if c, ok := decodeCursor(plain); ok && !bytes.Equal(c.encode(), plain) {
			t.Fatal(c)
		}
		if l, ok := decodeLock(plain); ok && !bytes.Equal(l.encode(), plain) {
			t.Fatal(l)
		}
	})
}
