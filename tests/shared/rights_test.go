package shared

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// refused fails the test unless the answer is a 403 without the value.
func (a answer) refused(t testing.TB, what string) {
	t.Helper()
	if a.err != nil || a.Status != http.StatusForbidden || a.value() != "" {
		t.Errorf("%s: answer %d %v %.200s, want 403: %v", what, a.Status, a.Header, a.Body, a.err)
	}
}

// TestG2ARoleWithoutPermissionNeverGetsAPath: two roles share an audience and a
// cache full of what one of them and the warm-up read.
func TestG2ARoleWithoutPermissionNeverGetsAPath(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []string{"0", "60s"} {
		t.Run("max-age "+maxAge, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			more := harness.Settings{"THAW_MAX_AGE": maxAge}
			harness.Must(t, o.vault.PutPolicy(t.Context(), "some", `path "secret/data/app/00" { capabilities = ["read"] }`))
			names := o.fill(3)
			may, mayNot := o.login(true).With(more), o.login(true, "some").With(more)
			check := func(what string) {
				t.Helper()
				i := cold(t, mayNot)
				for range 2 {
					i.invoke(func(ctx context.Context) {
						if w := i.get(ctx, names[0]).wrong(o.value(names[0])); w != "" {
							t.Errorf("%s: %s", what, w)
						}
						i.get(ctx, names[1]).refused(t, what)
						i.get(ctx, names[2]).refused(t, what)
						i.get(ctx, names[1]+"?version=1").refused(t, what)
					})
				}
				i.shutdown()
			}
			check("cold")
			o.warm(more)
			check("warmed")
			other := cold(t, may)
			other.reads(o, names)
			other.shutdown()
			check("read by another role")
			again := cold(t, may) // the refusals were not its own
			again.reads(o, names)
			again.shutdown()
		})
	}
}

// TestG2ConstraintsThatCapabilitiesDoNotShowCount: capabilities-self says read of each
// path, and Vault refuses the read; the cache is full of what another role read.
func TestG2ConstraintsThatCapabilitiesDoNotShowCount(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	ctx := t.Context()
	names := o.fill(5)
	harness.Must(t, o.vault.PutPolicy(ctx, "constrained", `
path "sys/capabilities-self"  { capabilities = ["update"] }
path "secret/data/app/00" { capabilities = ["read"] }
path "secret/data/app/01" { capabilities = ["read"]  required_parameters = ["version"] }
path "secret/data/app/02" { capabilities = ["read"]  allowed_parameters = { "version" = ["1"] } }
path "secret/data/app/03" { capabilities = ["read"]  denied_parameters = { "version" = [] } }
path "secret/data/app/04" { capabilities = ["read"]  min_wrapping_ttl = "1s"  max_wrapping_ttl = "60s" }
`))
	refused := map[string]bool{
		names[1]: true, names[1] + "?version=1": false, names[2] + "?version=1": false, names[3]: false, names[3] + "?version=1": true,
		names[4]: true, names[0]: false, names[0] + "?version=1": false,
	}
	o.warm(nil)
	broad := cold(t, o.login(true))
	broad.reads(o, names)
	broad.invoke(func(ctx context.Context) {
		for what := range refused {
			broad.get(ctx, what)
		}
	})
	broad.shutdown()
	s := o.login(true, "constrained")
	for range 3 { // those that start later find what the first one left
		i := cold(t, s)
		for range 2 {
			i.invoke(func(ctx context.Context) {
				for what, no := range refused {
					name, _, _ := strings.Cut(what, "?")
					if a := i.get(ctx, what); no {
						a.refused(t, what)
					} else if w := a.wrong(o.value(name)); w != "" {
						t.Errorf("%s: %s", what, w)
					}
				}
			})
		}
		i.shutdown()
	}
}

// TestG2ARevokedRoleLosesAPathWithinTheInterval: with the cache full of it.
func TestG2ARevokedRoleLosesAPathWithinTheInterval(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	ctx := t.Context()
	const interval = 3 * time.Second
	policy := func(other string) {
		harness.Must(t, o.vault.PutPolicy(ctx, "loses", `path "secret/data/app/00" { capabilities = ["read"] }`+other))
	}
	policy(`path "secret/data/app/01" { capabilities = ["read"] }`)
	names := o.fill(2)
	s := o.login(true, "loses").With(harness.Settings{"THAW_MAX_AGE": "60s", "THAW_CAPABILITY_REFRESH_INTERVAL": "3s"})
	fleet := []*instance{cold(t, s), cold(t, s)}
	for _, i := range fleet {
		i.reads(o, names)
	}
	policy("")
	revoked := time.Now()
	o.warm(harness.Settings{"THAW_MAX_AGE": "60s"}, "-full")
	for time.Since(revoked) < 3*interval {
		fleet = append(fleet, cold(t, s))
		for k, i := range fleet {
			i.invoke(func(ctx context.Context) {
				if w := i.get(ctx, names[0]).wrong(o.value(names[0])); w != "" {
					t.Error(w)
				}
				a := i.get(ctx, names[1])
				if after := a.begun.Sub(revoked); after > interval {
					a.refused(t, fmt.Sprintf("instance %d, %v after", k, after))
				}
			})
		}
		if t.Failed() {
			break
		}
		harness.Pause(ctx, interval/4)
	}
}

// TestG2ACallersTokenNeverRidesOnTheExtensionsGrants: what the extension may
// read is warm in memory and in the cache; a token of the caller's own has to
// be allowed by itself.
func TestG2ACallersTokenNeverRidesOnTheExtensionsGrants(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	ctx := t.Context()
	harness.Must(t, o.vault.PutPolicy(ctx, "none", `path "secret/data/elsewhere" { capabilities = ["read"] }`))
	names := o.fill(2)
	s := o.login(true).With(harness.Settings{"THAW_MAX_AGE": "60s"})
	first := cold(t, s)
	first.reads(o, names)
	first.shutdown()
	tokens := map[string]string{"made up": "made-up-" + mark}
	for name, policies := range map[string][]string{"without permission": {"none"}, "with permission": {"app"}} {
		token, err := o.vault.CreateToken(ctx, harness.TokenSpec{Policies: policies, TTL: time.Hour})
		harness.Must(t, err)
		tokens[name] = token
	}
	for _, warm := range []bool{false, true} {
		i := cold(t, s)
		if warm {
			i.reads(o, names)
		}
		i.invoke(func(ctx context.Context) {
			for who, token := range tokens {
				for range 2 {
					a := i.send(ctx, harness.Call{Method: http.MethodGet, Path: "secret/data/" + names[0], Token: token})
					if who != "with permission" {
						a.refused(t, who)
					} else if w := a.wrong(o.value(names[0])); w != "" {
						t.Errorf("%s: %s", who, w)
					}
				}
			}
		})
		i.shutdown()
	}
	// Nor does what a caller read become the extension's.
	harness.Must(t, o.cache.Flush(ctx))
	poor := o.login(true, "none").With(harness.Settings{"THAW_MAX_AGE": "60s"})
	for range 2 {
		i := cold(t, poor)
		i.invoke(func(ctx context.Context) {
			a := i.send(ctx, harness.Call{Method: http.MethodGet, Path: "secret/data/" + names[0], Token: tokens["with permission"]})
			if w := a.wrong(o.value(names[0])); w != "" {
				t.Error(w)
			}
			i.get(ctx, names[0]).refused(t, "the extension's own token")
		})
		i.shutdown()
	}
}
