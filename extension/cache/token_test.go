package cache

import (
	"net/http"
	"testing"
	"time"
)

// TestG2WhatIsKnownOfATokenDecides: of its end, its parent and its uses.
func TestG2WhatIsKnownOfATokenDecides(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		token Token
		do    func(w *world, id *Identity)
		want  State
	}{
		"nothing happened":                  {Token{}, func(*world, *Identity) {}, Fresh},
		"another was revoked":               {Token{}, func(w *world, _ *Identity) { w.Unsure(false) }, Unconfirmed},
		"a parent was":                      {Token{}, func(w *world, _ *Identity) { w.Unsure(true) }, Unconfirmed},
		"a parent was, and it is an orphan": {Token{Orphan: true}, func(w *world, _ *Identity) { w.Unsure(true) }, Fresh},
		"another was, and it is an orphan":  {Token{Orphan: true}, func(w *world, _ *Identity) { w.Unsure(false) }, Unconfirmed},
		"it was renewed":                    {Token{}, func(w *world, _ *Identity) { w.Renewed("alice") }, Unconfirmed},
		"some token was renewed":            {Token{}, func(w *world, _ *Identity) { w.Renewed("") }, Unconfirmed},
		"another was renewed":               {Token{}, func(w *world, _ *Identity) { w.Renewed("bob") }, Fresh},
		"renewed to end soon": {Token{}, func(w *world, id *Identity) {
			w.Renewed("alice")
			w.Learned(id, Token{Expires: w.clock.now().Add(time.Second)})
			w.clock.add(2 * time.Second)
		}, Absent},
		"renewed to end soon while an older look-up was on its way": {Token{}, func(w *world, id *Identity) {
			at := w.clock.now()
			w.clock.add(1)
			w.Renewed("alice")
			w.Learned(id, Token{Asked: at, Expires: at.Add(time.Hour)})
			if _, lifetime := w.Due(id, w.clock.now()); !lifetime {
				t.Error("what was asked before the renewal is taken for the token's end")
			}
		}, Unconfirmed},
		"unsure, and confirmed": {Token{}, func(w *world, id *Identity) { w.Unsure(false); w.clock.add(1); w.confirmAll(id) }, Fresh},
		"unsure, and confirmed as of before": {Token{}, func(w *world, id *Identity) {
			at := w.clock.now()
			w.clock.add(1)
			w.Unsure(false)
			w.Confirm(id, at, []Capability{key("secret/data/a").Capability()}, nil)
		}, Unconfirmed},
		"its uses are counted": {Token{Counted: true}, func(*world, *Identity) {}, Absent},
	} {
		w := newWorld(t)
		for _, path := range []string{"a", "b"} {
			w.origin.put("secret/data/"+path, "one")
			w.load(key("secret/data/"+path), "alice")
		}
		id := w.Caller("alice")
		w.Learned(id, c.token)
		w.clock.add(1)
		c.do(w, id)
		h := w.look(key("secret/data/a"), "alice", w.clock.now())
		if h.State != c.want && !(c.want == Fresh && h.State == Unverified) {
			t.Errorf("%s: state %d, want %d", name, h.State, c.want)
		}
		if c.want != Absent && w.Counters().Entries != 2 {
			t.Errorf("%s: entries were dropped", name)
		}
		if c.want == Unconfirmed {
			if due, _ := w.Due(id, w.clock.now()); len(due[""]) != 2 {
				t.Errorf("%s: %v is due, want all of it in one call", name, due)
			}
		}
		if c.token.Counted {
			w.load(key("secret/data/a"), "alice")
			if h := w.look(key("secret/data/a"), "alice", w.clock.now()); h.State != Absent || w.Counters().Entries != 0 {
				t.Errorf("%s: something is kept: %+v", name, w.Counters())
			}
		}
	}
}

func (w *world) confirmAll(id *Identity) {
	due, _ := w.Due(id, w.clock.now())
	w.Confirm(id, w.clock.now(), due[""], nil)
}

