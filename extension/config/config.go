// Package config turns the environment and Vault Proxy's HCL file into one
// Config, and names every problem it finds in one error.
//
// One table (see Settings) holds every variable: its name, default, what it
// allows, what it means and the function that parses it. Load parses the
// table's defaults, then the file, then the environment, each with those same
// functions and each over what came before. What has several names or needs
// other settings to be judged (addresses, login, listeners, files) is put
// together at the end, and the whole is checked for contradictions.
//
// The environment is handed in by main; nothing here or elsewhere calls
// os.Getenv. Where a setting has several names the first one set wins, in the
// order THAW_, VLE_, VAULT_, file, default. A variable that is empty or all
// blanks counts as not set.
package config

import (
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// Config is everything the process was told. It is parsed once and passed by
// value. Secret-bearing fields are of type Secret, which never prints itself.
type Config struct {
	Platform Platform // where the process runs, see Platform

	// Origin.
	Addrs         []string // THAW_VAULT_ADDRS, VLE_VAULT_ADDR, VAULT_ADDR, vault.address. Each "http(s)://host:port[/base]" or "unix:///path"; the base path is kept
	ReadAddrs     []string // THAW_VAULT_READ_ADDRS, likewise: further nodes of the cluster, under StandbyReads
	StandbyReads  bool     // THAW_READS=standby: reads go to nodes that serve them from a copy
	ActiveOnly    bool     // THAW_DISABLE_PERFORMANCE_STANDBY: everything goes to the active node; StandbyReads is false then
	SRVLookup     bool     // VAULT_SRV_LOOKUP
	AddrsFrom     string   // the variable, or the key of the file, that Addrs come from: for messages
	Namespace     string   // VAULT_NAMESPACE, vault.namespace; without slashes at either end; empty: root
	TLS           TLS
	Headers       http.Header   // VAULT_HEADERS (JSON object of string to string, as vault/api), sent with every request
	MaxRetries    int           // VAULT_MAX_RETRIES, vault.retry.num_retries; default 2; 0: none
	RateLimit     float64       // VAULT_RATE_LIMIT "rate[:burst]", requests per second to the origin; 0: none
	RateBurst     int           // burst of RateLimit; default: the rate, rounded up
	ProxyURL      ProxyFunc     // HTTPS_PROXY, HTTP_PROXY, NO_PROXY, VAULT_PROXY_ADDR/VAULT_HTTP_PROXY; nil: direct
	EnvProxy      ProxyFunc     // HTTPS_PROXY, HTTP_PROXY, NO_PROXY alone: for calls to anything but the origin (STS); nil: direct
	ClientTimeout time.Duration // VAULT_CLIENT_TIMEOUT, default 60s: one proxied request with its retries
	ConnTimeout   time.Duration // THAW_CONNECT_TIMEOUT, default 1s: TCP connect and TLS handshake, each
	IdleConn      time.Duration // THAW_IDLE_CONN, default 30s on the wall clock: a connection that slept longer is not reused

	Auth     Auth
	RoleFrom string // the variable, or the key of the file, that Auth.Role comes from or would: for messages

	// Listener.
	Listeners     []Listener    // THAW_LISTEN (default 127.0.0.1:8200), listener blocks. With the default also [::1]:8200 where there is one. None under RunFile
	LocalToken    Secret        // THAW_LOCAL_TOKEN: required in X-Thaw-Token when set
	AllowedHosts  []string      // THAW_ALLOWED_HOSTS: host names accepted besides loopback ones, for listeners that are not loopback
	MaxBody       int64         // THAW_MAX_BODY, bytes of a request body; default 32 MiB (Vault's max_request_size)
	MaxHeader     int           // THAW_MAX_HEADER, bytes of a request's head; default 64 KiB
	MaxConns      int           // THAW_MAX_CONNS, open client connections; default 1024
	MaxInFlight   int           // THAW_MAX_IN_FLIGHT, requests to the origin at a time; default 64
	MaxQueued     int           // THAW_MAX_QUEUED, callers' requests that wait for one of these places; default 1024
	BodyBytes     int           // bytes of bodies on their way, together; not a setting: process.Memory says it. 0: 16 MiB
	MaxProcs      int           // THAW_MAX_PROCS, processors used at a time; default 0: one where the host freezes, else as Go chooses
	HeaderTimeout time.Duration // THAW_HEADER_TIMEOUT, a client's time to send its head; default 5s
	BodyTimeout   time.Duration // THAW_BODY_TIMEOUT, a client's longest pause while sending or taking a body; default 30s
	BodyRate      int           // THAW_BODY_RATE, bytes per second that a client has to send of a body once it took BodyTimeout; default 16 KiB, 0: none

	// API proxy.
	OwnToken           OwnToken // use_auto_auth_token; without a file OwnTokenFill
	PrependNamespace   bool     // api_proxy.prepend_configured_namespace: the configured namespace goes before the caller's
	EnforceConsistency string   // THAW_ENFORCE_CONSISTENCY, api_proxy.enforce_consistency: never (default) or always
	WhenInconsistent   string   // THAW_WHEN_INCONSISTENT, api_proxy.when_inconsistent: fail (default), retry or forward

	// Consistency.
	ConsistencyScope string        // THAW_CONSISTENCY_SCOPE: instance (default) or audience
	Events           bool          // THAW_EVENTS: auto (true, the default) or off
	WALWait          time.Duration // THAW_WAL_WAIT, how long a node that lags is waited for; default 2s; 0: not at all

	// Cache.
	StaticCache     bool          // cache.cache_static_secrets; true without a file
	CacheBytes      int64         // THAW_CACHE_BYTES, default 16 MiB; 0: nothing is cached. Plain bytes or with KiB, MiB, GiB (and K, M, G)
	KVMounts        []KVMount     // THAW_KV_MOUNTS "secret=2,kv=1"
	NoCachePaths    []string      // THAW_NO_CACHE_PATHS: comma-separated paths; "*" at the end matches any rest, "+" one segment
	NegativeTTL     time.Duration // THAW_NEGATIVE_TTL, how long a 404 may be kept; default 0: not at all
	DefaultTTL      time.Duration // VAULT_DEFAULT_CACHE_TTL; 0: no bound on age for KV and no caching of other GETs
	CacheDefault    CacheDefault  // VAULT_DEFAULT_CACHE_ENABLED
	MaxAge          time.Duration // THAW_MAX_AGE, default 0
	Recheck         time.Duration // THAW_RECHECK, default 1s; at least 10ms
	StaleIfError    time.Duration // THAW_STALE_IF_ERROR, default 24h; 0: never
	Prefetch        []string      // THAW_PREFETCH: comma-separated API paths ("secret/data/app"), read during the function's init
	NoInit          bool          // THAW_INIT=off: nothing is done during the function's init, and THAW_PREFETCH is read at the first INVOKE
	Poll            PollMode      // THAW_POLL: auto (default), invoke, read, off
	PollTimeout     time.Duration // THAW_POLL_TIMEOUT, default 500ms
	PollConcurrency int           // THAW_POLL_CONCURRENCY, default 8
	RefreshInterval time.Duration // THAW_CAPABILITY_REFRESH_INTERVAL, static_secret_token_capability_refresh_interval; default 5m
	Pessimistic     bool          // THAW_CAPABILITY_REFRESH_BEHAVIOR, static_secret_token_capability_refresh_behavior: optimistic (default) or pessimistic

	// Shared tier.
	CacheEnable       bool          // CACHE_ENABLE: the shared tier is used at all
	Memcached         []string      // THAW_MEMCACHED, host:port each; empty: no shared tier
	MemcachedTLS      bool          // its nodes were given with tls://
	MemcachedFiles    MemcachedTLS  // what TLS with them needs besides
	MemcachedDiscover bool          // the one node is ElastiCache's configuration endpoint
	MemcachedTimeout  time.Duration // THAW_MEMCACHED_TIMEOUT, default 20ms: one call in all
	CacheKey          Secret        // THAW_CACHE_KEY: keys of 32 bytes in base64, comma-separated; the first writes, all read
	CacheKeyVault     []WrappedKey  // THAW_CACHE_KEY_KEYVAULT: data keys as Azure Key Vault wrapped them; the first writes, all read
	CacheKeyKMS       [][]byte      // THAW_CACHE_KEY_KMS: data keys as AWS KMS encrypted them; the first writes, all read
	Audience          string        // THAW_AUDIENCE; default: auth mount, role and function name
	ClockSkew         time.Duration // THAW_CLOCK_SKEW, default 1s
	NoSharePaths      []string      // THAW_NO_SHARE_PATHS, as NoCachePaths
	CacheTTL          time.Duration // CACHE_TTL in minutes, default 60: age at which the warm-up reads an entry again

	Warm Warm

	// File mode.
	RunMode      RunMode       // VAULT_RUN_MODE: default (both), file, proxy
	Files        []SecretFile  // VAULT_SECRET_PATH[_X] with VAULT_SECRET_FILE[_X]
	FileTimeout  time.Duration // THAW_FILE_TIMEOUT, default 5s
	FileOptional bool          // THAW_FILE_OPTIONAL: a file that cannot be had is a WARN, not a failed init

	// Seeing it.
	LogLevel  slog.Level // VAULT_LOG_LEVEL, log_level; see LevelTrace and LevelOff
	EMF       bool       // THAW_EMF: CloudWatch embedded metric lines on standard output
	EMFAll    bool       // THAW_EMF=all: every metric is in them
	AccessLog bool       // THAW_ACCESS_LOG: a JSON line for each request on standard output
}

// Warm is the warm-up function's part.
type Warm struct {
	Enable        bool           // PROACTIVE_CACHE_ENABLE
	Recommended   bool           // NEW_PROACTIVE_CACHE_ENABLE; false: the legacy implementation
	Workers       int            // PROACTIVE_CACHE_WORKERS, default 3; of the recommended implementation
	FetchEvery    time.Duration  // PROACTIVE_CACHE_MINIMUM_FETCHING_TIME in minutes, default 5; 0: every run
	DumpEvery     time.Duration  // PROACTIVE_CACHE_DUMP_INTERVAL in minutes; 0: no backup is written
	Dump          string         // THAW_DUMP: a file, s3://bucket/key or, in thaw-azure, https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB; empty: none
	Paths         []string       // THAW_WARM_PATHS: prefixes for Config.Audience and Config.Namespace
	Audiences     []WarmAudience // THAW_WARM_AUDIENCES; instead of Paths
	For           time.Duration  // THAW_WARM_FOR: how long a scheduled run goes on, at most 1h; 0: until what is due is done
	ConfirmedOnly bool           // THAW_WARM_CONFIRMED_ONLY
	Function      string         // THAW_WARM_FUNCTION, default ThawWarmup: the timer function that is the warm-up; thaw-azure only
}

// WarmAudience is one audience that the warm-up serves.
type WarmAudience struct {
	Audience  string
	Namespace string   // without slashes at either end; empty: root
	Paths     []string // prefixes: "secret/", "kv/app/"
	Key       Secret   // as Config.CacheKey; empty: that one
}

// Log levels outside slog's own four.
const (
	LevelTrace = slog.Level(-8)
	LevelOff   = slog.Level(100)
)

// ProxyFunc is the shape of http.Transport.Proxy.
type ProxyFunc = func(*http.Request) (proxyURL *url.URL, err error)

// Platform is what the process learned of its host from the environment.
type Platform struct {
	Lambda       bool     // AWS_LAMBDA_RUNTIME_API is set
	RuntimeAPI   string   // AWS_LAMBDA_RUNTIME_API, host:port
	InitType     InitType // AWS_LAMBDA_INITIALIZATION_TYPE
	FunctionName string   // AWS_LAMBDA_FUNCTION_NAME
	MemoryMB     int      // AWS_LAMBDA_FUNCTION_MEMORY_SIZE, of the function and its extensions together; 0: not known
	Region       string   // AWS_REGION, AWS_DEFAULT_REGION
	AWS          AWS
	Azure        Azure
}

// InitType says how Lambda started the environment.
type InitType string

// Initialization types, as AWS documents AWS_LAMBDA_INITIALIZATION_TYPE.
const (
	InitOnDemand    InitType = "on-demand"
	InitProvisioned InitType = "provisioned-concurrency"
	InitSnapStart   InitType = "snap-start"
	InitManaged     InitType = "lambda-managed-instances"
)

// AWS is what signing and credentials need of the environment.
type AWS struct {
	AccessKeyID     string // AWS_ACCESS_KEY_ID
	SecretAccessKey Secret // AWS_SECRET_ACCESS_KEY
	SessionToken    Secret // AWS_SESSION_TOKEN
	CredentialsURI  string // AWS_CONTAINER_CREDENTIALS_FULL_URI, or http://169.254.170.2 + AWS_CONTAINER_CREDENTIALS_RELATIVE_URI
	CredentialsAuth Secret // AWS_CONTAINER_AUTHORIZATION_TOKEN
	CredentialsFile string // AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; wins over the token
	RegionalSTS     bool   // AWS_STS_REGIONAL_ENDPOINTS=regional
	UseFIPS         bool   // AWS_USE_FIPS_ENDPOINT=true
	EndpointSTS     string // AWS_ENDPOINT_URL_STS, else AWS_ENDPOINT_URL
	EndpointKMS     string // AWS_ENDPOINT_URL_KMS, else AWS_ENDPOINT_URL
	Endpoint        string // AWS_ENDPOINT_URL: of every other service; empty: AWS's own
}

// Auth says how the extension gets a token of its own.
type Auth struct {
	Method            AuthMethod    // THAW_AUTH_METHOD, auto_auth.method.type, or by the rule in peers
	Mount             string        // VAULT_AUTH_PROVIDER, method.mount_path ("auth/aws" and "aws" alike); default: the method's name
	Namespace         string        // method.namespace; empty: Config.Namespace
	Role              string        // VAULT_AUTH_ROLE, config.role
	ServerID          string        // VAULT_IAM_SERVER_ID, config.header_value: X-Vault-AWS-IAM-Server-ID
	STSRegion         string        // VAULT_STS_ENDPOINT_REGION, config.region
	AssumeRole        string        // VAULT_ASSUMED_ROLE_ARN
	RoleIDFile        string        // config.role_id_file_path, THAW_ROLE_ID_FILE
	SecretFile        string        // config.secret_id_file_path, THAW_SECRET_ID_FILE
	RoleID            string        // THAW_ROLE_ID
	SecretID          Secret        // THAW_SECRET_ID
	KeepSecret        bool          // !config.remove_secret_id_file_after_reading (default there: true, it is removed); from the environment files are kept
	JWTFile           string        // config.path (jwt), THAW_JWT_FILE
	AzureResource     string        // THAW_AZURE_RESOURCE, config.resource: audience of the managed identity's token
	AzureClientID     string        // THAW_AZURE_CLIENT_ID, config.client_id; empty: the system-assigned identity
	AzureResourceID   string        // THAW_AZURE_RESOURCE_ID, or what the platform says; empty: unknown
	AzureSubscription string        // of AzureResourceID
	AzureGroup        string        // of AzureResourceID
	Token             Secret        // VAULT_TOKEN (method token)
	TokenFile         string        // config.token_file_path, THAW_TOKEN_FILE
	ExpiryGrace       time.Duration // VAULT_TOKEN_EXPIRY_GRACE_PERIOD, default 10s
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

// MemcachedTLS is what TLS with memcached needs where its certificates are not
// the public ones of its own name.
type MemcachedTLS struct {
	CACert     string // THAW_MEMCACHED_CACERT: PEM file; empty: the system's roots
	ServerName string // THAW_MEMCACHED_TLS_SERVER_NAME; empty: each node's host
	ClientCert string // THAW_MEMCACHED_CLIENT_CERT: PEM file
	ClientKey  string // THAW_MEMCACHED_CLIENT_KEY: PEM file
}

// TLS says how the origin is verified; the fields are vault/api's variables
// and Vault Proxy's vault block.
type TLS struct {
	CACert     string // VAULT_CACERT, ca_cert: PEM file
	CACertPEM  string // VAULT_CACERT_BYTES: PEM text
	CAPath     string // VAULT_CAPATH, ca_path: directory of PEM files
	ClientCert string // VAULT_CLIENT_CERT, client_cert: PEM file
	ClientKey  string // VAULT_CLIENT_KEY, client_key: PEM file
	ServerName string // VAULT_TLS_SERVER_NAME, tls_server_name
	SkipVerify bool   // VAULT_SKIP_VERIFY, tls_skip_verify
}

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
