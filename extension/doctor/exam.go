package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wire"
)

// Exam is one examination: what is examined, and what the checks so far have
// found. Checks run one after the other.
type Exam struct {
	Config config.Config

	o         Options
	log       *slog.Logger // what the product's parts log: nothing
	report    Report
	check     string        // the name of the one that runs
	hide      redactor      // what no finding may hold
	client    *vault.Client // as the product's, for all nodes
	nodes     []*node
	tokens    *auth.Manager   // nil before the login
	token     string          // of the login; empty: there is none
	impatient bool            // VAULT_CLIENT_TIMEOUT would have waited for longer
	wanted    []wanted        // empty before the first check that asks for them
	read      map[string]bool // paths that were read, or answered for certain
	as        string          // the principal that logged in, where it is not the function's; empty: it is
}

// node is one server of the origin: an address as configured, or one of
// several that its name stands for.
type node struct {
	addr   string   // as configured
	url    *url.URL // of addr
	ip     string   // the one address asked; empty: whichever the system takes
	to     *url.URL // whom connections go to: url, or the proxy on the way
	failed bool     // an earlier check found that it cannot be asked

	client *vault.Client
	health *vault.Health // nil: not asked yet, or no answer
	err    error         // why there is none
	sent   time.Time     // the middle of the time that the question for it took
	leader *vault.Leader
	took   time.Duration // by the fastest question on a connection that was there
}

// String names the node in findings.
func (n *node) String() string {
	if n.ip != "" && n.ip != n.url.Hostname() {
		return n.addr + " (" + n.ip + ")"
	}
	return n.addr
}

// patience is how long an answer is waited for at most.
const patience = 5 * time.Second

// begin prepares the questions.
func (e *Exam) begin(cfg config.Config) (err error) {
	// One attempt and a patience of seconds: what fails is the finding.
	e.impatient = cfg.ClientTimeout > patience
	cfg.ClientTimeout = min(cfg.ClientTimeout, patience)
	e.Config = cfg
	if e.client, err = e.clientFor(nil); err != nil {
		return err
	}
	for _, addr := range slices.Concat(cfg.Addrs, cfg.ReadAddrs) {
		u, _ := url.Parse(strings.TrimSpace(addr)) // as the client did
		n := &node{addr: addr, url: u, to: u}
		if cfg.ProxyURL != nil && u.Scheme != "unix" {
			if p, err := cfg.ProxyURL(&http.Request{URL: u}); err == nil && p != nil {
				n.to = p
			}
		}
		e.nodes = append(e.nodes, n)
	}
	return nil
}

// clientFor makes a client as the product's own, that tries once: for one node,
// without a choice among several, or for all where n is nil. Where the node has
// an ip the client dials that one whatever the name.
func (e *Exam) clientFor(n *node) (*vault.Client, error) {
	o := vault.Options{Config: e.Config, Logger: e.log}
	o.MaxRetries, o.RateLimit = 0, 0
	if n != nil {
		o.Addrs, o.ReadAddrs, o.StandbyReads, o.ActiveOnly, o.SRVLookup = []string{n.addr}, nil, false, false, false
	}
	if n != nil && n.ip != "" {
		dialer := &net.Dialer{Timeout: e.Config.ConnTimeout}
		o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, net.JoinHostPort(n.ip, port(n.url)))
		}
	}
	return vault.New(o)
}

// identified are the checks whose findings hold for whoever logged in.
const identified = " auth policy kv token forwarding events "

// A verdict is a finding, if it holds. A check that chooses among several writes
// them as the rows of a table.
type verdict struct {
	holds bool
	Finding
}

type verdicts []verdict

// first is the first finding that holds. All rows are made before one is chosen, so
// none may depend on those above it.
func (table verdicts) first() Finding {
	for _, v := range table {
		if v.holds {
			return v.Finding
		}
	}
	return Finding{}
}

// matters is a Problem where must says that it has to work, for the reason why; else an
// Advice, for the reason otherwise.
func matters(must bool, what, why, otherwise, fix string) Finding {
	if must {
		return Fault(what, why, fix)
	}
	return Advise(what, otherwise, fix)
}

// Tell records a finding, of the check that runs unless it names another.
func (e *Exam) Tell(f Finding) {
	if f.Level == "" {
		return
	}
	f.Check = cmp.Or(f.Check, e.check)
	if e.as != "" && f.Level != Unchecked && strings.Contains(identified, " "+f.Check+" ") {
		f.Level, f.What = Unchecked, "seen as "+e.as+", which is not the function: "+f.What
		f.Fix = cmp.Or(f.Fix, "run the doctor in the function, where its own role logs in")
	}
	if n := map[Level]*int{Problem: &e.report.Problems, Advice: &e.report.Advice, Unchecked: &e.report.Unchecked}[f.Level]; n != nil {
		*n++
	}
	for _, text := range []*string{&f.What, &f.Why, &f.Fix} {
		*text = e.hide.clean(e.Config.Named(*text))
	}
	e.report.Findings = append(e.report.Findings, f)
	e.o.Found(f)
}

