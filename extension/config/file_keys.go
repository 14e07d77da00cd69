package config

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io/fs"
	"strconv"
	"strings"
)

// The keys are those of Vault Proxy 1.21:
// https://developer.hashicorp.com/vault/docs/agent-and-proxy/proxy#configuration-file-options
// and https://github.com/hashicorp/vault/blob/v1.21.0/command/proxy/config/config.go,
// with the shared ones of internalshared/configutil.

func (l fileReader) topRules() []rule {
	return []rule{
		{"vault", block{keys: l.vaultRules()}},
		{"cache", block{keys: l.cacheRules()}},
		{"api_proxy", block{keys: append(l.consistencyRules(), rule{"prepend_configured_namespace", &l.d.PrependNamespace})}},
		{"listener", block{many: true, labelled: true, keys: l.listenerRules(), around: l.listener}},
		{"auto_auth", block{keys: l.autoAuthRules(), around: l.autoAuth}},
		// Vault's other names for them:
		// https://github.com/hashicorp/vault/blob/v1.21.0/helper/logging/logger.go (ParseLogLevel)
		{"log_level", scalar(func(at place, v string) error {
			other := map[string]string{"notice": "INFO", "warning": "WARN", "err": "ERROR"}[strings.ToLower(v)]
			l.apply(l.row("VAULT_LOG_LEVEL"), at, cmp.Or(other, v))
			return nil
		})},
		{"exit_after_auth pid_file telemetry disable_idle_connections disable_keep_alives disable_mlock default_max_request_duration cluster_name " +
			"administrative_namespace_path user_lockout seal hsm kms entropy cloud", useless("")},
		{"log_file log_format log_rotate_bytes log_rotate_duration log_rotate_max_files", useless(": it logs to standard error")},
		{"template template_config env_template exec", useless(", which renders no templates; see VAULT_SECRET_PATH for secrets in files")},
	}
}

// vaultProxyRetries is what num_retries = 0 means there.
// https://developer.hashicorp.com/vault/docs/agent-and-proxy/proxy#num_retries
const vaultProxyRetries = 12

func (l fileReader) vaultRules() []rule {
	return []rule{
		{"address", &l.file.address},
		{"namespace", via("VAULT_NAMESPACE")},
		{"ca_cert", via("VAULT_CACERT")},
		{"ca_path", via("VAULT_CAPATH")},
		{"client_cert", via("VAULT_CLIENT_CERT")},
		{"client_key", via("VAULT_CLIENT_KEY")},
		{"tls_server_name", via("VAULT_TLS_SERVER_NAME")},
		{"tls_skip_verify", via("VAULT_SKIP_VERIFY")},
		{"retry", block{keys: []rule{{"num_retries", scalar(func(_ place, v string) error {
			n, err := strconv.Atoi(v)
			l.d.MaxRetries = max(cmp.Or(n, vaultProxyRetries), 0)
			return errIf(err != nil || n < -1 || n > 100, "allowed: -1 (none), 0 (12) or a whole number to 100")
		})}}}},
	}
}

func (l fileReader) cacheRules() []rule {
	return append(l.consistencyRules(),
		rule{"cache_static_secrets", &l.d.StaticCache},
		rule{"static_secret_token_capability_refresh_interval", scalar(func(at place, v string) error {
			const same = "THAW_CAPABILITY_REFRESH_INTERVAL"
			if d, err := parseDuration(v); err == nil && d == 0 { // the default there
				v = l.row(same).Default
			}
			l.apply(l.row(same), at, v)
			return nil
		})},
		rule{"static_secret_token_capability_refresh_behavior", via("THAW_CAPABILITY_REFRESH_BEHAVIOR")},
		rule{"disable_caching_dynamic_secrets", truth(func(at place, disabled bool) {
			if !disabled {
				l.ignore(at, " has no effect in thaw, which never caches secrets with a lease for callers to share")
			}
		})},
		rule{"persist", useless(": nothing is kept on disk")})
}

