package auth

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

func TestExpiryIsDecidedByTheClocks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		name string
		now  time.Time
		want time.Duration
	}{
		{"both agree", now.Add(time.Minute), time.Minute},
		{"a freeze stops the monotonic clock", now.Round(0).Add(time.Hour), time.Hour},
		{"no time passed", now, 0},
		{"both run backwards", now.Add(-1), 0},
	} {
		if got := since(c.now, now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got := since(now, time.Time{}); got <= maxTTL {
		t.Errorf("since the zero time only %v passed", got)
	}
}

func TestTokensAreUsableUntilTheirGracePeriod(t *testing.T) {
	t.Parallel()
	at := newHand().now()
	const grace = 10 * time.Second
	for _, c := range []struct {
		name      string
		life, ttl time.Duration
		passed    time.Duration
		want      bool
	}{
		{"new", time.Hour, time.Hour, 0, true},
		{"grace left to the nanosecond", time.Hour, time.Hour, time.Hour - grace, true},
		{"a nanosecond less", time.Hour, time.Hour, time.Hour - grace + 1, false},
		{"ended", time.Hour, time.Hour, time.Hour, false},
		{"ended long ago", time.Hour, time.Hour, 1000 * time.Hour, false},
		{"no end", 0, 0, 1000 * time.Hour, true},
		{"TTL as long as the grace period, half", grace, grace, grace / 2, true},
		{"TTL as long as the grace period, more", grace, grace, grace/2 + 1, false},
		{"one second, new", time.Second, time.Second, 0, true},
		{"one second, ended", time.Second, time.Second, time.Second, false},
		{"looked up with little left of much", 9 * time.Second, time.Hour, 0, false},
		{"clock before the login", time.Hour, time.Hour, -time.Hour, true},
		{"the longest", maxTTL, maxTTL, maxTTL - grace, true},
	} {
		tok := &token{at: at, life: c.life, ttl: c.ttl}
		if got := tok.duty(at.Add(c.passed), grace) != dutyLogin; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDutyFollowsTTLAndGrace(t *testing.T) {
	t.Parallel()
	const ttl, grace = 100 * time.Second, 10 * time.Second
	for _, c := range []struct {
		rest      time.Duration
		renewable bool
		want      duty
	}{
		{ttl, true, dutyNone},
		{ttl/3 + 1, true, dutyNone},
		{ttl / 3, true, dutyRenew},
		{1, true, dutyRenew},
		{0, true, dutyLogin},
		{20*time.Second - 1, false, dutyNone},
		{grace, false, dutyNone},
		{grace - 1, false, dutyLogin},
		{0, false, dutyLogin},
	} {
		now := time.Now()
		token := &token{at: now.Add(c.rest - ttl), life: ttl, ttl: ttl, renewable: c.renewable}
		if got := token.duty(now, grace); got != c.want {
			t.Errorf("%v left, renewable %v: %v, want %v", c.rest, c.renewable, got, c.want)
		}
	}
}

func TestSecondsFromTheOriginCannotOverflow(t *testing.T) {
	t.Parallel()
	for in, want := range map[int64]time.Duration{-1: 0, 0: 0, 1: time.Second, 3600: time.Hour, 1 << 40: maxTTL, 1<<63 - 1: maxTTL, -1 << 63: 0} {
		if got := seconds(in); got != want {
			t.Errorf("%d: %v, want %v", in, got, want)
		}
	}
}

func maintain(t *testing.T, s *scene) {
	t.Helper()
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestMaintainDoesNothingUntilATokenWasNeeded(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	maintain(t, s)
	if n := s.vault.count(&s.vault.logins); n != 0 {
		t.Errorf("%d logins", n)
	}
}

func TestMaintainRenewsFromTwoThirdsOfTheLife(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first, before := s.token(t), s.Generation()
	s.clock.move(40*time.Minute - 1)
	maintain(t, s)
	if n := s.vault.count(&s.vault.renewals); n != 0 {
		t.Errorf("%d renewals with more than a third left", n)
	}
	s.clock.move(1)
	maintain(t, s)
	if n := s.vault.count(&s.vault.renewals); n != 1 {
		t.Errorf("%d renewals with a third left, want 1", n)
	}
	s.clock.move(59 * time.Minute)
	if s.Peek() != first || s.Generation() != before {
		t.Error("the renewed token is not given out, or counts as another identity")
	}
}

func TestARenewalThatBringsAnotherPolicyMovesTheGeneration(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.token(t)
	before := s.Generation()
	s.vault.change(func() { s.vault.identity = []string{"team"} })
	s.clock.move(50 * time.Minute)
	maintain(t, s)
	if s.Generation() == before {
		t.Error("the generation stood still")
	}
}

// TestTheLastSecondOfALeaseIsNotForEver: Vault rounds what is left down, so 0 of a token
// that was made with an end is the last second of it.
func TestTheLastSecondOfALeaseIsNotForEver(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for body, want := range map[string]bool{
		`{"data":{"ttl":1,"creation_ttl":60}}`: true,
		`{"data":{"ttl":0,"creation_ttl":60}}`: true,
		`{"data":{"ttl":0,"creation_ttl":0}}`:  false,
	} {
		tok, err := fromLookup("hvs.x", []byte(body), now)
		if err != nil {
			t.Fatal(err)
		}
		if _, ends := tok.rest(now); ends != want {
			t.Errorf("%s: it has an end: %v", body, ends)
		}
	}
}

func TestATokenAtItsMaximumTTLIsNotRenewedAgain(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.maxTTL = time.Hour
	s.token(t)
	s.clock.move(50 * time.Minute)
	maintain(t, s)
	for range 9 { // into the last third of what was left, too
		s.clock.move(time.Minute)
		maintain(t, s)
	}
	if n := s.vault.count(&s.vault.renewals); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
	s.clock.move(time.Minute)
	maintain(t, s)
	if n := s.vault.count(&s.vault.logins); n != 2 {
		t.Errorf("%d logins, want a second one", n)
	}
}

func TestMaintainLogsInForTokensThatCannotBeRenewed(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.kind = "batch"
	first := s.token(t)
	s.clock.move(time.Hour - 10*time.Second)
	maintain(t, s)
	if s.Peek() != first {
		t.Error("replaced before its grace period")
	}
	s.clock.move(time.Second)
	maintain(t, s)
	if v := s.Peek(); v == "" || v == first || s.vault.count(&s.vault.renewals) != 0 {
		t.Errorf("got %q", v)
	}
}

func TestMaintainReplacesATokenThatTheOriginForgot(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first := s.token(t)
	s.vault.RevokeToken(first)
	s.clock.move(50 * time.Minute)
	maintain(t, s)
	if v := s.Peek(); v == "" || v == first {
		t.Errorf("got %q", v)
	}
}

func TestARenewalThatIsNotAllowedIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first := s.token(t)
	s.vault.SetPolicy("app", nil)
	s.vault.SetPolicy("default", nil)
	s.clock.move(50 * time.Minute)
	maintain(t, s)
	maintain(t, s)
	if n := s.vault.count(&s.vault.renewals); n != 1 || s.Peek() != first {
		t.Errorf("%d renewals, token %q", n, s.Peek())
	}
}

func TestARenewalThatFailsInPassingIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.token(t)
	s.clock.move(50 * time.Minute)
	s.vault.change(func() { s.vault.down = 503 })
	if err := s.Maintain(t.Context()); err == nil {
		t.Error("no error from a sealed origin")
	}
	s.vault.change(func() { s.vault.down = 0 })
	maintain(t, s)
	if n := s.vault.count(&s.vault.renewals); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
}

func TestAGivenTokenIsLookedUpOnceAndRenewed(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthToken, Token: "hvs.given"} })
	s.vault.give("hvs.given", time.Hour, false)
	if s.token(t) != "hvs.given" || s.vault.count(&s.vault.lookups) != 0 {
		t.Error("the given token needs a look-up before it is used")
	}
	maintain(t, s)
	maintain(t, s)
	if n := s.vault.count(&s.vault.lookups); n != 1 {
		t.Errorf("%d look-ups, want 1", n)
	}
	s.clock.move(50 * time.Minute)
	maintain(t, s)
	if n := s.vault.count(&s.vault.renewals); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
}

