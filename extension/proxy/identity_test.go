package proxy

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
)

// TestWhoseTokenGoesAlong: every use of the own token, with and without a
// login, for every way to bring a token. The stand-in's answer tells which
// token arrived.
func TestWhoseTokenGoesAlong(t *testing.T) {
	t.Parallel()
	const none, own, caller = "none", "own", "caller"
	for _, c := range []struct {
		use              config.OwnToken
		login            bool
		without, with    string // which token goes along without, and with, one of the caller's
		unauthenticated  string // and to a path that Vault answers without a token
		unauthenticated2 string // and there with one of the caller's
	}{
		{config.OwnTokenNever, true, none, caller, none, caller},
		{config.OwnTokenNever, false, none, caller, none, caller},
		{config.OwnTokenFill, true, own, caller, none, caller},
		{config.OwnTokenFill, false, none, caller, none, caller},
		{config.OwnTokenForce, true, own, own, none, own},
		{config.OwnTokenForce, false, none, caller, none, caller},
	} {
		w := newWorld(t, func(o *options, _ *cache.Options) { o.OwnToken, o.HasToken = c.use, c.login })
		token := w.origin.AddToken(0, "root")
		w.put("app", "one")
		var got http.Header
		w.origin.SetFault(func(_ http.ResponseWriter, r *http.Request) bool { got = r.Header; return false })
		names := map[string]string{"": none, ownToken: own, token: caller}
		check := func(what, want, method, path string, headers ...string) {
			t.Helper()
			w.cache.Clear()
			got = nil
			w.do(method, path, "", headers...)
			tokens, bearer := got["X-Vault-Token"], got["Authorization"]
			seen := ""
			if len(tokens) > 0 {
				seen = tokens[0]
			}
			if got == nil || names[seen] != want || len(tokens) > 1 {
				t.Errorf("use %s, login %v, %s: tokens %q, want %s", c.use, c.login, what, tokens, want)
			}
			if want == own && len(bearer) > 0 {
				t.Errorf("use %s, login %v, %s: the caller's Authorization went along with thaw's token: %q", c.use, c.login, what, bearer)
			}
		}
		for _, request := range []string{"GET " + app, "DELETE /v1/secret/data/x", "GET /v1/sys/mounts"} {
			method, path, _ := strings.Cut(request, " ")
			check(request+" without", c.without, method, path)
			check(request+" empty", c.without, method, path, "X-Vault-Token", "")
			check(request+" basic", c.without, method, path, "Authorization", "Basic eDp5")
			check(request+" token", c.with, method, path, "X-Vault-Token", token)
			check(request+" bearer", c.with, method, path, "Authorization", "bearer  "+token)
			check(request+" second bearer", c.with, method, path, "Authorization", "Basic eDp5", "Authorization", "Bearer "+token)
			check(request+" both", c.with, method, path, "X-Vault-Token", token, "Authorization", "Bearer other")
		}
		check("sys/health", c.unauthenticated, "GET", "/v1/sys/health")
		check("login", c.unauthenticated, "POST", "/v1/auth/approle/login")
		check("login of a user", c.unauthenticated, "POST", "/v1/auth/userpass/login/me")
		check("sys/health with a token", c.unauthenticated2, "GET", "/v1/sys/health", "X-Vault-Token", token)
	}
}

func TestG2ForceSharesTheOwnGrantWithEveryCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) { o.OwnToken = config.OwnTokenForce })
	w.put("app", "one")
	w.expect(w.get(app, "X-Vault-Token", "whoever"), 200, missStored, "one")
	w.expect(w.get(app), 200, hitRead, "one")
}

func TestWithoutATokenNothingIsCached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *options, _ *cache.Options) { o.HasToken = false })
	w.put("app", "one")
	w.expect(w.get(app), 403, bypassed, "permission denied")
	w.expect(w.get(app, "X-Vault-Cache-Control", "cache"), 403, bypassed, "permission denied")
	if n := w.cache.Counters().Entries; n != 0 {
		t.Errorf("%d entries", n)
	}
}

// tokenAnswer is what Vault says of the own token: in data at a lookup, in
// auth at a renewal.
func tokenAnswer(part string) string {
	id, other := "id", "auth"
	if part == "auth" {
		id, other = "client_token", "data"
	}
	return `{"request_id":"1","lease_id":"","` + other + `":null,"wrap_info":null,"` + part + `":{"` + id + `":"` + ownToken +
		`","accessor":"ACCESSOR","policies":["p"],"ttl":60},"mount_type":"token"}` + "\n"
}

func TestG5TheOwnTokenIsNeverTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, path, part string }{
		{"GET", "/v1/auth/token/lookup-self", "data"},
		{"GET", "/v1/auth/token/lookup-self/", "data"},
		{"GET", "/v1/auth/token%2Flookup-self", "data"},
		{"GET", "/v1/team/auth/token/lookup-self", "data"}, // a namespace in the path
		{"GET", "/v1/a/b/auth/token/lookup-self", "data"},
		{"POST", "/v1/auth/token/lookup", "data"}, // without a token in its body it is about the one that asks
		{"GET", "/v1/team/auth/token/lookup", "data"},
		{"POST", "/v1/auth/token/renew-self", "auth"},
		{"PUT", "/v1/team/auth/token/renew-self", "auth"},
	} {
		for _, headers := range [][]string{
			nil, {"X-Vault-Cache-Control", "cache"}, {"X-Vault-Namespace", "team"}, {"X-Vault-Wrap-TTL", "60s"}, {"Accept-Encoding", "gzip"},
		} {
			for _, force := range []bool{false, true} {
				w := newWorld(t, func(o *options, co *cache.Options) {
					co.TTL = 1 << 40
					if force {
						o.OwnToken, o.CacheDefault = config.OwnTokenForce, config.CacheAll
					}
				})
				w.origin.SetFault(func(rw http.ResponseWriter, r *http.Request) bool {
					rw.Header().Set("Content-Type", "application/json")
					if r.Header.Get("X-Vault-Wrap-TTL") != "" {
						rw.Write([]byte(`{"data":null,"auth":null,"wrap_info":{"token":"WRAPPING","accessor":"ACCESSOR"}}`))
						return true
					}
					rw.Write([]byte(tokenAnswer(c.part)))
					return true
				})
				for range 2 {
					a := w.do(c.method, c.path, "", headers...)
					text := a.body
					for name, values := range a.Header {
						text += name + strings.Join(values, "")
					}
					if strings.Contains(text, ownToken) || strings.Contains(text, "ACCESSOR") || strings.Contains(text, "WRAPPING") {
						t.Errorf("%s %s %q: told: %d %s", c.method, c.path, headers, a.StatusCode, a.body)
					}
					if a.StatusCode == 200 && !strings.Contains(a.body, `"policies":["p"]`) {
						t.Errorf("%s %s: the rest is gone: %s", c.method, c.path, a.body)
					}
					if wrapped := len(headers) > 0 && headers[0] == "X-Vault-Wrap-TTL"; wrapped != (a.StatusCode == 502) {
						t.Errorf("%s %s %q: %d %s", c.method, c.path, headers, a.StatusCode, a.body)
					}
				}
			}
		}
	}
}

func TestACallersOwnTokenIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.origin.AddToken(0)
	a := w.get("/v1/auth/token/lookup-self", "X-Vault-Token", token)
	if a.StatusCode != 200 || !strings.Contains(a.body, token) || !strings.Contains(a.body, `"accessor"`) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	// Nor is anything taken out where the caller asks about another token.
	w.origin.SetFault(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Write([]byte(`{"data":{"id":"another","accessor":"ACCESSOR"}}`))
		return true
	})
	if a := w.do("POST", "/v1/auth/token/lookup", `{"token":"another"}`); !strings.Contains(a.body, "ACCESSOR") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestAnErrorAboutTheOwnTokenPasses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.SetFault(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusForbidden)
		rw.Write([]byte(`{"errors":["permission denied"]}`))
		return true
	})
	w.expect(w.get("/v1/auth/token/lookup-self"), 403, bypassed, `{"errors":["permission denied"]}`)
}

func TestALoginIsRenewedWhereTheRequestAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "one")
	w.expect(w.get(app, "X-Vault-Token-Options", "revoke"), 200, missStored, "one")
	w.expect(w.get(app, "X-Vault-Token-Options", " Revoke "), 200, hitRead, "one")
	w.get(app, "X-Vault-Token-Options", "other")
	w.get(app, "X-Vault-Token-Options", "revoke", "X-Vault-Token", w.origin.AddToken(0, "root"))
	if w.logins != 2 {
		t.Errorf("%d logins, want 2", w.logins)
	}
	var seen http.Header
	w.origin.SetFault(func(_ http.ResponseWriter, r *http.Request) bool { seen = r.Header; return false })
	w.get("/v1/sys/mounts", "X-Vault-Token-Options", "revoke", "X-Vault-Cache-Control", "nocache", "X-Thaw-Token", "t", "X-Other", "kept")
	for _, gone := range []string{"X-Vault-Token-Options", "X-Vault-Cache-Control", "X-Thaw-Token"} {
		if seen.Get(gone) != "" {
			t.Errorf("%s reached the origin", gone)
		}
	}
	if seen.Get("X-Other") != "kept" {
		t.Error("another header did not")
	}
	w.loginIs = errors.New("log in to Vault: refused")
	w.refused(w.get(app, "X-Vault-Token-Options", "revoke"), http.StatusBadGateway, "log in to Vault: refused")
}
