package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
)

// The kinds of exchanges.
const (
	kindLogin = "login"
	kindRenew = "renewal" // or a look-up
	kindAside = "aside"   // one for which nobody waits, and that is made again after a freeze
)

// login is one that is to be made.
type login struct {
	unlike string // the token that was refused something, for which there is to be another one; empty: none
	insist bool   // a request asked for it, although there may be a good token
}

// needlessLocked returns the token, or the error, that makes a login needless: for whoever
// wants it, and before its work begins, since another may have ended meanwhile.
// The caller holds mu.
func (m *Manager) needlessLocked(x login, now time.Time) (*token, error) {
	t := m.usable()
	switch {
	case t == nil:
	case x.insist:
		if m.source.given == nil && recent(now, m.loggedInAt, reloginPause) {
			return t, ErrRecently
		}
	case t.value != x.unlike:
		return t, nil
	case recent(now, m.rejectedAt, rejectionPause):
		return nil, fmt.Errorf("the origin refused the token of a login less than %s ago: %w", rejectionPause, ErrRecently)
	}
	return nil, nil
}

// outcome is what a login brought.
type outcome struct {
	token *token // nil if it failed
	old   *token // what it replaced
}

// obtain returns what makes x needless, or joins the login that is under way, or makes
// x: then old is what it replaced.
func (m *Manager) obtain(ctx context.Context, x login) (t, old *token, err error) {
	if !m.Enabled() {
		return nil, nil, errors.New("no auth method is configured: set THAW_AUTH_METHOD or VAULT_AUTH_ROLE, or send a token with the request")
	}
	for {
		m.mu.Lock()
		t, err := m.needlessLocked(x, m.o.Now())
		m.mu.Unlock()
		if t != nil || err != nil {
			return t, nil, err
		}
		o, mine, err := m.exchanges.Do(ctx, kindLogin, func(ctx context.Context) (*outcome, error) { return m.perform(ctx, x) })
		switch {
		case err != nil && o != nil:
			return nil, nil, err
		case err != nil && ctx.Err() != nil:
			return nil, nil, m.source.impatient(kindLogin, err)
		case err != nil:
			return nil, nil, fmt.Errorf("%s: %w", kindLogin, err)
		case o != nil && mine:
			return o.token, o.old, nil
		case o != nil && o.token.value != x.unlike:
			return o.token, nil, nil
		}
	}
}

// perform makes a login, unless it is needless by now, or one failed just now: then the
// remembered error is its own. The outcome is nil if whoever waits has to look again.
func (m *Manager) perform(ctx context.Context, x login) (*outcome, error) {
	m.mu.Lock()
	began, thaws := m.o.Now(), m.thaws
	if t, err := m.needlessLocked(x, began); t != nil || err != nil {
		m.mu.Unlock()
		return nil, nil
	}
	if m.failure != nil && since(began, m.failedAt) < failureMemory {
		defer m.mu.Unlock()
		return &outcome{}, m.failure
	}
	m.logins++
	number := m.logins
	m.mu.Unlock()
	t, err := m.source.logIn(ctx, m.current.Load(), x.insist)
	if err == nil && t.value == x.unlike {
		err = m.source.invalid()
	}
	m.mu.Lock()
	if number != m.logins { // it was abandoned, and has a successor
		m.mu.Unlock()
		if err == nil && t.revocable() {
			m.source.revoke(context.WithoutCancel(ctx), t) // nobody will ever use it
		}
		return nil, coalesce.ErrAgain
	}
	defer m.mu.Unlock()
	switch {
	case err != nil && (errors.Is(err, coalesce.ErrAgain) || clock.Froze(began.Add(m.o.Timeout), m.o.Now()) || thaws != m.thaws && unanswered(err)):
		return nil, coalesce.ErrAgain // that is no failure to remember
	case err != nil:
		m.failure, m.failedAt = err, m.o.Now()
		return &outcome{}, err
	}
	m.failure, m.loggedInAt = nil, m.o.Now()
	if x.unlike != "" {
		m.rejectedAt = m.loggedInAt
	}
	old := m.current.Load()
	m.installLocked(t)
	return &outcome{token: t, old: old}, nil
}

// Thawed says that the process may have been frozen until just now. An exchange
// that is under way may find its connection dead: if it fails without an answer,
// those who wait for it look again. A failure of that kind that is remembered
// may be of the same making, so it is forgotten.
func (m *Manager) Thawed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.thaws++
	if unanswered(m.failure) {
		m.failure = nil
	}
}

// unanswered reports whether a login failed before it came to an answer.
func unanswered(err error) bool {
	var e *LoginError
	return errors.As(err, &e) && e.Status == 0
}
