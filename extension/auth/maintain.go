package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/extension/wire"
)

// errGone says that the origin doesn't know the token any more.
var errGone = errors.New("the origin does not know the token any more")

// Maintain looks after the token; it is called after each poll. It renews a
// renewable token from two thirds of its life on, and logs in when the token
// can't be renewed and is inside its grace period, or has ended. It does
// nothing while no token was ever needed, a given one included. Of a token that
// was given it learns the lease by lookup-self, once; one that may not look
// itself up counts as unlimited. A token file is read again.
//
// Whatever it does to the origin moves raft's indexes (renewals and logins of
// service tokens), so ask the cursor first.
func (m *Manager) Maintain(ctx context.Context) error { return m.maintain(ctx, true) }

// maintain is Maintain; replace says whether it may log in for a token that can
// only be replaced.
func (m *Manager) maintain(ctx context.Context, replace bool) error {
	t := m.current.Load()
	if t == nil || !m.asked.Load() {
		return nil
	}
	if m.given != nil {
		if t = m.followFile(t); !t.known {
			return m.exchange(ctx, kindLookup, t, m.lookup)
		}
	}
	switch t.duty(m.o.Now(), m.o.Method.ExpiryGrace) {
	case dutyRenew:
		err := m.exchange(ctx, kindRenew, t, m.renew)
		if errors.Is(err, errGone) {
			_, err = m.Rejected(ctx, t.value)
		}
		return err
	case dutyLogin:
		if m.given == nil && replace {
			_, err := m.Token(ctx)
			return err
		}
	}
	return nil
}

// keepAlive has t renewed beside its use, if it is time, and not for each use.
func (m *Manager) keepAlive(t *token) {
	now := m.o.Now()
	if t.duty(now, m.o.Method.ExpiryGrace) != dutyRenew {
		return
	}
	rest, _ := t.rest(now)
	m.mu.Lock()
	wait := recent(now, m.renewed, patience(rest))
	if !wait {
		m.renewed = now
	}
	m.mu.Unlock()
	if !wait {
		m.exchanges.Start(context.Background(), kindUpkeep, func(ctx context.Context) (*outcome, error) {
			m.upkeep(ctx)
			return nil, nil
		})
	}
}

// upkeep is Maintain where nobody waits and no poll follows.
func (m *Manager) upkeep(ctx context.Context) {
	if err := m.maintain(ctx, false); err != nil && ctx.Err() == nil {
		m.o.Log.Warn("keep the login alive", "error", err)
	}
}

// Watch renews the token until ctx ends, on hosts that do not freeze. It logs in
// for nobody.
func (m *Manager) Watch(ctx context.Context) {
	for wait.For(ctx, m.pause()) == nil {
		m.upkeep(ctx)
	}
}

// pause is how long Watch may sleep: seldom until the token is due, since it may
// be another one by then.
func (m *Manager) pause() time.Duration {
	const most = time.Minute
	t := m.current.Load()
	if t == nil || !t.renews() {
		return most
	}
	rest, ends := t.rest(m.o.Now())
	if !ends {
		return most
	}
	return min(max(rest-renewFrom(t.ttl), patience(rest)), most)
}

// exchange renews or looks up t, unless something else replaces it first: then
// the next call decides anew.
func (m *Manager) exchange(ctx context.Context, kind string, t *token, work func(context.Context, *token) (*token, error)) error {
	_, _, err := m.obtain(ctx, exchange{
		kind: kind,
		work: func(ctx context.Context) (*token, error) { return work(ctx, t) },
		have: func(time.Time) (*token, error) {
			if m.current.Load() != t {
				return t, nil // nobody looks at it
			}
			return nil, nil
		},
	}, "")
	return err
}

// followFile reads the given token again and makes it current if it changed. A file
// that cannot be used leaves the old in use; the log tells, once.
func (m *Manager) followFile(t *token) *token {
	fresh, err := m.take()
	if err != nil {
		tell(m, "the token's file cannot be used, and the old token stays in use; correct it", err)
		return t
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = ""
	if fresh != t {
		m.installLocked(fresh)
	}
	return fresh
}

// tell logs why no new token can be had, once for each reason.
func tell(m *Manager, message string, why error) {
	m.mu.Lock()
	news := m.told != why.Error()
	m.told = why.Error()
	m.mu.Unlock()
	if news {
		m.o.Log.Warn(message, "error", why)
	}
}

// take reads the given token. If it is the current one, that is returned, with
// what is known of it.
func (m *Manager) take() (*token, error) {
	value, err := m.given()
	if err != nil {
		return nil, m.loginError(0, nil, err)
	}
	if t := m.current.Load(); t != nil && t.value == value {
		return t, nil
	}
	return &token{value: value, at: m.o.Now()}, nil
}

// renew is the work of a renewal
// (https://developer.hashicorp.com/vault/api-docs/auth/token#renew-a-token-self).
func (m *Manager) renew(ctx context.Context, t *token) (*token, error) {
	at := m.o.Now()
	status, body, err := m.send(ctx, wire.Login, "auth/token/renew-self", t.value, struct{}{})
	if err != nil {
		return nil, fmt.Errorf("renew the token: %w", err)
	}
	switch {
	case status == http.StatusOK:
	case wire.TokenRefused(status, body):
		return nil, errGone
	case final(status):
		// It will not work next time either: log in when the time comes.
		m.o.Log.Warn("the token cannot be renewed, a login will replace it", "status", status, "error", reason(body, t.value))
		fixed := *t
		fixed.renewable = false
		return &fixed, nil
	default:
		return nil, fmt.Errorf("renew the token: %d: %s", status, reason(body, t.value))
	}
	fresh, _, err := fromAuth(body, at)
	if err != nil {
		return nil, fmt.Errorf("renew the token: %w", err)
	}
	fresh.value, fresh.login, fresh.batch = t.value, t.login, t.batch
	if rest, ok := t.rest(at); ok && fresh.life > 0 && fresh.life <= rest {
		// It reached its maximum TTL: more renewals bring nothing.
		fresh.renewable = false
	}
	return fresh, nil
}

// lookup is the work of a look-up
// (https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self).
func (m *Manager) lookup(ctx context.Context, t *token) (*token, error) {
	at := m.o.Now()
	status, body, err := m.send(ctx, wire.Lookup, "auth/token/lookup-self", t.value, nil)
	if err != nil {
		return nil, fmt.Errorf("look up the token: %w", err)
	}
	switch {
	case status == http.StatusOK:
	case final(status):
		fixed := *t
		fixed.known = true
		if wire.TokenRefused(status, body) {
			m.o.Log.Warn("the origin refuses the token it was given as invalid: "+m.where(), "status", status)
		} else {
			m.o.Log.Info("the token may not look itself up, so it is taken to be unlimited", "status", status)
		}
		return &fixed, nil
	default:
		return nil, fmt.Errorf("look up the token: %d: %s", status, reason(body, t.value))
	}
	fresh, uses, err := fromLookup(t.value, body, at)
	if err != nil {
		return nil, fmt.Errorf("look up the token: %w", err)
	}
	if uses > 0 {
		m.o.Log.Warn("the token can be used only a few more times, then reads fail", "num_uses", uses)
	}
	return fresh, nil
}

// final reports whether a status is an answer that trying again won't change.
func final(status int) bool {
	return status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusPreconditionFailed && status != http.StatusRequestTimeout
}
