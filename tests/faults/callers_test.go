package faults

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// groups are what a policy lets read, or not.
var groups = [...]string{"a", "b"}

// firstRights are the groups that each policy lets read when a run begins.
var firstRights = [policies][]string{{"a", "b"}, {"a", "b"}, {"a"}, {"b"}, nil, {"a"}}

// A limit is what a policy asks of a request besides capabilities, which don't show it
// (https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints).
type limit struct {
	text    string // in each rule
	refuses []way  // without parameters and wrapping
}

// way is how something is read, as far as limits tell that apart.
type way string

const (
	reads    way = "read"
	versions way = "version" // with that parameter
	lists    way = "list"
)

var ways = [...]way{reads, versions, lists}

// wayOf is how a read of a resource is made.
func wayOf(resource string) way {
	switch {
	case strings.HasPrefix(resource, "LIST "):
		return lists
	case strings.Contains(resource, "?version="):
		return versions
	}
	return reads
}

// limits are those that policies get, most of them none.
var limits = [10]limit{
	{`required_parameters = ["reason"]`, []way{reads, versions}},
	{`denied_parameters = { "version" = [] }`, []way{versions}},
	{`allowed_parameters = { "reason" = [] }`, []way{versions}},
	{`min_wrapping_ttl = "1m"`, ways[:]},
}

// allGroups is the group of lists whose answers depend on what the policy lets
// see.
const allGroups = "*"

// token is one that a caller has, or had.
type token struct {
	id     string
	policy int
	parent int           // index in world.tokens; -1: none
	batch  bool          // nobody can revoke it but with its parent
	ttl    time.Duration // 0: long
	uses   int           // 0: not counted
	alive  span
	told   map[process]moment // when the origin told a process of its end
}

// process is one incarnation of an instance.
type process struct{ inst, inc int }

// tell notes that the origin told a process of the end of a token.
func (w *world) tell(to process, id string) {
	now := w.moment()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.tokens {
		if t.id == id {
			if t.told == nil {
				t.told = map[process]moment{}
			}
			t.told[to] = now
		}
	}
}

// asks notes that a token's caller asks an instance something, until what it returns
// is called.
func (w *world) asks(inst, token int) (over func()) {
	k := [2]int{inst, token}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asking[k]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asking[k]--
	}
}

// counted reports whether the uses of a token are.
func (w *world) counted(index int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return index >= 0 && w.tokens[index].uses > 0
}

// spent checks that nobody but its caller spends the uses of a token, but for the
// one question whether they are counted.
func (w *world) spent(inst, index int, r *http.Request) {
	w.mu.Lock()
	lent := index >= 0 && w.tokens[index].uses > 0 && w.asking[[2]int{inst, index}] == 0
	w.mu.Unlock()
	if lent && !changes(r) && r.URL.Path != "/v1/auth/token/lookup-self" { // a write is always its own
		w.h.broke(fmt.Sprintf("G2: %s %s spent a use of token %d though its caller asked for nothing", r.Method, r.URL.Path, index))
	}
}

