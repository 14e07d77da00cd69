package vault

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wire"
)

// call is one request of a caller, with its attempts, while it lasts.
type call struct {
	c         *Client
	req       *http.Request // the caller's, never changed
	headers   http.Header   // added where req lacks them
	ctx       context.Context
	cancel    context.CancelCauseFunc // also of all that is done for the call, at its end
	unlink    func() bool             // from the client's life
	timeout   *time.Timer             // ends ctx ClientTimeout after the start
	deadline  time.Time               // by when an answer's head must be here
	late      error                   // what is wrong when deadline has come
	read      bool                    // a read without a body: may be sent again
	once      bool                    // no retries; a read may be sent twice at once, and no leader is waited for
	body      *heldBody               // nil: none
	noForward bool                    // of a leg: the node is not to hand the request on
	noToken   bool                    // of a leg: the node may not see a token
}

// Do sends one request to the origin and returns its answer.
//
// Of req.URL only the path and the query count. The node's address and base
// path, and the configured headers that req lacks, go on a copy. Do adds no
// token and no namespace. The body streams through.
//
// GET, LIST, HEAD and SCAN (OpenBao's recursive list) without a body are
// retried as the package comment says; a 429 or 5xx that remains is returned as
// the answer. Errors are *Error. The caller closes the answer's body: a place of
// MaxInFlight is held until then. An answer 101 has a body that is an
// io.ReadWriteCloser.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	return c.do(req, c.o.MaxRetries, false)
}

// DoOnce is Do without retries, for polls. On a connection that slept, a read
// may go out a second time while the first copy is unanswered, so a read with
// side effects (dynamic credentials, a token with few uses) belongs in Do.
func (c *Client) DoOnce(req *http.Request) (*http.Response, error) {
	return c.do(req, 0, true)
}

func (c *Client) do(req *http.Request, retries int, once bool) (*http.Response, error) {
	k := c.begin(req, once)
	k.headers = c.o.Headers
	if req.Body != nil && req.Body != http.NoBody {
		k.body = &heldBody{rc: req.Body}
		defer k.body.settle()
	}
	r := k.run(retries)
	if r.e == nil && !k.timeout.Stop() {
		r.e = k.outOfTime(r.node)
	}
	if r.e != nil {
		r.drop()
		k.end()
	}
	k.over(r)
	if r.e != nil {
		return nil, r.e
	}
	return k.hand(r), nil
}

// over tells the observer what came of the call.
func (k *call) over(r *result) {
	switch o := k.c.o.Observer; {
	case o == nil:
	case r.e != nil:
		o.Ended(k.req, 0, r.e)
	default:
		o.Ended(k.req, r.StatusCode, nil)
	}
}

// begin starts the clocks of a call. end must be called, or the body that hand
// made be closed.
func (c *Client) begin(req *http.Request, once bool) *call {
	ctx, cancel := context.WithCancelCause(req.Context())
	k := &call{c: c, req: req, ctx: ctx, cancel: cancel, read: readOnly(req), once: once}
	if c.life.Err() != nil {
		cancel(errClosed)
	}
	k.unlink = context.AfterFunc(c.life, func() { cancel(errClosed) })
	k.timeout = time.AfterFunc(c.o.ClientTimeout, func() { cancel(c.late) })
	// The runtime's clock, as contexts use it, not the injected wall clock.
	k.deadline, k.late = time.Now().Add(c.o.ClientTimeout), c.late
	if d, ok := ctx.Deadline(); ok && d.Before(k.deadline) {
		k.deadline, k.late = d, context.DeadlineExceeded
	}
	return k
}

func (k *call) end() {
	k.timeout.Stop()
	k.unlink()
	k.cancel(nil)
}

// outOfTime is the error of a call whose deadline came between two steps.
func (k *call) outOfTime(n *node) *Error {
	if k.ctx.Err() != nil {
		return k.explain(n, asking, nil)
	}
	return (&Error{Op: k.op(), Addr: n.addr()}).ended(k.late, asking)
}

// op names the request in errors.
func (k *call) op() string {
	if k.req.Method == "" {
		return http.MethodGet
	}
	return k.req.Method
}

// readOnly tells whether a request may be sent again: it changes nothing that
// a second copy would change once more, and has no body.
func readOnly(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody || req.Header.Get("Upgrade") != "" {
		return false
	}
	return slices.Contains([]string{"", http.MethodGet, http.MethodHead, "LIST", "SCAN"}, req.Method)
}

