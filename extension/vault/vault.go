// Package vault is the client of the origin, a Vault or OpenBao cluster.
//
// One call goes through these steps; each bounds the next:
//
//  1. A deadline: the caller's context and ClientTimeout, whichever ends
//     first, covers everything until the answer's head is here. The body has
//     no total deadline, since a stream may last; each pause in it has.
//  2. Attempts. Reads without a body are tried again after a connection error,
//     429, 500, 502, 503 or 504; everything else only while it is certain that
//     nothing was sent. A wait that would outlive the deadline is not begun:
//     what is in hand is returned.
//  3. One attempt takes a place (MaxInFlight, package queue) and a token of the rate limit,
//     goes to the preferred node, and moves on to the next node when no
//     connection could be made.
//  4. Redirects are followed only to nodes of the same cluster, because
//     following one sends the token; see redirect.go.
//  5. A connection. The process freezes between invocations, and the other end
//     of a connection may be gone afterwards without a word; see pool.go.
//
// Nothing is dialled, read from disk or built before the first request.
package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/material"
	"github.com/thaw-project/thaw/extension/queue"
	"github.com/thaw-project/thaw/extension/wait"
)

// Options says how the origin is reached, and by whom.
type Options struct {
	// What it says of the origin counts. There is at least one address. Durations and
	// counts that are zero get the settings' defaults, MaxRetries apart: 0 is none.
	config.Config

	Now   func() time.Time                                                  // wall clock; nil: time.Now
	Sleep func(ctx context.Context, d time.Duration) error                  // waits d or until ctx ends; nil: a timer
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net.Dialer

	LookupIP  func(ctx context.Context, network, host string) ([]netip.Addr, error)              // nil: net.DefaultResolver
	LookupSRV func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) // nil: net.DefaultResolver

	Observer Observer     // nil: none
	Logger   *slog.Logger // retries at DEBUG; nil: none
}

// Observer is told what comes of requests, so that operators can be. It must not
// block, nor change a request.
type Observer interface {
	// Answered is told of each answer that comes, of retries and questions of our
	// own, too. It may put its own reader before the body.
	Answered(req *http.Request, res *http.Response)
	// Ended is told of each request that is over: its answer's status, or its
	// error, after all attempts.
	Ended(req *http.Request, status int, err error)
}

// Client talks to one origin. It is safe for use by several goroutines.
type Client struct {
	roster
	o       Options
	places  *queue.Places
	limiter *rate.Limiter
	late    error // of a call that took ClientTimeout
	pool    pool
	sent    atomic.Uint64
	namedAt atomic.Int64 // when an answer last named its node; wall clock, nanoseconds since 1970

	transports *material.Kept[*transports] // of the TLS files

	life   context.Context // ends with Close
	endAll context.CancelCauseFunc
}

var errClosed = errors.New("the client is closed")

// New checks the addresses and returns a client. It opens no file and no
// connection: TLS material is read at the first request, or by Check.
func New(o Options) (*Client, error) {
	if len(o.Addrs) == 0 {
		return nil, errors.New("no address of Vault: set VAULT_ADDR")
	}
	o = o.withDefaults()
	c := &Client{o: o, pool: pool{idle: make(map[*conn]struct{})}, places: queue.NewPlaces(o.MaxInFlight, o.MaxQueued)}
	c.late = timeoutError("VAULT_CLIENT_TIMEOUT of " + o.ClientTimeout.String() + " is over")
	c.limiter = rate.NewLimiter(cmp.Or(rate.Limit(o.RateLimit), rate.Inf), o.RateBurst)
	c.transports = material.Keep(c.newTransports, o.TLS.CACert, o.TLS.CAPath, o.TLS.ClientCert, o.TLS.ClientKey)
	for i, addr := range slices.Concat(o.Addrs, o.ReadAddrs) {
		n, err := parseNode(addr, i)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(c.seeds, n.same) {
			c.seeds = append(c.seeds, n)
		}
	}
	if i := slices.IndexFunc(c.seeds, func(n *node) bool { return n.socket == "" && n.scheme != c.seeds[0].scheme }); i > 0 && c.seeds[0].socket == "" {
		return nil, fmt.Errorf("addresses 1 and %d of Vault mix http and https: a token sent to the one would be safe and to the other not; use https for all", i+1)
	}
	c.roster.c, c.roster.nodes = c, c.seeds
	c.routed.Store(len(c.seeds) > 1 || o.StandbyReads || o.ActiveOnly || o.SRVLookup)
	c.questions = c.newQuestions()
	c.life, c.endAll = context.WithCancelCause(context.Background())
	return c, nil
}

func (o Options) withDefaults() Options {
	o.ClientTimeout = cmp.Or(max(o.ClientTimeout, 0), 60*time.Second)
	o.ConnTimeout = cmp.Or(max(o.ConnTimeout, 0), time.Second)
	o.IdleConn = cmp.Or(max(o.IdleConn, 0), 30*time.Second)
	o.MaxInFlight = cmp.Or(max(o.MaxInFlight, 0), 64)
	o.MaxQueued = cmp.Or(max(o.MaxQueued, 0), 1024)
	o.RateBurst = cmp.Or(max(o.RateBurst, 0), int(math.Ceil(min(o.RateLimit, math.MaxInt32))))
	o.Headers = o.Headers.Clone()
	o.Now = clock.Of(o.Now)
	if o.Sleep == nil {
		o.Sleep = wait.For
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: o.ConnTimeout}).DialContext
	}
	if o.LookupIP == nil {
		o.LookupIP = net.DefaultResolver.LookupNetIP
	}
	if o.LookupSRV == nil {
		o.LookupSRV = net.DefaultResolver.LookupSRV
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o
}

// Check reads the TLS material and says what is wrong with it. It does not
// connect.
func (c *Client) Check() error {
	_, err := c.transports.Get()
	return err
}

// Reload reads the TLS files again. What new connections are made with then is used
// at once, and no pooled connection is any more. New files that cannot be used
// leave the old in use; the log tells.
func (c *Client) Reload() (changed bool) {
	changed, err := c.transports.Look()
	if err != nil {
		c.o.Logger.Warn("the new TLS files for Vault cannot be used, and the old stay in use; correct them", "error", err)
	}
	return changed
}

// Reloads counts how often TLS files changed and were taken in.
func (c *Client) Reloads() uint64 { return c.transports.Changes() }

// Thawed drops connections that slept longer than IdleConn, measured at now on
// the wall clock. Call it at each INVOKE; requests also do it themselves.
func (c *Client) Thawed(now time.Time) {
	if c.pool.slept(now, c.o.IdleConn) {
		c.dropIdle()
	}
}

// Close ends every request and closes every connection. Calls after it fail.
func (c *Client) Close() {
	c.endAll(errClosed)
	_ = c.questions.Close(context.Background())
	c.dropIdle()
}

// Places are those at the origin.
func (c *Client) Places() *queue.Places { return c.places }

// Requests is how many requests were put on a connection to the origin so far;
// each attempt counts.
func (c *Client) Requests() uint64 { return c.sent.Load() }
