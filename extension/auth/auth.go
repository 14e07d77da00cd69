// Package auth keeps the extension's own Vault token: it logs in when a token
// is first needed, renews it, and logs in again when the origin refuses it.
//
// Nothing here needs a timer, because none fires in a frozen process. Every
// decision is taken when somebody calls, by comparing the wall clock with the
// time at which the request that got the token was sent. A token that can be
// renewed is renewed from two thirds of its life on, by whatever comes first:
// somebody who needs it, a poll, or Watch where the host does not freeze. A token
// that cannot be renewed is replaced in its grace period. Either is used until
// the origin refuses it or it ends, if no other can be had.
//
// There is at most one exchange of a kind with the origin at a time: a login, a
// renewal, a look-up. Callers share it and survive its freezes as package
// coalesce says; what an abandoned login still brings is revoked. After a freeze
// that is shorter than an exchange may last, Thawed has those who wait look
// again if its connection died meanwhile.
//
// The origin is protected from us: a failed login is remembered for a second,
// a refused token leads to one new login per ten seconds, and credentials that
// are refused are tried ever less often (see refusal).
//
// The identity behind the token is the set of its policies and its entity. A
// new token of the same identity leaves its Owner as it is, so what was learned of its
// rights stays valid; another identity voids it. Whoever records a right looks at
// the Owner first and takes the token second: the token is replaced before the Owner is
// reset, so a right can be recorded as of before the reset (and be void), never as
// of after it under a token from before.
package auth

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/config"
)

// Origin sends one request to the origin. The request's URL has only Path
// ("/v1/auth/aws/login") and RawQuery; the implementation adds address, base
// path, TLS, retries and configured headers.
type Origin interface {
	Do(req *http.Request) (*http.Response, error)
}

// Owner is the identity whose token it is. It is told under a lock.
type Owner interface {
	Reset()              // its policies or its entity are others now
	EndLeases()          // another token took the place of its own, which ended or was revoked
	SetEnd(at time.Time) // its token ends then; zero: no end is known, or there is no token
}

// nobody is an Owner that keeps no rights.
type nobody struct{}

func (nobody) Reset()           {}
func (nobody) EndLeases()       {}
func (nobody) SetEnd(time.Time) {}

// Options configure New. The zero value of a field with a default takes it.
type Options struct {
	config.Config          // its login (method "" or "none": not at all), and what the process knows of its host
	Login         Platform // for method azure, and for jwt without a file; nil: the program has none
	Origin        Origin   // required unless the method is none
	Own           Owner    // default: nobody
	Shared        Shared   // refusals are shared there; nil: with nobody

	Timeout time.Duration // bound on one login, renewal or look-up, on the wall clock; default ClientTimeout, 10s at the most
	Log     *slog.Logger  // default: discard

	Now func() time.Time // default time.Now; keeps its monotonic reading
}

// HTTPClient is for requests to the platform. It has no timeout of its own, and takes a
// redirect as the answer: signed requests and tokens go to no other host.
func HTTPClient(cfg config.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: cfg.EnvProxy, TLSHandshakeTimeout: 2 * cfg.ConnTimeout, DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: 2 * cfg.ConnTimeout}).DialContext,
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Limits that protect the origin, all on the wall clock.
const (
	defaultTimeout  = 10 * time.Second
	failureMemory   = time.Second      // a failed login is shared this long without a new attempt
	rejectionPause  = 10 * time.Second // between two logins caused by refused tokens
	reloginPause    = time.Second      // between two logins that a request asked for
	revokeTimeout   = 500 * time.Millisecond
	maxResponseBody = 1 << 20 // bytes of an answer that are read
)

// ErrRecently says that a new login was refused because the last one is too
// recent.
var ErrRecently = errors.New("logged in again too recently")

// Manager keeps the token: it knows what is known of it, and when it has to be another
// one, which source gets. It is safe for concurrent use.
type Manager struct {
	o         Options
	source    *source
	exchanges *coalesce.Group[string, *outcome] // by kind

	current atomic.Pointer[token] // written under mu
	asked   atomic.Bool           // somebody needed a token

	mu         sync.Mutex // guards the fields below; never held over I/O
	logins     uint64     // counts those that began
	thaws      uint64     // counts the calls of Thawed
	last       string     // value of the token that was current last
	identity   string     // of the last token whose policies are known; empty: of none
	loggedInAt time.Time  // end of the last login that succeeded
	rejectedAt time.Time  // end of the last login that Rejected caused
	failedAt   time.Time  // end of the last login that failed, if failure is set
	failure    error      // why it failed; nil after a success
	told       string     // the failure that the log told
	renewed    time.Time  // when traffic last had a renewal tried
}

