package memcached

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// raw gives and takes values in memcached without a tier.
func (s *site) dump(t testing.TB) map[string][]byte {
	t.Helper()
	// The crawler that lists items misses one that memcached moves from one of
	// its queues to another meanwhile.
	known := map[string]bool{}
	for {
		some, err := s.m.Keys(t.Context())
		must(t, err)
		for _, k := range some {
			known[k] = true
		}
		stats, err := s.m.Stats(t.Context())
		must(t, err)
		if stats["curr_items"] == strconv.Itoa(len(known)) {
			break
		}
	}
	names := slices.Collect(maps.Keys(known))
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
	var log bytes.Buffer
	tier := s.tier(t, func(o *TierOptions) {
		o.Client = client(t, Options{Nodes: []string{s.m.Addr()}, Now: s.clk.now, Log: slog.New(slog.NewTextHandler(&log, nil))})
	})
	other := s.tier(t, func(o *TierOptions) { o.Audience = "dev" })
	ns := s.tier(t, func(o *TierOptions) { o.Namespace = "team" })
	ctx := t.Context()
	now := s.clk.now()
	keys := []cache.Key{read("a"), read("b"), {Path: "a", Query: "version=1"}, {Path: "a", Op: cache.List}, {Namespace: "n", Path: "a"}}
	rights := []cache.Capability{{Path: "a"}, {Path: "b"}, {Path: "a", List: true}}
	for _, x := range []*Tier{tier, other, ns} {
		for _, k := range keys {
			x.Put(ctx, []cache.Record{s.record(k, fmt.Sprintf("%s %+v", x.o.Audience+x.o.Namespace, k), 0)})
			x.PutStamps(ctx, cache.CursorStamp{At: now, Committed: 7, ActiveTime: "t"}, map[cache.Key]cache.Stamp{k: {At: now, Fingerprint: [32]byte{byte(len(k.Path))}}})
		}
		for _, r := range rights {
			x.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{r: readAt(now)})
		}
		x.PutState(ctx, "s", x.o.Audience, time.Hour)
	}
	// answers is all that the tier believes, as text.
	answers := func() map[string]string {
		out := map[string]string{}
		for k, r := range tier.Entries(ctx, keys) {
			out[fmt.Sprint("entry", k)] = string(r.Body) + fmt.Sprint(r.SentAt.UnixNano())
		}
		for r, at := range tier.confirmed(ctx, rights) {
			out[fmt.Sprint("grant", r)] = fmt.Sprint(at.UnixNano())
		}
		cursor, stamps := tier.Stamps(ctx, keys)
		if cursor != (cache.CursorStamp{}) {
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
		t.Fatalf("%d answers of %d values, %+v", len(truth), len(whole), s.c.Stats())
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
		tier.Put(ctx, []cache.Record{s.record(k, fmt.Sprintf("%s %+v", "prod", k), 0)})
	}
	believe("after writing again")
	if got := tier.Entries(ctx, keys); len(got) != len(keys) {
		t.Errorf("%d of %d entries after writing over noise", len(got), len(keys))
	}
	if strings.Count(log.String(), "do not open") != 1 {
		t.Errorf("nobody was told, or too often: %s", &log)
	}
}

// A value that was put back is the old one, with its old times: it never passes
// for verified later than it was.
func TestAReplayedValueKeepsItsTimes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tier := s.tier(t, nil)
	ctx := t.Context()
	k, right := read("a"), cache.Capability{Path: "a"}
	first := s.record(k, "old", 0)
	tier.Put(ctx, []cache.Record{first})
	tier.PutStamps(ctx, cache.CursorStamp{At: first.SentAt, Committed: 7, ActiveTime: "t"}, map[cache.Key]cache.Stamp{k: {At: first.SentAt, Fingerprint: [32]byte{1}}})
	tier.Keep(ctx, nil, map[cache.Capability]cache.Confirmation{right: readAt(first.SentAt)})
	old := s.dump(t)
	s.clk.advance(10 * time.Minute)
	tier.Put(ctx, []cache.Record{s.record(k, "new", 0)})
	for name, v := range old {
		must(t, s.c.Set(ctx, name, v, 24*time.Hour))
	}
	if r := tier.Entries(ctx, []cache.Key{k})[k]; string(r.Body) != "old" || !r.SentAt.Equal(first.SentAt) {
		t.Errorf("%q of %v", r.Body, r.SentAt)
	}
	if c, st := tier.Stamps(ctx, []cache.Key{k}); c != (cache.CursorStamp{}) || len(st) != 0 {
		t.Errorf("stamps put back count: %v %v", c, st)
	}
	if got := tier.confirmed(ctx, []cache.Capability{right}); !got[right].Equal(first.SentAt) {
		t.Errorf("a grant put back is of %v", got)
	}
	tier.Put(ctx, []cache.Record{s.record(k, "new", 0)})
	if got := tier.body(ctx, k); got != "new" {
		t.Errorf("a value put back stays: %q", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(entry{meta{At: 1, Kind: cache.Data, Status: 200, Fetched: 1, Header: http.Header{"A": {"b"}}}, []byte("body")}))
	f.Add(encode(entry{meta: meta{At: 1, Gone: true}}))
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, plain []byte) {
		m, _, ok := decode(plain)
		if ok && (m.At <= 0 || len(m.body) > len(plain)) {
			t.Fatal(m)
		}
		_, _ = m.record(cache.Key{}, time.Now())
		if g, ok := decodeCapability(plain); ok && !bytes.Equal(encodeCapability(g), plain) {
			t.Fatal(g)
		}
		if s, _, ok := decodeStamp(plain); ok && !bytes.Equal(encodeStamp(s), plain) {
			t.Fatal(s)
		}
		if c, _, ok := decodeCursor(plain); ok && !bytes.Equal(encodeCursor(c), plain) {
			t.Fatal(c)
		}
		if l, ok := decodeLock(plain); ok && !bytes.Equal(l.encode(), plain) {
			t.Fatal(l)
		}
	})
}
