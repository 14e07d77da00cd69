package compat

import (
	"net/http"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// child makes a token under another.
func (o *origin) child(parent string, policies ...string) string {
	o.t.Helper()
	r, err := o.Do(o.t.Context(), harness.Call{Method: http.MethodPost, Path: "auth/token/create", Token: parent, Body: map[string]any{"policies": policies, "ttl": "1h"}})
	harness.Must(o.t, err)
	harness.Must(o.t, r.Err())
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	harness.Must(o.t, r.JSON(&answer))
	return answer.Auth.ClientToken
}

// TestG2ARevokedParentTakesItsChildrenAlong: a parent revokes itself through thaw, and
// its child is refused from then on; who has nothing to do with it keeps its hits.
func TestG2ARevokedParentTakesItsChildrenAlong(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	policy := o.policy("p", o.all()+`path "auth/token/*" { capabilities = ["create", "update", "sudo"] }`)
	for name, revoke := range map[string]func(p *thaw, parent string){
		"revoke-self": func(p *thaw, parent string) {
			p.do("POST", "auth/token/revoke-self", parent, nil).status(http.StatusNoContent)
		},
		"revoke": func(p *thaw, parent string) {
			p.do("POST", "auth/token/revoke", o.RootToken(), map[string]string{"token": parent}).status(http.StatusNoContent)
		},
	} {
		p := o.startWith("THAW_AUTH_METHOD=none", "THAW_RECHECK=1m") // the refresh interval is 5m
		parent, bystander := o.newToken(policy), o.newToken(policy)
		child := o.child(parent, policy)
		for _, token := range []string{child, bystander} {
			p.as(token, o.data("a")).is("1")
			p.as(token, o.data("a")).is("1").hit()
		}
		revoke(p, parent)
		p.as(child, o.data("a")).status(http.StatusForbidden)
		p.as(parent, o.data("a")).status(http.StatusForbidden)
		before := o.count.Count("POST", "/v1/sys/capabilities-self")
		p.as(bystander, o.data("a")).is("1")
		p.as(bystander, o.data("a")).is("1").hit()
		if n := o.count.Count("POST", "/v1/sys/capabilities-self") - before; name == "revoke-self" && n > 1 {
			t.Errorf("%s: a bystander costs %d calls", name, n)
		}
	}
	// Thaw's own token has children, too.
	own := o.newToken(policy)
	child := o.child(own, policy)
	p := o.start("VAULT_TOKEN="+own, "THAW_RECHECK=1m")
	p.as(child, o.data("a")).is("1")
	p.as(child, o.data("a")).is("1").hit()
	p.do("POST", "auth/token/revoke-self", "", nil).status(http.StatusNoContent)
	p.as(child, o.data("a")).status(http.StatusForbidden)
}

// TestG2ARenewalThatShortensATokenIsHeeded: its hits end with it.
func TestG2ARenewalThatShortensATokenIsHeeded(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	mine := o.makeToken(harness.TokenSpec{Policies: []string{o.policy("p", o.all())}, TTL: time.Hour})
	p := o.startWith("THAW_AUTH_METHOD=none", "THAW_RECHECK=1m")
	p.as(mine, o.data("a")).is("1")
	p.as(mine, o.data("a")).is("1").hit()
	p.do("POST", "auth/token/renew-self", mine, map[string]any{"increment": "2s"}).ok()
	p.as(mine, o.data("a")).is("1")
	renewed := time.Now()
	harness.Eventually(t, patience, "the token's end", func() bool { return p.as(mine, o.data("a")).Status == http.StatusForbidden })
	if d := time.Since(renewed); d > 10*time.Second {
		t.Errorf("served for %v", d)
	}
}

// TestACallersFewUsesAreItsOwn: polls and look-ups spend none of them before the first
// confirmation, and one then.
func TestACallersFewUsesAreItsOwn(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	policy := o.policy("p", o.all())
	mine := o.makeToken(harness.TokenSpec{Policies: []string{policy}, TTL: time.Hour, NumUses: 6})
	p := o.startWith("THAW_AUTH_METHOD=none", "THAW_CAPABILITY_REFRESH_INTERVAL=2s", "THAW_RECHECK=100ms")
	p.as(mine, o.data("a")).is("1") // one
	harness.Pause(t.Context(), time.Second)
	p.as(mine, o.data("a")).is("1") // a hit or one, as the index says
	harness.Pause(t.Context(), 2200*time.Millisecond)
	p.as(mine, o.data("a")).is("1") // a look-up, and one
	p.as(mine, o.data("a")).is("1") // passed through from here on
	if a := p.as(mine, o.data("a")); a.Header.Get("X-Cache") == "HIT" {
		t.Error("a hit for a token whose uses are counted")
	}
	two := o.makeToken(harness.TokenSpec{Policies: []string{policy}, TTL: time.Hour, NumUses: 2})
	p.as(two, o.data("a")).is("1")
	o.put("a", "2")
	harness.Pause(t.Context(), 200*time.Millisecond)
	p.as(two, o.data("a")).is("2")
	harness.Pause(t.Context(), 200*time.Millisecond)
	p.as(two, o.data("a")).status(http.StatusForbidden)
}