// result is what came of a request, be it one round trip or an attempt among many
// nodes: an answer, or why there is none.
type result struct {
	*http.Response        // nil: none came
	exchange              // the round trip
	node           *node  // that answered, or failed to; nil: none was asked
	e              *Error // why there is no answer; nil: the answer counts
	free           func() // gives the answer's place back; nil: it has none

	sent       bool // of a failure: the request may have reached the origin
	back       bool // a node sent the request back to itself
	leaderless bool // there is no active node, and may be one soon; an answer is what a node said to that
	guess      bool // leaderless is an assumption
}

// failure is the result of a request to n that got no answer.
func (k *call) failure(n *node, kind Kind, err error, hint string) *result {
	return &result{node: n, e: &Error{Op: k.op(), Addr: n.addr(), Err: err, Kind: kind, hint: hint}}
}

// drop ends an answer that nobody will read, if there is one.
func (r *result) drop() {
	if r.Response == nil {
		return
	}
	drain(r.Response)
	if r.free != nil {
		r.free()
	}
}

// run makes attempts until one answers, or time or retries are used up. An
// election is waited for as long as time allows; other trouble counts.
func (k *call) run(retries int) *result {
	if _, err := k.c.transports.Get(); err != nil {
		return k.failure(k.c.node(), TLS, err, "")
	}
	for n, waits := 0, 0; ; n++ {
		r := k.attempt()
		if r.leaderless {
			if !k.once && k.again(r) && !(r.guess && waits >= guessWaits) && k.awaitLeader(waits) {
				r.drop()
				waits, n = waits+1, n-1
				continue
			}
			if r.Response != nil && k.ctx.Err() == nil {
				r.e = nil
			}
			return r
		}
		d, ok := k.wait(n, r)
		if n >= retries || !ok || !k.again(r) {
			return r
		}
		r.drop()
		if k.c.o.Sleep(k.ctx, d) != nil || k.ctx.Err() != nil {
			if r.e == nil {
				r = &result{e: k.outOfTime(r.node)}
			}
			return r
		}
		k.c.o.Logger.DebugContext(k.ctx, "asking the origin again", "attempt", n+2, "because", r.why())
	}
}

// Waits for an election: electionFirst, doubled each time up to electionMost.
// One takes from less than a second to some ten.
const (
	electionFirst = 50 * time.Millisecond
	electionMost  = 400 * time.Millisecond
	guessWaits    = 30 // some twelve seconds, where it is a guess that there is an election
)

// awaitLeader waits before the nodes are asked again who leads. It returns
// false if there is no time for that.
func (k *call) awaitLeader(n int) bool {
	d := min(electionFirst<<min(n, 4), electionMost)
	if k.ctx.Err() != nil || d >= time.Until(k.deadline) {
		return false
	}
	k.c.o.Logger.DebugContext(k.ctx, "no node of the origin leads; waiting for one", "attempt", n+1)
	if k.c.o.Sleep(k.ctx, d) != nil {
		return false
	}
	if k.c.routed.Load() {
		k.c.learn(k.ctx)
	}
	return k.ctx.Err() == nil
}

// why says in a word why a request is sent again.
func (r *result) why() string {
	if r.e != nil {
		return string(r.e.Kind)
	}
	return r.Status
}

// again tells whether the attempt may be repeated. What a second attempt
// cannot change is not repeated: certificates, redirects that lead elsewhere,
// garbage, our limits.
func (k *call) again(r *result) bool {
	if r.e == nil {
		return k.read && passing(k.req, r.StatusCode) && wire.Peek(r.Response, maxPeek).Reason() != wire.Locked
	}
	return (r.e.Kind.passing() || r.back) && k.ctx.Err() == nil && (k.read || !r.sent && k.resendable())
}

// resendable tells whether the request's body, if it has one, can be sent from its
// beginning.
func (k *call) resendable() bool { return k.body.fresh() || k.req.GetBody != nil }

// attempt takes a place, sends the request to a node and follows redirects.
func (k *call) attempt() (r *result) {
	place, e := k.admit()
	if e != nil {
		return &result{e: e}
	}
	defer func() {
		if r == nil || r.Response == nil { // a panic, or no answer came
			place.Free()
		}
	}()
	if k.c.routed.Load() {
		r = k.routed()
	} else {
		r = k.direct()
	}
	r.free = place.Free
	return r
}

