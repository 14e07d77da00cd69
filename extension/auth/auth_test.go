package auth

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

func TestLoginIsLazyAndShared(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	if got := s.Peek(); got != "" {
		t.Errorf("Peek before any login: %q", got)
	}
	s.vault.entered, s.vault.gate = make(chan struct{}, 9), make(chan struct{})
	var wg sync.WaitGroup
	got := make(chan string, 50)
	for range 50 {
		wg.Go(func() {
			v, err := s.Token(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- v
		})
	}
	<-s.vault.entered
	close(s.vault.gate)
	wg.Wait()
	close(got)
	for v := range got {
		if v != s.Peek() || v == "" {
			t.Errorf("got %q, others %q", v, s.Peek())
		}
	}
	if n := s.vault.count(&s.vault.logins); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestAWaiterThatLeavesLeavesAlone(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.entered, s.vault.gate = make(chan struct{}, 9), make(chan struct{})
	short, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := s.Token(short)
		first <- err
	}()
	<-s.vault.entered
	second := make(chan string, 1)
	go func() {
		v, err := s.Token(t.Context())
		if err != nil {
			t.Error(err)
		}
		second <- v
	}()
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	close(s.vault.gate)
	if v := <-second; v == "" || s.vault.count(&s.vault.logins) != 1 {
		t.Errorf("who stayed got %q after %d logins", v, s.vault.count(&s.vault.logins))
	}
}

func TestAWaiterWhoseTimeIsOverIsToldWhatToCheck(t *testing.T) {
	t.Parallel()
	over := errors.New("THAW_FILE_TIMEOUT (5s) is over")
	for _, cause := range []error{context.DeadlineExceeded, over} {
		s := play(t, nil)
		s.vault.entered, s.vault.gate = make(chan struct{}, 9), make(chan struct{})
		ctx, end := context.WithCancelCause(t.Context())
		got := make(chan error, 1)
		go func() {
			_, err := s.Token(ctx)
			got <- err
		}()
		<-s.vault.entered
		end(cause)
		err := <-got
		login := new(LoginError)
		if !errors.As(err, &login) || !errors.Is(err, cause) || errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want a LoginError for %v", err, cause)
		}
		for _, w := range []string{"no answer in time", cause.Error(), "security group", "VAULT_ADDR"} {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
		close(s.vault.gate)
	}
}

// A freeze in the middle of a login: the connection is dead, the timer fires
// late, only the wall clock has moved.
func TestALoginThatAFreezeInterruptedIsAbandoned(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Timeout = time.Minute })
	s.vault.entered, s.vault.gate = make(chan struct{}, 9), make(chan struct{})
	frozen := make(chan string, 1)
	go func() {
		v, err := s.Token(t.Context())
		if err != nil {
			t.Error(err)
		}
		frozen <- v
	}()
	<-s.vault.entered
	s.clock.move(61 * time.Second)
	s.vault.change(func() { s.vault.gate = nil })
	thawed := s.token(t)
	if v := <-frozen; v != thawed {
		t.Errorf("who waited across the freeze got %q, not the new token %q", v, thawed)
	}
	if n := s.vault.count(&s.vault.logins); n != 2 {
		t.Errorf("%d logins, want the abandoned and the new one", n)
	}
	if s.Peek() != thawed {
		t.Errorf("the abandoned login's result was installed")
	}
}

// A freeze before the login looks at the clock: only who comes next can tell that there
// was one.
func TestAnAbandonedLoginIsNoFailureToRemember(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.entered, s.vault.gate = make(chan struct{}, 9), make(chan struct{})
	over := make(chan struct{})
	s.exchanges.Start(t.Context(), kindLogin, func(ctx context.Context) (*outcome, error) {
		defer close(over)
		s.clock.move(time.Hour)
		return s.perform(ctx, login{})
	})
	<-s.vault.entered
	s.exchanges.Start(t.Context(), kindLogin, func(context.Context) (*outcome, error) { return nil, nil })
	<-over
	s.vault.change(func() { s.vault.gate = nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if v, err := s.Token(ctx); v == "" || err != nil {
		t.Errorf("token %q, error %v", v, err)
	}
}

// The dead connection is noticed before the next caller comes.
func TestALoginThatDiesOfAFreezeIsDoneAgainForThoseWhoWait(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Timeout = time.Minute })
	s.vault.entered, s.vault.gate, s.vault.drops = make(chan struct{}, 9), make(chan struct{}), 1
	got := make(chan error, 1)
	go func() {
		_, err := s.Token(t.Context())
		got <- err
	}()
	<-s.vault.entered
	s.clock.move(10 * time.Minute)
	close(s.vault.gate)
	if err := <-got; err != nil {
		t.Errorf("who waited got %v", err)
	}
	if n := s.vault.count(&s.vault.logins); n != 2 || s.Peek() == "" {
		t.Errorf("%d logins, token %q", n, s.Peek())
	}
}

