package consistency

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/extension/wire"
)

// Headers of Vault Enterprise (VaultIndexHeaderName and its neighbours in
// http/handler.go of hashicorp/vault v1.21.0).
const (
	indexHeader        = "X-Vault-Index"
	forwardHeader      = "X-Vault-Forward"
	inconsistentHeader = "X-Vault-Inconsistent"
	forwardActive      = "forward-active-node"
)

// do sends a request to the origin.
type do = func(*http.Request) (*http.Response, error)

// Send sends a request for id by send and requires what id requires. A request
// that carries one of the three headers itself goes as it is: the caller knows
// better. What the answer says of the origin's state is recorded before Send
// returns.
//
// req may be sent several times; one with a body only if req.GetBody can give
// it again. That is safe for writes, too: a node checks the state before it
// does anything (handleCancelableRequest in vault/request_handling.go of
// hashicorp/vault v1.21.0).
func (k *Keeper) Send(req *http.Request, id *cache.Identity, send do) (*http.Response, error) {
	res, err := k.ask(req, id, send)
	if err == nil {
		k.seen(req, res, id)
	}
	return res, err
}

func (k *Keeper) ask(req *http.Request, id *cache.Identity, send do) (*http.Response, error) {
	if explicit(req.Header) {
		return send(req)
	}
	required, noted := cache.RequiredIn(req.Context())
	if !noted {
		k.Refresh(req.Context(), id)
	}
	r := k.find(whoIs(id))
	if !noted || Covers(r.required, required) {
		required = r.required // after a new login, say; more than is noted does no harm
	}
	t := try{k: k, record: r, own: id.Own(), required: required, send: send}
	return t.run(t.placed(req))
}

func explicit(h http.Header) bool {
	return h[indexHeader] != nil || h[forwardHeader] != nil || h[inconsistentHeader] != nil
}

// reads reports whether a request changes nothing, be it a question that is asked by POST.
func reads(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, "LIST", "SCAN":
		return true
	}
	switch req.URL.Path {
	case "/v1/sys/capabilities", "/v1/sys/capabilities-self", "/v1/sys/capabilities-accessor", "/v1/sys/wrapping/lookup",
		"/v1/auth/token/lookup", "/v1/auth/token/lookup-self", "/v1/auth/token/lookup-accessor":
		return true
	}
	return false
}

// try is one request until its answer.
type try struct {
	k        *Keeper
	record   record
	own      bool // it is the extension's
	required string
	send     do

	lagged time.Time // when a node first turned out to lag; zero: none did
	active bool      // the request goes to the active node, and its answer counts
	moved  bool      // it goes there, but may wait
	young  bool      // the token was refused shortly after it was issued
}

// placed gives req the headers and the route for what is required.
func (t *try) placed(req *http.Request) *http.Request {
	if t.required == "" {
		return req
	}
	if reads(req) {
		req = t.routed(req)
	}
	if !t.k.o.Headers {
		return req
	}
	states := only(strings.Split(t.required, separator), sendable)
	if len(states) == 0 {
		return req
	}
	req = req.WithContext(req.Context()) // what the caller sends again must not look as if it required something itself
	req.Header = req.Header.Clone()
	req.Header[indexHeader] = states
	if t.k.o.When == config.InconsistentForward && !t.k.noForward.Load() {
		req.Header[inconsistentHeader] = []string{forwardActive}
	}
	return req
}

// run sends req until there is an answer to return.
func (t *try) run(req *http.Request) (*http.Response, error) {
	for n := 0; ; n++ {
		res, err := t.send(req)
		if err != nil {
			return nil, err
		}
		next := t.next(req, res, n)
		if next == nil {
			return res, nil
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxPeek)) // so that the connection can be used again
		res.Body.Close()
		req = next
	}
}

// maxPeek bounds what is read of an answer to see what it means, in bytes.
const maxPeek = 16 << 10

// next prepares the next attempt after an answer that says why there may be another,
// and waits for its time. It returns nil where the answer is to be returned.
func (t *try) next(req *http.Request, res *http.Response, n int) *http.Request {
	says := func(why wire.Reason) bool { return wire.Peek(res, maxPeek).Reason() == why }
	issued, lags := t.record.issued, true
	switch {
	// A token may carry a state of its own, so that a node can lag behind what no
	// header named.
	case res.StatusCode == http.StatusPreconditionFailed && (req.Header[indexHeader] != nil || says(wire.Lags)):
	// A node that lags does not know a new token.
	case res.StatusCode == http.StatusForbidden && !t.active && clock.Within(issued, t.k.o.Now(), t.k.o.Wait) && says(wire.AboutToken):
		t.young = true
	case res.StatusCode == http.StatusBadRequest && req.Header[inconsistentHeader] != nil && says(wire.NoForwarding):
		lags = false
	default:
		return nil
	}
	if lags {
		t.k.behind.Add(1)
		if t.active || !t.patient(strings.HasSuffix(req.URL.Path, "/sys/capabilities-self")) {
			return nil
		}
	} else if !t.k.noForward.Swap(true) {
		t.k.o.Log.Warn("Vault refuses to forward requests by header: what a standby lacks is asked of the active node where its address is known, else waited for (THAW_WAL_WAIT); set allow_forwarding_via_header in the listener's server configuration, or THAW_WHEN_INCONSISTENT=retry")
	}
	again, ok := wire.Again(req)
	switch {
	case !ok:
		return nil
	case lags:
		return t.later(again, n)
	}
	again.Header.Del(inconsistentHeader)
	return again
}

