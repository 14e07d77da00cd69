package auth

import (
	"context"
	"time"
)

// Rejected is called after the origin answered 403 "invalid token" (see
// wire.TokenRefused) for a token. It returns a token that differs from it: another
// caller's newer one, or one got by a login. Such logins succeed at most once
// per 10s of wall clock; ErrRecently says that one would come too soon, and
// then the 403 is the caller's answer.
func (m *Manager) Rejected(ctx context.Context, rejected string) (string, error) {
	t, _, err := m.obtain(ctx, login{unlike: rejected})
	return t.text(), err
}

// Retry logs in once more for a token that works, since what it may read can have
// grown: policies of a login's role count from the next login on. It returns a token
// that differs from it, and revokes it, best effort. A given token has no other.
func (m *Manager) Retry(ctx context.Context, used string) (string, error) {
	if m.source.credentials == nil {
		return "", nil
	}
	return m.replace(ctx, login{unlike: used})
}

// replace obtains what x brings, and revokes the token in whose place it came.
func (m *Manager) replace(ctx context.Context, x login) (string, error) {
	t, old, err := m.obtain(ctx, x)
	if old.revocable() {
		m.source.revoke(ctx, old)
	}
	return t.text(), err
}

// Relogin logs in before it returns, although there may be a good token, and
// revokes the old one, best effort. It serves the request header
// "X-Vault-Token-Options: revoke". Concurrent callers share one login. Within a
// second of the last login it returns the current token together with
// ErrRecently. Where the token is given, not logged in for, it is read again.
func (m *Manager) Relogin(ctx context.Context) (string, error) {
	return m.replace(ctx, login{insist: true})
}

// Replace is Relogin with credentials that are new: of the last login it counts neither
// that it is recent nor that it failed.
func (m *Manager) Replace(ctx context.Context) (string, error) {
	m.mu.Lock()
	m.failure, m.loggedInAt = nil, time.Time{}
	m.mu.Unlock()
	return m.Relogin(ctx)
}

// Shutdown ends every exchange under way and revokes the token, if it is a
// service token that a login of ours created. It is best effort within ctx.
// Afterwards no token is given out.
func (m *Manager) Shutdown(ctx context.Context) {
	if m.exchanges.Close(ctx) != nil {
		return
	}
	m.mu.Lock()
	t := m.current.Swap(nil)
	m.mu.Unlock()
	if t.revocable() && t.alive(m.o.Now()) {
		m.source.revoke(ctx, t)
	}
}

func recent(now, at time.Time, d time.Duration) bool {
	return !at.IsZero() && since(now, at) < d
}
