package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wire"
)

// login gets a token as the product does.
func login(ctx context.Context, e *Exam) {
	cfg := e.Config
	if cfg.Auth.Method == config.AuthNone || cfg.Auth.Method == "" {
		e.OK("thaw has no login of its own: callers bring their tokens (THAW_AUTH_METHOD, VAULT_AUTH_ROLE)")
		return
	}
	const why = "without a token thaw reads nothing for callers that bring none"
	method := cfg.Auth
	method.KeepSecret = true // the extension shall find it, too
	o := auth.OptionsOf(cfg, e.o.Log)
	o.Method, o.Origin, o.Now = method, e.client, e.o.Now
	tokens, err := e.o.Login(o)
	if err != nil {
		e.Problem(err.Error(), why, "correct the login's settings (THAW_AUTH_METHOD and what belongs to it)")
		return
	}
	e.tokens = tokens
	t, err := tokens.Token(ctx)
	if err != nil {
		what, fix := err.Error(), "see Vault's server log for the reason, and the auth mount's and role's configuration"
		if refused := new(auth.LoginError); errors.As(err, &refused) {
			if refused.Check != "" {
				fix = refused.Check
			}
			plain := *refused
			plain.Check = ""
			what = plain.Error()
		}
		e.Problem(what, why, fix)
		return
	}
	e.token = t
	if e.given() {
		res, body, err := e.Ask(ctx, http.MethodGet, cfg.Namespace, "auth/token/lookup-self", nil, nil)
		if err == nil && wire.TokenRefused(res.StatusCode, body) {
			e.token, e.refused = "", t
			e.Problem("Vault refuses the token that thaw was given"+said(body), why+": it has expired, was revoked, or is another cluster's",
				"give a valid one in VAULT_TOKEN or the token file")
			return
		}
		e.OK("thaw has the token it was given")
		return
	}
	how := string(method.Method) + " at auth/" + strings.TrimPrefix(strings.Trim(method.Mount, "/"), "auth/")
	if method.Role != "" {
		how += ", role " + method.Role
	}
	e.OK("thaw can log in by " + how)
}

// given reports whether thaw was given a token, and does not log in for one.
func (e *Exam) given() bool {
	return e.Config.Auth.Method == config.AuthToken || e.Config.Auth.Method == config.AuthTokenFile
}

// lookup is what auth/token/lookup-self says
// (https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self).
type lookup struct {
	Data struct {
		Type        string   `json:"type"`
		TTL         int64    `json:"ttl"`          // seconds; 0 with a creation_ttl of 0: for ever
		CreationTTL int64    `json:"creation_ttl"` // seconds
		NumUses     int64    `json:"num_uses"`
		Policies    []string `json:"policies"`
	} `json:"data"`
}

// tokenType looks at what kind of token that is.
func tokenType(ctx context.Context, e *Exam) {
	res, body, err := e.Ask(ctx, http.MethodGet, e.Config.Namespace, "auth/token/lookup-self", nil, nil)
	switch {
	case err != nil:
		e.Skip("the token cannot be looked up: " + err.Error())
		return
	case res.StatusCode == http.StatusForbidden:
		e.Advice("the token may not look itself up", "thaw learns only from failures when a token that it was given ends",
			`keep Vault's default policy on the role, or add to its policies: path "auth/token/lookup-self" { capabilities = ["read"] }`)
		return
	}
	var l lookup
	if res.StatusCode != http.StatusOK || json.Unmarshal(body, &l) != nil {
		e.Skip("the token cannot be looked up: status " + strconv.Itoa(res.StatusCode) + said(body))
		return
	}
	d := l.Data
	if d.NumUses > 0 {
		e.Problem("the token can be used "+strconv.FormatInt(d.NumUses, 10)+" times only", "then reads fail until the next login", "set token_num_uses=0 on the role")
	}
	if slices.Contains(d.Policies, "root") {
		e.Advice("it is a root token", "whoever reaches thaw's port can do everything in Vault", "log in with a role that has only what the function needs")
	}
	life := "without an end"
	if d.TTL > 0 || d.CreationTTL > 0 {
		life = "good for " + (time.Duration(d.TTL) * time.Second).String()
	}
	if d.Type == "service" && !e.given() {
		e.Advice("the role gives service tokens",
			"each login, renewal and revocation is written to Vault's storage and moves the index that polls compare, so every function then reads its secrets again",
			"set token_type=batch on the role: vault write auth/"+e.Config.Auth.Mount+"/role/"+e.Config.Auth.Role+" token_type=batch")
	} else {
		e.OK("a " + d.Type + " token, " + life)
	}
	if !e.given() && d.TTL > 0 && d.TTL < 60 {
		e.Advice("the token is "+life+" only", "thaw logs in that often, and a login is Vault's dearest request", "raise token_ttl on the role to 15 minutes or more")
	}
}
