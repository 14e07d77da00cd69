package config

import (
	"errors"
	"slices"
	"strings"
)

var errUnixInTCP = errors.New("a unix socket needs listener \"unix\"")

// fileListener is a listener block while it is read.
type fileListener struct {
	kind       string
	address    string
	addressAt  place
	tlsDisable bool
	l          Listener
}

// listenerRuleNames is the keys alone, to tell them from labels.
func listenerRuleNames() []rule { return listenerRules(&fileListener{}) }

// listenerRules are the keys of a listener. What would make a listener safer
// there and cannot be done here is refused: to ignore it would open what the
// user closed.
func listenerRules(b *fileListener) []rule {
	refused := func(key, why string) rule {
		return rule{key: key, apply: func(l *loader, at place, it item) {
			if v, ok := l.scalar(at, it); ok && v != "" && !strings.EqualFold(v, "false") && v != "0" {
				l.refuse(at, "", why)
			}
		}}
	}
	rules := []rule{
		line("type", func(_ *loader, _ place, v string) { b.kind = v }),
		line("address", func(_ *loader, at place, v string) { b.address, b.addressAt = v, at }),
		truth("tls_disable", func(_ *loader, _ place, v bool) { b.tlsDisable = v }),
		line("tls_cert_file", func(_ *loader, _ place, v string) { b.l.CertFile = v }),
		line("tls_key_file", func(_ *loader, _ place, v string) { b.l.KeyFile = v }),
		truth("require_request_header", func(_ *loader, _ place, v bool) { b.l.RequireRequestHeader = v }),
		line("role", func(l *loader, at place, v string) {
			if !strings.EqualFold(v, "default") {
				l.refuse(at, v, "thaw cannot limit a listener to metrics, and would serve everything on it; remove this listener (metrics are at /proxy/v1/metrics on the others)")
			}
		}),
		refused("tls_require_and_verify_client_cert", "thaw cannot ask callers for certificates; use THAW_LOCAL_TOKEN, and remove this"),
		refused("tls_client_ca_file", "thaw cannot ask callers for certificates; use THAW_LOCAL_TOKEN, and remove this"),
		refused("chroot_namespace", "thaw cannot confine a listener to a namespace; remove this, and see api_proxy.prepend_configured_namespace"),
	}
	return append(rules, ignored("",
		"purpose", "cluster_address", "max_request_size", "max_request_duration",
		"tls_min_version", "tls_max_version", "tls_cipher_suites", "tls_prefer_server_cipher_suites", "tls_disable_client_certs",
		"http_read_timeout", "http_read_header_timeout", "http_write_timeout", "http_idle_timeout",
		"proxy_protocol_behavior", "proxy_protocol_authorized_addrs",
		"x_forwarded_for_authorized_addrs", "x_forwarded_for_hop_skips", "x_forwarded_for_reject_not_present",
		"x_forwarded_for_reject_not_authorized", "x_forwarded_for_client_cert_header", "x_forwarded_for_client_cert_header_decoders",
		"socket_mode", "socket_user", "socket_group", "agent_api", "proxy_api",
		"telemetry", "profiling", "inflight_requests_logging",
		"cors_enabled", "cors_allowed_origins", "cors_allowed_headers", "custom_response_headers",
		"redact_addresses", "redact_cluster_name", "redact_version",
		"disable_replication_status_endpoints", "disable_request_limiter",
		"max_json_depth", "max_json_string_value_length", "max_json_object_entry_count",
		"max_json_array_element_count", "max_json_token")...)
}

func applyListener(l *loader, at place, it item) {
	b := &fileListener{kind: it.label, addressAt: at}
	before := len(l.problems)
	l.walk("listener.", it.val.items, listenerRules(b))
	switch strings.ToLower(b.kind) {
	case "tcp":
		l.tcpListener(at, b)
	case "unix":
		if file, err := socketPath(b.address); err != nil {
			l.refuse(b.addressAt, b.address, err.Error())
		} else {
			b.l.Network, b.l.Address = "unix", file
		}
	case "":
		l.refuse(at, "", `needs a type: listener "tcp" or listener "unix"`)
	default:
		l.refuse(at, b.kind, "its type must be tcp or unix")
	}
	if b.tlsDisable {
		b.l.CertFile, b.l.KeyFile = "", ""
	}
	if (b.l.CertFile == "") != (b.l.KeyFile == "") {
		l.refuse(at, "", "tls_cert_file and tls_key_file go together; set both, or tls_disable = true")
	}
	if slices.ContainsFunc(l.file.listeners, func(o Listener) bool { return o.Address == b.l.Address && !portZero(o) }) {
		l.refuse(b.addressAt, b.address, "another listener has this address; give each its own")
	}
	if len(l.problems) > before {
		l.file.badListener = true
		return
	}
	l.file.listeners = append(l.file.listeners, b.l)
}

func (l *loader) tcpListener(at place, b *fileListener) {
	address := b.address
	if address == "" {
		address = "127.0.0.1:8200" // Vault Proxy's default
	}
	got, err := parseListener(address)
	if err != nil || got.Network != "tcp" {
		if err == nil {
			err = errUnixInTCP
		}
		l.refuse(b.addressAt, b.address, err.Error()+"; allowed: ip:port")
		return
	}
	b.l.Network, b.l.Address = got.Network, got.Address
	if !b.tlsDisable && b.l.CertFile == "" && b.l.KeyFile == "" {
		l.refuse(at, "", "needs tls_cert_file and tls_key_file, or tls_disable = true, as in Vault Proxy")
	}
}
