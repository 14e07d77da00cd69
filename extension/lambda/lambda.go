// Package lambda is the client of AWS Lambda's Extensions API and the event
// loop of an external extension.
//
// The life of a process is Register, then Run. Run asks for the next event
// with one long GET, hands what it gets to a Handler and asks again at once,
// because Lambda ends an invocation only when every extension has asked. The
// process may be frozen at any instruction; nothing here depends on a timer
// while a Next is outstanding, so a freeze of any length only makes the answer
// come late.
//
// Freeze and thaw make a race. After a thaw the function's first read may
// reach our proxy before the loop has parsed the INVOKE that already lies in
// our socket:
//
//	Lambda     writes INVOKE to our socket, starts the function
//	function   reads a secret: proxy answers from the cache of the last epoch
//	loop       is scheduled, parses INVOKE, starts the new epoch (too late)
//
// Pending closes it: it looks at the socket itself, not at what the loop has
// seen. See pending.go. A read that is here even before those bytes is held by
// Await. See overtake.go.
//
// Protocol: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html;
// where that is silent, AWS's Runtime Interface Emulator
// (https://github.com/aws/aws-lambda-runtime-interface-emulator).
package lambda

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Bounds on what the API may send and how often a bad Next is tried again.
const (
	maxBody        = 64 << 10 // bytes of an answer's body; events are under 2 KiB
	maxHead        = 64 << 10 // bytes of an answer's head
	maxNextErrors  = 6        // Next failures in a row before Run gives up
	firstPause     = 25 * time.Millisecond
	maxRefused     = 200 // connections in a row that Register may be refused
	refusedPause   = 5 * time.Millisecond
	shutdownBudget = time.Second
	shutdownSpare  = 300 * time.Millisecond
)

// EventType is a lifecycle event an extension may register for.
type EventType string

// The events of the Extensions API.
const (
	Invoke   EventType = "INVOKE"
	Shutdown EventType = "SHUTDOWN"
)

// Handler is what the loop drives. Invoke must return at once: the function's
// invocation cannot end before it does.
type Handler interface {
	// Invoke is called for each INVOKE, before the next Next is sent.
	Invoke(Event)
	// Shutdown is called once, for SHUTDOWN. ctx ends 1s after the event, or
	// 300ms before Lambda's deadline where that is sooner; Shutdown must have
	// returned by then. The reason is Lambda's text. Its spelling varies between
	// platforms (spindown, SandboxTerminated, Timeout, failure, ...): log it,
	// don't branch on it.
	Shutdown(ctx context.Context, reason string)
}

// Event is one INVOKE.
type Event struct {
	// RequestID of the invocation. It is empty where the answer to Next could
	// not be read (cut, garbled): that may have been an INVOKE, so it is handed
	// on as one, lest a read of it is answered from the invocation before.
	RequestID string
	// Deadline of the invocation on the wall clock; zero where none was sent.
	Deadline time.Time
	// TraceID is the X-Ray header's value; empty where there is none.
	TraceID string
	// ReceivedAt is when the event was read here, by Options.Now.
	ReceivedAt time.Time
}

// Options of a Client.
type Options struct {
	API  string           // host:port of the Extensions API (AWS_LAMBDA_RUNTIME_API)
	Name string           // the extension's own file name, without a directory; Lambda matches it with the file it started
	Log  *slog.Logger     // nil: nothing is logged
	Now  func() time.Time // wall clock; nil: time.Now

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // to the API, for Register and Next; nil: the machine's
}

// Client speaks to the Extensions API. Register comes first, then Run, once.
// Pending and Settled may be called at any time, from any goroutine.
type Client struct {
	o Options

	calls *http.Transport // error reports: a connection each
	next  *http.Transport // Register, then Next alone, on one connection

	conn     atomic.Pointer[eventConn] // the connection of next; nil: none
	arrivals arrivals                  // of reads and INVOKEs
	id       atomic.Value              // string: Lambda-Extension-Identifier; nothing before Register
	invokes  atomic.Bool               // registered for INVOKE

	mu      sync.Mutex
	settled chan struct{} // guarded by mu; closed and replaced when Pending may have become false
}

// New makes a client. It does no I/O.
func New(o Options) *Client {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Now = clock.Of(o.Now)
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	c := &Client{o: o, settled: make(chan struct{})}
	// Neither transport has a Proxy: HTTP_PROXY is meant for the origin, and the
	// API is on the loopback or a link-local address.
	c.calls = &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHead,
	}
	c.next = &http.Transport{
		DialContext:            c.dial,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHead,
		MaxConnsPerHost:        1,
	}
	return c
}

// identifier is empty before Register.
func (c *Client) identifier() string {
	id, _ := c.id.Load().(string)
	return id
}
