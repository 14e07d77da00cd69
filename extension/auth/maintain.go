package auth

import (
	"context"
	"errors"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
)

// Maintain looks after the token; it is called after each poll. It renews a
// renewable token from two thirds of its life on, and logs in when the token
// can't be renewed and is inside its grace period, or has ended. It does
// nothing while no token was ever needed, a given one included. Of a token that
// was given it learns the lease by lookup-self, once; one that may not look
// itself up counts as unlimited. A token file is read again.
//
// Whatever it does to the origin moves raft's indexes (renewals and logins of
// service tokens), so ask the cursor first.
func (m *Manager) Maintain(ctx context.Context) error {
	t := m.current.Load()
	if t == nil || !m.asked.Load() {
		return nil
	}
	due := t.duty(m.o.Now(), m.o.Auth.ExpiryGrace)
	switch {
	case m.source.given != nil, due == dutyRenew:
		_, _, err := m.exchanges.Do(ctx, kindRenew, m.upkeep)
		if err != nil && ctx.Err() != nil {
			return m.source.impatient(kindRenew, err)
		}
		return err
	case due == dutyLogin:
		_, err := m.Token(ctx)
		return err
	}
	return nil
}

// upkeep is the work of a renewal. A token that was given is first read again, and
// looked up. What replaces the token meanwhile stays.
func (m *Manager) upkeep(ctx context.Context) (*outcome, error) {
	t, ask := m.current.Load(), m.source.renew
	if t == nil || !m.asked.Load() {
		return nil, nil
	}
	if m.source.given != nil {
		if t = m.followFile(t); !t.known {
			ask = m.source.lookup
		}
	}
	if (m.source.given == nil || t.known) && t.duty(m.o.Now(), m.o.Auth.ExpiryGrace) != dutyRenew {
		return nil, nil
	}
	fresh, err := ask(ctx, t)
	if errors.Is(err, errGone) {
		_, err = m.Rejected(ctx, t.value)
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.current.Load(); err == nil && now != nil && now.value == fresh.value {
		m.installLocked(fresh)
	}
	return nil, err
}

// aside is upkeep where nobody waits and no poll follows.
func (m *Manager) aside(ctx context.Context) (*outcome, error) {
	o, _, err := m.exchanges.Do(ctx, kindRenew, m.upkeep)
	if err != nil && ctx.Err() == nil {
		m.o.Log.Warn("keep the login alive", "error", err)
	}
	return o, err
}

// keepAlive has t renewed beside its use, if it is time, and not for each use.
func (m *Manager) keepAlive(t *token) {
	now := m.o.Now()
	if t.duty(now, m.o.Auth.ExpiryGrace) != dutyRenew {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if rest, _ := t.rest(now); !recent(now, m.renewed, patience(rest)) {
		m.renewed = now
		m.exchanges.Start(context.Background(), kindAside, m.aside)
	}
}

// Watch renews the token until ctx ends, on hosts that do not freeze. It logs in
// for nobody.
func (m *Manager) Watch(ctx context.Context) {
	for wait.For(ctx, m.pause()) == nil {
		_, _ = m.aside(ctx)
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

// followFile reads the given token again and makes it current if it changed. A file
// that cannot be used leaves the old in use; the log tells, once.
func (m *Manager) followFile(t *token) *token {
	fresh, err := m.source.take(m.current.Load())
	if err != nil {
		m.tell("the token's file cannot be used, and the old token stays in use; correct it", err)
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
func (m *Manager) tell(message string, why error) {
	m.mu.Lock()
	news := m.told != why.Error()
	m.told = why.Error()
	m.mu.Unlock()
	if news {
		m.o.Log.Warn(message, "error", why)
	}
}