// A freeze too short to be told by the clock: the connection dies in it, and
// the INVOKE after it comes before the end of the login, or after.
func TestALoginThatDiesOfAShortFreezeIsDoneAgain(t *testing.T) {
	t.Parallel()
	for name, invokedFirst := range map[string]bool{"the INVOKE is seen first": true, "the dead connection is seen first": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := play(t, nil)
			s.vault.entered, s.vault.gate, s.vault.drops = make(chan struct{}, 9), make(chan struct{}), 1
			before := make(chan error, 1)
			go func() {
				_, err := s.Token(t.Context())
				before <- err
			}()
			<-s.vault.entered
			if invokedFirst {
				s.Thawed()
				close(s.vault.gate)
				if err := <-before; err != nil {
					t.Errorf("who waited got %v", err)
				}
			} else {
				close(s.vault.gate)
				if err := <-before; err == nil {
					t.Error("the login did not die")
				}
				s.Thawed()
			}
			s.token(t)
			if n := s.vault.count(&s.vault.logins); n != 2 {
				t.Errorf("%d logins, want the dead and the new one", n)
			}
		})
	}
}

func TestARefusedLoginIsRememberedAcrossAThaw(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.change(func() { s.vault.down = 503 })
	_, first := s.Token(t.Context())
	s.vault.change(func() { s.vault.down = 0 })
	s.Thawed()
	if _, second := s.Token(t.Context()); first == nil || second != first {
		t.Errorf("got %v, then %v", first, second)
	}
}

// deafOrigin has an answer for the next request, which it gives when it is released,
// whether or not somebody still waits.
type deafOrigin struct {
	Origin
	answer         atomic.Pointer[says]
	began, release chan struct{}
}

func (d *deafOrigin) Do(req *http.Request) (*http.Response, error) {
	answer := d.answer.Swap(nil)
	if answer == nil {
		return d.Origin.Do(req)
	}
	close(d.began)
	<-d.release
	return answer.Do(req)
}

func TestAnAbandonedLoginThatStillSucceedsIsRevoked(t *testing.T) {
	t.Parallel()
	deaf := &deafOrigin{began: make(chan struct{}), release: make(chan struct{})}
	s := play(t, func(o *Options) { o.Timeout, deaf.Origin, o.Origin = time.Minute, o.Origin, deaf })
	before := s.token(t)
	s.Forget()
	deaf.answer.Store(&says{200, "application/json", `{"request_id":"x","auth":{"client_token":"` + before + `","token_type":"service"}}`})
	ctx, leave := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.Token(ctx)
	}()
	<-deaf.began
	s.clock.move(2 * time.Minute)
	after := s.token(t)
	close(deaf.release)
	leave()
	<-over
	harness.Eventually(t, 5*time.Second, "the dropped token is revoked", func() bool { return !s.vault.live(before) })
	if s.vault.live(before) || s.Peek() != after {
		t.Errorf("the dropped token lives: %v; current %q", s.vault.live(before), s.Peek())
	}
}

func TestAFreezeShorterThanTheDeadlineKeepsTheLogin(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Timeout = time.Minute })
	s.vault.entered, s.vault.gate = make(chan struct{}, 9), make(chan struct{})
	got := make(chan string, 2)
	ask := func() {
		v, err := s.Token(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- v
	}
	go ask()
	<-s.vault.entered
	s.clock.move(59 * time.Second)
	go ask()
	close(s.vault.gate)
	<-got
	<-got
	if n := s.vault.count(&s.vault.logins); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestAFailedLoginIsSharedForASecondThenTriedAgain(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.change(func() { s.vault.down = 503 })
	_, first := s.Token(t.Context())
	s.vault.change(func() { s.vault.down = 0 })
	s.clock.move(999 * time.Millisecond)
	_, second := s.Token(t.Context())
	var e *LoginError
	if !errors.As(first, &e) || e.Status != 503 || second != first {
		t.Errorf("got %v, then %v", first, second)
	}
	if n := s.vault.count(&s.vault.logins); n != 1 {
		t.Errorf("%d logins within a second, want 1", n)
	}
	s.clock.move(time.Millisecond)
	s.token(t)
}

func TestALoginEndsByItsOwnDeadline(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Timeout = 20 * time.Millisecond })
	s.vault.gate = make(chan struct{})
	_, err := s.Token(t.Context())
	var e *LoginError
	if !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a LoginError that wraps the deadline", err)
	}
}

func TestAnUnreachableOriginCanBeToldFromARefusal(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.Close()
	_, err := s.Token(t.Context())
	var op *net.OpError
	var e *LoginError
	if !errors.As(err, &op) || !errors.As(err, &e) || e.Status != 0 {
		t.Errorf("got %v (%T)", err, err)
	}
}

func TestATokenIsReplacedBeforeItsGracePeriod(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.kind = "batch" // what can be renewed serves to its end
	first := s.token(t)
	s.clock.move(time.Hour - 10*time.Second)
	if s.Peek() != first || s.token(t) != first {
		t.Error("a token with its whole grace period left was given up")
	}
	s.clock.move(time.Nanosecond)
	if s.Peek() != "" {
		t.Error("Peek gave a token inside its grace period")
	}
	if s.token(t) == first {
		t.Error("a token inside its grace period was given out")
	}
}

