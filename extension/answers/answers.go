// Package answers keeps account of what the origin answers, for those who run
// thaw: how many answers had which status, who was refused and why, what was not
// the origin's answer at all, and since when there is none.
//
// # The algorithm
//
// The client of the origin tells of each answer (Answered) and of each request
// that is over (Ended). An answer is counted at once. It is judged when its reader
// is through with it, from the beginning of its body: nothing is read ahead, and
// nobody waits.
//
//	not Vault's by its shape              foreign
//	403, 429 and other 4xx                refused, but 404 and 412
//	5xx that no retry mended, no answer   an outage begins
//	any other                             an outage ends
//
// Each is a line of the log, which keeps the number of its lines within bounds.
//
// Answers of sys/health are not counted: their status says what a node is.
package answers

import (
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wire"
)

// Options say whose answers they are. All are required.
type Options struct {
	Log   *slog.Logger
	Own   func() string            // the extension's own token; empty: there is none
	Role  string                   // that it logs in with; empty: none
	Login bool                     // it can log in for another token
	Path  func(path string) string // a path without the tokens in it
	Named func(text string) string // puts the names that the user wrote into a message
	Now   func() time.Time
}

// Counts are totals since the start.
type Counts struct {
	Codes   map[int]uint64 // answers by status
	Refused uint64         // requests that the origin refused: 4xx but 404 and 412
	Foreign uint64         // answers that were not the origin's
}

// Account is what became of requests to the origin. It is safe for concurrent
// use.
type Account struct {
	o Options

	mu        sync.Mutex // guards the fields below
	counts    Counts
	outage    time.Time // since when there is no answer; zero: there are answers
	failing   *exchange // answered 5xx, and may be asked again; nil: none
	mended    time.Time // when the log last told of an outage's end
	refusedAt time.Time // when our own token was refused; zero: it was accepted since
}

var _ vault.Observer = (*Account)(nil)

// New returns an account in which nothing happened.
func New(o Options) *Account {
	return &Account{o: o, counts: Counts{Codes: map[int]uint64{http.StatusOK: 0}}}
}

// Counts returns the totals.
func (a *Account) Counts() Counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.counts
	c.Codes = maps.Clone(c.Codes)
	return c
}

// Silent says since when the origin has not answered; zero: it does.
func (a *Account) Silent() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.outage
}

// TokenRefused says when the origin refused our own token; zero: it was accepted
// since, or never refused.
func (a *Account) TokenRefused() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusedAt
}

// Ended implements vault.Observer.
func (a *Account) Ended(_ *http.Request, status int, err error) {
	failed := err != nil && vault.Unavailable(err) && !vault.OurLimit(err)
	a.mu.Lock()
	said := a.failing
	a.failing = nil
	if (failed || err == nil && status >= 500) && a.outage.IsZero() {
		a.outage = a.o.Now()
	}
	a.mu.Unlock()
	switch {
	case failed:
		a.o.Log.Warn("Vault cannot be asked"+served, "error", err)
	case status >= 500 && said != nil: // else it is not read yet
		said.fails()
	}
}

const served = "; what is cached is served marked stale, for THAW_STALE_IF_ERROR"

// exchange is a request and its answer. It is the answer's body, too, whose beginning is
// judged when its reader is through.
type exchange struct {
	a     *Account
	req   *http.Request
	token string // that it had
	own   bool   // which was ours when the answer came
	wire.Answer

	io.ReadCloser
	head []byte // of the body
	more bool   // than is kept
	over sync.Once
}

