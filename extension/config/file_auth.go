package config

import (
	"slices"
	"strings"
)

func autoAuthRules() []rule {
	rules := []rule{{key: "method", block: true, inner: methodRuleNames, apply: applyMethod}}
	rules = append(rules, ignored(": its token stays in memory", "sink", "sinks")...)
	return append(rules, ignored("", "enable_reauth_on_new_credentials")...)
}

func applyAutoAuth(l *loader, at place, it item) {
	before := len(l.problems)
	l.walk("auto_auth.", it.val.items, autoAuthRules())
	if l.file.auth == nil && len(l.problems) == before {
		l.refuse(at, "", `needs a method block, such as method "aws" { ... }`)
	}
	if len(l.problems) > before {
		l.file.badAuth = true
	}
}

// fileMethod is a method block while it is read.
type fileMethod struct {
	kind   string
	config []item
	auth   fileAuth
}

func methodRuleNames() []rule { return methodRules(&fileMethod{}) }

func methodRules(m *fileMethod) []rule {
	rules := []rule{
		line("type", func(_ *loader, _ place, v string) { m.kind = v }),
		line("mount_path", func(l *loader, at place, v string) {
			mount, err := parseMount(v)
			if err != nil {
				l.refuse(at, v, err.Error())
				return
			}
			m.auth.Mount = mount
		}),
		line("namespace", func(l *loader, at place, v string) {
			ns, err := parseNamespace(v)
			if err != nil {
				l.refuse(at, v, err.Error())
				return
			}
			m.auth.Namespace = ns
		}),
		{key: "config", block: true, apply: func(_ *loader, _ place, it item) { m.config = it.val.items }},
	}
	return append(rules, ignored("", "wrap_ttl", "min_backoff", "max_backoff", "exit_on_err")...)
}

// otherMethods are Vault Proxy's that thaw has no use for.
func otherMethods() []string {
	return []string{"alicloud", "cert", "cf", "gcp", "kerberos", "kubernetes", "ldap", "oci"}
}

func applyMethod(l *loader, at place, it item) {
	m := &fileMethod{kind: it.label}
	m.auth.at = at
	l.walk("auto_auth.method.", it.val.items, methodRules(m))
	m.kind = strings.ToLower(m.kind)
	m.auth.Method = AuthMethod(m.kind)
	const prefix = "auto_auth.method.config."
	switch m.auth.Method {
	case AuthAWS:
		l.walk(prefix, m.config, awsRules(m))
		if (l.file.awsKeyID == "") != (l.file.awsSecret == "") {
			l.refuse(at, "", "access_key and secret_key go together; set both or none")
		}
	case AuthAppRole:
		l.walk(prefix, m.config, approleRules(m))
	case AuthJWT:
		l.walk(prefix, m.config, jwtRules(m))
	case AuthTokenFile:
		l.walk(prefix, m.config, tokenFileRules(m))
	case AuthAzure:
		if l.azure != nil { // else refused later, unless THAW_AUTH_METHOD overrides it
			l.walk(prefix, m.config, l.azure.rules(m))
		}
	case "":
		l.refuse(at, "", `needs a type, such as method "aws" { ... }`)
		return
	default:
		methods := []string{"aws", "azure", "approle", "jwt", "token_file"}
		why := "unknown login"
		if slices.Contains(otherMethods(), m.kind) {
			why = "thaw has no such login"
		} else if near := nearest(m.kind, methods); near != "" {
			why += "; did you mean " + near + "?"
		}
		l.refuse(at, m.kind, why+"; allowed: "+either(methods))
		return
	}
	l.file.auth = &m.auth
}

// into is a line that goes into a field as it is.
func into(key string, to *string) rule {
	return line(key, func(_ *loader, _ place, v string) { *to = v })
}

// checked is a line that goes into a field if check takes it.
func checked(key string, to *string, check func(string) error) rule {
	return line(key, func(l *loader, at place, v string) {
		if err := check(v); err != nil {
			l.refuse(at, v, err.Error())
			return
		}
		*to = v
	})
}

// secretLine is a line that is never shown.
func secretLine(key string, set func(l *loader, v string)) rule {
	return rule{key: key, apply: func(l *loader, at place, it item) {
		v, ok := l.scalar(at, it)
		if !ok || v == "" {
			return
		}
		if err := checkHeaderValue(v); err != nil {
			l.refuse(at, "", err.Error())
			return
		}
		set(l, v)
	}}
}

// https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/methods/aws
func awsRules(m *fileMethod) []rule {
	rules := []rule{
		line("type", func(l *loader, at place, v string) {
			if !strings.EqualFold(v, "iam") {
				l.refuse(at, v, `only the "iam" kind of aws login is supported`)
			}
		}),
		into("role", &m.auth.Role),
		checked("header_value", &m.auth.ServerID, checkHeaderValue),
		checked("region", &m.auth.STSRegion, checkRegion),
		secretLine("access_key", func(l *loader, v string) { l.file.awsKeyID = v }),
		secretLine("secret_key", func(l *loader, v string) { l.file.awsSecret = Secret(v) }),
		secretLine("session_token", func(l *loader, v string) { l.file.awsSession = Secret(v) }),
	}
	return append(rules, ignored("", "nonce", "credential_poll_interval")...)
}

// https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/methods/approle
func approleRules(m *fileMethod) []rule {
	return []rule{
		into("role_id_file_path", &m.auth.RoleIDFile),
		into("secret_id_file_path", &m.auth.SecretFile),
		truth("remove_secret_id_file_after_reading", func(_ *loader, _ place, b bool) { m.auth.KeepSecret = !b }),
		line("secret_id_response_wrapping_path", func(l *loader, at place, _ string) {
			l.refuse(at, "", "thaw cannot unwrap a secret id; put the secret id itself in the file, and remove this")
		}),
	}
}

// https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/methods/jwt
func jwtRules(m *fileMethod) []rule {
	rules := []rule{
		into("path", &m.auth.JWTFile),
		into("role", &m.auth.Role),
		truth("remove_jwt_after_reading", func(l *loader, at place, b bool) {
			if b {
				l.warn(at.file + ": " + at.name + " has no effect in thaw: the file is kept, since it is read again at each login")
			}
		}),
	}
	return append(rules, ignored("", "remove_jwt_follows_symlinks", "jwt_read_period")...)
}

// https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/methods/token_file
func tokenFileRules(m *fileMethod) []rule {
	return []rule{into("token_file_path", &m.auth.TokenFile)}
}
