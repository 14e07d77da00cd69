package e2e

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// tokenUsed is the token that the extension sent with its last request that had
// one.
func (o *site) tokenUsed() string {
	o.t.Helper()
	token := ""
	for _, r := range o.counter.Requests() {
		if v := r.Header.Get("X-Vault-Token"); v != "" {
			token = v
		}
	}
	if token == "" {
		o.t.Fatalf("no request had a token:\n%s", o.counter)
	}
	return token
}

// valid asks Vault whether it knows a token.
func (o *site) valid(token string) bool {
	o.t.Helper()
	r, err := o.vault.Do(o.t.Context(), harness.Call{
		Method: http.MethodPost, Path: "auth/token/lookup", Token: o.vault.RootToken(), Body: map[string]string{"token": token},
	})
	harness.Must(o.t, err)
	return r.Status == http.StatusOK
}

// ends is a Shutdown phase that must be over in time: the promise is 1s, of
// Lambda's 2.
func (e *environment) ends(reason string) {
	e.t.Helper()
	exit, err := e.Shutdown(reason)
	if err != nil || !exit.InTime || exit.Code != 0 || exit.Took > 1200*time.Millisecond {
		e.t.Errorf("shutdown (%s): %v, in time: %v: %v", reason, exit, exit.InTime, err)
	}
	e.t.Logf("shutdown (%s): %v", reason, exit)
}

func TestShutdownRevokesAServiceTokenAndLeavesABatchToken(t *testing.T) {
	t.Parallel()
	for _, batch := range []bool{false, true} {
		o := newSite(t)
		value := o.put("app")
		e := start(t, o.login(batch))
		e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, value) })
		token := o.tokenUsed()
		if !o.valid(token) {
			t.Fatal("the token in use is not valid")
		}
		o.counter.Reset()
		harness.Must(t, e.Freeze())
		e.ends("spindown")
		if got := o.valid(token); got != batch {
			t.Errorf("batch token: %v; still valid after the shutdown: %v\n%s", batch, got, o.counter)
		}
		if n := o.counter.Count("", "/v1/auth/token/revoke-self"); batch && n != 0 {
			t.Errorf("%d tries to revoke a batch token", n)
		}
	}
}

// TestG6ShutdownIsOverWithinASecondWithAHungOrigin: reads hang in an origin
// that says nothing, and the login cannot be revoked there either.
func TestG6ShutdownIsOverWithinASecondWithAHungOrigin(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	value := o.put("app")
	e := start(t, o.login(false))
	e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, value) })
	o.counter.Stall()
	var hung sync.WaitGroup
	e.invoke(func(context.Context) {
		// The function gives up; its requests are still under way.
		hung.Go(func() { e.get(t.Context(), "secret/data/app") }) // hangs in the poll
		for _, path := range []string{"secret/data/other", "sys/seal-status"} {
			hung.Go(func() { e.get(t.Context(), path) })
			harness.Eventually(t, patience, "a request that hangs", func() bool { return o.counter.Count("", "/v1/"+path) > 0 })
		}
	})
	e.ends("spindown")
	hung.Wait()
}

// TestG6ShutdownInEachStateIsClean: nothing was read yet, nothing ever could
// be, and in the midst of an invocation.
func TestG6ShutdownInEachStateIsClean(t *testing.T) {
	t.Parallel()
	e := start(t, harness.Settings{"VAULT_ADDR": "http://127.0.0.1:1"})
	e.ends("spindown")
	for _, reason := range []string{"spindown", "SandboxTerminated", "ReleaseFail", "failure", ""} {
		harness.Must(t, e.Reinit(t.Context()))
		e.invoke(func(context.Context) {})
		e.freeze(10 * time.Millisecond)
		e.ends(reason)
	}
}

// TestCrashAndTimeoutOfTheFunctionAreFollowedByAFreshStart: Lambda shuts the
// extension down and starts a new one on the same addresses.
func TestCrashAndTimeoutOfTheFunctionAreFollowedByAFreshStart(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	path := "secret/data/app"
	value := o.put("app")
	e := start(t, o.login(false))
	for name, broken := range map[string]func(context.Context) (lambdaapi.Exit, error){"crash": e.Crash, "timeout": e.Timeout} {
		e.invoke(func(ctx context.Context) { e.get(ctx, path).fresh(t, value) })
		token, before := o.tokenUsed(), e.PID()
		exit, err := broken(t.Context())
		if err != nil || !exit.InTime || exit.Code != 0 {
			t.Fatalf("%s: %v: %v", name, exit, err)
		}
		if o.valid(token) {
			t.Errorf("%s: the old process's token is still valid", name)
		}
		value = o.put("app")
		e.invoke(func(ctx context.Context) {
			a := e.get(ctx, path)
			a.fresh(t, value)
			if a.Header.Get("X-Cache") != "MISS" || e.PID() == before {
				t.Errorf("%s: X-Cache %q, process %d and then %d: want a new process that has nothing", name, a.Header.Get("X-Cache"), before, e.PID())
			}
		})
	}
	e.ends("spindown")
}

