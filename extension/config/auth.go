package config

import (
	"slices"
	"strings"
	"time"
)

// Auth says how the extension gets a token of its own.
type Auth struct {
	// How thaw logs in. If unset: the configuration file's `auto_auth`, else aws in Lambda and azure in
	// thaw-azure if `VAULT_AUTH_ROLE` is set, else `VAULT_TOKEN`, else none.
	Method AuthMethod `env:"THAW_AUTH_METHOD aws, azure, approle, jwt, token, token_file or none"` // or auto_auth.method.type, or by the rule in chooseMethod
	// Mount of the auth method in Vault, with or without `auth/` in front. Default: the method's name.
	Mount     string `env:"VAULT_AUTH_PROVIDER mount path"` // method.mount_path ("auth/aws" and "aws" alike)
	Namespace string // method.namespace; empty: Config.Namespace
	// Role in Vault to log in with. Required for aws.
	Role string `env:"VAULT_AUTH_ROLE name"` // config.role
	// aws: value of the signed header `X-Vault-AWS-IAM-Server-ID`.
	ServerID string `env:"VAULT_IAM_SERVER_ID header value"` // config.header_value
	// aws: region whose STS the login is signed for. Default: the global endpoint.
	STSRegion string `env:"VAULT_STS_ENDPOINT_REGION region"` // config.region
	// aws: role to assume before the login.
	AssumeRole string `env:"VAULT_ASSUMED_ROLE_ARN ARN of an IAM role"`
	// approle: the role id.
	RoleID string `env:"THAW_ROLE_ID text"`
	// approle: file with the role id.
	RoleIDFile string `env:"THAW_ROLE_ID_FILE file"` // config.role_id_file_path
	// approle: the secret id.
	SecretID Secret `env:"THAW_SECRET_ID text"`
	// approle: file with the secret id. thaw does not delete it.
	SecretFile string `env:"THAW_SECRET_ID_FILE file"` // config.secret_id_file_path
	KeepSecret bool   // !config.remove_secret_id_file_after_reading (default there: true, it is removed); from the environment files are kept
	// jwt: file with the token to log in with.
	JWTFile string `env:"THAW_JWT_FILE file"` // config.path (jwt)
	// What the managed identity's token is for: the mount's `resource` (azure), or the role's
	// `bound_audiences` (jwt without `THAW_JWT_FILE`).
	AzureResource string `azure:"THAW_AZURE_RESOURCE URI or application id"` // config.resource
	// Client id of a user-assigned managed identity. Default: the system-assigned one.
	AzureClientID string `azure:"THAW_AZURE_CLIENT_ID client id"` // config.client_id
	// The app's resource id, for roles with `bound_subscription_ids` or `bound_resource_groups`. Default:
	// derived from the app's environment.
	AzureResourceID   string `azure:"THAW_AZURE_RESOURCE_ID /subscriptions/ID/resourceGroups/NAME/providers/TYPE/NAME"` // empty: unknown
	AzureSubscription string // of AzureResourceID
	AzureGroup        string // of AzureResourceID
	// token: the Vault token to use.
	Token Secret `env:"VAULT_TOKEN token"` // method token
	// token_file: file with the Vault token to use.
	TokenFile string `env:"THAW_TOKEN_FILE file"` // config.token_file_path
	// Log in again when a token that cannot be renewed has less than this left.
	ExpiryGrace time.Duration `env:"VAULT_TOKEN_EXPIRY_GRACE_PERIOD=10s duration from 0 to 1d"`
}

// AuthMethod names a way to log in.
type AuthMethod string

// Auth methods.
const (
	AuthNone      AuthMethod = "none"
	AuthAWS       AuthMethod = "aws"
	AuthAzure     AuthMethod = "azure"
	AuthAppRole   AuthMethod = "approle"
	AuthJWT       AuthMethod = "jwt"
	AuthToken     AuthMethod = "token"
	AuthTokenFile AuthMethod = "token_file"
)

// loginResolver chooses and checks a loader's login.
type loginResolver struct{ *loader }

// resolveAuth chooses the way to log in and puts its settings together: the
// environment's, and the file's where the file names the same method.
func (l loginResolver) resolveAuth() {
	a := &l.d.Auth
	method, why := l.chooseMethod()
	a.Method, l.d.RoleFrom = method, "VAULT_AUTH_ROLE"
	if a.Role != "" && !l.isSet("VAULT_AUTH_ROLE") {
		l.d.RoleFrom = "auto_auth.method.config.role"
	}
	if keys := l.file.keys; keys[0] != "" {
		// Written for this login, where the environment's are the platform's.
		aws := &l.d.Platform.AWS
		aws.AccessKeyID, aws.SecretAccessKey, aws.SessionToken = string(keys[0]), keys[1], keys[2]
	}
	if a.Mount == "" && slices.Contains([]AuthMethod{AuthAWS, AuthAzure, AuthAppRole, AuthJWT}, method) {
		a.Mount = string(method)
	}
	if a.SecretFile == "" || l.isSet("THAW_SECRET_ID_FILE") {
		a.KeepSecret = true
	}
	if l.good("THAW_AUTH_METHOD") {
		l.checkMethod(why)
		l.checkUnusedAuth(why)
	}
	if method != AuthToken {
		a.Token = "" // nobody's: the function's own client may have it
	}
}

