package cache

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// TestG2EachWayOfACapability is the table in docs/guarantees.md: each way in which a
// capability is born, kept, doubted and lost, for each kind of answer, under thaw's
// own identity and a caller's.
func TestG2EachWayOfACapability(t *testing.T) {
	t.Parallel()
	const interval = 5 * time.Minute // newWorld's
	type scene struct {
		*world
		k     Key
		token string
	}
	read := func(s scene) { s.load(s.k, s.token).Close() }
	holds := func(s scene) bool {
		_, ok := s.confirmedAt(s.identity(s.token), s.k.Capability())
		return ok
	}
	confirm := func(s scene) {
		s.Confirm(s.identity(s.token), s.clock.now(), []Capability{s.k.Capability()}, nil)
	}
	// hit reports whether the entry is served, once it is verified, without more of
	// its holder.
	hit := func(s scene) State {
		h := s.look(s.k, s.token, s.clock.now())
		switch {
		case h.State == Absent, h.State == Unconfirmed, h.Overdue:
			return h.State
		}
		return Fresh
	}
	kinds := map[string]Key{
		"v2 read":    key("secret/data/a"),
		"v2 version": {Path: "secret/data/a", Query: "version=1"},
		"v2 list":    {Path: "secret/metadata/a", Op: List},
		"v1 read":    key("kv/a"),
		"v1 list":    {Path: "kv/a", Op: List},
	}
	ways := map[string]struct {
		do   func(s scene)
		want State // Fresh: served; Unconfirmed; Aged: the read is sent; Absent: none
		own  string
	}{
		"born of a read":                   {do: read, want: Fresh},
		"not of another's read":            {do: func(s scene) { s.load(s.k, "somebody").Close() }},
		"not of a confirmation":            {do: func(s scene) { s.load(s.k, "somebody").Close(); confirm(s) }},
		"not of a refusal":                 {do: func(s scene) { s.deny(s.token, s.k.Path); read(s); s.allow(s.token) }},
		"not of a failure":                 {do: func(s scene) { s.inBetween(trouble(http.StatusTooManyRequests)); read(s); s.inBetween(nil) }},
		"not of something in between":      {do: func(s scene) { s.origin.header.Set("Age", "3"); read(s); s.origin.header.Del("Age") }},
		"not of a read with another query": {do: func(s scene) { k := s.k; k.Query = "version=2"; s.load(k, s.token).Close() }},
		"not of a wrapped answer": {do: func(s scene) {
			s.origin.says(asked(s.k), `{"wrap_info":{"token":"x"},"data":null,"auth":null,"lease_id":""}`)
			read(s)
		}},
		"kept for an interval":   {do: func(s scene) { read(s); s.clock.add(interval - time.Second) }, want: Fresh},
		"due after it":           {do: func(s scene) { read(s); s.clock.add(interval + time.Second) }, want: Unconfirmed},
		"kept by a confirmation": {do: func(s scene) { read(s); s.clock.add(2 * interval); confirm(s) }, want: Fresh},
		"not by one that was asked before": {do: func(s scene) {
			at := s.clock.now()
			s.clock.add(1)
			read(s)
			s.clock.add(interval)
			s.Confirm(s.identity(s.token), at, []Capability{s.k.Capability()}, nil)
			s.clock.add(1)
		}, want: Unconfirmed},
		"kept for twelve intervals":              {do: func(s scene) { read(s); s.clock.add(12 * interval); confirm(s) }, want: Fresh},
		"read after twelve, whatever confirms":   {do: func(s scene) { read(s); s.clock.add(12*interval + 1); confirm(s) }, want: Aged},
		"kept by that read":                      {do: func(s scene) { read(s); s.clock.add(12*interval + 1); read(s) }, want: Fresh},
		"doubted by a policy that was written":   {do: func(s scene) { read(s); s.clock.add(1); s.Doubt() }, want: Aged},
		"doubted, and no confirmation helps":     {do: func(s scene) { read(s); s.clock.add(1); s.Doubt(); s.clock.add(1); confirm(s) }, want: Aged},
		"doubted, and read":                      {do: func(s scene) { read(s); s.clock.add(1); s.Doubt(); s.clock.add(1); read(s) }, want: Fresh},
		"kept while the origin is away":          {do: func(s scene) { read(s); s.clock.add(4 * interval); failed(s.world, s.token, false) }, want: Fresh},
		"kept for load by its own login":         {do: func(s scene) { read(s); s.clock.add(4 * interval); answers(s.world); failed(s.world, s.token, true) }, want: Aged, own: "served"},
		"kept for load for two intervals":        {do: func(s scene) { read(s); s.clock.add(3*interval - 1); answers(s.world); failed(s.world, s.token, true) }, want: Fresh},
		"kept for load where nobody is answered": {do: func(s scene) { read(s); s.clock.add(4 * interval); failed(s.world, s.token, true) }, want: Fresh},
		"lost by a refusal":                      {do: func(s scene) { read(s); s.clock.add(1); s.deny(s.token, s.k.Path); read(s) }},
		"lost by a refusal, though confirmed": {do: func(s scene) {
			read(s)
			s.clock.add(1)
			s.deny(s.token, s.k.Path)
			at := s.clock.now()
			s.clock.add(1)
			confirm(s)
			s.clock.set(at)
			read(s)
		}},
		"lost by its confirmation": {do: func(s scene) {
			read(s)
			s.clock.add(1)
			s.Confirm(s.identity(s.token), s.clock.now(), nil, []Capability{s.k.Capability()})
		}},
		"lost with its identity": {do: func(s scene) { read(s); s.identity(s.token).Reset() }},
		"lost with its token's end": {do: func(s scene) {
			read(s)
			s.Learned(s.identity(s.token), Token{Expires: s.clock.now().Add(time.Minute)})
			s.clock.add(2 * time.Minute)
		}},
	}
	for kind, k := range kinds {
		for _, token := range []string{"", "alice"} {
			for name, way := range ways {
				w := newWorld(t)
				for _, path := range []string{"secret/data/a", "secret/data/a", "secret/data/a/b", "kv/a", "kv/a/b"} {
					w.origin.put(path, "one")
				}
				w.Learn(Mount{Path: "secret", Version: 2})
				w.Learn(Mount{Path: "kv", Version: 1})
				s := scene{w, k, token}
				way.do(s)
				want := way.want
				if way.own == "served" && token == "" {
					want = Fresh
				}
				if got := hit(s); got != want {
					t.Errorf("%s, token %q, %s: state %d, want %d", kind, token, name, got, want)
				}
				if want == Absent && holds(s) {
					t.Errorf("%s, token %q, %s: it is held", kind, token, name)
				}
			}
		}
	}
}