// direct asks the one node there is. Where that one cannot answer as only a
// node of a cluster cannot, its name is looked up for others.
func (k *call) direct() *result {
	n := k.c.seeds[0]
	r := trail{k, n}.follow()
	if r.e != nil {
		k.guess(n, r)
		return r
	}
	m := k.meaning(r, choice{view: view{node: n}})
	if m != noLeader && m != sealed {
		return r
	}
	if k.resendable() && k.c.widen(k.ctx) {
		r.drop()
		return k.routed()
	}
	if m == noLeader {
		r.e, r.leaderless = k.failure(n, NoLeader, errNoLeader, "").e, true
	}
	return r
}

// guess finds out whether a read failed for want of a leader: where the one that n
// redirects to, or is about to be, cannot be asked, there may be another one soon.
func (k *call) guess(n *node, r *result) {
	var bad *ErrRedirect
	passed := r.node != nil && r.node != n || errors.As(r.e.Err, &bad) && (bad.down || bad.back)
	if k.read && passed && k.again(r) {
		l, err := k.c.leader(k.ctx, n)
		r.leaderless = err == nil && l.Status == http.StatusOK && !l.IsSelf
		r.guess = r.leaderless
	}
}

// node is the one that messages name, and that is asked for the leader first.
// That is no node of another cluster: one could repeat what the leader said, and
// so verify what nobody looked at.
func (r *roster) node() *node {
	all := r.views()
	if a := leading(all); a != nil {
		return a.node
	}
	i := slices.IndexFunc(all, func(v view) bool { return v.role != RoleForeign })
	return all[max(i, 0)].node // there is one: home is the cluster of one of them
}

// send sends the request to a node, and once more on a new connection where what
// came was about the connection.
func (k *call) send(n *node) *result {
	r := k.sendOnce(n)
	if r.e != nil && r.e.Kind == TLS && k.c.Reload() && k.resendable() && k.throttle() == nil {
		return k.sendOnce(n) // with the files as they are now
	}
	if r.e != nil || !r.on.Load().premature(r.StatusCode, k.read) || !k.resendable() || k.throttle() != nil {
		return r
	}
	r.drop()
	if cn := r.on.Load().conn; cn != nil {
		_ = cn.Close()
	}
	k.c.dropIdle()
	return k.sendOnce(n)
}

// sendOnce makes one round trip to a node.
func (k *call) sendOnce(n *node) *result {
	req, err := n.place(k.req, k.headers)
	if err != nil {
		return k.failure(n, Protocol, err, "")
	}
	if k.body != nil {
		if req.Body, err = k.body.next(k.req.GetBody); err != nil {
			r := k.failure(n, Protocol, err, "")
			r.sent = true
			return r
		}
	}
	k.dress(req.Header)
	via, err := k.c.transportOf(n)
	if err != nil {
		return k.failure(n, TLS, err, "")
	}
	now := k.c.o.Now()
	k.c.Thawed(now)
	woken := k.c.pool.slept(now, sleptLong)
	if woken && !k.read {
		k.c.dropIdle()
	}
	var r *result
	if woken && k.once && k.read {
		r = k.race(n, via, req)
	} else {
		r = k.ride(k.newTrip(n, k.read), via, req)
	}
	if r.e != nil {
		return r
	}
	if o := k.c.o.Observer; o != nil && r.StatusCode != http.StatusSwitchingProtocols {
		o.Answered(k.req, r.Response)
	}
	if r.Header[wire.NodeHeader] != nil {
		k.c.namedAt.Store(now.UnixNano())
	}
	return r
}

// newTrip is the result of a round trip to n that is yet to be made.
func (k *call) newTrip(n *node, rouse bool) *result {
	return &result{exchange: exchange{c: k.c, ctx: k.ctx, rouse: rouse}, node: n}
}

// ride makes the round trip.
func (k *call) ride(r *result, via *http.Transport, req *http.Request) *result {
	trace := &httptrace.ClientTrace{GotConn: r.gotConn, GotFirstResponseByte: r.gotByte, PutIdleConn: r.putIdle}
	err := rescue.Try(func() (err error) {
		r.Response, err = via.RoundTrip(req.WithContext(httptrace.WithClientTrace(r.ctx, trace)))
		return err
	})
	if err != nil {
		at := r.at.Load()
		r.e, r.sent = k.explain(r.node, at, err), at != connecting
	}
	return r
}
