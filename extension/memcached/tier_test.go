package memcached

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
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
	clk *fakeClock
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
		Client: s.c, Keys: keyring(t, 1), Identity: "aws/app", Config: config.Config{
			Addrs: []string{"https://vault:8200"}, Audience: "prod",
			MaxAge: time.Minute, ClockSkew: time.Second, StaleIfError: time.Hour, RefreshInterval: 5 * time.Minute, CacheTTL: time.Hour,
		},
	}
	if change != nil {
		change(&o)
	}
	return NewTier(o)
}

func read(path string) cache.Key { return cache.Key{Path: path} }

func (s *site) record(k cache.Key, body string, age time.Duration) cache.Record {
	sent := s.clk.now().Add(-age)
	return cache.Record{
		Entry: cache.Entry{
			Key: k, Kind: cache.Data, Status: 200, Header: http.Header{"Content-Type": {"application/json"}, "X-Two": {"a", "b"}},
			Body: []byte(body), Version: 3, FetchedAt: sent.Add(-time.Minute),
		},
		Date: "Sat, 21 Nov 2026 08:01:58 GMT", SentAt: sent,
		Index: cache.Index{Applied: 37, ActiveTime: "2026-11-21T07:59:40.873986362Z", FirstSeen: sent.Add(-time.Hour)},
	}
}

// confirmed is when rights were confirmed that count.
func (t *Tier) confirmed(ctx context.Context, rights []cache.Capability) map[cache.Capability]time.Time {
	rights = slices.DeleteFunc(slices.Clone(rights), func(r cache.Capability) bool { return !t.shared(r.Path) })
	out := make(map[cache.Capability]time.Time)
	for r, c := range t.Capabilities(ctx, t.o.Identity, t.o.Role, rights) {
		if c.Ended.IsZero() {
			out[r] = c.At
		}
	}
	return out
}