// failed has a confirmation fail.
func failed(w *world, token string, load bool) {
	status := 0
	if load {
		status = http.StatusTooManyRequests
	}
	w.ConfirmFailed(w.identity(token), w.clock.now().Add(time.Second), status)
}

// answers has the origin answer somebody else.
func answers(w *world) {
	k := key("secret/data/other")
	w.origin.put(k.Path, "x")
	w.load(k, "somebody")
}

// TestG2AReadIsMadeBesideTheHitsFromTheNinthIntervalOn: spread over what is left to
// the twelfth, a few at a time, and only of what is cached.
func TestG2AReadIsMadeBesideTheHitsFromTheNinthIntervalOn(t *testing.T) {
	t.Parallel()
	const interval = 5 * time.Minute
	w := newWorld(t)
	var keys []Key
	for i := range 40 {
		k := key("secret/data/" + string(rune('A'+i)))
		w.origin.put(k.Path, "one")
		w.load(k, []string{"", "alice"}[i%2])
		keys = append(keys, k)
	}
	w.known("alice") // a token whose uses may be counted is lent to nothing
	w.clock.add(9*interval - time.Second)
	if due := w.Rereads(w.clock.now(), 8); len(due) > 0 {
		t.Errorf("%d reads before the ninth interval is over", len(due))
	}
	polls := 0
	for n := 0; n < 3*5*60 && polls < 1000; n++ { // to the twelfth, a poll each second
		for _, c := range w.Rereads(w.clock.now(), 8) {
			polls++
			if _, err := w.Load(t.Context(), Want{Key: c.Key, ID: c.ID, Poll: true}); err != nil {
				t.Fatal(err)
			}
		}
		w.clock.add(time.Second)
	}
	if polls != len(keys) {
		t.Errorf("%d reads of %d capabilities", polls, len(keys))
	}
	for i, k := range keys {
		if h := w.look(k, []string{"", "alice"}[i%2], w.clock.now()); h.Overdue || h.Entry == nil {
			t.Errorf("%s: %+v", k.Path, h.State)
		}
	}
	w.clock.add(13 * interval)
	if due := w.Rereads(w.clock.now(), 8); len(due) != 8 {
		t.Errorf("%d reads at once, want 8", len(due))
	}
	w.Purge("", "")
	if due := w.Rereads(w.clock.now(), 8); len(due) != 0 {
		t.Errorf("%d reads of what is not cached", len(due))
	}
}