// TestATokenThatNobodyNeededIsNotLookedUp: a cold start beside a warm shared
// cache sends nothing that needs one.
func TestATokenThatNobodyNeededIsNotLookedUp(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthToken, Token: "hvs.given"} })
	s.vault.give("hvs.given", time.Hour, false)
	maintain(t, s)
	if n := s.vault.count(&s.vault.lookups); n != 0 || s.Peek() != "hvs.given" {
		t.Errorf("%d look-ups, token %q", n, s.Peek())
	}
	s.token(t)
	maintain(t, s)
	if n := s.vault.count(&s.vault.lookups); n != 1 {
		t.Errorf("%d look-ups, want 1", n)
	}
}

func TestAGivenTokenThatMayNotLookItselfUpIsUnlimited(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthToken, Token: "hvs.given"} })
	s.vault.give("hvs.given", 0, true)
	s.token(t)
	maintain(t, s)
	s.clock.move(1000 * time.Hour)
	maintain(t, s)
	if n := s.vault.count(&s.vault.lookups); n != 1 || s.Peek() != "hvs.given" {
		t.Errorf("%d look-ups, token %q", n, s.Peek())
	}
}

func TestALookUpThatFailsInPassingIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthToken, Token: "hvs.given"} })
	s.vault.give("hvs.given", time.Hour, false)
	s.token(t)
	s.vault.change(func() { s.vault.down = 503 })
	if err := s.Maintain(t.Context()); err == nil || errors.Is(err, ErrRecently) {
		t.Errorf("got %v", err)
	}
	s.vault.change(func() { s.vault.down = 0 })
	maintain(t, s)
	if n := s.vault.count(&s.vault.lookups); n != 1 {
		t.Errorf("%d look-ups", n)
	}
}

