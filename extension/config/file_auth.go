package config

import (
	"slices"
	"strings"
)

func (l fileReader) autoAuthRules() []rule {
	return []rule{
		{"method", block{labelled: true, around: l.method, keys: []rule{
			{"type", &l.file.method.kind},
			{"mount_path", into(&l.d.Auth.Mount, parseMount)},
			{"namespace", into(&l.d.Auth.Namespace, parseNamespace)},
			{"config", &l.file.method.config},
			{"wrap_ttl min_backoff max_backoff exit_on_err", useless("")},
		}}},
		{"sink sinks", useless(": its token stays in memory")},
		{"enable_reauth_on_new_credentials", useless("")},
	}
}

func (l fileReader) autoAuth(at place, _ string, read func()) {
	before := len(l.problems)
	read()
	l.check(at, "", errIf(l.file.login == "" && len(l.problems) == before, `needs a method block, such as method "aws" { ... }`))
	l.file.badAuth = len(l.problems) > before
}

// fileMethod is a method block while it is read.
type fileMethod struct {
	kind   string
	config []item // whose keys depend on the kind
}

func (l fileReader) method(at place, label string, read func()) {
	m := &l.file.method
	*m = fileMethod{kind: label}
	before := l.d.Auth
	read()
	m.kind = strings.ToLower(m.kind)
	method := AuthMethod(m.kind)
	rules := l.loginRules(method)
	switch {
	case m.kind == "":
		l.refuse(at, "", `needs a type, such as method "aws" { ... }`)
		return
	case rules == nil && method != AuthAzure:
		methods := []string{"aws", "azure", "approle", "jwt", "token_file"}
		why := "unknown login"
		if slices.Contains([]string{"alicloud", "cert", "cf", "gcp", "kerberos", "kubernetes", "ldap", "oci"}, m.kind) { // Vault Proxy's
			why = "thaw has no such login"
		} else {
			why += didYouMean(nearest(m.kind, methods))
		}
		l.refuse(at, m.kind, why+"; allowed: "+either(methods))
		return
	case rules != nil: // else azure, which is refused later, unless THAW_AUTH_METHOD overrides it
		l.walk("auto_auth.method.config.", m.config, rules)
	}
	l.check(at, "", errIf((l.file.keys[0] == "") != (l.file.keys[1] == ""), "access_key and secret_key go together; set both or none"))
	l.file.login, l.file.loginAt = method, at
	if named, err := chosen(l.env["THAW_AUTH_METHOD"], l.row("THAW_AUTH_METHOD").Type); err == nil && named != m.kind {
		l.d.Auth = before // the environment names another, so nothing of this one counts
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
				l.warnIf(remove, at.file+": "+at.name+" has no effect in thaw: the file is kept, since it is read again at each login")
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