// startsNot says what follows from a fault of that kind, which is Lambda's word for it.
func (e *Exam) startsNot(kind string) string {
	if e.o.Azure != nil {
		return "thaw-azure does not start with it, and the host gives up after a few tries"
	}
	return "thaw does not start with it: in Lambda the function fails with Extension." + kind
}

// is reports whether an error is, or wraps, one of a type.
func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// ask sends one request for one node without a token, and returns its answer; where none
// came, the status is 0. path is the API's, without /v1/.
func (n *node) ask(ctx context.Context, path string) (*http.Response, []byte, error) {
	req, err := wire.Request(ctx, http.MethodGet, "", path, "", nil)
	if err != nil {
		return new(http.Response), nil, err
	}
	return read(n.client.DoOnce(req))
}

// Ask sends one request to the origin with the token of the login, if there is
// one. path is the API's, without /v1/; body nil: none. A status of any kind
// is an answer; where none came, it is 0.
func (e *Exam) Ask(ctx context.Context, method, namespace, path string, body any, header http.Header) (*http.Response, []byte, error) {
	req, err := wire.Request(ctx, method, namespace, path, e.token, body)
	if err != nil {
		return new(http.Response), nil, err
	}
	maps.Copy(req.Header, header)
	return read(e.client.Do(req))
}

// data asks as Ask does, and reads the data of an answer 200 into into. status is 0
// where none came; any other than 200, and data of another shape, is an error, too.
func (e *Exam) data(ctx context.Context, method, namespace, path string, body, into any) (status int, err error) {
	res, raw, err := e.Ask(ctx, method, namespace, path, body, nil)
	a := struct {
		Data any `json:"data"`
	}{into}
	if err == nil && (res.StatusCode != http.StatusOK || json.Unmarshal(raw, &a) != nil) {
		err = errors.New(path + " answers " + strconv.Itoa(res.StatusCode) + said(raw))
	}
	return res.StatusCode, err
}

// list gives what the origin lists below a path; none where it refuses to.
func (e *Exam) list(ctx context.Context, namespace, path string) (keys []string, status int) {
	var listed struct{ Keys []string }
	status, _ = e.data(ctx, "LIST", namespace, path, nil, &listed)
	return listed.Keys, status
}

// maxAnswer bounds an answer that is read.
const maxAnswer = 4 << 20

func read(res *http.Response, err error) (*http.Response, []byte, error) {
	if err != nil {
		return new(http.Response), nil, err
	}
	defer res.Body.Close()
	body, err := wire.Read(res, maxAnswer)
	return res, body, err
}

// said quotes the errors of one of Vault's error answers, on one line.
func said(body []byte) string {
	texts := wire.New(0, nil, body).Errors()
	if len(texts) == 0 {
		return ""
	}
	text := strings.Join(strings.Fields(strings.Join(texts, "; ")), " ")
	return ": " + text[:min(len(text), 200)]
}

// What checks may need, and where they are moot.

// unless is what is missing where something is not so; else nothing.
func unless(so bool, missing string) string {
	if so {
		return ""
	}
	return missing
}

// asked are the nodes that answer.
func (e *Exam) asked() []*node {
	return slices.DeleteFunc(slices.Clone(e.nodes), func(n *node) bool { return n.health == nil })
}

// some reports whether one of the nodes that answer is so.
func some(e *Exam, is func(*vault.Health) bool) bool {
	return slices.ContainsFunc(e.asked(), func(n *node) bool { return is(n.health) })
}

func reachable(e *Exam) string {
	return unless(slices.ContainsFunc(e.nodes, func(n *node) bool { return !n.failed }), "no node of Vault can be connected to")
}

// noLogin says that callers bring their tokens, unless there is a role that only
// Lambda would log in with.
func noLogin(e *Exam) string {
	has := e.lent() || e.Config.Auth.Method != config.AuthNone && e.Config.Auth.Method != ""
	return unless(has, "thaw has no login of its own, and callers bring their tokens (THAW_AUTH_METHOD, VAULT_AUTH_ROLE)")
}

func answering(e *Exam) string {
	return unless(len(e.asked()) > 0, "no node of Vault answers")
}

func serving(e *Exam) string {
	able := []vault.Role{vault.RoleActive, vault.RoleStandby, vault.RolePerformanceStandby}
	return cmp.Or(answering(e), unless(some(e, func(h *vault.Health) bool { return slices.Contains(able, h.Role()) }), "no node of Vault is able to serve"))
}

func loggedIn(e *Exam) string {
	return unless(e.token != "", "there is no token of thaw's own to ask with: see auth")
}

func notSharing(e *Exam) string {
	return unless(e.Config.CacheEnable && len(e.Config.Memcached) > 0, "the shared cache is not configured")
}

// close ends the login and every connection.
func (e *Exam) close(ctx context.Context) {
	if e.tokens != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		e.tokens.Shutdown(ctx)
		cancel()
	}
	for _, n := range e.nodes {
		if n.client != nil {
			n.client.Close()
		}
	}
	e.client.Close()
}

// ownAddresses are this host's, without loopback.
func ownAddresses() (out []netip.Addr) {
	all, _ := net.InterfaceAddrs() // what cannot be asked has none
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
