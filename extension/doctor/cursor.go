package doctor

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wait"
)

// What polls cost without a cursor, and what to do about it.
const (
	pollCost   = "each poll reads every cached secret once: one request per secret and invocation, THAW_POLL_CONCURRENCY at a time"
	folderCost = "each poll lists every folder of KV version 2 that has at least four cached secrets, where the role may, and reads every other cached secret once"
	folderList = "let the role list <mount>/detailed-metadata/<folder>/ of each folder with four secrets or more; "
	passLeader = "let sys/leader through to Vault as it is: it needs no token"
	toActive   = "give thaw an address that reaches the active node: a load balancer whose health check wants 200 from /v1/sys/health"
	nameNodes  = "set enable_response_header_raft_node_id = true at the top level of each node's configuration"
)

// saveRequests is the advice that the settings leave room for.
func saveRequests(c config.Config) string {
	longer := "let a verification count for longer (THAW_MAX_AGE=10s)"
	if age := c.MaxAge; age > 0 {
		longer = "let a verification count for longer than THAW_MAX_AGE=" + age.String() + ", if that is fresh enough"
	}
	if c.Poll == config.PollInvoke {
		longer += ", poll only in invocations that read (THAW_POLL=read)"
	}
	return "to save requests, " + longer + ", or share the cache"
}

// cursor says whether one request can verify everything, and what polls cost.
func cursor(ctx context.Context, e *Exam) Finding {
	var n *node // the one that tells most
	for _, o := range e.asked() {
		if o.leader != nil && !o.health.Sealed && (n == nil || o.leader.IsSelf && !n.leader.IsSelf) {
			n = o
		}
	}
	if n == nil {
		return Advise("no node answers sys/leader", pollCost, passLeader)
	}
	l, h := n.leader, n.health
	alone := "no cursor: this origin's standbys may serve reads themselves (version " + version(h) + ")"
	nameless, save := !h.ForwardsReads() && l.Node == "", saveRequests(e.Config)
	cost := pollCost
	if h.OpenBao && (len(e.Config.Memcached) == 0 || e.Config.MaxAge <= e.Config.ClockSkew) {
		cost, save = folderCost, folderList+save
	}
	f := verdicts{
		{l.Status == http.StatusTooManyRequests, Finding{}}, // quota says so
		{l.Status != http.StatusOK, Advise(n.String()+": sys/leader answers "+strconv.Itoa(l.Status), cost, passLeader)},
		{l.Cached, Advise(n.String()+": something in between answers sys/leader from a cache", cost, passLeader)},
		{nameless && l.Committed != 0, Advise(alone+", and its answers do not name their nodes", cost, nameNodes+": then one GET sys/leader per invocation does; else, "+save)},
		{nameless, Advise(alone, cost, save)},
		{l.Unsure, Advise("no cursor: an answer of sys/leader names two nodes, or none where others name one, or two nodes claim to lead", cost,
			"set enable_response_header_raft_node_id alike on all nodes, and check that the address leads to one cluster")},
		{l.Committed == 0 && l.HAEnabled && !l.IsSelf, Advise("no cursor: "+n.String()+" is a standby, and shows no index", cost, toActive)},
		{l.Committed == 0, Advise("no cursor: Vault's storage is not integrated (raft)", cost, save)},
		{!l.IsSelf, Advise("no cursor: "+n.String()+" is a standby, whose index proves nothing", cost, toActive)},
		{true, Fine("there is a cursor: one GET sys/leader verifies everything cached, once per invocation, while nothing is written in Vault")},
	}.first()
	if f.Level != OK || !e.moves(ctx, n) {
		return f
	}
	e.Tell(f)
	return Advise("the index moves all the time: something writes to Vault every half second",
		"a poll then finds it moved and reads every cached secret again", "find out what writes (logins with service tokens? leases?), use batch tokens; "+save)
}

