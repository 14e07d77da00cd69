package faults

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// request is one read of a function.
type request struct {
	method, path string // as sent
	resource     string // what the origin takes it for; empty: not known to the model
	group        string
	odd, wrapped bool
	encoded      bool // odd, and the same path to the origin
	header       http.Header
}

// choose makes a read of an operation's numbers.
func (w *world) choose(op Op) request {
	s := w.secret(op.B)
	r := request{method: http.MethodGet, group: s.group, header: http.Header{}}
	switch n := op.C % 16; {
	case !s.v2 && n < 13:
		r.path = s.mount + "/" + s.key()
	case !s.v2:
		r.method, r.path = "LIST", s.mount+"/"+s.group
	case n < 8:
		r.path = s.mount + "/data/" + s.key()
	case n < 10:
		r.path = fmt.Sprintf("%s/data/%s?version=%d", s.mount, s.key(), 1+op.C/16%3)
	case n < 12:
		r.path = s.mount + "/metadata/" + s.key()
	case n < 13:
		r.path = s.mount + "/subkeys/" + s.key()
	case n < 15:
		r.method, r.path = "LIST", s.mount+"/metadata/"+s.group
	case w.setup.OpenBao && op.D%3 == 0:
		r.method, r.path, r.group = "LIST", s.mount+"/metadata", allGroups
	default:
		r.path = "sys/internal/ui/mounts/" + s.mount
		r.group = "" // whoever may touch anything below the mount
	}
	r.resource = r.method + " " + r.path
	switch op.C / 64 % 24 {
	case 0:
		r.path, r.odd = strings.Replace(r.path, "/", "//", 1), true
	case 1:
		r.path, r.odd = strings.Replace(r.path, "/"+s.name, "%2f"+s.name, 1), true
		r.encoded = r.path != r.resource[len(r.method)+1:]
	case 2:
		r.path, r.odd = strings.Replace(r.path, s.name, strings.ToUpper(s.name), 1), true
	case 3:
		r.path, r.odd = strings.Replace(r.path, "/", "/x/../", 1), true
	case 4:
		if r.method == http.MethodGet && !strings.Contains(r.path, "?") {
			r.path, r.odd = r.path+"/", true
		}
	case 5:
		r.header.Set("X-Vault-Wrap-Ttl", "60s")
		r.wrapped = true
	case 6:
		r.header.Set("X-Vault-Namespace", "team") // a community server ignores it
	case 7:
		r.header.Set("Cache-Control", pick([]string{"no-cache", "no-store", "max-age=0", "max-age=5", "only-if-cached", "stale-if-error=1"}, op.C/2048))
	case 8:
		r.header.Set("X-Vault-Cache-Control", pick([]string{"cache", "recache", "nocache"}, op.C/2048))
	}
	return r
}