// chooseMethod applies the rule: THAW_AUTH_METHOD; the file's auto_auth; the
// platform's if there is a role; VAULT_TOKEN; none. It also says where the
// answer comes from, for messages.
func (l loginResolver) chooseMethod() (AuthMethod, place) {
	d := &l.d
	const role = "VAULT_AUTH_ROLE"
	switch {
	case d.Auth.Method != "":
		return d.Auth.Method, place{Name: "THAW_AUTH_METHOD"}
	case l.file.login != "":
		return l.file.login, l.file.loginAt
	case d.Auth.Role != "" && d.Platform.Lambda:
		return AuthAWS, place{Name: role}
	case d.Auth.Role != "" && l.azure != nil:
		return AuthAzure, place{Name: role}
	case d.Auth.Token != "":
		l.warnIf(d.Auth.Role != "", "VAULT_AUTH_ROLE has no effect outside Lambda beside VAULT_TOKEN; set THAW_AUTH_METHOD=aws to log in with the role instead")
		return AuthToken, place{Name: "VAULT_TOKEN"}
	case !l.good(role, "VAULT_TOKEN", "THAW_AUTH_METHOD") || l.file.broken || l.file.badAuth:
	case d.Auth.Role != "":
		l.warn("VAULT_AUTH_ROLE has no effect outside Lambda by itself; set THAW_AUTH_METHOD=aws (or jwt) to log in with it. Until then callers must bring their own tokens")
	case d.Auth.Mount != "" && d.Platform.Lambda:
		l.wrong(role, "missing: VAULT_AUTH_PROVIDER names an auth mount, but there is no role to log in with; set VAULT_AUTH_ROLE, or remove VAULT_AUTH_PROVIDER if callers bring their own tokens")
	case d.Platform.Lambda:
		l.warn("no login is configured: callers must bring their own Vault tokens; set VAULT_AUTH_ROLE (or THAW_AUTH_METHOD) to let thaw log in, or THAW_AUTH_METHOD=none if that is meant")
	}
	return AuthNone, place{}
}

// lacks reports what the login in use cannot do without.
func (l loginResolver) lacks(why place, message string) {
	value, ok := map[string]string{"VAULT_AUTH_ROLE": shown(l.d.Auth.Role), "VAULT_TOKEN": ""}[why.Name]
	if !ok {
		value = string(l.d.Auth.Method)
	}
	l.problem(why, value, message)
}

// checkMethod reports what the chosen method lacks or has twice.
func (l loginResolver) checkMethod(why place) {
	a := &l.d.Auth
	if a.Method == AuthAzure && l.azure == nil {
		l.refuse(why, string(a.Method), "the azure login needs thaw-azure, the program for Azure Functions")
		return
	}
	byIdentity := l.azure != nil && (a.Method == AuthAzure || a.Method == AuthJWT && a.JWTFile == "" && a.AzureResource != "")
	for _, need := range []struct {
		method              AuthMethod
		has                 bool
		variable, key, what string
	}{
		{AuthAWS, a.Role != "", "VAULT_AUTH_ROLE", "role", "a role"},
		{AuthAzure, a.Role != "", "VAULT_AUTH_ROLE", "role", "a role"},
		{AuthAppRole, a.RoleID != "" || a.RoleIDFile != "", "THAW_ROLE_ID or THAW_ROLE_ID_FILE", "role_id_file_path", "a role id"},
		{AuthJWT, a.JWTFile != "" || byIdentity, "THAW_JWT_FILE", "path", "a file with the token to log in with"},
		{AuthToken, a.Token != "", "VAULT_TOKEN", "", "a token"},
		{AuthTokenFile, a.TokenFile != "", "THAW_TOKEN_FILE", "token_file_path", "a file with the token"},
	} {
		if need.method == a.Method && !need.has && !l.file.badAuth && l.good(strings.Split(need.variable, " or ")...) {
			l.lacks(why, "the "+string(a.Method)+" login needs "+need.what+"; set "+need.variable+l.orInFile(need.key))
		}
	}
	if byIdentity {
		l.azure.login(l, why)
	}
	const twice = ", which is set too; keep one of them"
	approle := a.Method == AuthAppRole
	l.wrongIf(approle && a.RoleID != "" && a.RoleIDFile != "", "THAW_ROLE_ID", "contradicts THAW_ROLE_ID_FILE"+twice)
	l.wrongIf(approle && a.SecretID != "" && a.SecretFile != "", "THAW_SECRET_ID", "contradicts THAW_SECRET_ID_FILE"+twice)
}

// orInFile adds the key that does the same in the file, if there is a file.
func (l loginResolver) orInFile(key string) string {
	if l.file.login == "" || key == "" {
		return ""
	}
	return ", or " + key + " in the method's config block"
}

