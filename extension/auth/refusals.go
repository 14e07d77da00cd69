package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wire"
)

// Shared is what the instances of an audience tell each other, as JSON under
// names that only they can make. What cannot be had is absent.
type Shared interface {
	State(ctx context.Context, name string, into any) bool
	PutState(ctx context.Context, name string, v any, ttl time.Duration)
}

// refusal is what is remembered of credentials that the origin refused.
type refusal struct {
	Count  int       `json:"count"` // in a row; 0: none
	At     time.Time `json:"at"`    // of the last; on the wall clock where another instance told it
	Status int       `json:"status"`
	Reason string    `json:"reason"`
	Check  string    `json:"check"`
}

// The pauses after refusals. Vault locks an AppRole's role id out, for everybody,
// after five refusals, which it forgets when there was none for 15 minutes
// (https://developer.hashicorp.com/vault/docs/concepts/user-lockout).
const (
	refusedFirst  = time.Second
	refusedMost   = 30 * time.Second
	lockoutTries  = 2 // as often as refusedFirst apart; then once in
	lockoutPause  = 20 * time.Minute
	insistedPause = 10 * time.Second // between two logins that requests ask for in spite of refusals
	refusalTime   = time.Hour        // how long a refusal is shared
)

// rest is how long the same credentials are not tried again.
func (r refusal) rest(lockout bool) time.Duration {
	lockout = lockout && (r.Status == http.StatusBadRequest || r.Status == http.StatusForbidden) // else it was not about the credentials
	switch {
	case r.Count == 0:
		return 0
	case lockout && r.Count >= lockoutTries:
		return lockoutPause
	case lockout:
		return refusedFirst
	}
	return min(refusedFirst<<min(r.Count-1, 10), refusedMost)
}

// locksOut reports whether Vault locks out whom it refuses too often.
func (s *source) locksOut() bool { return s.o.Auth.Method == config.AuthAppRole }

// nameOf names credentials, so that the same ones are known again.
func (s *source) nameOf(c credentials) string {
	id := c.id
	if id == nil {
		id = c.secrets
	}
	all := append([]string{string(s.o.Auth.Method), s.ns, s.mount, s.o.Auth.Role}, id...)
	sum := sha256.Sum256([]byte(strings.Join(all, "\x00")))
	return "login/" + hex.EncodeToString(sum[:])
}

// refusedBefore is what is known of earlier refusals of credentials, here or by another
// instance.
func (s *source) refusedBefore(ctx context.Context, name string) refusal {
	s.mu.Lock()
	var known refusal
	if s.name == name {
		known = s.refused
	}
	s.mu.Unlock()
	var told refusal
	if shared := s.o.Shared; shared != nil && shared.State(ctx, name, &told) && told.Count > known.Count {
		return told
	}
	return known
}

// mayTry returns the error for credentials that were refused too short a time
// ago. A request that asks for a login gets one all the same now and then.
func (s *source) mayTry(before refusal, insist bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	left := before.rest(s.locksOut()) - since(now, before.At)
	if left <= 0 {
		return nil
	}
	if insist && !recent(now, s.insisted, insistedPause) {
		s.insisted = now
		return nil
	}
	e := s.loginError(wire.Answer{}, nil)
	e.Status, e.Reason = before.Status, before.Reason
	e.Check = also(before.Check, fmt.Sprintf("refused %d times in a row, and tried again in %v or with other credentials", before.Count, left.Round(time.Second)))
	return e
}

// note takes down what became of a login with credentials that had been refused
// so far as before says, and returns err with a hint.
func (s *source) note(ctx context.Context, name string, before refusal, err error) error {
	now, e := refusal{}, new(LoginError)
	switch {
	case err == nil && before.Count == 0:
		return nil
	case err == nil:
	case !errors.As(err, &e) || !final(e.Status):
		return err
	default:
		if s.locksOut() {
			e.Check = also(e.Check, "Vault locks a role id out after five refusals, for everybody: `vault read sys/locked-users` shows it")
		}
		now = refusal{Count: before.Count + 1, At: s.o.Now(), Status: e.Status, Reason: e.Reason, Check: e.Check}
	}
	s.mu.Lock()
	s.name, s.refused = name, now
	s.mu.Unlock()
	if s.o.Shared != nil {
		s.o.Shared.PutState(ctx, name, now, refusalTime)
	}
	return err
}

// also adds a hint to another, which may be empty.
func also(hint, more string) string { return strings.TrimPrefix(hint+"; "+more, "; ") }
