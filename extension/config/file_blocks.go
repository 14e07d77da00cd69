package config

import (
	"strconv"
	"strings"
)

// The keys are those of Vault Proxy 1.21:
// https://developer.hashicorp.com/vault/docs/agent-and-proxy/proxy#configuration-file-options
// and https://github.com/hashicorp/vault/blob/v1.21.0/command/proxy/config/config.go,
// with the shared ones of internalshared/configutil.

func topRules() []rule {
	rules := []rule{
		{key: "vault", block: true, inner: vaultRules},
		{key: "cache", block: true, inner: cacheRules, apply: applyCache},
		{key: "api_proxy", block: true, inner: apiProxyRules, apply: func(l *loader, at place, it item) {
			l.file.proxyAt = at
			l.walk("api_proxy.", it.val.items, apiProxyRules())
		}},
		{key: "listener", block: true, many: true, inner: listenerRuleNames, apply: applyListener},
		{key: "auto_auth", block: true, inner: autoAuthRules, apply: applyAutoAuth},
		{key: "log_level", apply: applyLogLevel},
	}
	rules = append(rules, ignored("",
		"exit_after_auth", "pid_file", "telemetry", "disable_idle_connections", "disable_keep_alives",
		"disable_mlock", "default_max_request_duration", "cluster_name", "administrative_namespace_path",
		"user_lockout", "seal", "hsm", "kms", "entropy", "cloud")...)
	rules = append(rules, ignored(": it logs to standard error",
		"log_file", "log_format", "log_rotate_bytes", "log_rotate_duration", "log_rotate_max_files")...)
	return append(rules, ignored(", which renders no templates; see VAULT_SECRET_PATH for secrets in files",
		"template", "template_config", "env_template", "exec")...)
}

func applyLogLevel(l *loader, at place, it item) {
	v, ok := l.scalar(at, it)
	if !ok || v == "" {
		return
	}
	// Vault's other names for them:
	// https://github.com/hashicorp/vault/blob/v1.21.0/helper/logging/logger.go (ParseLogLevel)
	switch strings.ToLower(v) {
	case "notice":
		v = "INFO"
	case "warning":
		v = "WARN"
	case "err":
		v = "ERROR"
	}
	l.apply(l.row("VAULT_LOG_LEVEL"), at, v)
}

func vaultRules() []rule {
	// A CA in the environment replaces the file's, of whatever kind: else
	// ca_cert, which wins over the others, would win over VAULT_CACERT_BYTES.
	ca := func(key, variable string) rule {
		r := via(key, variable)
		return rule{key: key, apply: func(l *loader, at place, it item) {
			r.apply(l, at, it)
			if l.firstSet("VAULT_CACERT", "VAULT_CACERT_BYTES", "VAULT_CAPATH") != "" {
				l.d.TLS.CACert, l.d.TLS.CAPath = "", ""
			}
		}}
	}
	return []rule{
		line("address", func(l *loader, at place, v string) { l.file.address, l.file.addressAt = v, at }),
		via("namespace", "VAULT_NAMESPACE"),
		ca("ca_cert", "VAULT_CACERT"),
		ca("ca_path", "VAULT_CAPATH"),
		via("client_cert", "VAULT_CLIENT_CERT"),
		via("client_key", "VAULT_CLIENT_KEY"),
		via("tls_server_name", "VAULT_TLS_SERVER_NAME"),
		via("tls_skip_verify", "VAULT_SKIP_VERIFY"),
		{key: "retry", block: true, inner: retryRules},
	}
}

// vaultProxyRetries is what num_retries = 0 means there.
// https://developer.hashicorp.com/vault/docs/agent-and-proxy/proxy#num_retries
const vaultProxyRetries = 12

func retryRules() []rule {
	return []rule{{key: "num_retries", apply: func(l *loader, at place, it item) {
		v, ok := l.scalar(at, it)
		switch {
		case !ok || v == "":
		case v == "-1":
			l.d.MaxRetries = 0
		case v == "0":
			l.d.MaxRetries = vaultProxyRetries
		default:
			if n, err := strconv.Atoi(v); err != nil || n < 0 || n > 100 {
				l.refuse(at, v, "allowed: -1 (none), 0 (12) or a whole number to 100")
				return
			}
			l.apply(l.row("VAULT_MAX_RETRIES"), at, v)
		}
	}}}
}

func applyCache(l *loader, at place, it item) {
	l.file.cacheAt = at
	l.walk("cache.", it.val.items, cacheRules())
	if !l.d.StaticCache {
		// As there, the two refresh settings count for static caching only.
		for _, name := range []string{"THAW_CAPABILITY_REFRESH_INTERVAL", "THAW_CAPABILITY_REFRESH_BEHAVIOR"} {
			row := l.row(name)
			l.apply(row, place{name: name}, row.Default)
		}
	}
}

func cacheRules() []rule {
	rules := []rule{
		truth("cache_static_secrets", func(l *loader, at place, b bool) { l.d.StaticCache, l.file.staticAt = b, at }),
		{key: "static_secret_token_capability_refresh_interval", apply: func(l *loader, at place, it item) {
			v, ok := l.scalar(at, it)
			if !ok || v == "" {
				return
			}
			if d, err := parseDuration(v); err == nil && d == 0 {
				return // there: the default
			}
			l.apply(l.row("THAW_CAPABILITY_REFRESH_INTERVAL"), at, v)
		}},
		via("static_secret_token_capability_refresh_behavior", "THAW_CAPABILITY_REFRESH_BEHAVIOR"),
		truth("disable_caching_dynamic_secrets", func(l *loader, at place, disabled bool) {
			if !disabled {
				l.warn(at.file + ":" + strconv.Itoa(at.line) + ": " + at.name + " has no effect in thaw, which never caches secrets with a lease for callers to share")
			}
		}),
	}
	for _, key := range []string{"use_auto_auth_token", "enforce_consistency", "when_inconsistent"} {
		rules = append(rules, rule{key: key, apply: func(l *loader, at place, _ item) {
			l.refuse(at, "", "belongs in the api_proxy block, as in Vault Proxy")
		}})
	}
	return append(rules, ignored(": nothing is kept on disk", "persist")...)
}

func apiProxyRules() []rule {
	return []rule{
		{key: "use_auto_auth_token", apply: func(l *loader, at place, it item) {
			v, ok := l.scalar(at, it)
			if !ok || v == "" {
				return
			}
			l.file.ownTokenAt = at
			b, err := parseBool(v)
			switch {
			case strings.EqualFold(v, "force"):
				l.d.OwnToken = OwnTokenForce
			case err != nil:
				l.refuse(at, v, `allowed: true, false or "force"`)
			case b:
				l.d.OwnToken = OwnTokenFill
			}
		}},
		via("enforce_consistency", "THAW_ENFORCE_CONSISTENCY"),
		via("when_inconsistent", "THAW_WHEN_INCONSISTENT"),
		truth("prepend_configured_namespace", func(l *loader, _ place, b bool) { l.d.PrependNamespace = b }),
	}
}