// TestKilledExtensionComesBack: an extension that dies in an invocation leaves
// nothing behind that keeps the next one from starting.
func TestKilledExtensionComesBack(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	value := o.put("app")
	e := start(t, o.login(true))
	e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, value) })
	// Whether that fails the invocation depends on whether it had asked for the
	// next event before.
	_ = e.Invoke(t.Context(), func(context.Context, lambdaapi.Invocation) error { return e.Kill() })
	value = o.put("app")
	harness.Must(t, e.Reinit(t.Context()))
	e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, value) })
}

// TestLoginFrozenHalfWayRecovers: the origin has the login and has not
// answered when the process is frozen; the connection dies meanwhile.
func TestLoginFrozenHalfWayRecovers(t *testing.T) {
	t.Parallel()
	login := func(o *site) bool { return o.counter.Count("", "/v1/auth/approle/login") > 0 }
	// giveUp is an invocation whose read is given up while the login hangs.
	giveUp := func(t *testing.T, o *site, e *environment) {
		t.Helper()
		e.invoke(func(ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			var wg sync.WaitGroup
			wg.Go(func() { e.get(ctx, "secret/data/app") })
			harness.Eventually(t, patience, "the login", func() bool { return login(o) })
			cancel()
			wg.Wait()
		})
	}
	t.Run("between invocations", func(t *testing.T) {
		t.Parallel()
		o := newSite(t)
		value := o.put("app")
		e := start(t, o.login(true))
		o.counter.Stall()
		giveUp(t, o, e)
		harness.Must(t, e.Freeze())
		harness.Must(t, o.counter.CloseConnections())
		harness.Pause(t.Context(), 200*time.Millisecond)
		e.invoke(func(ctx context.Context) {
			a := e.get(ctx, "secret/data/app")
			a.fresh(t, value)
			t.Logf("the first read after the thaw took %v", a.took())
		})
	})
	t.Run("in the midst of one", func(t *testing.T) {
		t.Parallel()
		o := newSite(t)
		value := o.put("app")
		e := start(t, o.login(true))
		o.counter.Stall()
		e.invoke(func(ctx context.Context) {
			var wg sync.WaitGroup
			var a answer
			wg.Go(func() { a = e.get(ctx, "secret/data/app") })
			harness.Eventually(t, patience, "the login", func() bool { return login(o) })
			harness.Must(t, e.FreezeNow())
			harness.Must(t, o.counter.CloseConnections())
			harness.Pause(ctx, 200*time.Millisecond)
			harness.Must(t, e.Thaw())
			wg.Wait()
			if a.Status == http.StatusOK {
				a.fresh(t, value)
			} else {
				a.refused(t) // the login's connection was cut: an error is right
			}
		})
		e.freeze(10 * time.Millisecond)
		harness.Pause(t.Context(), time.Second) // a failed login is not repeated for a second
		e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, value) })
	})
	t.Run("and its time went by", func(t *testing.T) {
		t.Parallel()
		o := newSite(t)
		value := o.put("app")
		e := start(t, o.login(true).With(harness.Settings{"VAULT_CLIENT_TIMEOUT": "1s"}))
		o.counter.Stall()
		giveUp(t, o, e)
		e.freeze(2 * time.Second)
		harness.Must(t, o.counter.CloseConnections())
		e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, value) })
	})
}

// TestRevokedLoginLeadsToOneNewLogin: somebody revoked the extension's token
// at Vault; the request that finds out is answered all the same.
func TestRevokedLoginLeadsToOneNewLogin(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	first, second := o.put("app"), o.put("other")
	e := start(t, o.login(false))
	e.invoke(func(ctx context.Context) { e.get(ctx, "secret/data/app").fresh(t, first) })
	harness.Must(t, e.Freeze())
	harness.Must(t, o.vault.RevokeToken(t.Context(), o.tokenUsed()))
	o.counter.Reset()
	e.invoke(func(ctx context.Context) {
		e.get(ctx, "secret/data/other").fresh(t, second)
		e.get(ctx, "secret/data/app").fresh(t, first)
	})
	if n := o.counter.Count("", "/v1/auth/approle/login"); n != 1 {
		t.Errorf("%d logins, want one\n%s", n, o.counter)
	}
}