func (o Options) withDefaults() Options {
	o.Timeout = cmp.Or(o.Timeout, min(o.ClientTimeout, defaultTimeout), defaultTimeout)
	o.Own = cmp.Or(o.Own, Owner(nobody{}))
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Now = clock.Of(o.Now)
	return o
}

// New checks the options and returns a manager. It does no I/O.
func New(o Options) (*Manager, error) {
	o = o.withDefaults()
	s, err := newSource(o)
	if err != nil {
		return nil, err
	}
	m := &Manager{o: o, source: s, exchanges: coalesce.New[string](coalesce.Options[*outcome]{Limit: o.Timeout, Now: o.Now})}
	if o.Auth.Method == config.AuthToken {
		m.installLocked(&token{value: string(o.Auth.Token), at: o.Now()})
	}
	return m, nil
}

// Enabled reports whether there is a method to get a token by.
func (m *Manager) Enabled() bool { return m.source.credentials != nil || m.source.given != nil }

// Peek returns the current token without any I/O or allocation, or "" if there
// is none, it expired, or it has less than the grace period left (which counts
// as expired, so that callers who find "" turn to Token).
func (m *Manager) Peek() string {
	return m.usable().text()
}

// Held reports whether there is a token to use and, where its end is known, how
// long it lasts. One that has ended is not held, and ends.
func (m *Manager) Held() (held bool, rest time.Duration, ends bool) {
	t := m.current.Load()
	if t == nil {
		return false, 0, false
	}
	rest, ends = t.rest(m.o.Now())
	return !ends || rest > 0, rest, ends
}

// usable returns the current token unless it has to be replaced. One that can be renewed
// is used to its end, another until its grace period.
func (m *Manager) usable() *token {
	t := m.current.Load()
	if t == nil || t.duty(m.o.Now(), m.o.Auth.ExpiryGrace) == dutyLogin {
		return nil
	}
	return t
}

// Token returns a token that can be renewed, or is good for at least the grace
// period (or half of its TTL, if that is less), logging in if there is none. If
// that fails it returns one that has not ended. Its error is a *LoginError, or
// wraps ctx's.
func (m *Manager) Token(ctx context.Context) (string, error) {
	m.asked.Store(true)
	if t := m.usable(); t != nil {
		m.keepAlive(t)
		return t.value, nil
	}
	t, _, err := m.obtain(ctx, login{})
	if err == nil {
		return t.value, nil
	}
	old := m.current.Load()
	if old == nil || ctx.Err() != nil || !old.alive(m.o.Now()) {
		return "", err
	}
	m.tell("the token is about to end and no other can be had: it is used until then", err)
	return old.value, nil
}

// Forget drops the token, because it was revoked through the proxy. The
// identity is kept, so that a new token of the same identity resets nothing.
func (m *Manager) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current.Store(nil)
	m.o.Own.SetEnd(time.Time{})
}

// installLocked makes t the current token and resets the owner if the identity
// behind it is another one. The order matters, see the package comment.
// The caller holds mu.
func (m *Manager) installLocked(t *token) {
	m.current.Store(t)
	m.o.Own.SetEnd(t.end())
	changed := m.last != "" && m.last != t.value
	m.last, m.told = t.value, ""
	if changed {
		m.o.Own.EndLeases()
	}
	if t.identity == "" && !changed {
		return // it is whose it was
	}
	// Of another token that was given it is not known whose it is.
	if m.identity != "" && m.identity != t.identity || t.identity == "" {
		m.o.Own.Reset()
	}
	m.identity = t.identity
}

// identityOf names an identity by all that decides what it may do.
func identityOf(entity string, external map[string][]string, policies ...[]string) string {
	all := slices.Concat(policies...)
	for ns, ps := range external {
		for _, p := range ps {
			all = append(all, ns+"\x00"+p)
		}
	}
	slices.Sort(all)
	return entity + "\x01" + strings.Join(slices.Compact(all), "\x01")
}
