package compat

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/fakes/sts"
	"github.com/thaw-project/thaw/tests/harness"
)

// #113, #150: under SnapStart the credentials come from an endpoint, nothing
// is fetched before the snapshot, and every restored copy logs in for itself.
func TestVLEIssue113And150_SnapStart(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	a := awsOn(o, sts.Options{}, nil)
	var asked atomic.Int64
	credentials := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "the-token" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{
			"AccessKeyId": a.keys.AccessKeyID, "SecretAccessKey": a.keys.SecretAccessKey, "Token": a.keys.SessionToken,
			"Expiration": a.keys.Expires.Format(time.RFC3339),
		})
	}))
	t.Cleanup(credentials.Close)
	f := lambda(t, lambdaapi.Function{InitType: lambdaapi.SnapStart}, func(_ context.Context, p *thaw) error {
		p.get(o.data("a")).status(http.StatusServiceUnavailable).says("SnapStart", "afterRestore")
		return nil
	}, a.env("AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SESSION_TOKEN=",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI="+credentials.URL, "AWS_CONTAINER_AUTHORIZATION_TOKEN=the-token", "THAW_PREFETCH="+o.data("a"))...)
	if asked.Load() != 0 || o.count.Total() != 0 {
		t.Errorf("before the snapshot: %d requests for credentials, %d to Vault", asked.Load(), o.count.Total())
	}
	harness.Must(t, f.env.Freeze())
	f.invoke(func() { f.get(o.data("a")).is("1") })
	if asked.Load() != 1 || o.logins() != 1 {
		t.Errorf("%d requests for credentials, %d logins", asked.Load(), o.logins())
	}
}

// #114: the sandbox freezes in the middle of a login, and its connection dies
// meanwhile. The next invocation logs in within its own time.
func TestVLEIssue114_LoginFrozenHalfWayRecovers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		dies func(o *origin) error // what becomes of the connection
	}{
		{"the connection was reset", func(o *origin) error { return o.count.CloseConnections() }},
		{"the answer comes late", func(o *origin) error { return o.count.Mend() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			f := lambda(t, lambdaapi.Function{}, nil, append(o.approleEnv(harness.RoleSpec{}), "VLE_VAULT_ADDR="+o.count.Addr())...)
			o.count.Stall()
			ctx, cancel := context.WithCancel(t.Context())
			gone := make(chan struct{})
			f.invoke(func() {
				go func() {
					defer close(gone)
					_, _ = f.try(ctx, http.MethodGet, o.data("a"), "", nil)
				}()
				harness.Eventually(t, patience, "the login at Vault", func() bool { return o.logins() == 1 })
			})
			cancel() // the function's own runtime is frozen too
			<-gone
			harness.Must(t, c.dies(o))
			f.invoke(func() {
				began := time.Now()
				f.get(o.data("a")).is("1")
				if d := time.Since(began); d > 5*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// #26, #36, #178: whatever Vault does, the function starts.
func TestVLEIssue26And36And178_InitNeverHangsOnVault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		breaks func(o *origin) (addr string)
	}{
		{"it refuses connections", func(o *origin) string { o.count.Cut(); return o.count.Addr() }},
		{"it is silent", func(o *origin) string { o.count.Stall(); return o.count.Addr() }},
		{"it answers 503", func(o *origin) string { o.count.Inject(harness.Fault{Status: 503}); return o.count.Addr() }},
		{"packets go nowhere", func(*origin) string { return "https://192.0.2.1:8200" }},
		{"there is no such name", func(*origin) string { return "https://vault.invalid:8200" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			env := o.approleEnv(harness.RoleSpec{})
			f := lambda(t, lambdaapi.Function{}, nil, append(env, "VLE_VAULT_ADDR="+c.breaks(o), "THAW_PREFETCH="+o.data("a"),
				"VAULT_CLIENT_TIMEOUT=2s", "VAULT_MAX_RETRIES=0")...)
			if d := f.env.Times().ReadyAt(); d > 4*time.Second {
				t.Errorf("ready after %v", d)
			}
			for _, r := range o.count.Requests() {
				if r.At.Before(f.env.Times().Registered) {
					t.Errorf("asked before it registered: %s %s", r.Method, r.Path)
				}
			}
			f.invoke(func() {
				r := f.get(o.data("a")).says(`{"errors":["thaw: `)
				if r.Status < 500 {
					t.Errorf("status %d: %s", r.Status, r.Body)
				}
			})
		})
	}
}

// #99: a start that fails does not spoil the next one, and Vault being away at
// the start does not spoil the function.
func TestVLEIssue99_OneFailedStartDoesNotKillTheFunction(t *testing.T) {
	t.Parallel()
	t.Run("a file that cannot be had", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		path := t.TempDir() + "/s.json"
		_, cfg := lambdaConfig(t, lambdaapi.Function{}, nil, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token,
			"VAULT_SECRET_PATH="+o.data("a"), "VAULT_SECRET_FILE="+path)
		env, err := lambdaapi.Start(t.Context(), cfg)
		if err == nil {
			t.Fatal("it started without its file")
		}
		t.Cleanup(func() { env.Close(); env.API().Check(t) })
		o.put("a", "1")
		harness.Must(t, env.Reinit(t.Context()))
		holds(t, path, "1")
	})
	t.Run("Vault was away", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		env := o.approleEnv(harness.RoleSpec{})
		o.count.Cut()
		f := lambda(t, lambdaapi.Function{}, nil, append(env, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_MAX_RETRIES=0")...)
		f.invoke(func() { f.get(o.data("a")).status(http.StatusBadGateway) })
		harness.Must(t, o.count.Mend())
		harness.Pause(t.Context(), 1100*time.Millisecond) // a failed login is remembered for a second
		f.invoke(func() { f.get(o.data("a")).is("1") })
	})
	t.Run("the function crashed", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		f := lambda(t, lambdaapi.Function{}, nil, append(o.approleEnv(harness.RoleSpec{}), "VLE_VAULT_ADDR="+o.count.Addr())...)
		f.invoke(func() { f.get(o.data("a")).is("1") })
		exit, err := f.env.Crash(t.Context())
		harness.Must(t, err)
		if !exit.InTime {
			t.Error("the extension did not end by itself")
		}
		f.invoke(func() { f.get(o.data("a")).is("1").miss() })
	})
}

// #148: a token that Vault no longer knows leads to one login, and the request
// is sent again; a second such refusal within ten seconds leads to none.
func TestVLEIssue148_InvalidTokenLeadsToOneRateLimitedLogin(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	mount, roleID, secretID := o.approle(harness.RoleSpec{})
	p := o.startWith("THAW_AUTH_METHOD=approle", "VAULT_AUTH_PROVIDER="+mount, "THAW_ROLE_ID="+roleID, "THAW_SECRET_ID="+secretID)
	revokeAll := func() {
		_, err := o.Root(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/auth/"+mount, nil)
		harness.Must(t, err)
	}
	fresh := []string{"Cache-Control", "no-cache"}
	p.get(o.data("a"), fresh...).is("1")
	revokeAll()
	p.get(o.data("a"), fresh...).is("1")
	if n := o.logins(); n != 2 {
		t.Errorf("%d logins", n)
	}
	revokeAll()
	for range 5 {
		p.get(o.data("a"), fresh...).status(http.StatusForbidden)
	}
	if n := o.logins(); n != 2 {
		t.Errorf("%d logins after the second revocation", n)
	}
	// A body is sent again as well.
	p2 := o.startWith("THAW_AUTH_METHOD=approle", "VAULT_AUTH_PROVIDER="+mount, "THAW_ROLE_ID="+roleID, "THAW_SECRET_ID="+secretID)
	p2.get(o.data("a")).is("1")
	revokeAll()
	p2.do(http.MethodPost, o.data("b"), "", map[string]any{"data": map[string]string{"v": "body"}}).ok()
	p2.get(o.data("b")).is("body")
}

func TestVLEIssue148_DeniedIsNotInvalid(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.startWith(o.approleEnv(harness.RoleSpec{})...)
	for range 3 {
		p.get("somebody-elses/data/x").status(http.StatusForbidden)
	}
	// The first refusal may mean that the role has a new policy. The others don't.
	if n := o.logins(); n != 2 {
		t.Errorf("%d logins", n)
	}
}

// #52: a secret that was rotated between two invocations is the new one in the
// second, without any TTL.
func TestVLEIssue52_RotationIsSeenByTheNextInvocation(t *testing.T) {
	t.Parallel()
	o := shared(t)
	f := lambda(t, lambdaapi.Function{}, nil, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token)
	for _, v := range strings.Split("one two three four", " ") {
		o.put("a", v)
		f.invoke(func() {
			f.get(o.data("a")).is(v)
			f.get(o.data("a")).is(v).hit()
		})
	}
}

// #150: the clock goes on while the sandbox is frozen.
func TestVLEIssue150_TokenThatEndedDuringAFreezeIsNotUsed(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	f := lambda(t, lambdaapi.Function{}, nil, append(o.approleEnv(harness.RoleSpec{TTL: 2 * time.Second, MaxTTL: 2 * time.Second, Batch: true}),
		"VLE_VAULT_ADDR="+o.count.Addr())...)
	f.invoke(func() { f.get(o.data("a")).is("1") })
	harness.Pause(t.Context(), 2500*time.Millisecond)
	f.invoke(func() { f.get(o.data("a")).is("1") })
	if n := o.logins(); n != 2 {
		t.Errorf("%d logins", n)
	}
	for _, r := range o.count.Requests() {
		if r.Status == http.StatusForbidden {
			t.Errorf("%s %s was refused", r.Method, r.Path)
		}
	}
}

// A secret whose end lies in the freeze is gone after it.
func TestVLEIssue150_SecretThatEndedDuringAFreezeIsNotServed(t *testing.T) {
	t.Parallel()
	o := shared(t)
	harness.Must(t, o.PutMetadata(t.Context(), o.kv, "a", map[string]any{"delete_version_after": "2s"}))
	o.put("a", "1")
	f := lambda(t, lambdaapi.Function{}, nil, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token, "THAW_MAX_AGE=1h")
	f.invoke(func() { f.get(o.data("a")).is("1") })
	o.count.Cut() // nobody can tell but the clock
	f.invoke(func() {
		if r := f.get(o.data("a")); r.Status == http.StatusOK {
			r.is("1")
		}
	})
	harness.Pause(t.Context(), 2500*time.Millisecond)
	f.invoke(func() {
		if r := f.get(o.data("a")); r.Status == http.StatusOK {
			t.Errorf("still served: %s", r.Body)
		}
	})
}