// judge takes an answer in whose reader is through.
func (x *exchange) judge() {
	a := x.a
	path := strings.TrimPrefix(a.o.Path(x.req.URL.Path), "/v1/")
	if x.foreign() {
		a.mu.Lock()
		a.counts.Foreign++
		a.mu.Unlock()
		kind := "no content type"
		if t := x.Header.Get("Content-Type"); t != "" {
			kind, _, _ = mime.ParseMediaType(t)
		}
		a.o.Log.Warn(a.o.Named("something in the place of Vault answers "+path+": check that VAULT_ADDR names Vault, and the gateway or load balancer before it"),
			"path", path, "status", x.Status, "content_type", kind, "body", x.Form())
		return
	}
	said := []any{"path", path, "status", x.Status}
	if words := x.Said(); words != "" {
		said = append(said, "vault", words)
	}
	of, raw := asked(x.req)
	switch {
	case of == wire.Health, raw && x.Status < 400:
		return // a sealed node answers them, too
	case x.Status >= 500:
		a.mu.Lock()
		over := !a.outage.IsZero()
		if !over { // it may be asked again
			a.failing = x
		}
		a.mu.Unlock()
		if over {
			x.fails()
		}
		return
	case x.Status < 400, x.Status == http.StatusPreconditionFailed:
	case x.Status == http.StatusNotFound:
		if x.Member("warnings") != nil {
			a.o.Log.Warn("Vault has nothing at "+path+": 404: "+x.Said(), said...)
		}
	default:
		a.mu.Lock()
		a.counts.Refused++
		a.mu.Unlock()
		if of == wire.Login || of == wire.Capabilities || of == wire.Lookup {
			break // who asks tells of it, with what to check there
		}
		who, remedy := x.refusal()
		a.o.Log.Warn(a.o.Named("Vault refuses "+path+" to "+who+": "+strconv.Itoa(x.Status)+": "+remedy), said...)
	}
	x.answers()
}

// fails tells of an answer by which the origin cannot serve.
func (x *exchange) fails() {
	path := strings.TrimPrefix(x.a.o.Path(x.req.URL.Path), "/v1/")
	x.a.o.Log.Warn("Vault answers "+strconv.Itoa(x.Status)+served, "path", path, "status", x.Status, "vault", x.Said())
}

// answers takes in that the origin does, and what that says of our token.
func (x *exchange) answers() {
	a, now := x.a, x.a.o.Now()
	a.mu.Lock()
	if x.own && x.Reason() != wire.AboutToken {
		a.refusedAt = time.Time{}
	} else if x.own && a.refusedAt.IsZero() {
		a.refusedAt = now
	}
	since := a.outage
	if x.Status != http.StatusTooManyRequests {
		a.outage = time.Time{}
	}
	tell := a.outage.IsZero() && !since.IsZero() && !clock.Within(a.mended, now, time.Minute)
	if tell {
		a.mended = now
	}
	a.mu.Unlock()
	if tell {
		a.o.Log.Info("Vault answers again", "outage", clock.Elapsed(since, now).Round(time.Millisecond))
	}
}

// refusal says who was refused, and what to check.
func (x *exchange) refusal() (who, remedy string) {
	whose := "the token's"
	switch o := &x.a.o; {
	case x.own && o.Role != "":
		who, whose = "role "+o.Role, "the role's"
	case x.own:
		who = "thaw's own token"
	case x.token != "":
		who = "a caller's token"
	default:
		who = "a request without a token"
	}
	const invalid = "the token is invalid, expired or revoked"
	switch {
	case x.Status == http.StatusTooManyRequests:
		remedy = "a rate limit quota of Vault's is used up"
		if most := x.Header.Get("X-Ratelimit-Limit"); most != "" && len(most) < 12 && strings.Trim(most, "0123456789") == "" {
			remedy += " (" + most + " requests)"
		}
		return who, remedy + ": see vault list sys/quotas/rate-limit"
	case x.Status != http.StatusForbidden:
		return who, "check the request"
	case x.token == "":
		return who, "callers must bring a token, or thaw needs a login (VAULT_AUTH_ROLE, THAW_AUTH_METHOD)"
	case x.Reason() != wire.AboutToken:
		return who, "check " + whose + " policies"
	case x.own && x.a.o.Login:
		return who, invalid + "; thaw logs in again"
	case x.own:
		return who, invalid + "; give a valid one in VAULT_TOKEN or the token file"
	}
	return who, invalid
}