// TestG2TwelveIntervalsAreAMinuteAtLeastAndADayAtMost.
func TestG2TwelveIntervalsAreAMinuteAtLeastAndADayAtMost(t *testing.T) {
	t.Parallel()
	for interval, want := range map[time.Duration]time.Duration{time.Second: time.Minute, 5 * time.Minute: time.Hour, 10 * time.Hour: 24 * time.Hour} {
		w := newWorld(t, func(o *Options) { o.RefreshInterval = interval })
		k := key("secret/data/a")
		w.origin.put(k.Path, "one")
		w.load(k, "")
		for _, d := range []time.Duration{want, want + 1} {
			if h := w.look(k, "", newClock().now().Add(d)); h.Overdue != (d > want) {
				t.Errorf("interval %v: after %v a read is due: %v", interval, d, h.Overdue)
			}
		}
	}
}

var errAway = errors.New("away")

// TestG4AnOverdueCapabilityServesWhileTheOriginIsAway: but not longer than an entry
// may be served.
func TestG4AnOverdueCapabilityServesWhileTheOriginIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.StaleIfError = 24 * time.Hour })
	k := key("secret/data/a")
	w.origin.put(k.Path, "one")
	w.load(k, "alice")
	w.origin.err = errAway
	for n, want := range []bool{0: true, 13: true, 23: true, 25: false} {
		if n > 0 && n != 13 && n != 23 && n != 25 {
			continue
		}
		now := w.clock.set(newClock().now().Add(time.Duration(n) * time.Hour))
		w.ConfirmFailed(w.identity("alice"), now.Add(time.Second), 0)
		if h := w.look(k, "alice", now); h.Stale != want {
			t.Errorf("after %d hours it may be served: %v", n, h.Stale)
		}
	}
}

func TestAnAnswerWithAgeVerifiesNothing(t *testing.T) {
	t.Parallel()
	for _, h := range []http.Header{{"Age": {"7"}}, {"X-Cache": {"HIT"}}} {
		w := newWorld(t)
		w.origin.header = h
		w.origin.put("secret/data/a", "one")
		w.load(key("secret/data/a"), "")
		w.expect(key("secret/data/a"), "", Absent, "") // the origin may have said it to somebody else
		w.origin.header = http.Header{}
		w.load(key("secret/data/a"), "")
		w.expect(key("secret/data/a"), "", Fresh, "one")
		w.origin.header = h
		w.origin.put("secret/data/a", "two")
		w.clock.add(time.Millisecond)
		w.Begin(w.clock.add(time.Minute))
		w.load(key("secret/data/a"), "")
		w.expect(key("secret/data/a"), "", Unverified, "two")
		w.Revalidate(w.origin.Index(t.Context(), 0), Revalidation{w.clock.now(), 0})
		w.expect(key("secret/data/a"), "", Unverified, "two")
	}
}

// TestG2WhatTheSharedCacheSaysOfACapability: another's clock may be apart from ours by
// THAW_CLOCK_SKEW, so a read that is not later than an end by more than that may have been
// before it; and without a read there is no capability.
func TestG2WhatTheSharedCacheSaysOfACapability(t *testing.T) {
	t.Parallel()
	now := newClock().now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		read  bool // we have read it, a minute ago
		found Confirmation
		held  bool
	}{
		"nothing":                              {true, Confirmation{}, true},
		"a read":                               {false, Confirmation{Read: ago(time.Minute), At: ago(time.Minute)}, true},
		"a confirmation without a read":        {false, Confirmation{At: ago(time.Minute)}, false},
		"a confirmation of long ago":           {false, Confirmation{Read: ago(25 * time.Hour), At: ago(25 * time.Hour)}, false},
		"an end":                               {false, Confirmation{Read: ago(time.Hour), At: ago(time.Minute), Ended: ago(30 * time.Minute)}, false},
		"an end after our read":                {true, Confirmation{Ended: ago(time.Second)}, false},
		"an end at our read, as clocks may be": {true, Confirmation{Ended: ago(time.Minute + time.Second)}, false},
		"an end long before our read":          {true, Confirmation{Ended: ago(time.Hour)}, true},
	} {
		w := newWorld(t, func(o *Options) { o.StaleIfError, o.Skew = 24*time.Hour, time.Second })
		k := key("secret/data/a")
		w.origin.put(k.Path, "one")
		if w.clock.set(now.Add(-time.Minute)); c.read {
			w.load(k, "")
		}
		w.clock.set(now)
		w.Take(map[Capability]Confirmation{k.Capability(): c.found})
		if _, held := w.Access.confirmedAt(w.Own(), k.Capability()); held != c.held {
			t.Errorf("%s: held: %v", name, held)
		}
	}
}
