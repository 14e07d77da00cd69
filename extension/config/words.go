package config

import (
	"io/fs"
	"log/slog"
)

// Log levels outside slog's own four.
const (
	LevelTrace = slog.Level(-8)
	LevelOff   = slog.Level(100)
)

// Listener is one address to serve on.
type Listener struct {
	Network              string      // "tcp" or "unix"
	Address              string      // host:port or a path
	CertFile, KeyFile    string      // tls_cert_file, tls_key_file; empty: no TLS
	MinTLS, MaxTLS       uint16      // tls_min_version, tls_max_version, as in crypto/tls; 0: TLS 1.2, the latest
	CipherSuites         []uint16    // tls_cipher_suites, as in crypto/tls; nil: Go's
	SocketMode           fs.FileMode // socket_mode of a unix socket; 0: 0600
	RequireRequestHeader bool        // require_request_header, THAW_REQUIRE_REQUEST_HEADER: exactly one X-Vault-Request: true
	Optional             bool        // a failure to bind is not an error ([::1] beside 127.0.0.1)
}

// KVMount is a KV mount known without asking.
type KVMount struct {
	Path    string // without slashes at either end
	Version int    // 1 or 2
}

// SecretFile is one secret of file mode.
type SecretFile struct {
	Path string // API path of the secret, "secret/data/app", with an optional ?version=N
	File string // absolute path of the file
	Var  string // the variable that named Path, for messages
}

// OwnToken says when the extension's own token is used for a caller.
type OwnToken string

// Values of OwnToken.
const (
	OwnTokenNever OwnToken = "false"
	OwnTokenFill  OwnToken = "true"
	OwnTokenForce OwnToken = "force"
)

// Values of EnforceConsistency, WhenInconsistent and ConsistencyScope that are
// not their defaults.
const (
	EnforceAlways       = "always"
	InconsistentRetry   = "retry"
	InconsistentForward = "forward"
	ScopeAudience       = "audience"
)

// PollMode is THAW_POLL.
type PollMode string

// Poll modes.
const (
	PollAuto   PollMode = "auto"   // as PollInvoke while the function has been reading, else as PollRead
	PollInvoke PollMode = "invoke" // at each INVOKE
	PollRead   PollMode = "read"   // at an invocation's first read
	PollOff    PollMode = "off"    // never: the TTL decides
)

// RunMode is VAULT_RUN_MODE.
type RunMode string

// Run modes.
const (
	RunDefault RunMode = "default"
	RunFile    RunMode = "file"
	RunProxy   RunMode = "proxy"
)

// CacheDefault is VAULT_DEFAULT_CACHE_ENABLED.
type CacheDefault string

// Values of CacheDefault.
const (
	CacheKV   CacheDefault = ""      // unset: KV as the design says
	CacheAll  CacheDefault = "true"  // every GET may be cached
	CacheNone CacheDefault = "false" // nothing, unless a request asks
)

// Secret is a string that never prints itself.
type Secret string

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[hidden]"
}

// GoString hides the value.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