// tokenOf picks whose token a request has: the extension's own (-1) half of
// the time.
func (w *world) tokenOf(n int) (id string, index int) {
	if n%2 == 0 {
		return "", -1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i := w.slotOf[n/2%callers]
	switch n / 2 % 16 {
	case hadBefore:
		i = w.before[n/32%callers]
	case 15: // any
		i = n / 32 % len(w.tokens)
	}
	return w.tokens[i].id, i
}

// rules let read the groups named, within a limit. Where the origin can filter lists, the lists
// of whole mounts show what the policy lets see.
func (w *world) rules(allowed []string, within limit) string {
	var b strings.Builder
	for _, g := range allowed {
		for _, path := range []string{"secret/data/", "secret/metadata/", "secret/subkeys/", "secret/delete/", "other/data/", "other/metadata/", "other/subkeys/", "kv/"} {
			fmt.Fprintf(&b, "path \"%s%s/*\" { capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\"] %s }\n", path, g, within.text)
		}
		if w.setup.Lists {
			fmt.Fprintf(&b, "path \"secret/detailed-metadata/%s/*\" { capabilities = [\"list\"] }\n", g)
		}
	}
	b.WriteString("path \"auth/token/revoke\" { capabilities = [\"update\"] }\n")
	if w.setup.OpenBao {
		for _, mount := range []string{"secret/metadata/", "other/metadata/", "kv/"} {
			fmt.Fprintf(&b, "path %q { capabilities = [\"list\"] list_scan_response_keys_filter_path = \"{{ .path }}{{ .key }}\" }\n", mount)
		}
	}
	return b.String()
}

// setPolicy lets the policy's tokens read the groups named, within a limit, and no others.
func (w *world) setPolicy(p int, allowed []string, within limit) {
	w.change(0, nil, func() {
		before := w.moment()
		if err := w.origin.SetPolicyText(fmt.Sprint("p", p), w.rules(allowed, within)); err != nil {
			panic(err)
		}
		after := w.moment()
		w.h.mu.Lock()
		defer w.h.mu.Unlock()
		note := func(id string, has bool) {
			spans := w.h.rights[id]
			switch had := len(spans) > 0 && spans[len(spans)-1].open(); {
			case had && !has:
				spans[len(spans)-1].until = after
			case has && !had:
				w.h.rights[id] = append(spans, span{from: before})
			}
		}
		for _, g := range groups {
			has := slices.Contains(allowed, g)
			note(fmt.Sprint(p, g), has)
			for _, how := range ways {
				note(fmt.Sprint(p, g, how), has && !slices.Contains(within.refuses, how))
			}
		}
	})
	w.forget(func(warmth) bool { return true })
}

// arrive gives caller i a new token.
func (w *world) arrive(i int) {
	d := w.dice("token")
	t := &token{policy: 1 + i%callerPolicies, parent: -1, batch: d.IntN(5) == 0}
	if d.IntN(4) == 0 {
		t.ttl = 30 * time.Second
	}
	if d.IntN(5) == 0 && !t.batch {
		t.uses = 100_000 // more than a run has
	}
	w.mu.Lock()
	if n := len(w.tokens); n > 0 && d.IntN(3) == 0 {
		p := w.slotOf[d.IntN(min(n, callers))]
		if of := w.tokens[p]; !of.batch && of.ttl == 0 && of.alive.open() {
			t.parent = p
		}
	}
	w.mu.Unlock()
	w.change(0, nil, func() {
		o := standin.TokenOptions{TTL: t.ttl, Batch: t.batch, Uses: t.uses, Policies: []string{fmt.Sprint("p", t.policy)}}
		if t.parent >= 0 {
			o.Parent = w.tokens[t.parent].id
		}
		t.alive.from = w.moment()
		t.id = w.origin.AddTokenWith(o)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before[i], w.slotOf[i] = w.slotOf[i], len(w.tokens)
	w.index[t.id] = len(w.tokens)
	w.tokens = append(w.tokens, t)
}

// leave ends the life of a caller's token, and another caller comes.
func (w *world) leave(x *instance, op Op) {
	i := op.D % callers
	w.mu.Lock()
	index := w.slotOf[i]
	t := w.tokens[index]
	w.mu.Unlock()
	switch how := op.B % 8; {
	case how < 3 && !t.batch: // elsewhere
		w.change(0, nil, func() {
			w.origin.RevokeToken(t.id)
			w.reap()
		})
	case how < 5 && !t.batch:
		w.revokeThrough(x, index, index, "revoke-self")
	case how < 7 && t.parent >= 0 && !t.batch: // by its parent
		w.revokeThrough(x, t.parent, index, "revoke")
	case how == 7 && !t.batch && t.ttl == 0: // it ends soon, and the caller stays
		w.renewThrough(x, t)
		return
	}
	w.arrive(i)
}

// renewThrough has a caller give its token a shorter life through an instance.
func (w *world) renewThrough(x *instance, t *token) {
	const left = 20 * time.Second
	w.forget(func(k warmth) bool { return k.token >= 0 })
	w.background(func() {
		res, body, err := x.ask(context.Background(), http.MethodPost, "/v1/auth/token/renew-self", t.id, fmt.Sprintf(`{"increment":%q}`, left), nil)
		m := w.moment()
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), t.id) { // else it is of something in between
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		t.ttl = m.at + m.far - t.alive.from.at - t.alive.from.far + left
		clear(t.told) // that is another end
	})
}

// revokeThrough has the owner of one token revoke a token through an instance.
func (w *world) revokeThrough(x *instance, by, which int, how string) {
	body := ""
	w.mu.Lock()
	id := w.tokens[by].id
	if how == "revoke" {
		body = fmt.Sprintf(`{"token":%q}`, w.tokens[which].id)
	}
	w.mu.Unlock()
	w.forget(func(k warmth) bool { return k.inst == x.n })
	begun := w.moment()
	asked := w.asks(x.n, by)
	w.background(func() {
		defer asked()
		res, _, err := x.ask(context.Background(), http.MethodPost, "/v1/auth/token/"+how, id, body, nil)
		w.forget(func(k warmth) bool { return k.inst == x.n })
		over := w.moment()
		w.h.mu.Lock()
		defer w.h.mu.Unlock()
		w.h.writing[x.n] = append(w.h.writing[x.n], span{begun, over})
		if err == nil && res.StatusCode == http.StatusNoContent { // a 200 is of something in between
			w.h.ended = append(w.h.ended, ended{which, written{x.n, x.inc, over}})
		}
	})
}

// reap notes which tokens are good no more. The caller changes the origin.
func (w *world) reap() {
	w.mu.Lock()
	all := slices.Clone(w.tokens)
	w.mu.Unlock()
	for i, t := range all {
		w.h.mu.Lock()
		alive := t.alive.open()
		w.h.mu.Unlock()
		if !alive {
			continue
		}
		if status, _ := w.root(http.MethodPost, "auth/token/lookup", fmt.Sprintf(`{"token":%q}`, t.id)); status != http.StatusForbidden {
			continue
		}
		m := w.moment()
		w.h.mu.Lock()
		t.alive.until = m
		w.h.mu.Unlock()
		w.forget(func(k warmth) bool { return k.token == i })
	}
}

// judgeEnded is G2 for a token that was revoked through the same instance: it
// is served nothing more.
func (w *world) judgeEnded(a *answer) {
	for _, e := range w.h.ended {
		if e.token == a.token && e.inst == a.inst && e.inc == a.inc && e.at.seq < a.start.seq {
			w.broke(fmt.Sprintf("G2: an answer to a token that was revoked through this instance at %v", e.at.at), a)
			return
		}
	}
}

// judgeList is G2 for lists that show what who asks may see.
func (w *world) judgeList(a *answer, may func(group string) bool) {
	for _, g := range groups {
		if strings.Contains(a.body, `"`+g+`/"`) && !may(g) {
			w.broke(fmt.Sprintf("G2: a list with %s/ to who may not see it", g), a)
			return
		}
	}
}
