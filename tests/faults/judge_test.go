package faults

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// slack is how much a bound may be exceeded by clocks that are read one after
// the other.
const slack = 10 * time.Millisecond

// memory is how long trouble may show after it is over: a request of then may
// still be under way, and what failed is not tried again at once.
const memory = time.Second + 3*clientTimeout

// judge holds every answer against the promises.
func (w *world) judge() {
	slices.SortFunc(w.h.answers, func(a, b *answer) int { return cmp.Compare(a.start.seq, b.start.seq) })
	refused := map[warmth][]*answer{}
	for _, a := range w.h.answers {
		if a.err != nil || a.left {
			continue
		}
		w.judge4(a)
		if a.own() {
			w.check5("an error", []byte(a.body))
			continue
		}
		w.judge3(a)
		if a.odd || a.wrapped {
			continue
		}
		if strings.Contains(a.body, garbage) || !strings.HasPrefix(a.body, "{") {
			if a.hit() {
				w.broke("G1: garbage was kept and served", a)
			}
			continue
		}
		who := warmth{a.inst, a.inc, a.token, a.resource, a.namespace}
		switch a.status {
		case http.StatusForbidden:
			refused[who] = append(refused[who], a)
		case http.StatusOK, http.StatusNotFound:
			w.judgeEnded(a)
			w.judgeLost(a)
			w.judge1(a)
			w.judge2(a, refused[who])
		}
	}
}

func (w *world) broke(what string, a *answer) {
	body := a.body
	if len(body) > 300 {
		body = body[:300] + "..."
	}
	whose := "the extension's token"
	if a.token >= 0 {
		whose = fmt.Sprint("token ", a.token)
	}
	w.h.broke(fmt.Sprintf("%s: %s through instance %d.%d with %s, from %v to %v (INVOKE %v): %d %s %s %s %s",
		what, a.resource, a.inst, a.inc, whose, a.start.at, a.end.at, a.invoked.at, a.status, a.cache, a.how, a.warning, body))
}

// within says that something that ended at end was still so at most d before
// to, as the instance can tell. A clock that was set in between may hide time.
func (w *world) within(s span, to moment, d time.Duration, inst int) bool {
	return w.seen(s, to, d, 0, inst)
}

// seen is within for what is asked of a node that goes on saying so for lag, by the
// clock of the servers.
func (w *world) seen(s span, to moment, d, lag time.Duration, inst int) bool {
	behind := func(m moment) bool { return m.seq <= s.until.seq || m.at+m.far-s.until.at-s.until.far <= lag }
	if s.open() || behind(to) || elapsed(s.until, to, inst) <= d+lag+slack {
		return true
	}
	for _, m := range w.h.steps {
		if m.seq >= s.from.seq && behind(m) && elapsed(m, to, inst) <= d+lag+slack {
			return true
		}
	}
	return false
}

// seenBy is seen for an answer: by its start, or by what a clock that was set meanwhile
// showed when it was looked at.
func (w *world) seenBy(s span, a *answer, d, lag time.Duration) bool {
	return w.seen(s, a.start, d, lag, a.inst) || slices.ContainsFunc(w.h.steps, func(m moment) bool {
		return m.seq >= a.start.seq && m.seq <= a.end.seq && w.seen(s, m, d, lag, a.inst)
	})
}

// judge1 is G1: an unmarked answer was the origin's late enough, a marked one
// within THAW_STALE_IF_ERROR. A write through an instance is seen by it at once.
func (w *world) judge1(a *answer) {
	if a.group == allGroups {
		return // its answers depend on who asks
	}
	body, lag := canonical(a.body), w.lag(a)
	var once bool
	why := "was never the origin's"
	for _, st := range w.h.truth[a.resource] {
		if st.status != a.status || st.body != body || st.from.seq >= a.end.seq {
			continue
		}
		once = true
		s := span{st.from, st.until}
		own, ok := w.h.written[st.write]
		ok = ok && lag == 0 && st.write != 0 && own.inst == a.inst && own.inc == a.inc && own.at.seq < a.start.seq
		switch {
		case a.stale() && !w.seenBy(s, a, w.setup.Stale, lag):
			why = fmt.Sprintf("is older than %v", w.setup.Stale)
		case a.stale():
			if !ok {
				return
			}
			why = "was written over through this instance"
		case ok:
			why = "was written over through this instance"
		case !w.seenBy(s, a, w.setup.MaxAge+recheck, lag):
			why = fmt.Sprintf("was changed at %v, more than %v before", st.until.at, w.setup.MaxAge+recheck)
		case a.invoked.seq == 0, s.open(), st.until.seq > a.invoked.seq,
			w.setup.MaxAge+lag > 0 && w.seen(s, a.invoked, w.setup.MaxAge, lag, a.inst):
			return
		default:
			why = fmt.Sprintf("was changed at %v, before the INVOKE", st.until.at)
		}
	}
	what := "G1: an answer "
	if !once {
		what = "G3: an answer "
	}
	w.broke(what+why, a)
}