// readAt is a capability that a read confirmed.
func readAt(at time.Time) cache.Confirmation { return cache.Confirmation{Read: at, At: at} }

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
	var records []cache.Record
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
	records[3].Index, records[3].Header, records[3].Version = cache.Index{}, nil, 0
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
		for _, times := range [][2]*time.Time{{&r.SentAt, &want.SentAt}, {&r.FetchedAt, &want.FetchedAt}, {&r.Expires, &want.Expires}, {&r.Index.FirstSeen, &want.Index.FirstSeen}} {
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
	s.tier(t, nil).Put(t.Context(), []cache.Record{s.record(read("secret/data/app"), "mine", 0)})
	for name, change := range map[string]func(*TierOptions){
		"audience":  func(o *TierOptions) { o.Audience = "dev" },
		"origin":    func(o *TierOptions) { o.Addrs = []string{"https://vault:8201"} },
		"namespace": func(o *TierOptions) { o.Namespace = "team" },
		"key":       func(o *TierOptions) { o.Keys = keyring(t, 2) },
		"moved":     func(o *TierOptions) { o.Addrs, o.Namespace = []string{"https://vault"}, ":8200" },
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
	right := cache.Capability{Path: "secret/data/app"}
	mine.Keep(t.Context(), nil, map[cache.Capability]cache.Confirmation{right: readAt(now)})
	if got := mine.confirmed(t.Context(), []cache.Capability{right}); !got[right].Equal(now) {
		t.Fatalf("%v", got)
	}
	for name, change := range map[string]func(*TierOptions){
		"identity": func(o *TierOptions) { o.Identity = "aws/other" }, "no identity": func(o *TierOptions) { o.Identity = "" },
		"audience": func(o *TierOptions) { o.Audience = "dev" }, "key": func(o *TierOptions) { o.Keys = keyring(t, 9) },
		"moved": func(o *TierOptions) { o.Audience, o.Identity = "prodaws/", "app" },
	} {
		if got := s.tier(t, change).confirmed(t.Context(), []cache.Capability{right}); len(got) != 0 {
			t.Errorf("another %s has %v", name, got)
		}
	}
	for _, r := range []cache.Capability{{Path: right.Path, List: true}, {Namespace: "ns", Path: right.Path}, {Path: "secret/data/ap"}} {
		if got := mine.confirmed(t.Context(), []cache.Capability{r}); len(got) != 0 {
			t.Errorf("%+v has %v", r, got)
		}
	}
}

func TestClocksThatLieApart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	k, r := read("a"), cache.Capability{Path: "a"}
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
		"very old":                  {24 * time.Hour, true, false, true}, // whether it counts, its time says
	} {
		must(t, s.m.Flush(ctx))
		// The writer's own clock shows the time of its writing.
		at := s.clk.now().Add(-c.age)
		writer := s.tier(t, func(o *TierOptions) {
			o.Client = client(t, Options{Nodes: []string{s.m.Addr()}, Now: func() time.Time { return at }})
		})
		record := s.record(k, "v", c.age)
		writer.Put(ctx, []cache.Record{record})
		writer.PutStamps(ctx, cache.CursorStamp{At: at, Committed: 7, ActiveTime: "t"}, map[cache.Key]cache.Stamp{k: {At: at, Fingerprint: [32]byte{1}}})
		writer.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: readAt(at)})
		reader := s.tier(t, nil)
		if got := reader.body(ctx, k) == "v"; got != c.entry {
			t.Errorf("%s: the entry counts: %v", name, got)
		}
		cursor, stamps := reader.Stamps(ctx, []cache.Key{k})
		if (cursor.Committed == 7) != c.stamp || (len(stamps) == 1) != c.stamp {
			t.Errorf("%s: stamps count: %v %v", name, cursor, stamps)
		}
		if got := len(reader.confirmed(ctx, []cache.Capability{r})) == 1; got != c.granted {
			t.Errorf("%s: the grant counts: %v", name, got)
		}
		if c.age < -maxFuture {
			// What is refused keeps nobody from writing.
			reader.Put(ctx, []cache.Record{s.record(k, "w", 0)})
			reader.PutStamps(ctx, cache.CursorStamp{At: s.clk.now(), Committed: 8, ActiveTime: "t"}, map[cache.Key]cache.Stamp{k: {At: s.clk.now(), Fingerprint: [32]byte{2}}})
			reader.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: readAt(s.clk.now())})
			cursor, stamps = reader.Stamps(ctx, []cache.Key{k})
			if reader.body(ctx, k) != "w" || cursor.Committed != 8 || stamps[k].Fingerprint != [32]byte{2} || len(reader.confirmed(ctx, []cache.Capability{r})) != 1 {
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
		tier.PutStamps(ctx, cache.CursorStamp{At: s.clk.now(), Committed: 7, ActiveTime: "t"}, map[cache.Key]cache.Stamp{k: {At: s.clk.now(), Fingerprint: [32]byte{1}}})
		tier.Remove(ctx, []cache.Key{read("b")}, s.clk.now())
		s.tier(t, nil).PutStamps(ctx, cache.CursorStamp{At: s.clk.now(), Committed: 7, ActiveTime: "t"}, map[cache.Key]cache.Stamp{k: {At: s.clk.now(), Fingerprint: [32]byte{1}}})
		if c, st := tier.Stamps(ctx, []cache.Key{k}); c != (cache.CursorStamp{}) || len(st) != 0 {
			t.Errorf("%v: %v %v", maxAge, c, st)
		}
		must(t, s.m.Flush(ctx))
	}
}

func TestWhatIsNotSharedStaysOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	tier := s.tier(t, func(o *TierOptions) { o.NoSharePaths = []string{"secret/data/prod/*", "kv/+/x"} })
	now := s.clk.now()
	personal, other, expired, latin := s.record(cache.Key{Path: "p", Personal: 1}, "v", 0), s.record(read("o"), "v", 0), s.record(read("e"), "v", 0), s.record(read("l"), "v", 0)
	other.Kind = cache.Other
	expired.Expires = now
	latin.Header = http.Header{"X": {"\xe4"}} // would not come back as it was
	ahead := s.record(read("f"), "v", -2*time.Second)
	undated := s.record(read("u"), "v", 0)
	undated.SentAt = time.Time{}
	tier.Put(ctx, []cache.Record{s.record(read("secret/data/prod/a"), "v", 0), s.record(read("kv/b/x"), "v", 0), personal, other, expired, latin, ahead, undated})
	for _, p := range []string{"secret/data/prod/a", "kv/b/x"} {
		tier.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{{Path: p}: readAt(now)})
		tier.PutStamps(ctx, cache.CursorStamp{}, map[cache.Key]cache.Stamp{read(p): {At: now, Fingerprint: [32]byte{1}}})
		tier.Remove(ctx, []cache.Key{read(p)}, now)
		tier.Drop(ctx, nil, []cache.Capability{{Path: p}}, now)
		// What another member shares is not read either.
		s2 := s.tier(t, nil)
		s2.Put(ctx, []cache.Record{s.record(read(p), "v", 0)})
		s2.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{{Path: p}: readAt(now)})
		if tier.body(ctx, read(p)) != "miss" || len(tier.confirmed(ctx, []cache.Capability{{Path: p}})) != 0 {
			t.Errorf("%s was taken from another", p)
		}
		must(t, s.m.Flush(ctx))
	}
	if got := s.dump(t); len(got) != 0 {
		t.Errorf("%d values were shared", len(got))
	}
}

