package auth

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

// memory is the stand-in without a network, for tests whose time is simulated.
type memory struct{ *vault }

func (m memory) Do(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	m.ServeHTTP(rec, req)
	return rec.Result(), nil
}

// dream makes a scene without a network, in a bubble of synctest.
func dream(t *testing.T, change func(*Options)) *scene {
	t.Helper()
	v := newVaultOf(t, time.Now)
	s := playOn(t, v, memory{v}, time.Now, change)
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	return s
}

// TestNoRenewableTokenIsLostWhileItIsUsed: whatever the TTL and the grace period,
// traffic alone keeps the token, and each renewal is made once.
func TestNoRenewableTokenIsLostWhileItIsUsed(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{3 * time.Second, 6 * time.Second, 10 * time.Second, 20 * time.Second, 49 * time.Second, time.Minute, time.Hour, 768 * time.Hour} {
		for _, grace := range []time.Duration{0, 10 * time.Second, 24 * time.Hour} {
			t.Run(ttl.String()+" with "+grace.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := dream(t, func(o *Options) { o.Auth.ExpiryGrace = grace })
					s.vault.ttl = ttl
					first, began := s.token(t), time.Now()
					const lives = 5
					for range lives * 20 {
						time.Sleep(ttl / 20)
						if got := s.token(t); got != first {
							t.Fatalf("another token after %v", time.Since(began))
						}
						synctest.Wait()
					}
					if s.vault.logins != 1 || s.vault.renewals < lives || s.vault.renewals > lives*3/2+1 {
						t.Errorf("%d logins and %d renewals in %d lives", s.vault.logins, s.vault.renewals, lives)
					}
				})
			})
		}
	}
}

func TestTrafficSharesOneRenewal(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first := s.token(t)
	s.clock.move(41 * time.Minute)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if v, err := s.Token(t.Context()); v != first || err != nil {
				t.Errorf("got %q, %v", v, err)
			}
		})
	}
	wg.Wait()
	harness.Eventually(t, 5*time.Second, "a renewal", func() bool { _, rest, _ := s.Held(); return rest == time.Hour })
	s.token(t)
	if n := s.vault.count(&s.vault.renewals); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
}

// TestARenewalThatFailsIsNotTriedForEachRequest counts what the traffic of an
// outage asks for.
func TestARenewalThatFailsIsNotTriedForEachRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := dream(t, nil)
		first := s.token(t)
		time.Sleep(40 * time.Minute)
		s.vault.down = 503
		tries := 0
		s.vault.onDown = func() { tries++ }
		for range 19 * 60 * 10 {
			time.Sleep(time.Second / 10)
			if got := s.token(t); got != first {
				t.Fatal("another token")
			}
			synctest.Wait()
		}
		if tries < 10 || tries > 40 {
			t.Errorf("%d tries in 19 minutes", tries)
		}
		s.vault.down = 0
		time.Sleep(10 * time.Second)
		s.token(t)
		synctest.Wait()
		if _, rest, _ := s.Held(); rest != time.Hour {
			t.Errorf("%v are left after the outage", rest)
		}
	})
}

// TestATokenServesUntilItEndsWhileNoOtherCanBeHad: a one-use secret id, or an
// outage, leaves the old token.
func TestATokenServesUntilItEndsWhileNoOtherCanBeHad(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(*vault){
		"a secret id of one use": func(v *vault) { v.secretID = "" },
		"an outage":              func(v *vault) { v.down = 503 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := play(t, nil)
			s.vault.kind = "batch" // cannot be renewed
			first := s.token(t)
			s.vault.change(func() { trouble(s.vault) })
			s.clock.move(time.Hour - 10*time.Second)
			for range 9 {
				s.clock.move(time.Second + 1)
				if v, err := s.Token(t.Context()); v != first || err != nil {
					t.Errorf("got %q, %v", v, err)
				}
				if held, _, _ := s.Held(); !held {
					t.Error("no token is held")
				}
			}
			s.clock.move(time.Second)
			if v, err := s.Token(t.Context()); err == nil {
				t.Errorf("a token that ended: %q", v)
			}
		})
	}
}

// TestATimerRenewsWhereTheHostDoesNotFreeze: nobody asks for the token any more.
func TestATimerRenewsWhereTheHostDoesNotFreeze(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"login": nil,
		"given": func(o *Options) { o.Auth = config.Auth{Method: config.AuthToken, Token: "hvs.given"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := dream(t, change)
				s.vault.give("hvs.given", time.Hour, false)
				ctx, stop := context.WithCancel(t.Context())
				over := make(chan struct{})
				go func() { defer close(over); s.Watch(ctx) }()
				time.Sleep(time.Hour / 2)
				synctest.Wait()
				if s.vault.renewals+s.vault.lookups+s.vault.logins > 0 {
					t.Error("it did something before a token was needed")
				}
				first := s.token(t)
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				if s.Peek() != first || !s.vault.live(first) || s.vault.renewals < 24 || s.vault.renewals > 24*3/2+2 {
					t.Errorf("token %q after %d renewals", s.Peek(), s.vault.renewals)
				}
				stop()
				<-over
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := dream(t, nil)
		s.vault.kind = "batch"
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Hour)
		defer stop()
		s.token(t)
		s.Watch(ctx)
		if s.vault.logins != 1 {
			t.Errorf("%d logins for nobody", s.vault.logins)
		}
	})
}

func TestATokenThatTheOriginForgotIsReplacedByTraffic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := dream(t, nil)
		first := s.token(t)
		s.vault.RevokeToken(first)
		time.Sleep(41 * time.Minute)
		s.token(t) // finds out
		synctest.Wait()
		if v, err := s.Token(t.Context()); v == first || err != nil {
			t.Errorf("got %q, %v", v, err)
		}
		if errors.Is(s.Maintain(t.Context()), errGone) {
			t.Error("the new token is gone, too")
		}
	})
}

// dying is an origin to which the connection of the first renewal dies in a freeze.
type dying struct {
	memory
	slept *atomic.Int64 // nanoseconds
	times int
}

func (d *dying) Do(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Path, "/renew-self") {
		if d.times++; d.times == 1 {
			d.slept.Add(int64(5 * time.Minute))
			return nil, errors.New("connection reset by peer")
		}
	}
	return d.memory.Do(req)
}

// TestARenewalThatDiesOfAFreezeIsDoneAgain also where nobody waits for it, as that of a
// login is. It is no trouble that the log has to tell of.
func TestARenewalThatDiesOfAFreezeIsDoneAgain(t *testing.T) {
	t.Parallel()
	for name, renew := range map[string]func(*testing.T, *scene){
		"beside a read": func(t *testing.T, s *scene) { s.token(t) },
		"after a poll":  maintain,
	} {
		synctest.Test(t, func(t *testing.T) {
			var slept atomic.Int64
			v := newVaultOf(t, time.Now)
			now := func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }
			s := playOn(t, v, &dying{memory: memory{v}, slept: &slept}, now, func(o *Options) { o.Timeout = time.Minute })
			defer s.Shutdown(context.Background())
			s.token(t)
			time.Sleep(41 * time.Minute)
			renew(t, s)
			synctest.Wait()
			if _, rest, _ := s.Held(); rest != time.Hour || s.vault.renewals != 1 || strings.Contains(s.log.String(), "WARN") {
				t.Errorf("%s: %v are left after %d renewals\n%s", name, rest, s.vault.renewals, s.log)
			}
		})
	}
}