// checkUnusedAuth reports THAW_ settings of a method that is not the one in
// use: most likely the method was forgotten.
func (l loginResolver) checkUnusedAuth(why place) {
	in := "no login is chosen"
	if why.Name != "" {
		in = "the login in use is " + string(l.d.Auth.Method) + " (from " + why.Name + ")"
	}
	of := func(method AuthMethod, names ...string) {
		for _, name := range names {
			l.wrongIf(l.isSet(name) && method != l.d.Auth.Method, name, "has no effect, since "+in+"; set THAW_AUTH_METHOD="+string(method)+" or remove it")
		}
	}
	of(AuthAppRole, "THAW_ROLE_ID", "THAW_ROLE_ID_FILE", "THAW_SECRET_ID", "THAW_SECRET_ID_FILE")
	of(AuthJWT, "THAW_JWT_FILE")
	of(AuthTokenFile, "THAW_TOKEN_FILE")
}

// autoAuthRules are the keys of the file's auto_auth block.
func (l fileReader) autoAuthRules() []rule {
	return []rule{
		{"method", block{labelled: true, around: l.method, keys: []rule{
			{"type", &l.file.kind},
			{"mount_path", into(&l.d.Auth.Mount, parseMount)},
			{"namespace", into(&l.d.Auth.Namespace, parseNamespace)},
			{"config", block{around: func(_ place, it item, _ func()) { l.file.config = it.items }}},
			{"wrap_ttl min_backoff max_backoff exit_on_err", useless("")},
		}}},
		{"sink sinks", useless(": its token stays in memory")},
		{"enable_reauth_on_new_credentials", useless("")},
	}
}

func (l fileReader) autoAuth(at place, _ item, read func()) {
	before := len(l.problems)
	read()
	l.check(at, "", errIf(l.file.login == "" && len(l.problems) == before, `needs a method block, such as method "aws" { ... }`))
	l.file.badAuth = len(l.problems) > before
}

func (l fileReader) method(at place, it item, read func()) {
	l.file.kind, l.file.config = it.label, nil
	before := l.d.Auth
	read()
	kind := strings.ToLower(l.file.kind)
	method := AuthMethod(kind)
	rules := l.loginRules(method)
	switch {
	case kind == "":
		l.refuse(at, "", `needs a type, such as method "aws" { ... }`)
		return
	case rules == nil && method != AuthAzure:
		const methods = "aws, azure, approle, jwt or token_file"
		why := "unknown login" + didYouMean(nearest(kind, words(methods)))
		if slices.Contains([]string{"alicloud", "cert", "cf", "gcp", "kerberos", "kubernetes", "ldap", "oci"}, kind) { // Vault Proxy's
			why = "thaw has no such login"
		}
		l.refuse(at, kind, why+"; allowed: "+methods)
		return
	case rules != nil: // else azure, which is refused later, unless THAW_AUTH_METHOD overrides it
		l.walk("auto_auth.method.config.", l.file.config, rules)
	}
	l.check(at, "", errIf((l.file.keys[0] == "") != (l.file.keys[1] == ""), "access_key and secret_key go together; set both or none"))
	l.file.login, l.file.loginAt = method, at
	if named, err := chosen(l.env["THAW_AUTH_METHOD"], l.row("THAW_AUTH_METHOD").Type); err == nil && named != kind {
		l.d.Auth, l.file.keys = before, [3]Secret{} // the environment names another, so nothing of this one counts
	}
}

// loginRules are the keys of a login's config block; nil: there are none.
// https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/methods
func (l fileReader) loginRules(method AuthMethod) []rule {
	a := &l.d.Auth
	switch method {
	case AuthAWS:
		return []rule{
			{"type", only("iam", `only the "iam" kind of aws login is supported`)},
			{"role", &a.Role},
			{"header_value", checked(&a.ServerID, checkHeaderValue)},
			{"region", checked(&a.STSRegion, checkRegion)},
			{"access_key", &l.file.keys[0]},
			{"secret_key", &l.file.keys[1]},
			{"session_token", &l.file.keys[2]},
			{"nonce credential_poll_interval", useless("")},
		}
	case AuthAppRole:
		return []rule{
			{"role_id_file_path", &a.RoleIDFile},
			{"secret_id_file_path", &a.SecretFile},
			{"remove_secret_id_file_after_reading", truth(func(_ place, remove bool) { a.KeepSecret = !remove })},
			{"secret_id_response_wrapping_path", refused("thaw cannot unwrap a secret id; put the secret id itself in the file, and remove this")},
		}
	case AuthJWT:
		return []rule{
			{"path", &a.JWTFile},
			{"role", &a.Role},
			{"remove_jwt_after_reading", truth(func(at place, remove bool) {
				l.warnIf(remove, at.File+": "+at.Name+" has no effect in thaw: the file is kept, since it is read again at each login")
			})},
			{"remove_jwt_follows_symlinks jwt_read_period", useless("")},
		}
	case AuthTokenFile:
		return []rule{{"token_file_path", &a.TokenFile}}
	case AuthAzure:
		if l.azure != nil {
			return l.azure.rules(a)
		}
	}
	return nil
}
