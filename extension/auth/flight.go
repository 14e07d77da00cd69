package auth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The kinds of flights.
const (
	flightLogin  = "login"
	flightRenew  = "renewal"
	flightLookup = "look-up"
)

// mission is what a flight is started for.
type mission struct {
	kind      string
	rejection bool // a refused token is the cause; counts for Rejected's limit
	work      func(context.Context) (*token, error)

	// needed is asked under mu before a flight is started. Whoever asked for
	// it decided without the lock, and another flight may have landed since.
	needed func(now time.Time) bool
}

// flight is one exchange with the origin that callers share.
type flight struct {
	mission
	started time.Time
	cancel  context.CancelCauseFunc
	done    chan struct{}
	slept   bool // guarded by Manager.mu; the process may have been frozen since it started

	// Set before done is closed, read after.
	token *token // what it brought; nil if it failed
	old   *token // what it replaced
	err   error
}

// wait returns when the flight is over (nil) or ctx is (its cause).
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	default:
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// share joins or starts a flight of the mission's kind and waits for it. f is
// nil if the caller has to look again: nothing was needed any more, the flight
// was abandoned, or it was one of another kind. Otherwise it brought a token.
func (m *Manager) share(ctx context.Context, o mission) (f *flight, mine bool, err error) {
	f, mine, err = m.begin(o)
	if err != nil || f == nil {
		return nil, false, err
	}
	if err := f.wait(ctx); err != nil {
		return nil, mine, m.impatient(f.kind, err)
	}
	if errors.Is(f.err, errAbandoned) || f.kind != o.kind {
		return nil, mine, nil
	}
	if f.err != nil {
		return nil, mine, f.err
	}
	return f, mine, nil
}

// begin joins the flight under way, of whatever kind, or starts one; mine tells
// which. f is nil if none is needed any more: the caller looks again. A login
// is refused with the remembered error if one failed just now.
func (m *Manager) begin(o mission) (f *flight, mine bool, err error) {
	if !m.Enabled() {
		return nil, false, errors.New("no auth method is configured: set THAW_AUTH_METHOD or VAULT_AUTH_ROLE, or send a token with the request")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, false, fmt.Errorf("%s: %w", o.kind, errClosed)
	}
	now := m.o.Now()
	if f := m.flight; f != nil {
		if since(now, f.started) <= m.o.Timeout {
			return f, false, nil
		}
		// It should have ended by its own deadline: a freeze held the timer.
		m.flight = nil
		f.err = errAbandoned
		close(f.done)
		f.cancel(errAbandoned)
	}
	if !o.needed(now) {
		return nil, false, nil
	}
	if o.kind == flightLogin && m.failure != nil && since(now, m.failedAt) < failureMemory {
		return nil, false, m.failure
	}
	ctx, cancel := context.WithCancelCause(m.root)
	f = &flight{mission: o, started: now, cancel: cancel, done: make(chan struct{})}
	m.flight = f
	m.flying.Add(1)
	go func() {
		defer m.flying.Done()
		defer cancel(nil)
		ctx, stop := context.WithTimeout(ctx, m.o.Timeout)
		defer stop()
		t, err := o.work(ctx)
		if !m.land(f, t, err) && o.kind == flightLogin && t.revocable() {
			m.revoke(m.root, t) // nobody will ever use it
		}
	}()
	return f, true, nil
}

// Thawed says that the process may have been frozen until just now. A flight
// that is under way may find its connection dead: if it fails without an
// answer, those who wait for it look again. A failure of that kind that is
// remembered may be of the same making, so it is forgotten.
func (m *Manager) Thawed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flight != nil {
		m.flight.slept = true
	}
	if unanswered(m.failure) {
		m.failure = nil
	}
}

// unanswered reports whether a flight failed before it came to an answer.
func unanswered(err error) bool {
	var e *LoginError
	return errors.As(err, &e) && e.Status == 0
}

// land records a flight's result, wakes those who wait for it, and reports
// whether the result counts. An abandoned flight was over before, and its
// result is dropped.
//
// A flight that fails after its deadline was frozen: its timer or its dead
// connection woke before the next caller came. So was, perhaps, one that fails
// without an answer after Thawed. That is no failure to remember, and those who
// waited look again.
func (m *Manager) land(f *flight, t *token, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flight != f {
		return false
	}
	now := m.o.Now()
	m.flight = nil
	f.old = m.current.Load()
	switch {
	case err != nil && !m.closed && (since(now, f.started) > m.o.Timeout+freezeSlack || f.slept && unanswered(err)):
		err = errAbandoned
	case err == nil && f.kind != flightLogin && (f.old == nil || f.old.value != t.value):
		err = errAbandoned // the token was forgotten or replaced meanwhile
	}
	f.token, f.err = t, err
	if err == nil {
		m.installLocked(t)
	}
	if f.kind == flightLogin {
		switch {
		case err == nil:
			m.failure, m.loggedInAt = nil, now
			if f.rejection {
				m.rejectedAt = now
			}
		case !errors.Is(err, errAbandoned):
			m.failure, m.failedAt = err, now
		}
	}
	close(f.done)
	return true
}