func TestMaintainFollowsTheTokenFile(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthTokenFile, TokenFile: "/t"} })
	s.vault.give("hvs.one", time.Hour, false)
	s.vault.give("hvs.two", time.Hour, false)
	s.disk.write("/t", "hvs.one")
	s.token(t)
	maintain(t, s)
	before := s.Generation()
	s.disk.write("/t", "hvs.two")
	maintain(t, s)
	if s.Peek() != "hvs.two" || s.Generation() == before {
		t.Errorf("token %q, generation %d", s.Peek(), s.Generation())
	}
}

// TestABadTokenFileKeepsTheOldToken in use and alive, and is told once.
func TestABadTokenFileKeepsTheOldToken(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthTokenFile, TokenFile: "/t"} })
	s.vault.give("hvs.one", time.Hour, false)
	s.disk.write("/t", "hvs.one")
	s.token(t)
	maintain(t, s)
	for i, bad := range []func(){
		func() { s.disk.write("/t", "hvs.t wo") },
		func() { s.disk.write("/t", "") },
		func() { s.disk.remove("/t") },
		func() { s.disk.write("/t", "hvs.one"); maintain(t, s); s.disk.remove("/t") }, // it was good in between
	} {
		bad()
		for range 3 {
			maintain(t, s)
		}
		if n := strings.Count(s.log.String(), "the old token stays in use"); n != i+1 || s.Peek() != "hvs.one" || strings.Contains(s.log.String(), "wo\"") {
			t.Errorf("%d: %d warnings, token %q: %s", i, n, s.Peek(), s.log)
		}
	}
	s.clock.move(50 * time.Minute)
	maintain(t, s)
	if n := s.vault.count(&s.vault.renewals); n != 1 {
		t.Errorf("%d renewals while the file is gone", n)
	}
}

func TestARenewalDoesNotBringBackAForgottenToken(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first := s.token(t)
	s.clock.move(50 * time.Minute)
	s.vault.change(func() { s.vault.onRenew = s.Forget })
	maintain(t, s)
	if v := s.Peek(); v != "" {
		t.Errorf("the forgotten token is back: %q", v)
	}
	if v := s.token(t); v == first {
		t.Error("the forgotten token is given out")
	}
}
