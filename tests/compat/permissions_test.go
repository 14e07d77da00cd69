package compat

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

const capabilities = "/v1/sys/capabilities-self"

// shortRefresh confirms rights every second; the secrets themselves stay
// verified for the whole test.
const shortRefresh = "THAW_CAPABILITY_REFRESH_INTERVAL=1s"

func TestG2SecondTokensFirstReadGoesToTheOrigin(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	p.cached(o.data("a"))
	may, mayNot := o.newToken(o.policy("p", reads(o.data("a")))), o.newToken(o.policy("p", reads(o.data("b"))))
	o.count.Reset()
	p.as(may, o.data("a")).is("1").miss()
	p.as(may, o.data("a")).is("1").hit()
	for range 3 {
		p.as(mayNot, o.data("a")).status(http.StatusForbidden).miss()
	}
	if n := o.seen(o.data("a")); n != 4 {
		t.Errorf("%d reads reached Vault", n)
	}
	p.get(o.data("a")).is("1").hit() // the refusal cost nobody else
	o.count.Cut()
	if r := p.as(mayNot, o.data("a")); r.Status == http.StatusOK {
		t.Errorf("served without a grant while Vault is away: %s", r.Body)
	}
	if r := p.as("hvs.unknown", o.data("a")); r.Status == http.StatusOK {
		t.Errorf("served to an unknown token: %s", r.Body)
	}
}

// A policy that is taken away ends the hits within the refresh interval, by one
// question for all paths.
func TestG2PolicyRemovedIsRevokedWithinTheRefreshIntervalByOneCall(t *testing.T) {
	t.Parallel()
	o := shared(t)
	const paths = 5
	var keep, gone strings.Builder
	for i := range paths {
		o.put(fmt.Sprint(i), "1")
		keep.WriteString(reads(o.data(fmt.Sprint(i))))
	}
	gone.WriteString(reads(o.data("0")))
	policy := o.policy("p", keep.String())
	mine := o.newToken(policy)
	p := o.startWith("THAW_AUTH_METHOD=none", shortRefresh)
	for i := range paths {
		p.as(mine, o.data(fmt.Sprint(i))).is("1")
	}
	harness.Pause(t.Context(), 1100*time.Millisecond) // every grant is due
	o.count.Reset()
	for i := range paths {
		p.as(mine, o.data(fmt.Sprint(i))).is("1").hit()
	}
	if n := o.count.Count("", capabilities); n != 1 {
		t.Errorf("%d questions for %d paths", n, paths)
	}
	if n := o.count.Count(http.MethodGet, "/v1/"+o.kv+"/*"); n != 0 {
		t.Errorf("%d secrets were read again", n)
	}
	harness.Must(t, o.PutPolicy(t.Context(), policy, gone.String()))
	removed := time.Now()
	harness.Eventually(t, patience, "the refusal", func() bool { return p.as(mine, o.data("1")).Status == http.StatusForbidden })
	if d := time.Since(removed); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	for i := range paths {
		want := http.StatusForbidden
		if i == 0 {
			want = http.StatusOK
		}
		p.as(mine, o.data(fmt.Sprint(i))).status(want)
	}
}

func TestG2ListIsARightOfItsOwn(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("app/a", "1")
	list := `path "` + o.kv + `/metadata/app/" { capabilities = ["list"] }` + "\n"
	policy := o.policy("p", list+reads(o.kv+"/metadata/app"))
	mine := o.newToken(policy)
	p := o.startWith("THAW_AUTH_METHOD=none", shortRefresh)
	p.as(mine, o.kv+"/metadata/app?list=true").ok()
	p.as(mine, o.kv+"/metadata/app?list=true").ok().hit()
	harness.Pause(t.Context(), 1100*time.Millisecond)
	p.as(mine, o.kv+"/metadata/app?list=true").ok().hit() // confirmed: the path of a list ends in a slash
	harness.Must(t, o.PutPolicy(t.Context(), policy, reads(o.kv+"/metadata/app")))
	harness.Eventually(t, patience, "the refusal", func() bool { return p.as(mine, o.kv+"/metadata/app?list=true").Status == http.StatusForbidden })
}