// judge2 is G2: who is served may read it, or could a refresh interval ago.
func (w *world) judge2(a *answer, refused []*answer) {
	if a.group == "" {
		return // the mounts preflight is not checked by capabilities
	}
	if _, ok := w.born(a); a.hit() && !ok {
		w.broke("G2: an answer to who has never read it", a)
	}
	policy, alive, ttl := w.role(a.inst), span{}, time.Duration(0)
	if a.token >= 0 {
		t := w.tokens[a.token]
		policy, alive, ttl = t.policy, t.alive, t.ttl
		if told, ok := t.told[process{a.inst, a.inc}]; ttl > 0 && (!ok || told.seq > a.start.seq) {
			ttl += w.setup.Refresh // it is asked for with the first confirmation
			if w.loaded(a) {
				ttl += (busyFor - 1) * w.setup.Refresh
			}
		}
	}
	excused := !w.setup.Pessimistic && w.troubled(a)
	lately := func(held []span, bound time.Duration) bool {
		return slices.ContainsFunc(held, func(s span) bool {
			return s.from.seq < a.end.seq && w.within(s, a.start, bound+w.skew(), a.inst)
		})
	}
	if a.group == allGroups {
		w.judgeList(a, func(g string) bool {
			held := w.held(policy, g, "", alive)
			return excused && len(held) > 0 && held[0].from.seq < a.end.seq || lately(held, w.setup.Refresh)
		})
		return
	}
	held := w.held(policy, a.group, wayOf(a.resource), alive)
	bound := w.setup.Refresh
	if w.loaded(a) {
		bound *= busyFor
		excused = excused || !w.setup.Pessimistic && !w.answersOthers(a)
	}
	switch {
	case !excused && !lately(held, w.readFor()):
		w.broke(fmt.Sprintf("G2: an answer to whose reads are refused, for longer than %v", w.readFor()), a)
	case !excused && !lately(w.held(policy, a.group, "", alive), bound):
		w.broke(fmt.Sprintf("G2: an answer to who may not read it, for longer than %v", bound), a)
	case ttl > 0 && !excused && a.hit() && !w.setup.Steps && a.start.at+a.start.far-alive.from.at-alive.from.far > ttl+time.Second:
		w.broke(fmt.Sprintf("G2: an answer to a token that ended after %v", ttl), a)
	}
	if !a.hit() || w.setup.Shared && a.token < 0 {
		return
	}
	for _, no := range refused {
		if no.end.seq < a.start.seq && !slices.ContainsFunc(held, func(s span) bool {
			return s.from.seq < a.end.seq && (s.open() || s.until.seq > no.start.seq)
		}) {
			w.broke(fmt.Sprintf("G4: the 403 at %v did not evict", no.end.at), a)
			return
		}
	}
}

// readFor is how long a capability lasts without a read: twelve refresh intervals,
// but a minute at least and a day at most.
func (w *world) readFor() time.Duration {
	return min(max(12*w.setup.Refresh, time.Minute), 24*time.Hour)
}

// held is when a policy let read a group in a way, as long as the token lived; without a
// way: as far as capabilities show.
func (w *world) held(policy int, group string, how way, alive span) []span {
	var held []span
	for _, s := range w.h.rights[fmt.Sprint(policy, group, how)] {
		s.from = later(s.from, alive.from)
		if s.until = earlier(s.until, alive.until); s.open() || s.until.seq > s.from.seq {
			held = append(held, s)
		}
	}
	return held
}

// skew is how far the clocks of instances lie apart, where they believe each
// other.
func (w *world) skew() time.Duration {
	if w.setup.Shared {
		return time.Second
	}
	return 0
}

func later(a, b moment) moment {
	if b.seq > a.seq {
		return b
	}
	return a
}

