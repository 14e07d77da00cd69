package auth

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// board is what instances share.
type board struct {
	mu sync.Mutex
	on map[string]string
}

func (b *board) State(_ context.Context, name string, into any) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return json.Unmarshal([]byte(b.on[name]), into) == nil
}

func (b *board) PutState(_ context.Context, name string, v any, ttl time.Duration) {
	text, err := json.Marshal(v)
	if err != nil || ttl <= 0 {
		panic(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on == nil {
		b.on = make(map[string]string)
	}
	b.on[name] = string(text)
}

// refusedScene is a scene whose login is refused.
func refusedScene(t *testing.T, method config.AuthMethod, change func(*Options)) *scene {
	s := dream(t, func(o *Options) {
		o.Auth.Method, o.Auth.SecretID, o.Auth.SecretFile, o.Auth.KeepSecret, o.Auth.JWTFile = method, "", "/secret", true, "/jwt"
		if change != nil {
			change(o)
		}
	})
	s.disk.write("/secret", "wrong-secret-id")
	s.disk.write("/jwt", "wrong.jwt")
	return s
}

// tries asks for a token ten times a second for so long, and counts the logins.
func (s *scene) tries(t *testing.T, lasts time.Duration) int {
	t.Helper()
	before := s.vault.logins
	for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(time.Second / 10) {
		if v, err := s.Token(t.Context()); err == nil {
			t.Fatalf("logged in: %q", v)
		}
	}
	return s.vault.logins - before
}

func TestRefusedCredentialsAreTriedEverLessOften(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method config.AuthMethod
		lasts  time.Duration
		want   int
	}{
		{config.AuthJWT, 900 * time.Millisecond, 1},
		{config.AuthJWT, 2900 * time.Millisecond, 2},
		{config.AuthJWT, 31 * time.Second, 5}, // at 0, 1, 3, 7, 15 s
		{config.AuthJWT, time.Hour, 5 + 120},
		{config.AuthAppRole, 900 * time.Millisecond, 1},
		{config.AuthAppRole, 19 * time.Minute, 2},
		{config.AuthAppRole, 3 * time.Hour, 2 + 3*3},
	} {
		t.Run(string(c.method)+" for "+c.lasts.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := refusedScene(t, c.method, nil)
				if got := s.tries(t, c.lasts); got < c.want-2 || got > c.want || c.want <= 5 && got != c.want {
					t.Errorf("%d logins, want %d", got, c.want)
				}
			})
		})
	}
}

// TestOnlyRefusalsAreTriedLess: an outage and a rate limit say nothing of the
// credentials.
func TestOnlyRefusalsAreTriedLess(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 500, 503} {
		synctest.Test(t, func(t *testing.T) {
			s := dream(t, nil)
			s.vault.down = status
			tries := 0
			s.vault.onDown = func() { tries++ }
			s.tries(t, time.Minute)
			if tries < 50 {
				t.Errorf("%d: %d tries in a minute", status, tries)
			}
			s.vault.down = 0
			time.Sleep(time.Second)
			s.token(t)
		})
	}
}

func TestOtherCredentialsAreTriedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := refusedScene(t, config.AuthAppRole, nil)
		s.tries(t, time.Minute)
		s.disk.write("/secret", "another wrong one")
		if n := s.tries(t, time.Minute); n != 2 {
			t.Errorf("%d logins with other credentials, want 2", n)
		}
		s.disk.write("/secret", s.vault.secretID)
		time.Sleep(time.Second)
		s.token(t)
	})
}

// TestARequestMayInsistNowAndThen: X-Vault-Token-Options: revoke has refused
// credentials tried once in ten seconds, and that resets nothing.
func TestARequestMayInsistNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := refusedScene(t, config.AuthAppRole, nil)
		s.tries(t, time.Minute)
		before := s.vault.logins
		for range 600 {
			if _, err := s.Relogin(t.Context()); err == nil {
				t.Fatal("logged in")
			}
			time.Sleep(time.Second / 10)
		}
		if n := s.vault.logins - before; n < 5 || n > 6 {
			t.Errorf("%d logins in a minute of insisting", n)
		}
		if n := s.tries(t, 19*time.Minute); n != 0 {
			t.Errorf("%d logins afterwards", n)
		}
	})
}

func TestRefusalsAreSharedByTheInstancesOfAnAudience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		share := func(o *Options) { o.Shared = b }
		first := refusedScene(t, config.AuthAppRole, share)
		first.tries(t, time.Minute)
		for range 100 {
			s := refusedScene(t, config.AuthAppRole, share)
			if n := s.tries(t, time.Second); n != 0 {
				t.Fatalf("%d logins by another instance", n)
			}
		}
		// Other credentials are not concerned, and a login that is taken tells all.
		good := dream(t, share)
		good.token(t)
		time.Sleep(lockoutPause)
		first.vault.secretID = "wrong-secret-id" // now it is right
		first.token(t)
		second := refusedScene(t, config.AuthAppRole, share)
		if n := second.tries(t, 500*time.Millisecond); n != 1 {
			t.Errorf("%d logins after one that was taken", n)
		}
		for name, text := range b.on {
			if strings.Contains(name+text, "wrong-secret-id") || strings.Contains(name+text, first.vault.roleID) {
				t.Errorf("a secret is shared: %s %s", name, text)
			}
		}
	})
}

func TestTheHintOfARefusalNamesTheLockout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := refusedScene(t, config.AuthAppRole, nil)
		_, first := s.Token(t.Context())
		time.Sleep(500 * time.Millisecond)
		s.tries(t, 2*time.Second)
		_, later := s.Token(t.Context())
		e := new(LoginError)
		if !errors.As(later, &e) || e.Status != 400 {
			t.Fatalf("got %v", later)
		}
		for _, want := range []string{"invalid role or secret ID", "secret id has not expired", "sys/locked-users"} {
			if !strings.Contains(first.Error(), want) || !strings.Contains(later.Error(), want) {
				t.Errorf("no %q in\n%v\n%v", want, first, later)
			}
		}
		if !strings.Contains(later.Error(), "refused 2 times in a row, and tried again in 20m") && !strings.Contains(later.Error(), "tried again in 19m5") {
			t.Errorf("%v does not say when", later)
		}
	})
}