// moves reports whether the index moved in two half seconds in a row.
func (e *Exam) moves(ctx context.Context, n *node) bool {
	var last vault.Leader
	for i := range 3 {
		if i > 0 && wait.For(ctx, time.Second/2) != nil {
			return false
		}
		l, err := n.client.Leader(ctx)
		if err != nil || l.Committed == 0 || i > 0 && l.Committed == last.Committed {
			return false
		}
		last = l
	}
	return true
}

// forwarding asks whether a request may be sent on to the active node by a
// header (https://developer.hashicorp.com/vault/docs/configuration/replication#allow_forwarding_via_header).
func forwarding(ctx context.Context, e *Exam) Finding {
	cfg := e.Config
	forwards, always := cfg.WhenInconsistent == config.InconsistentForward, cfg.EnforceConsistency == config.EnforceAlways
	if some(e, func(h *vault.Health) bool { return h.OpenBao }) {
		return Finding{} // it ignores the header
	}
	secondary := func(h *vault.Health) bool { return h.ReplicationPerformanceMode == "secondary" }
	if forwards && always && some(e, secondary) {
		return Fault("THAW_WHEN_INCONSISTENT=forward on a performance secondary",
			"its active node lags behind the primary like its standbys: a read there may miss what was just written", "use THAW_WHEN_INCONSISTENT=retry or fail, or the primary's addresses")
	}
	res, body, err := e.Ask(ctx, http.MethodGet, cfg.Namespace, "auth/token/lookup-self", nil, http.Header{"X-Vault-Forward": {"active-node"}})
	if err != nil {
		return Unseen("whether Vault takes X-Vault-Forward: "+err.Error(), again)
	}
	const fix = "set allow_forwarding_via_header = true in the replication stanza of every node's configuration (Enterprise), or choose another THAW_WHEN_INCONSISTENT"
	const what = "THAW_WHEN_INCONSISTENT=forward, and Vault refuses X-Vault-Forward (allow_forwarding_via_header is not set)"
	one := len(e.nodes) == 1 && some(e, func(h *vault.Health) bool { return h.Enterprise })
	return verdicts{
		{res.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "disabled in configuration"), Fine("Vault takes X-Vault-Forward")},
		{forwards && always && one, Fault(what, "a read that a standby cannot answer yet fails: behind one address thaw cannot ask the active node itself",
			fix+", or name the nodes in THAW_VAULT_ADDRS")},
		{forwards, Advise(what, "under THAW_ENFORCE_CONSISTENCY=always and Vault Enterprise thaw asks the active node itself, which takes a request more", fix)},
		{true, Fine("Vault refuses X-Vault-Forward, as it does by default; thaw does not need it as it is configured")},
	}.first()
}

// subscribe is the path that a subscription to KV's events needs "read" on
// (https://developer.hashicorp.com/vault/docs/concepts/events#policies).
const subscribe = "sys/events/subscribe/kv*"

// events asks whether the token may hear of changes, where thaw would listen.
func events(ctx context.Context, e *Exam) Finding {
	switch cfg := e.Config; {
	case !some(e, func(h *vault.Health) bool { return h.Enterprise }):
		return Fine("no event stream: only Vault Enterprise has one; thaw polls")
	case !cfg.Events:
		return Fine("THAW_EVENTS=off: thaw polls")
	case cfg.Platform.Lambda && cfg.Platform.InitType != config.InitManaged:
		return Fine("no event stream is kept where the sandbox freezes; thaw polls")
	}
	asked := []string{subscribe}
	for _, w := range e.wants(ctx) {
		if !w.prefix && w.namespace == e.Config.Namespace {
			asked = append(asked, w.changes()...)
		}
	}
	of, err := e.capabilities(ctx, e.Config.Namespace, asked...)
	if err != nil {
		return Unseen("what the token may do: "+err.Error(), again)
	}
	const why = "what thaw does not hear of it polls, once every THAW_RECHECK"
	if !allows(of[subscribe], "read") {
		return Advise("the token may not subscribe to KV's events", why, addPolicy+stanza(subscribe, "read")+", or set THAW_EVENTS=off")
	}
	unheard := slices.DeleteFunc(asked[1:], func(p string) bool { return allows(of[p], "subscribe") })
	rules := addPolicy
	for _, p := range unheard {
		rules += hear(p, of[p]) + " "
	}
	if len(unheard) > 0 {
		return Advise("the token may not hear of changes of "+strings.Join(unheard, ", "), why, strings.TrimSpace(rules))
	}
	return Fine("the token may subscribe to KV's events")
}

