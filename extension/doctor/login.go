package doctor

import (
	"cmp"
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
func login(ctx context.Context, e *Exam) Finding {
	cfg := e.Config
	if e.lent() {
		const how = "run the doctor in the function (docs/operations.md says how), or with AWS credentials in the environment, with which the login is tried"
		aws := cfg.Platform.AWS
		if aws.AccessKeyID == "" && aws.CredentialsURI == "" {
			return Unseen("the login with the role "+cfg.Auth.Role+": only in Lambda does VAULT_AUTH_ROLE alone log in, and there are no AWS credentials here", how)
		}
		e.as = "the holder of the AWS credentials in this environment"
		cfg.Auth.Method, cfg.Auth.Mount = config.AuthAWS, cmp.Or(cfg.Auth.Mount, "aws")
	}
	if why, how := e.o.spared(cfg.Auth); why != "" {
		return Unseen("the login by "+string(cfg.Auth.Method)+": "+why, how)
	}
	const why = "without a token thaw reads nothing for callers that bring none"
	cfg.Auth.KeepSecret = true // the extension shall find it, too
	o := auth.Options{Config: cfg, Log: e.log, Origin: e.client}
	var err error
	if o.Login, _, err = e.o.Platform(config.Config{Platform: cfg.Platform, Auth: cfg.Auth}, e.log); err == nil {
		e.tokens, err = auth.New(o)
	}
	if err != nil {
		return Fault(err.Error(), why, "correct the login's settings (THAW_AUTH_METHOD and what belongs to it)")
	}
	if e.token, err = e.tokens.Token(ctx); err != nil {
		refused := new(auth.LoginError)
		errors.As(err, &refused)
		return Fault(strings.TrimSuffix(err.Error(), " ("+refused.Check+")"), why,
			cmp.Or(refused.Check, "see Vault's server log for the reason, and the auth mount's and role's configuration"))
	}
	e.hide.also(e.token)
	if e.as != "" {
		if l, _, err := e.lookup(ctx); err == nil {
			e.as = cmp.Or(l.Meta["canonical_arn"], l.DisplayName+" of AWS account "+cmp.Or(l.Meta["account_id"], "unknown"))
		}
	}
	if given(e.Config.Auth) {
		return e.tryGiven(ctx, why)
	}
	how := string(cfg.Auth.Method) + " at auth/" + strings.TrimPrefix(strings.Trim(cfg.Auth.Mount, "/"), "auth/")
	if cfg.Auth.Role != "" {
		how += ", role " + cfg.Auth.Role
	}
	return Fine("thaw can log in by " + how)
}

// tryGiven looks whether Vault takes the token that thaw was given. Else there is none.
func (e *Exam) tryGiven(ctx context.Context, why string) Finding {
	namespace := e.Config.Namespace
	res, body, _ := e.Ask(ctx, http.MethodGet, namespace, lookupSelf, nil, nil)
	if res.StatusCode == http.StatusForbidden { // a token for one use, such as a wrapping token, is invalid from now on
		res, body, _ = e.Ask(ctx, http.MethodGet, namespace, lookupSelf, nil, nil)
	}
	var l struct{ Data lookup }
	f := Fine("thaw has the token it was given")
	switch {
	case wire.TokenRefused(res.StatusCode, body):
		f = Fault("Vault refuses the token that thaw was given"+said(body), why+": it has expired, was revoked, was for one use, or is another cluster's",
			"give a valid one in VAULT_TOKEN or the token file; instead of a wrapping token, what vault unwrap prints")
	case res.StatusCode == http.StatusNotFound && namespace != "": // each namespace has this path
		f = Fault("Vault knows no namespace "+namespace+" for this token"+said(body), "every read is answered 404",
			"correct VAULT_NAMESPACE (vault namespace list), or give a token that is of it or of one above it")
	case json.Unmarshal(body, &l) == nil && l.Data.NumUses != 0 && !e.o.UseUp:
		e.Tell(Finding{"token", Problem, countedToken(l.Data), fewUses, "give thaw a token without num_uses"})
		f = Unseen("what the token may do: its uses are counted, and each question takes one", "give thaw a token without num_uses; -login asks all the same")
	default:
		return f
	}
	e.token = ""
	return f
}

// spared says why the login is left out, and how to have it made all the same; "":
// it is made. Of what a login sends only a secret id is ever used up by it
// (secret_id_num_uses, https://developer.hashicorp.com/vault/api-docs/auth/approle),
// and nothing tells its holder whether it is: signatures of AWS, tokens of a managed
// identity and JWTs are good for any number of logins until they end.
func (o *Options) spared(a config.Auth) (why, how string) {
	switch {
	case given(a):
	case o.NoLogin:
		return "-no-login forbids it", "run the doctor without -no-login"
	case a.Method == config.AuthAppRole && (a.SecretID != "" || a.SecretFile != "") && !o.UseUp:
		return "it takes one use of the secret id, if those are counted, and Vault does not tell whether they are",
			"run the doctor with -login, which makes the login; how the login of a thaw that runs went is in thaw status, row Token"
	}
	return "", ""
}

// lent reports whether there is a role for a login that happens in Lambda only.
func (e *Exam) lent() bool {
	c := &e.Config
	return c.Auth.Method == config.AuthNone && c.Auth.Role != "" && !c.Platform.Lambda && e.o.Azure == nil && !e.o.set("THAW_AUTH_METHOD")
}

// set reports whether the environment has a variable.
func (o *Options) set(name string) bool {
	return slices.ContainsFunc(o.Environ, func(v string) bool { return strings.HasPrefix(v, name+"=") && len(v) > len(name)+1 })
}

// given reports whether thaw was given a token, and does not log in for one.
func given(a config.Auth) bool {
	return a.Method == config.AuthToken || a.Method == config.AuthTokenFile
}

const lookupSelf = "auth/token/lookup-self"

// lookup is what auth/token/lookup-self says
// (https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self).
type lookup struct {
	Type        string
	TTL         int64 // seconds; 0 with a creation_ttl of 0: for ever
	CreationTTL int64 `json:"creation_ttl"` // seconds
	NumUses     int64 `json:"num_uses"`
	Renewable   bool
	ExplicitMax int64 `json:"explicit_max_ttl"` // seconds since its creation; 0: as long as the mount lets it be renewed
	Policies    []string
	DisplayName string            `json:"display_name"`
	Meta        map[string]string // of a login
}

// lookup asks what the token is.
func (e *Exam) lookup(ctx context.Context) (l lookup, status int, err error) {
	status, err = e.data(ctx, http.MethodGet, e.Config.Namespace, lookupSelf, nil, &l)
	return l, status, err
}

const fewUses = "then reads fail until there is another token"

// countedToken says how often a token can be used. Vault shows a negative number at
// the last use.
func countedToken(l lookup) string {
	return "the token can be used " + strconv.FormatInt(max(l.NumUses, 0), 10) + " times only"
}

// tokenType looks at what kind of token that is.
func tokenType(ctx context.Context, e *Exam) Finding {
	d, status, err := e.lookup(ctx)
	own := !given(e.Config.Auth)
	switch {
	case status == http.StatusForbidden:
		return Advise("the token may not look itself up", "thaw learns only from failures when a token that it was given ends",
			`keep Vault's default policy on the role, or add to its policies: path "auth/token/lookup-self" { capabilities = ["read"] }`)
	case err != nil:
		return Unseen("the token cannot be looked up: "+err.Error(), "see Vault's log, and run the doctor again")
	}
	if d.NumUses != 0 {
		e.Tell(Fault(countedToken(d), fewUses, "set token_num_uses=0 on the role"))
	}
	if slices.Contains(d.Policies, "root") {
		e.Tell(Advise("it is a root token", "whoever reaches thaw's port can do everything in Vault", "log in with a role that has only what the function needs"))
	}
	life := "without an end"
	if d.TTL > 0 || d.CreationTTL > 0 {
		life = "good for " + (time.Duration(d.TTL) * time.Second).String()
	}
	e.Tell(verdicts{
		{d.Type == "service" && own, Advise("the role gives service tokens",
			"each login, renewal and revocation is written to Vault's storage and moves the index that polls compare, so every function then reads its secrets again",
			"set token_type=batch on the role: vault write auth/"+e.Config.Auth.Mount+"/role/"+e.Config.Auth.Role+" token_type=batch")},
		{e.Config.Auth.Method == config.AuthToken && d.TTL > 0 && (!d.Renewable || d.ExplicitMax > 0),
			Advise("the token that thaw was given is "+life+" only, and cannot be renewed beyond that", fewUses,
				"let thaw log in (THAW_AUTH_METHOD), give it a file in which the token is replaced (THAW_TOKEN_FILE), or a periodic token")},
		{true, Fine("a " + d.Type + " token, " + life)},
	}.first())
	if own && d.TTL > 0 && d.TTL < 60 {
		return Advise("the token is "+life+" only", "thaw logs in that often, and a login is Vault's dearest request", "raise token_ttl on the role to 15 minutes or more")
	}
	return Finding{}
}
