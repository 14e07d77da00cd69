package auth

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/config"
)

func TestARefusedTokenLeadsToOneLoginForAll(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first := s.token(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			v, err := s.Rejected(t.Context(), first)
			if err != nil || v == first || v == "" {
				t.Errorf("got %q, %v", v, err)
			}
		})
	}
	wg.Wait()
	if n := s.vault.count(&s.vault.logins); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

func TestRefusedTokensLeadToOneLoginPerTenSeconds(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	reject := func() (string, error) { return s.Rejected(t.Context(), s.Peek()) }
	first := s.token(t)
	second, err := reject()
	if err != nil || second == first {
		t.Fatalf("got %q, %v", second, err)
	}
	s.clock.move(rejectionPause - time.Nanosecond)
	if _, err := reject(); !errors.Is(err, ErrRecently) {
		t.Errorf("within 10s: %v", err)
	}
	if v, err := s.Rejected(t.Context(), first); err != nil || v != second {
		t.Errorf("whoever still holds the first token gets %q, %v; want the second", v, err)
	}
	if s.Peek() != second {
		t.Error("the token was dropped, which would let Token log in without limit")
	}
	s.clock.move(time.Nanosecond)
	if v, err := reject(); err != nil || v == second {
		t.Errorf("after 10s: %q, %v", v, err)
	}
}

func TestAFailedReloginMayBeTriedAgainAfterASecond(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first := s.token(t)
	s.vault.change(func() { s.vault.down = 503 })
	if _, err := s.Rejected(t.Context(), first); err == nil || errors.Is(err, ErrRecently) {
		t.Fatalf("got %v", err)
	}
	s.vault.change(func() { s.vault.down = 0 })
	s.clock.move(time.Second)
	if v, err := s.Rejected(t.Context(), first); err != nil || v == first {
		t.Errorf("got %q, %v", v, err)
	}
}

func TestReloginRevokesTheOldToken(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first := s.token(t)
	v, err := s.Relogin(t.Context())
	if v != first || !errors.Is(err, ErrRecently) {
		t.Errorf("within a second: %q, %v", v, err)
	}
	s.clock.move(time.Second)
	v, err = s.Relogin(t.Context())
	if err != nil || v == first || v != s.Peek() || s.vault.live(first) || !s.vault.live(v) {
		t.Errorf("got %q, %v; old one lives: %v", v, err, s.vault.live(first))
	}
}

func TestReloginLeavesBatchTokensAlone(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.kind = "batch"
	s.token(t)
	s.clock.move(time.Second)
	if _, err := s.Relogin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.log.String(), "revoke") {
		t.Errorf("a revocation was tried: %s", s.log)
	}
}

func TestShutdownRevokesOnlyServiceTokensOfOurLogins(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		kind   string
		lives  bool
	}{
		"service": {nil, "service", false},
		"batch":   {nil, "batch", true},
		"given": {func(o *Options) {
			o.Auth = config.Auth{Method: config.AuthToken, Token: "hvs.given"}
		}, "service", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := play(t, c.change)
			s.vault.kind = c.kind
			s.vault.give("hvs.given", time.Hour, false)
			token := s.token(t)
			if err := s.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Shutdown(t.Context())
			if s.vault.live(token) != c.lives {
				t.Errorf("the token lives: %v, want %v", !c.lives, c.lives)
			}
			if v, err := s.Token(t.Context()); v != "" || !errors.Is(err, coalesce.ErrClosed) {
				t.Errorf("after the shutdown: %q, %v", v, err)
			}
			if c.lives && strings.Contains(s.log.String(), "revoke") {
				t.Errorf("a revocation was tried: %s", s.log)
			}
		})
	}
}

func TestShutdownEndsALoginAndItsWaiters(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.entered, s.vault.gate = make(chan struct{}, 1), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := s.Token(t.Context())
		done <- err
	}()
	<-s.vault.entered
	s.Shutdown(t.Context())
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestARefusedGivenTokenSaysWhereItComesFrom(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) {
		o.Auth = config.Auth{Method: config.AuthToken, Token: "hvs.given-token-of-the-user"}
	})
	_, err := s.Rejected(t.Context(), "hvs.given-token-of-the-user")
	var e *LoginError
	if !errors.As(err, &e) || e.Status != 403 || !strings.Contains(err.Error(), "VAULT_TOKEN") || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("got %v", err)
	}
	s.clock.move(time.Second)
	if v, err := s.Relogin(t.Context()); v != "hvs.given-token-of-the-user" || err != nil {
		t.Errorf("Relogin: %q, %v", v, err)
	}
}

func TestARefusedTokenFileIsReadAgain(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthTokenFile, TokenFile: "/t"} })
	s.disk.write("/t", "hvs.one\n")
	before := s.Generation()
	if v := s.token(t); v != "hvs.one" {
		t.Fatalf("got %q", v)
	}
	s.disk.write("/t", "hvs.two\n")
	if v, err := s.Rejected(t.Context(), "hvs.one"); v != "hvs.two" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	if s.Generation() == before {
		t.Error("another token of unknown identity kept the generation")
	}
}