// TestG2ACallersTokenIsLentToNothingBeforeItsUsesAreKnown: polls read under others.
func TestG2ACallersTokenIsLentToNothingBeforeItsUsesAreKnown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		token   string
		learned *Token
		lent    bool
	}{
		"nothing is known":   {"hvs.a", nil, false},
		"they are not":       {"hvs.a", &Token{}, true},
		"they are":           {"hvs.a", &Token{Counted: true}, false},
		"it does not tell":   {"hvs.a", &Token{Hidden: true}, false},
		"a batch token":      {"hvb.a", nil, true},
		"an old batch token": {"b.a", nil, true},
	} {
		w := newWorld(t)
		k := key("secret/data/a")
		w.origin.put(k.Path, "one")
		w.load(k, c.token)
		if c.learned != nil {
			w.Learned(w.Caller(c.token), *c.learned)
		}
		w.clock.add(59 * time.Minute)
		if got := w.Reader(k, w.clock.now()) != nil; got != c.lent {
			t.Errorf("%s: lent to a poll: %v", name, got)
		}
		if got := len(w.Rereads(w.clock.now(), 8)) == 1; got != c.lent {
			t.Errorf("%s: lent to a renewal: %v", name, got)
		}
	}
}

// TestG2ALeasedAnswerEndsWithItsToken: though its lease goes on.
func TestG2ALeasedAnswerEndsWithItsToken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		token string
		end   func(w *world, id *Identity)
		after time.Duration
		want  State
	}{
		"a caller's, its end not known": {"alice", func(*world, *Identity) {}, time.Second, Unconfirmed},
		"a caller's, before":            {"alice", func(w *world, id *Identity) { w.Learned(id, Token{Expires: w.clock.now().Add(6 * time.Second)}) }, 5 * time.Second, Fresh},
		"a caller's":                    {"alice", func(w *world, id *Identity) { w.Learned(id, Token{Expires: w.clock.now().Add(6 * time.Second)}) }, 7 * time.Second, Absent},
		"a caller's without an end":     {"alice", func(w *world, id *Identity) { w.Learned(id, Token{}) }, time.Minute, Fresh},
		"of one that tells no end":      {"alice", func(w *world, id *Identity) { w.Learned(id, Token{Hidden: true}) }, time.Second, Absent},
		"thaw's own, before":            {"", func(w *world, id *Identity) { id.SetEnd(w.clock.now().Add(6 * time.Second)) }, 5 * time.Second, Fresh},
		"thaw's own":                    {"", func(w *world, id *Identity) { id.SetEnd(w.clock.now().Add(6 * time.Second)) }, 7 * time.Second, Absent},
		"thaw's own, renewed": {"", func(w *world, id *Identity) {
			id.SetEnd(w.clock.now().Add(6 * time.Second))
			id.SetEnd(w.clock.now().Add(time.Hour))
		}, 7 * time.Second, Fresh},
		"thaw's own without an end": {"", func(w *world, id *Identity) { id.SetEnd(time.Time{}) }, time.Minute, Fresh},
	} {
		w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
		k := key("database/creds/app")
		w.origin.database("app", 3600)
		id := w.identity(c.token)
		a, err := w.Load(t.Context(), Want{Key: k, ID: id, OptIn: true})
		if err != nil || a.Status != http.StatusOK || !a.Stored {
			t.Fatalf("%s: %+v %v", name, a, err)
		}
		c.end(w, id)
		now := w.clock.add(c.after)
		h := w.Cache.Lookup(k, id, true, now)
		if h.State != c.want {
			t.Errorf("%s: state %d, want %d", name, h.State, c.want)
		}
		if _, lifetime := w.Due(id, now); c.want != Absent && lifetime != (c.want == Unconfirmed) {
			t.Errorf("%s: its end is asked for: %v", name, lifetime)
		}
		if c.want == Unconfirmed && h.Stale {
			t.Errorf("%s: it would be served in an outage", name)
		}
	}
}