func TestOneCallBringsEntriesAndGrants(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	a, b := s.tier(t, nil), s.tier(t, nil)
	now := s.clk.now()
	list := cache.Key{Namespace: "n", Path: "secret/metadata", Op: cache.List}
	rights := []cache.Capability{{Path: "a"}, {Namespace: "n", Path: "secret/metadata", List: true}}
	a.Keep(ctx, []cache.Record{s.record(read("a"), "1", 0), s.record(list, "2", 0)}, map[cache.Capability]cache.Confirmation{rights[0]: readAt(now), rights[1]: readAt(now)})
	asked := func() string {
		stats, err := s.m.Stats(ctx)
		must(t, err)
		return stats["cmd_get"]
	}
	before := s.c.Stats()
	records, grants := b.Fetch(ctx, []cache.Key{read("a"), list, read("a"), read("none"), {Path: "p", Personal: 1}})
	if len(records) != 2 || string(records[0].Body) != "1" || string(records[1].Body) != "2" || len(grants) != 2 || !grants[rights[1]].At.Equal(now) {
		t.Errorf("%v %v, %s gets", records, grants, asked())
	}
	if after := s.c.Stats(); after.Misses-before.Misses != 6 { // "none", its capability, "a" with its capability once more, and the two records that end all
		t.Errorf("%+v", after)
	}
	a.Drop(ctx, []cache.Key{read("a")}, rights[1:], now)
	records, grants = b.Fetch(ctx, []cache.Key{read("a"), list})
	if len(records) != 1 || records[0].Key != list || grants[rights[0]].At.IsZero() || grants[rights[1]].Ended.IsZero() {
		t.Errorf("dropped, and found %v %v", records, grants)
	}
	if records, grants = b.Fetch(ctx, nil); len(records) != 0 || len(grants) != 0 {
		t.Errorf("%v %v", records, grants)
	}
}

// A warm-up wants everything there is, however much that is.
func TestThousandsOfRecords(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tier := s.tier(t, nil)
	const n = 2500
	var keys []cache.Key
	var records []cache.Record
	for i := range n {
		keys = append(keys, read(fmt.Sprint("secret/data/", i)))
		records = append(records, s.record(keys[i], fmt.Sprint(i), time.Second))
	}
	tier.Put(t.Context(), records)
	got := tier.Entries(t.Context(), keys)
	if len(got) != n {
		t.Fatalf("%d of %d", len(got), n)
	}
	for i, k := range keys {
		if string(got[k].Body) != fmt.Sprint(i) {
			t.Fatalf("%s is %s", k.Path, got[k].Body)
		}
	}
	must(t, s.m.Flush(t.Context()))
	if got := tier.Entries(t.Context(), keys); len(got) != 0 {
		t.Errorf("flushed, and found %d", len(got))
	}
}

// Everything is off when memcached is, and nothing is an error.
func TestATierWithoutMemcached(t *testing.T) {
	t.Parallel()
	clk := newClock()
	c := client(t, Options{Nodes: []string{"127.0.0.1:1"}, Now: clk.now})
	s := &site{nil, c, clk}
	tier := s.tier(t, nil)
	ctx := t.Context()
	k, r := read("a"), cache.Capability{Path: "a"}
	for range 100 {
		tier.Put(ctx, []cache.Record{s.record(k, "v", 0)})
		tier.Remove(ctx, []cache.Key{k}, clk.now())
		tier.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: readAt(clk.now())})
		tier.Drop(ctx, nil, []cache.Capability{r}, clk.now())
		tier.PutStamps(ctx, cache.CursorStamp{At: clk.now(), Committed: 1, ActiveTime: "t"}, map[cache.Key]cache.Stamp{k: {At: clk.now()}})
		tier.PutState(ctx, "s", 1, time.Hour)
		cursor, stamps := tier.Stamps(ctx, []cache.Key{k})
		_, locked, _ := tier.Lock(ctx, "l", time.Minute, false)
		var n int
		if len(tier.Entries(ctx, []cache.Key{k}))+len(tier.confirmed(ctx, []cache.Capability{r}))+len(stamps) > 0 || cursor != (cache.CursorStamp{}) || locked || tier.State(ctx, "s", &n) {
			t.Fatal("something came from nowhere")
		}
	}
	tier.o.Client.Thawed()
	if s := c.Stats(); s.Errors > 2 || s.Timeouts > 0 {
		t.Errorf("%+v: the node was asked again and again", s)
	}
}