func TestShortTokensDontLeadToALoginPerRequest(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.kind, s.vault.ttl = "batch", 6*time.Second
	first := s.token(t)
	s.clock.move(3 * time.Second)
	if s.token(t) != first {
		t.Error("the token was replaced before half of its TTL")
	}
	s.clock.move(time.Second)
	if s.token(t) == first {
		t.Error("the token was not replaced after half of its TTL")
	}
}

func TestForgetLeadsToANewLoginOfTheSameIdentity(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	first, before := s.token(t), s.Generation()
	s.Forget()
	if s.Peek() != "" || s.token(t) == first || s.Generation() != before {
		t.Error("the forgotten token was given out, or the identity changed")
	}
}

func TestGenerationMovesWithPoliciesAndEntityOnly(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	relogin := func() {
		t.Helper()
		s.clock.move(2 * time.Second)
		if _, err := s.Relogin(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s.token(t); s.Generation() != 1 {
		t.Errorf("the first login made it %d", s.Generation())
	}
	for _, c := range []struct {
		name   string
		change func()
		moves  bool
	}{
		{"nothing", func() {}, false},
		{"order of policies", func() { s.vault.policies = []string{"app", "default"} }, false},
		{"another policy", func() { s.vault.policies = []string{"app"} }, true},
		{"an identity policy", func() { s.vault.identity = []string{"team"} }, true},
		{"a policy on both sides", func() { s.vault.identity = []string{"app", "team"} }, false},
		{"another entity", func() { s.vault.entity = "e-2" }, true},
	} {
		before := s.Generation()
		s.vault.change(c.change)
		relogin()
		if moved := s.Generation() != before; moved != c.moves {
			t.Errorf("%s: generation moved %v, want %v", c.name, moved, c.moves)
		}
	}
}

func TestPeekDoesNotAllocate(t *testing.T) { // not parallel: it counts allocations
	m, err := New(Options{Config: config.Config{Auth: config.Auth{Method: config.AuthToken, Token: "hvs.given"}}, Origin: &vault{}})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if m.Peek() != "hvs.given" {
			t.Error("no token")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMethodNoneGivesNoToken(t *testing.T) {
	t.Parallel()
	m, err := New(Options{Config: config.Config{Auth: config.Auth{Method: config.AuthNone}}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Enabled() || m.Peek() != "" || m.Maintain(t.Context()) != nil {
		t.Error("method none does something")
	}
	for name, call := range map[string]func() (string, error){
		"Token":    func() (string, error) { return m.Token(t.Context()) },
		"Rejected": func() (string, error) { return m.Rejected(t.Context(), "x") },
		"Relogin":  func() (string, error) { return m.Relogin(t.Context()) },
	} {
		if v, err := call(); v != "" || err == nil {
			t.Errorf("%s: %q, %v", name, v, err)
		}
	}
	m.Shutdown(t.Context())
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no origin":          {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthToken, Token: "t0ken"}}}, "no origin"},
		"azure":              {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthAzure}}}, "thaw-azure"},
		"token left out":     {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthToken}}}, "VAULT_TOKEN"},
		"token of 2 lines":   {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthToken, Token: "hvs.a\nhvs.b"}}}, "VAULT_TOKEN"},
		"no token file":      {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthTokenFile}}}, "THAW_TOKEN_FILE"},
		"no role id":         {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthAppRole}}}, "THAW_ROLE_ID"},
		"no jwt":             {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthJWT}}}, "THAW_JWT_FILE"},
		"no AWS keys":        {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthAWS}}}, "AWS_CONTAINER_CREDENTIALS_FULL_URI"},
		"mount that climbs":  {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthJWT, JWTFile: "f", Mount: "../sys"}}}, "VAULT_AUTH_PROVIDER"},
		"mount and a query":  {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthJWT, JWTFile: "f", Mount: "jwt?x"}}}, "VAULT_AUTH_PROVIDER"},
		"region with a dot":  {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthAWS, STSRegion: "evil.example/"}, Platform: config.Platform{AWS: config.AWS{AccessKeyID: "a", SecretAccessKey: "b"}}}}, "VAULT_STS_ENDPOINT_REGION"},
		"STS that is no URL": {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthAWS}, Platform: config.Platform{AWS: config.AWS{AccessKeyID: "a", SecretAccessKey: "b", EndpointSTS: "sts.example"}}}}, "AWS_ENDPOINT_URL_STS"},
		"role that is none":  {Options{Config: config.Config{Auth: config.Auth{Method: config.AuthAWS, AssumeRole: "target"}, Platform: config.Platform{AWS: config.AWS{AccessKeyID: "a", SecretAccessKey: "b"}}}}, "VAULT_ASSUMED_ROLE_ARN"},
	} {
		if _, err := New(c.o); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hvs.") {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestMountPathsAreTakenAsVaultProxyTakesThem(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "aws", "aws": "aws", "auth/aws": "aws", "/auth/aws/": "aws", "team/aws": "team/aws", "auth/team/aws": "team/aws", "authority": "authority"} {
		if got, err := mountPath(in, "aws"); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}