// changes are the paths whose events tell of a secret's changes, as the
// listener asks for them; none where the path is no KV secret's.
func (w wanted) changes() []string {
	switch w.mount.Version {
	case 1:
		return []string{w.meant}
	case 2:
		_, key, _ := strings.Cut(strings.TrimPrefix(w.meant, w.mount.Path+"/"), "/")
		return cache.Kinds(w.mount.Path, key)
	}
	return nil
}

// hear is the rule that lets a token with these capabilities hear of a path's
// changes. Of the rules that match a path only the most specific counts
// (https://developer.hashicorp.com/vault/docs/concepts/policies), so it repeats
// them, and one for "*" would not do.
func hear(path string, held []string) string {
	all := slices.DeleteFunc(append(slices.Clone(held), "list", "subscribe"), func(c string) bool { return c == "deny" })
	slices.Sort(all)
	return strings.TrimSuffix(stanza(path, slices.Compact(all)...), "}") + "subscribe_event_types = [\"kv*\"] }"
}

// exempt is the command that takes sys/leader out of rate limits, with Vault's
// own list, which it replaces.
const exempt = "vault write sys/quotas/config rate_limit_exempt_paths=sys/leader,sys/health,sys/seal-status,sys/unseal," +
	"sys/generate-root/attempt,sys/generate-root/update,sys/generate-recovery-token/attempt,sys/generate-recovery-token/update"

// quota looks whether rate limits count the polls' question. Who may read the
// quotas' configuration sees it there; without that right the answers' headers
// tell, where Vault is told to send them
// (https://developer.hashicorp.com/vault/api-docs/system/quotas-config).
func quota(ctx context.Context, e *Exam) Finding {
	const why = "polls use up the quota of the function's own reads; at 429 they read each secret again, and what cannot be verified is served marked stale"
	for _, n := range e.asked() {
		res, _, err := n.ask(ctx, "sys/leader")
		switch {
		case err != nil:
		case res.StatusCode == http.StatusTooManyRequests:
			return Fault(n.String()+": a rate limit quota refuses sys/leader (429)", why, exempt)
		case res.Header.Get("X-Ratelimit-Limit") != "":
			return Advise(n.String()+": a rate limit quota counts sys/leader", why, exempt)
		}
	}
	var config struct {
		Exempt   []string `json:"rate_limit_exempt_paths"`
		Absolute []string `json:"absolute_rate_limit_exempt_paths"`
	}
	_, err := e.data(ctx, http.MethodGet, "", "sys/quotas/config", nil, &config)
	switch {
	case err != nil:
		return Fine("no rate limit is seen on sys/leader; the token may not read sys/quotas/config, so Vault's operators know for sure (rate_limit_exempt_paths)")
	case slices.Contains(append(config.Exempt, config.Absolute...), "sys/leader"):
		return Fine("sys/leader is exempt from rate limits")
	}
	quotas, status := e.list(ctx, "", "sys/quotas/rate-limit")
	named := "rate limit quotas"
	if len(quotas) > 0 {
		named += " (" + strings.Join(quotas, ", ") + ")"
	}
	if status == http.StatusNotFound {
		return Fine("there are no rate limit quotas")
	}
	return Advise("Vault has "+named+", and sys/leader is not among rate_limit_exempt_paths", why, exempt)
}
