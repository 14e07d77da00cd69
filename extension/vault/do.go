package vault

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
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
	cancel    context.CancelCauseFunc
	unlink    func() bool // from the client's life
	timeout   *time.Timer // ends ctx ClientTimeout after the start
	deadline  time.Time   // by when an answer's head must be here
	ours      bool        // deadline is ClientTimeout's, not the caller's
	read      bool        // a read without a body: may be sent again
	hedge     bool        // may be sent twice at once
	body      *heldBody   // nil: none
	patient   bool        // waits for a leader to be elected
	noForward bool        // of a leg: the node is not to hand the request on
	noToken   bool        // of a leg: the node may not see a token
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

func (c *Client) do(req *http.Request, retries int, hedge bool) (*http.Response, error) {
	k := c.begin(req, hedge)
	k.headers, k.patient = c.o.Headers, !hedge
	if req.Body != nil && req.Body != http.NoBody {
		k.body = &heldBody{rc: req.Body}
		defer k.body.settle()
	}
	a, e := k.run(retries)
	if e == nil && !k.timeout.Stop() {
		a.discard()
		e = k.outOfTime(a.node)
	}
	k.over(a, e)
	if e != nil {
		k.end()
		return nil, e
	}
	return k.hand(a), nil
}

// over tells the observer what came of the call.
func (k *call) over(a *answer, e *Error) {
	switch o := k.c.o.Observer; {
	case o == nil:
	case e != nil:
		o.Ended(k.req, 0, e)
	default:
		o.Ended(k.req, a.StatusCode, nil)
	}
}

// begin starts the clocks of a call. end must be called, or the body that hand
// made be closed.
func (c *Client) begin(req *http.Request, hedge bool) *call {
	ctx, cancel := context.WithCancelCause(req.Context())
	k := &call{c: c, req: req, ctx: ctx, cancel: cancel, read: readOnly(req), hedge: hedge && readOnly(req)}
	if c.life.Err() != nil {
		cancel(errClosed)
	}
	k.unlink = context.AfterFunc(c.life, func() { cancel(errClosed) })
	k.timeout = time.AfterFunc(c.o.ClientTimeout, func() { cancel(c.tooLate()) })
	// The runtime's clock, as contexts use it, not the injected wall clock.
	k.deadline = time.Now().Add(c.o.ClientTimeout)
	k.ours = true
	if d, ok := ctx.Deadline(); ok && d.Before(k.deadline) {
		k.deadline, k.ours = d, false
	}
	return k
}

func (k *call) end() {
	k.timeout.Stop()
	k.unlink()
	k.cancel(nil)
}

func (c *Client) tooLate() error {
	return timeoutError("VAULT_CLIENT_TIMEOUT of " + c.o.ClientTimeout.String() + " is over")
}

// outOfTime is the error of a call whose deadline came between two steps.
func (k *call) outOfTime(n *node) *Error {
	if k.ctx.Err() != nil {
		return k.explain(n, asking, nil)
	}
	cause := error(context.DeadlineExceeded)
	if k.ours {
		cause = k.c.tooLate()
	}
	return (&Error{Op: k.op(), Addr: n.addr()}).ended(cause, asking)
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
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, "LIST", "SCAN":
		return true
	}
	return false
}

// answer is a response and what it holds on to.
type answer struct {
	*http.Response
	node     *node
	exchange *exchange
	cancel   context.CancelFunc // of the round trip
	free     func()             // gives the place back
}

// discard ends an answer that nobody will read.
func (a *answer) discard() {
	drain(a.Response)
	a.cancel()
	a.free()
}