// consistencyRules are keys of api_proxy that Vault Agent's documentation has in
// the cache block: https://developer.hashicorp.com/vault/docs/enterprise/consistency
func (l fileReader) consistencyRules() []rule {
	return []rule{
		{"use_auto_auth_token", scalar(func(_ place, v string) error {
			b, err := parseBool(v)
			l.d.OwnToken = OwnToken(strconv.FormatBool(b))
			if strings.EqualFold(v, "force") {
				l.d.OwnToken, err = OwnTokenForce, nil
			}
			return errIf(err != nil, `allowed: true, false or "force"`)
		})},
		{"enforce_consistency", via("THAW_ENFORCE_CONSISTENCY")},
		{"when_inconsistent", via("THAW_WHEN_INCONSISTENT")},
	}
}

// checkMoved tells of keys that stand in the cache block instead of api_proxy.
func (l fileReader) checkMoved() {
	var first place
	var moved []string
	for _, r := range l.consistencyRules() {
		at := l.file.at["cache."+r.keys]
		if at.Line > 0 {
			l.check(at, "", errIf(l.file.at["api_proxy."+r.keys].Line > 0, "stands in the api_proxy block, too; keep that one"))
			first, moved = cmp.Or(first, at), append(moved, r.keys)
		}
	}
	l.warnIf(len(moved) > 0, first.prefix()+"the cache block holds "+strings.Join(moved, ", ")+", which counts as if it stood in the api_proxy block, where Vault Proxy has it; move it there")
}

func (l fileReader) listenerRules() []rule {
	b := &l.file.listener
	return []rule{
		{"type", &b.Network},
		{"address", &b.Address},
		{"tls_disable", &l.file.tlsDisable},
		{"tls_cert_file", &b.CertFile},
		{"tls_key_file", &b.KeyFile},
		{"tls_min_version", into(&b.MinTLS, parseTLSVersion)},
		{"tls_max_version", into(&b.MaxTLS, parseTLSVersion)},
		{"tls_cipher_suites", into(&b.CipherSuites, parseCipherSuites)},
		{"socket_mode", into(&b.SocketMode, parseSocketMode)},
		{"socket_user socket_group", refused("the socket belongs to the user that runs thaw; run thaw as that user, and remove this")},
		{"require_request_header", &b.RequireRequestHeader},
		{"role", only("default", "thaw cannot limit a listener to metrics, and would serve everything on it; remove this listener (metrics are at /proxy/v1/metrics on the others)")},
		{"tls_require_and_verify_client_cert tls_client_ca_file", refused("thaw cannot ask callers for certificates; use THAW_LOCAL_TOKEN, and remove this")},
		{"chroot_namespace", refused("thaw cannot confine a listener to a namespace; remove this, and see api_proxy.prepend_configured_namespace")},
		{"x_forwarded_for_authorized_addrs x_forwarded_for_hop_skips x_forwarded_for_reject_not_present x_forwarded_for_reject_not_authorized " +
			"x_forwarded_for_client_cert_header x_forwarded_for_client_cert_header_decoders",
			refused("thaw reads no X-Forwarded-For and lets no caller in or out by it; restrict who reaches the listener, and remove this")},
		{"proxy_protocol_behavior proxy_protocol_authorized_addrs",
			refused("thaw does not speak the PROXY protocol, and connections that begin with it would fail; turn it off in front of thaw, and remove this")},
		{"redact_addresses redact_cluster_name redact_version", refused("thaw passes Vault's answers on as they are; redact in Vault's own listener, and remove this")},
		{"max_request_size", useless(": THAW_MAX_BODY does that for all listeners")},
		{"max_request_duration", useless(": VAULT_CLIENT_TIMEOUT does that for all listeners")},
		{"http_read_header_timeout", useless(": THAW_HEADER_TIMEOUT does that for all listeners")},
		{"http_read_timeout http_write_timeout http_idle_timeout", useless(": THAW_BODY_TIMEOUT does that for all listeners")},
		{"purpose cluster_address tls_prefer_server_cipher_suites tls_disable_client_certs agent_api proxy_api telemetry profiling inflight_requests_logging " +
			"cors_enabled cors_allowed_origins cors_allowed_headers custom_response_headers disable_replication_status_endpoints disable_request_limiter " +
			"max_json_depth max_json_string_value_length max_json_object_entry_count max_json_array_element_count max_json_token", useless("")},
	}
}