// earlier is the end of what has two ends; one that has not come has no number.
func earlier(a, b moment) moment {
	if a.seq == 0 || b.seq != 0 && b.seq < a.seq {
		return b
	}
	return a
}

// troubled says that the origin was in trouble, as the instance saw it, or that
// connections broke, during the answer or shortly before.
func (w *world) troubled(a *answer) bool {
	return slices.ContainsFunc(w.h.faults[a.inst], func(s span) bool {
		return s.from.seq < a.end.seq && (s.open() || s.until.seq > a.start.seq || a.start.at-s.until.at <= memory)
	}) || slices.ContainsFunc(w.h.shaken[a.inst], func(m moment) bool {
		return m.seq < a.end.seq && a.start.at-m.at <= memory
	})
}

// busyFor is for how many intervals a caller keeps what it has while its
// confirmations are refused for load.
const busyFor = 3

// loaded says that a caller was refused for load when its capability was to be
// confirmed last.
func (w *world) loaded(a *answer) bool {
	return a.token >= 0 && slices.ContainsFunc(w.h.quotas[a.inst], func(s span) bool {
		return s.from.seq < a.end.seq && w.within(s, a.start, busyFor*w.setup.Refresh, a.inst)
	})
}

// answersOthers says that the origin answered a read through the same instance lately:
// else a refusal for load is an outage, as far as the instance can tell.
func (w *world) answersOthers(a *answer) bool {
	return slices.ContainsFunc(w.h.reads[a.inst], func(m moment) bool {
		return m.seq < a.start.seq && elapsed(m, a.start, a.inst) < w.setup.Refresh-time.Second
	})
}

// judge3 is G3: a secret that is in an answer is the one that was asked for.
func (w *world) judge3(a *answer) {
	rest := a.body
	for found := 0; ; found++ {
		i := strings.Index(rest, mark)
		if i < 0 {
			return
		}
		rest = rest[i+len(mark):]
		owner, _, _ := strings.Cut(rest, "#")
		mount, key, _ := strings.Cut(owner, "/")
		asked := strings.TrimPrefix(a.resource, "GET ")
		asked, _, _ = strings.Cut(asked, "?")
		switch {
		case a.wrapped:
			w.broke("G3: a secret where a wrapped one was asked for", a)
			return
		case a.status != http.StatusOK || asked != mount+"/data/"+key && asked != mount+"/"+key:
			w.broke("G3: the secret "+owner, a)
			return
		case a.odd && !a.encoded:
			w.broke("G3: the secret under a path that is another", a)
			return
		}
	}
}

// judge4 is G4: what was served is served on while the origin is away, and
// only then with a mark.
func (w *world) judge4(a *answer) {
	written := slices.ContainsFunc(w.h.writing[a.inst], func(s span) bool { // it evicts, whatever comes of it
		return s.from.seq < a.end.seq && s.until.seq > a.start.seq
	})
	over := a.token >= 0 && w.tokens[a.token].ttl > 0 && elapsed(w.tokens[a.token].alive.from, a.end, a.inst) > w.tokens[a.token].ttl-slack
	away := slices.ContainsFunc(w.h.outages[a.inst], func(s span) bool {
		return s.from.seq < a.start.seq && (s.open() || s.until.seq > a.end.seq)
	})
	switch {
	case a.sure && away && !written && !over && elapsed(a.since, a.end, a.inst) < w.setup.Stale-10*time.Second && !w.stepped(a.since, a.end) && (a.status == http.StatusTooManyRequests || a.status >= 500):
		w.broke("G4: not served while the origin is away", a)
	case a.shared && away && !written && elapsed(a.filled, a.end, a.inst) < w.setup.Stale-10*time.Second && (a.status == http.StatusTooManyRequests || a.status >= 500):
		w.broke("G4: not served while the origin is away, though its role has read it", a)
	case a.stale() && (w.setup.Pessimistic || w.setup.Stale == 0):
		w.broke("G4: served unverified, against the settings", a)
	case a.stale() && !a.short && !w.troubled(a) && !w.loaded(a):
		w.broke("G4: marked as stale though the origin was well", a)
	}
}

// stepped says that a clock was set in between. Who finds its clock set back
// does not know how old anything is, and serves nothing unverified.
func (w *world) stepped(from, to moment) bool {
	return slices.ContainsFunc(w.h.steps, func(m moment) bool { return m.seq >= from.seq && m.seq <= to.seq })
}