// run makes attempts until one answers, or time or retries are used up. An
// election is waited for as long as time allows; other trouble counts.
func (k *call) run(retries int) (*answer, *Error) {
	if _, err := k.c.transports.Get(); err != nil {
		return nil, &Error{Op: k.op(), Addr: k.c.node().addr(), Err: err, Kind: TLS}
	}
	waits := 0
	for n := 0; ; n++ {
		a, f := k.attempt()
		if f != nil && f.leaderless {
			if k.patient && k.again(f) && !(f.guess && waits >= guessWaits) && k.awaitLeader(waits) {
				f.drop()
				waits, n = waits+1, n-1
				continue
			}
			if f.kept != nil && k.ctx.Err() == nil {
				return f.kept, nil
			}
			f.drop()
			return nil, f.e
		}
		if f != nil {
			if n >= retries || !k.again(f) || !k.pause(n, nil) {
				return nil, f.e
			}
			k.log(n, f.e.Kind.String())
			continue
		}
		if n >= retries || !k.read || !passing(k.req, a.StatusCode) || wire.Peek(a.Response, maxPeek).Reason() == wire.Locked || !k.fits(n, a.Header) {
			return a, nil
		}
		a.discard()
		if !k.pause(n, a.Header) {
			return nil, k.outOfTime(a.node)
		}
		k.log(n, a.Status)
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
	if _, _, routed := k.c.roster.snapshot(); routed {
		k.c.learn(k.ctx)
	}
	return k.ctx.Err() == nil
}

func (k *call) log(n int, why string) {
	k.c.o.Logger.DebugContext(k.ctx, "asking the origin again", "attempt", n+2, "because", why)
}

// failure is an attempt without an answer.
type failure struct {
	e          *Error
	at         *node   // that failed to answer; nil: the one that was asked first
	sent       bool    // the request may have reached the origin
	back       bool    // a node sent the request back to itself
	leaderless bool    // there is no active node, and may be one soon
	guess      bool    // leaderless is an assumption
	kept       *answer // what a node said to that; nil: nothing
}

// err is why there is no answer; nil of a nil failure.
func (f *failure) err() *Error {
	if f == nil {
		return nil
	}
	return f.e
}

// drop ends the answer that was kept.
func (f *failure) drop() {
	if f.kept != nil {
		f.kept.discard()
		f.kept = nil
	}
}

// again tells whether the attempt may be repeated. What a second attempt
// cannot change is not repeated: certificates, redirects that lead elsewhere,
// garbage, our limits.
func (k *call) again(f *failure) bool {
	return (f.e.Kind.passing() || f.back) && k.ctx.Err() == nil && (k.read || !f.sent && k.resendable())
}

// resendable tells whether the request's body, if it has one, can be sent from its
// beginning.
func (k *call) resendable() bool { return k.body.fresh() || k.req.GetBody != nil }

// attempt takes a place, sends the request to a node and follows redirects.
func (k *call) attempt() (*answer, *failure) {
	place, e := k.admit()
	if e != nil {
		return nil, &failure{e: e}
	}
	try := k.direct
	if _, _, routed := k.c.roster.snapshot(); routed {
		try = k.routed
	}
	held := true
	defer func() {
		if held { // no answer came, or a panic
			place.Free()
		}
	}()
	a, f := try()
	switch {
	case a != nil:
		a.free, held = place.Free, false
	case f.kept != nil:
		f.kept.free, held = place.Free, false
	}
	return a, f
}

// direct asks the one node there is. Where that one cannot answer as only a
// node of a cluster cannot, its name is looked up for others.
func (k *call) direct() (*answer, *failure) {
	n := k.c.seeds[0]
	a, f := trail{k, n}.follow()
	if f != nil {
		k.guess(n, f)
		return nil, f
	}
	m := k.meaning(a, choice{view: view{node: n}})
	if m != noLeader && m != sealed {
		return a, nil
	}
	if k.resendable() && k.c.widen(k.ctx) {
		a.discard()
		return k.routed()
	}
	if m == sealed {
		return a, nil
	}
	return nil, &failure{e: &Error{Op: k.op(), Addr: n.addr(), Err: errNoLeader, Kind: NoLeader}, leaderless: true, kept: a}
}

// guess finds out whether a read failed for want of a leader: where the one that n
// redirects to, or is about to be, cannot be asked, there may be another one soon.
func (k *call) guess(n *node, f *failure) {
	var r *ErrRedirect
	passed := f.at != nil && f.at != n || errors.As(f.e.Err, &r) && (r.down || r.back)
	if k.read && passed && k.again(f) {
		l, err := k.c.leader(k.ctx, n)
		f.leaderless = err == nil && l.Status == http.StatusOK && !l.IsSelf
		f.guess = f.leaderless
	}
}

// node is the one that messages name, and that is asked for the leader first.
// That is no node of another cluster: one could repeat what the leader said, and
// so verify what nobody looked at.
func (r *roster) node() *node {
	if a := r.active(); a != nil {
		return a.node
	}
	all := r.views()
	for _, v := range all {
		if v.role != RoleForeign {
			return v.node
		}
	}
	return all[0].node // not so: home is the cluster of one of them
}

// send sends the request to a node, and once more on a new connection where what
// came was about the connection.
func (k *call) send(n *node) (*answer, *failure) {
	a, f := k.sendOnce(n)
	if f != nil && f.e.Kind == TLS && k.c.Reload() && k.resendable() && k.throttle() == nil {
		return k.sendOnce(n) // with the files as they are now
	}
	if f != nil || !a.exchange.premature(a.StatusCode, k.read) || !k.resendable() || k.throttle() != nil {
		return a, f
	}
	a.discard()
	if a.exchange.conn != nil {
		_ = a.exchange.conn.Close()
	}
	k.c.dropIdle()
	return k.sendOnce(n)
}

// sendOnce makes one round trip to a node.
func (k *call) sendOnce(n *node) (*answer, *failure) {
	req, err := n.place(k.req, k.headers)
	if err != nil {
		return nil, &failure{e: &Error{Op: k.op(), Addr: n.addr(), Err: err, Kind: Protocol}}
	}
	if k.body != nil {
		if req.Body, err = k.body.next(k.req.GetBody); err != nil {
			return nil, &failure{e: &Error{Op: k.op(), Addr: n.addr(), Err: err, Kind: Protocol}, sent: true}
		}
	}
	k.dress(req.Header)
	via, err := k.c.transportOf(n)
	if err != nil {
		return nil, &failure{e: &Error{Op: k.op(), Addr: n.addr(), Err: err, Kind: TLS}}
	}
	now := k.c.o.Now()
	k.c.Thawed(now)
	woken := k.c.pool.slept(now, sleptLong)
	if woken && !k.read {
		k.c.dropIdle()
	}
	var l *lap
	if woken && k.hedge {
		l = k.race(via, req)
	} else {
		l = k.newLap(k.read).ride(via, req)
	}
	if l.err != nil {
		placed, answered, _ := l.state()
		at := connecting
		if answered {
			at = answering
		} else if placed {
			at = asking
		}
		l.cancel()
		return nil, &failure{e: k.explain(n, at, l.err), sent: placed}
	}
	if o := k.c.o.Observer; o != nil && l.resp.StatusCode != http.StatusSwitchingProtocols {
		o.Answered(k.req, l.resp)
	}
	if l.resp.Header[wire.NodeHeader] != nil {
		k.c.namedAt.Store(now.UnixNano())
	}
	return &answer{Response: l.resp, node: n, exchange: l.exchange, cancel: l.cancel, free: func() {}}, nil
}

// lap is one round trip and its result.
type lap struct {
	*exchange
	ctx    context.Context
	cancel context.CancelFunc
	resp   *http.Response
	err    error
}

func (k *call) newLap(rouse bool) *lap {
	ctx, cancel := context.WithCancel(k.ctx)
	return &lap{exchange: &exchange{c: k.c, rouse: rouse}, ctx: ctx, cancel: cancel}
}

// ride makes the round trip.
func (l *lap) ride(via *http.Transport, req *http.Request) *lap {
	l.err = rescue.Try(func() (err error) {
		l.resp, err = via.RoundTrip(req.WithContext(httptrace.WithClientTrace(l.ctx, l.trace())))
		return err
	})
	return l
}