func TestG2TokenThatEndsLosesItsHits(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	// A token's end is learned with its first confirmation, after an interval.
	p := o.startWith("THAW_AUTH_METHOD=none", "THAW_CAPABILITY_REFRESH_INTERVAL=3s")
	for name, spec := range map[string]harness.TokenSpec{"a service token": {}, "a batch token": {Batch: true}} {
		t.Run(name, func(t *testing.T) {
			spec.Policies, spec.TTL = []string{o.policy("p", o.all())}, 4*time.Second
			mine := o.makeToken(spec)
			p.as(mine, o.data("a")).is("1")
			p.as(mine, o.data("a")).is("1").hit()
			harness.Eventually(t, patience, "the token's end", func() bool { return p.as(mine, o.data("a")).Status == http.StatusForbidden })
		})
	}
}

// VAULT_TOKEN ends: what it read is not served on its right for long, and the
// answer says what to do.
func TestG2GivenTokenThatEndsIsNamed(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	given := o.makeToken(harness.TokenSpec{Policies: []string{o.policy("p", o.all())}, TTL: 2 * time.Second, Batch: true}) // cannot be renewed
	p := o.start("VAULT_TOKEN="+given, shortRefresh, "THAW_RECHECK=100ms")
	p.get(o.data("a")).is("1")
	harness.Eventually(t, patience, "the token's end", func() bool { return p.get(o.data("a")).Status == http.StatusForbidden })
	p.logs.await(t, "VAULT_TOKEN", p.proc)
}

func TestG2TokenRevokedAtVaultLosesItsHitsWithinTheRefreshInterval(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.startWith("THAW_AUTH_METHOD=none", shortRefresh)
	mine := o.newToken(o.policy("p", o.all()))
	p.as(mine, o.data("a")).is("1")
	p.as(mine, o.data("a")).is("1").hit()
	harness.Must(t, o.RevokeToken(t.Context(), mine))
	harness.Eventually(t, patience, "the refusal", func() bool { return p.as(mine, o.data("a")).Status == http.StatusForbidden })
}

func TestG2PolicyWrittenThroughTheProxyIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	policy := o.policy("p", reads(o.data("a")))
	mine := o.newToken(policy)
	p := o.startWith("THAW_AUTH_METHOD=none")
	p.as(mine, o.data("a")).is("1")
	p.as(mine, o.data("a")).is("1").hit()
	p.do(http.MethodPut, "sys/policies/acl/"+policy, o.RootToken(), map[string]string{"policy": reads("elsewhere")}).status(http.StatusNoContent)
	p.as(mine, o.data("a")).status(http.StatusForbidden)
}

// What a failing capabilities-self means is the behaviour setting's.
func TestStaticSecretTokenCapabilityRefreshBehavior(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		behavior string
		served   bool
	}{{"optimistic", true}, {"pessimistic", false}} {
		t.Run(c.behavior, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			mine := o.newToken(o.policy("p", o.all()))
			p := o.startWith("THAW_AUTH_METHOD=none", shortRefresh, "THAW_CAPABILITY_REFRESH_BEHAVIOR="+c.behavior, "VAULT_MAX_RETRIES=0")
			p.as(mine, o.data("a")).is("1")
			p.as(mine, o.data("a")).is("1").hit()
			o.count.Inject(harness.Fault{Path: capabilities, Status: 503})
			o.count.Inject(harness.Fault{Path: "/v1/auth/token/lookup-self", Status: 503})
			harness.Pause(t.Context(), 1100*time.Millisecond)
			r := p.as(mine, o.data("a"))
			if got := r.Header.Get("X-Cache") == "HIT"; got != c.served {
				t.Errorf("from the cache: %v (%d %s)", got, r.Status, r.Body)
			}
			r.is("1") // the secret itself can be read
			o.count.Cut()
			harness.Pause(t.Context(), 1100*time.Millisecond)
			if got := p.as(mine, o.data("a")).Status == http.StatusOK; got != c.served {
				t.Errorf("served while Vault is away: %v", got)
			}
		})
	}
	t.Run("the file's names", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		text, _ := o.approleFile("use_auto_auth_token = true", `
  cache_static_secrets = true
  static_secret_token_capability_refresh_interval = "1s"
  static_secret_token_capability_refresh_behavior = "pessimistic"`, "")
		p := o.hcl(text, "VAULT_MAX_RETRIES=0")
		p.cached(o.data("a"))
		o.count.Cut()
		harness.Pause(t.Context(), 1100*time.Millisecond)
		if r := p.get(o.data("a")); r.Status == http.StatusOK {
			t.Errorf("served while Vault is away: %s", r.Body)
		}
	})
}

