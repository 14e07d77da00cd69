package cache

import (
	"context"
	"maps"
	"testing"
	"time"
)

// tier is a shared tier in memory, with what other instances read.
type tier struct {
	records map[Key]Record
	grants  map[Right]time.Time
}

func (s *tier) Fetch(_ context.Context, keys []Key) ([]Record, map[Right]time.Time) {
	var out []Record
	for _, k := range keys {
		if r, ok := s.records[k]; ok {
			out = append(out, r)
		}
	}
	return out, maps.Clone(s.grants)
}
func (s *tier) Keep(context.Context, []Record, map[Right]time.Time) {}
func (s *tier) Drop(context.Context, []Key, []Right, time.Time)     {}
func (s *tier) put(k Key, body string, a Anchor, at time.Time) {
	s.records[k] = Record{Key: k, Kind: Data, Status: 200, Body: []byte(body), FetchedAt: at, SentAt: at, Anchor: a}
}

// TestAnotherAnswersStampEndsWhatWasVerifiedBefore: another instance found another
// answer, so ours is not fresh, however young its verification is.
func TestAnotherAnswersStampEndsWhatWasVerifiedBefore(t *testing.T) {
	t.Parallel()
	shared := &tier{records: map[Key]Record{}}
	w := newWorld(t, func(o *Options) { o.MaxAge, o.Skew, o.Shared = time.Minute, time.Second, shared })
	k := key("secret/data/a")
	w.origin.put(k.Path, v2("one", 1, ""))
	w.load(k, "")
	own := w.Lookup(k, "", w.clock.now()).Entry
	w.Begin(w.clock.add(5 * time.Second))
	if !w.Stamped(k, Fingerprint(own.Status, own.Body), w.clock.now().Add(-time.Second)) {
		t.Error("the same answer is another one")
	}
	w.expect(k, "", Fresh, "one")
	if w.Stamped(k, [32]byte{1}, w.clock.now().Add(-4*time.Second)) {
		t.Error("another answer is the same")
	}
	w.expect(k, "", Fresh, "one") // its stamp is older
	w.Stamped(k, [32]byte{1}, w.clock.now())
	w.expect(k, "", Unverified, "one")
	w.Prove(own.Anchor, Mark{w.clock.now(), w.Epoch()})
	w.expect(k, "", Unverified, "one")
}

// TestAdoptNewerTakesWhatTheCursorProves: after the cursor moved, what another
// instance read since then spares the read of the origin.
func TestAdoptNewerTakesWhatTheCursorProves(t *testing.T) {
	t.Parallel()
	shared := &tier{records: map[Key]Record{}}
	w := newWorld(t, func(o *Options) { o.Shared = shared })
	k := key("secret/data/a")
	w.origin.put(k.Path, v2("one", 1, ""))
	w.load(k, "")
	w.origin.put(k.Path, v2("two", 2, ""))
	at := w.origin.Anchor(t.Context())
	epoch := w.Begin(w.clock.add(time.Second))
	shared.put(k, v2("two", 2, ""), at, w.clock.now().Add(-time.Millisecond))
	w.Prove(at, Mark{w.clock.now(), epoch})
	w.expect(k, "", Unverified, "one")
	w.AdoptNewer(t.Context(), []Key{k})
	w.expect(k, "", Fresh, "two")
	shared.put(k, v2("one", 1, ""), at, w.clock.now().Add(-time.Second))
	w.AdoptNewer(t.Context(), []Key{k})
	w.expect(k, "", Fresh, "two") // never an older one
}