// later gives the next attempt after an answer of a node that lags its route or its time.
func (t *try) later(req *http.Request, n int) *http.Request {
	now := t.k.o.Now()
	if t.lagged.IsZero() {
		t.lagged = now
	}
	if t.k.o.When == config.InconsistentForward && !t.moved {
		t.moved = true // what it would not forward is sent there
		t.k.activeSent.Add(1)
		return req.WithContext(t.k.o.Active(req.Context()))
	}
	pause := pauseFor(n)
	if left := t.left(req.Context(), now); pause < left {
		t.k.waits.Add(1)
		if wait.For(req.Context(), pause) != nil {
			return nil
		}
		return req
	}
	t.active = true
	t.k.activeSent.Add(1)
	return req.WithContext(t.k.o.Active(req.Context()))
}

// patient reports whether a node that lags is a reason to ask again. What a
// login of our own made necessary, the caller cannot know of: under fail, too,
// it is waited for. So are questions after capabilities, which are mostly our own:
// one that is not answered may end what is cached (ours).
func (t *try) patient(ours bool) bool {
	if t.young || ours {
		return true
	}
	switch t.k.o.When {
	case config.InconsistentRetry:
		return true
	case config.InconsistentForward:
		return t.k.noForward.Load() || t.required == ""
	}
	return t.own && !t.record.at.IsZero() && !t.record.wrote
}

// left is how much longer to wait for a node to catch up. The rest of the
// caller's time is for the active node's answer.
func (t *try) left(ctx context.Context, now time.Time) time.Duration {
	left := t.k.o.Wait - clock.Elapsed(t.lagged, now)
	if end, ok := ctx.Deadline(); ok {
		rest := time.Until(end)
		left = min(left, rest-min(rest/2, reserve))
	}
	return left
}

const (
	reserve    = 250 * time.Millisecond // of the caller's time, for the active node
	firstPause = 5 * time.Millisecond
	mostPause  = 100 * time.Millisecond
)

// pauseFor doubles from firstPause to mostPause, a quarter more or less so that
// those who wait for one write do not all come back at once.
func pauseFor(n int) time.Duration {
	d := min(firstPause<<min(n, 8), mostPause)
	return d - d/4 + rand.N(d/2)
}

// seen records what an answer says of the origin's state.
func (k *Keeper) seen(req *http.Request, res *http.Response, id *cache.Identity) {
	states, until := k.told(req, res)
	if len(states) == 0 {
		return
	}
	now, w := k.o.Now(), whoIs(id)
	k.update(w, func(r *record) {
		r.take(states, now, until)
		r.wrote = true
	})
	k.publish(req.Context(), w, states)
	if to := holder(tokenIn(req, res)); !to.nobody() && to != w {
		k.update(to, func(r *record) { // who was issued a token wrote nothing
			r.take(states, now, until)
			r.issued = now
		})
		k.publish(req.Context(), to, states)
	}
}

// told is the states that an answer tells, or what stands for them, and until
// when reads go to the active node for it.
func (k *Keeper) told(req *http.Request, res *http.Response) ([]string, time.Time) {
	switch raw, told := res.Header[indexHeader]; {
	case !told:
		return k.written(req, res)
	case k.o.Headers:
		return only(raw, sendable), time.Time{}
	}
	return nil, time.Time{}
}

// sendable tells whether a header may tell of a state: not those that are ours.
func sendable(s state) bool { return s.cluster != raftPrefix && s.cluster != writePrefix }

// tokenIn returns the token that an answer issues: of a login, of
// auth/token/create, or of unwrapping one. Its holder may be another caller.
func tokenIn(req *http.Request, res *http.Response) string {
	if reads(req) || res.StatusCode != http.StatusOK || res.ContentLength > maxPeek ||
		!strings.Contains(req.URL.Path, "/auth/") && !strings.HasSuffix(req.URL.Path, "/sys/wrapping/unwrap") ||
		!strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		return ""
	}
	var auth struct {
		ClientToken string `json:"client_token"`
	}
	if json.Unmarshal(wire.Peek(res, maxPeek).Member("auth"), &auth) != nil {
		return ""
	}
	return auth.ClientToken
}