// A token that may not ask what it may: its reads go to Vault, and the log says
// which line of policy would help.
func TestCapabilitiesSelfDeniedSendsReadsToTheOriginAndNamesThePolicy(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	mine := o.makeToken(harness.TokenSpec{Policies: []string{o.policy("p", reads(o.data("a")))}, TTL: time.Hour, NoDefault: true})
	p := o.startWith("THAW_AUTH_METHOD=none", shortRefresh)
	p.as(mine, o.data("a")).is("1")
	p.as(mine, o.data("a")).is("1")
	harness.Pause(t.Context(), 1100*time.Millisecond)
	before := o.seen(o.data("a"))
	p.as(mine, o.data("a")).is("1").miss()
	if n := o.seen(o.data("a")); n != before+1 {
		t.Errorf("%d reads reached Vault", n-before)
	}
	line := p.logs.await(t, "sys/capabilities-self", p.proc)
	contains(t, line, `"level":"WARN"`, `path \"sys/capabilities-self\" { capabilities = [\"update\"] }`)
	harness.Pause(t.Context(), 1100*time.Millisecond)
	p.as(mine, o.data("a")).is("1")
	if n := p.logs.lines("sys/capabilities-self"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// Entries belong to the identity, not to its token of the day.
func TestOwnIdentitySurvivesARelogin(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	o.put("b", "1")
	mount, roleID, secretID := o.approle(harness.RoleSpec{Policies: []string{o.policy("one", o.all())}})
	p := o.startWith("THAW_AUTH_METHOD=approle", "VAULT_AUTH_PROVIDER="+mount, "THAW_ROLE_ID="+roleID, "THAW_SECRET_ID="+secretID)
	p.cached(o.data("a"))
	harness.Pause(t.Context(), 1100*time.Millisecond) // logins that a request asks for are a second apart
	p.get(o.data("b"), "X-Vault-Token-Options", "revoke").is("1")
	if n := o.logins(); n != 2 {
		t.Fatalf("%d logins", n)
	}
	o.count.Reset()
	p.get(o.data("a")).is("1").hit()
	if n := o.count.Total(); n != 0 {
		t.Errorf("%d requests", n)
	}
	// Other policies are another identity.
	_, err := o.Root(t.Context(), http.MethodPost, "auth/"+mount+"/role/r", map[string]any{"token_policies": []string{o.policy("two", reads(o.data("b")))}})
	harness.Must(t, err)
	harness.Pause(t.Context(), 1100*time.Millisecond)
	p.get(o.data("b"), "X-Vault-Token-Options", "revoke").is("1")
	p.get(o.data("a")).status(http.StatusForbidden)
}

// The mounts preflight answers 200 where capabilities say deny, so it is kept
// for those who hold a grant below the mount.
func TestMountsPreflightIsKeptForThoseWhoReadBelowTheMount(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.start()
	path := "sys/internal/ui/mounts/" + o.kv + "/a"
	p.get(path).ok()
	p.get(o.data("a")).is("1")
	p.get(path).ok().hit()
	p.get("sys/internal/ui/mounts/" + o.kv + "/other").ok().hit() // one for the mount
	stranger := o.newToken(o.policy("p", reads("elsewhere/x")))
	p.as(stranger, path).status(http.StatusForbidden)
}