// only takes one word.
func only(word, otherwise string) scalar {
	return func(_ place, v string) error { return errIf(!strings.EqualFold(v, word), otherwise) }
}

// parseTLSVersion reads a version as Vault names it. thaw serves no older ones.
func parseTLSVersion(v string) (uint16, error) {
	version := map[string]uint16{"tls12": tls.VersionTLS12, "tls13": tls.VersionTLS13}[v]
	return version, errIf(version == 0, "allowed: tls12 or tls13, since older versions are not safe")
}

func parseCipherSuites(v string) ([]uint16, error) {
	return each(list(v), func(name string) (uint16, error) {
		for _, s := range tls.CipherSuites() {
			if s.Name == name {
				return s.ID, nil
			}
		}
		return 0, wrapValue(name, errors.New("is no cipher suite that Go holds for safe; see tls.CipherSuites"))
	})
}

func parseSocketMode(v string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(v, 8, 32)
	return fs.FileMode(n), errIf(err != nil || n == 0 || n > 0o777, `allowed: permissions in octal, such as "0600"`)
}

func (l fileReader) listener(at place, it item, read func()) {
	b := &l.file.listener
	*b, l.file.tlsDisable, l.file.listening = Listener{Network: it.label}, false, true
	before := len(l.problems)
	delete(l.file.at, "listener.address")
	read()
	kind, address, addressAt := b.Network, b.Address, cmp.Or(l.file.at["listener.address"], at)
	b.Network, b.Address = strings.ToLower(kind), ""
	switch b.Network {
	case "tcp":
		l.tcpListener(at, addressAt, address)
	case "unix":
		file, err := socketPath(address)
		l.check(addressAt, address, err)
		b.Address = file
	case "":
		l.refuse(at, "", `needs a type: listener "tcp" or listener "unix"`)
	default:
		l.refuse(at, kind, "its type must be tcp or unix")
	}
	if l.file.tlsDisable {
		b.CertFile, b.KeyFile = "", ""
	}
	l.check(at, "", errIf((b.CertFile == "") != (b.KeyFile == ""), "tls_cert_file and tls_key_file go together; set both, or tls_disable = true"))
	l.check(at, "", errIf(b.MaxTLS != 0 && b.MaxTLS < b.MinTLS, "tls_max_version is below tls_min_version; correct one of them"))
	l.check(addressAt, address, errIf(taken(l.file.listeners, *b), "another listener has this address; give each its own"))
	if len(l.problems) == before {
		l.file.listeners = append(l.file.listeners, *b)
	}
}

func (l fileReader) tcpListener(at, addressAt place, address string) {
	b := &l.file.listener
	got, err := parseListener(cmp.Or(address, "127.0.0.1:8200")) // Vault Proxy's default
	err = cmp.Or(err, errIf(got.Network != "tcp", `a unix socket needs listener "unix"`))
	if err != nil {
		l.refuse(addressAt, address, err.Error()+"; allowed: ip:port")
		return
	}
	b.Address = got.Address
	if b.SocketMode != 0 {
		l.ignore(l.file.at["listener.socket_mode"], ` has no effect: only listener "unix" has a socket's file`)
		b.SocketMode = 0
	}
	l.check(at, "", errIf(!l.file.tlsDisable && b.CertFile == "" && b.KeyFile == "", "needs tls_cert_file and tls_key_file, or tls_disable = true, as in Vault Proxy"))
}