// read has a function read.
func (w *world) read(x *instance, op Op) {
	req := w.choose(op)
	id, index := w.tokenOf(op.D)
	a := &answer{
		inst: x.n, inc: x.inc, token: index, resource: req.resource, group: req.group, namespace: req.header.Get("X-Vault-Namespace"),
		plain: len(req.header) == 0 || req.header.Get("X-Vault-Namespace") != "", odd: req.odd, encoded: req.encoded, wrapped: req.wrapped,
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if op.C%37 == 0 { // a function that does not wait long
		ctx, cancel = context.WithTimeout(ctx, time.Duration(op.D%30)*time.Millisecond)
	}
	a.start = w.moment()
	var invocation string
	if invocation, a.invoked = x.belongs(op.D%3 > 0); invocation != "" {
		req.header.Set("Lambda-Runtime-Aws-Request-Id", invocation)
	}
	key := warmth{x.n, x.inc, index, a.resource, a.namespace}
	w.mu.Lock()
	since, known := w.warm[key]
	cold := w.cold
	if c, ok := w.common(a); ok {
		a.filled, a.shared = w.fleet[c], a.plain && w.fleet[c].seq > 0
	}
	w.mu.Unlock()
	a.sure, a.since = known && a.plain && !a.odd, since
	w.trace("%d.%d %s with token %d", a.inst, a.inc, a.resource, a.token)
	asked := w.asks(x.n, index)
	w.background(func() {
		defer func() {
			late := a.own() && a.status >= http.StatusInternalServerError // its time was over, perhaps in an election
			if !a.left && !a.stale() && !late {                           // else what it began may go on
				asked()
			}
		}()
		defer cancel()
		began := time.Now()
		res, body, err := x.ask(ctx, req.method, "/v1/"+req.path, id, "", req.header)
		a.left = ctx.Err() != nil
		if took := time.Since(began); took > longest {
			w.h.broke(fmt.Sprintf("G7: %s was answered only after %v", a.resource, took))
		}
		a.end, a.err = w.moment(), err
		a.short = x.short(a.end)
		if err == nil {
			a.status, a.body = res.StatusCode, body
			a.cache, a.how, a.warning = res.Header.Get("X-Cache"), res.Header.Get("Cache-Status"), res.Header.Get("Warning")
		}
		w.trace("%d.%d %s: %d %s %s %v", a.inst, a.inc, a.resource, a.status, a.cache, a.how, a.err)
		w.lose(a)
		w.learn(a, key, cold)
		w.h.mu.Lock()
		defer w.h.mu.Unlock()
		w.h.answers = append(w.h.answers, a)
	})
}

// learn notes what must be served from now on, if the origin goes away. It is
// careful: nothing may have happened meanwhile that could have evicted it.
func (w *world) learn(a *answer, key warmth, cold int) {
	if a.err != nil || a.left {
		return
	}
	if a.status == http.StatusForbidden {
		w.forget(func(k warmth) bool { return k.inst == a.inst && k.token == a.token })
		return
	}
	if a.status == http.StatusNotFound {
		w.mu.Lock()
		maps.DeleteFunc(w.warm, func(k warmth, read moment) bool { // which of two reads at one instant was the later one, nobody knows
			return k.inst == a.inst && k.resource == a.resource && k.namespace == a.namespace && read.at == a.start.at
		})
		w.mu.Unlock()
		return
	}
	if a.token >= 0 && w.tokens[a.token].uses > 0 {
		return // nothing is kept for it once that is known
	}
	if w.setup.Pessimistic || w.setup.Small || w.setup.Stale == 0 || a.odd || a.wrapped || !a.plain || a.group == "" || a.group == allGroups ||
		strings.Contains(a.resource, "?") || a.status != http.StatusOK || a.token < 0 && w.setup.Service || a.stale() || !a.hit() && !strings.Contains(a.how, "stored") {
		return
	}
	w.h.mu.Lock()
	states := w.h.truth[a.resource]
	gone := states[len(states)-1].status != http.StatusOK // and nobody has noticed yet
	well := w.h.well(a.start, a.end) && !slices.ContainsFunc(slices.Concat(w.h.writing[:]...), func(s span) bool {
		return a.start.at-s.until.at < time.Second // as clocks may be, the read is from before the write
	}) && slices.ContainsFunc(w.held(w.role(a.inst), a.group, wayOf(a.resource), span{}), func(s span) bool {
		// As clocks may be, the read is from before a refusal just then.
		return s.from.seq < a.start.seq && (s.open() || s.until.seq > a.end.seq) && (s.from.at <= 0 || a.start.at-s.from.at >= time.Second)
	})
	w.h.mu.Unlock()
	gone = gone || !w.mayRead(a)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !gone && w.cold == cold && w.slots[a.inst].inc == a.inc {
		w.warm[key] = a.start
	}
	if c, ok := w.common(a); ok && !gone && w.cold == cold && well && !a.hit() {
		w.fleet[c] = a.end
	}
}

// mayRead tells whether who was answered may read that now. One who may not is
// refused as soon as the instance notices, be it by another read of theirs.
func (w *world) mayRead(a *answer) bool {
	policy, alive := w.role(a.inst), true
	w.mu.Lock()
	if a.token >= 0 {
		policy = w.tokens[a.token].policy
	}
	w.mu.Unlock()
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	if a.token >= 0 {
		alive = w.tokens[a.token].alive.open()
	}
	rights := w.h.rights[fmt.Sprint(policy, a.group, wayOf(a.resource))]
	return alive && len(rights) > 0 && rights[len(rights)-1].open()
}
