// Package config turns the environment and Vault Proxy's HCL file into one
// Config, and names every problem it finds in one error.
//
// A field says all of its setting: its comment what it means, its tag the
// variable, the default and what is allowed (see Setting), its type how it is read.
// What the type cannot say is in parsers. Load parses the defaults, then the file,
// then the environment, each in those same ways and each over what came before.
// What has several names or needs other settings to be judged (addresses, login,
// listeners, files) is put together at the end, and the whole is checked for
// contradictions.
//
// The environment is handed in by main; nothing here or elsewhere calls
// os.Getenv. Where a setting has several names the first one set wins, in the
// order THAW_, VLE_, VAULT_, file, default. A variable that is empty or all
// blanks counts as not set.
package config

import (
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// Config is everything the process was told. It is parsed once and passed by
// value. Secret-bearing fields are of type Secret, which never prints itself. The
// comments on settings are the documentation's text (pages_test.go). VAULT_ names
// and their meaning are those of vault/api
// (https://developer.hashicorp.com/vault/docs/commands#environment-variables),
// those of the shared cache without THAW_ those of Akeyless' Gateway
// (https://docs.akeyless.io/docs/gateway-proactive-caching).
type Config struct {
	// How Vault is reached.

	Addrs     []string // THAW_VAULT_ADDRS, VLE_VAULT_ADDR, VAULT_ADDR, vault.address. Each "http(s)://host:port[/base]" or "unix:///path"; the base path is kept
	AddrsFrom string   // the variable, or the key of the file, that Addrs come from: for messages
	ReadAddrs []string // THAW_VAULT_READ_ADDRS, likewise: further nodes of the cluster, under StandbyReads

	// Look up SRV records (`_http._tcp`) of an address that has no port. Each record is a node.
	SRVLookup bool `env:"VAULT_SRV_LOOKUP=false"`
	// Which nodes answer reads. `standby` uses nodes that serve reads from a copy, the quicker ones more
	// often. A copy may lag.
	StandbyReads bool `env:"THAW_READS=active active or standby"` // not under ActiveOnly
	// Find the active node, even behind one address, and send everything there. Wins over `THAW_READS`.
	ActiveOnly bool `env:"THAW_DISABLE_PERFORMANCE_STANDBY=false"`
	// Namespace of thaw's own login and files, and of requests that name none.
	Namespace string `env:"VAULT_NAMESPACE namespace path"` // vault.namespace; without slashes at either end; empty: root
	TLS       TLS
	// Headers sent with every request to Vault.
	Headers http.Header `env:"VAULT_HEADERS JSON object of strings"`
	// Longest time for one request to Vault, retries included. `0` means the default.
	ClientTimeout time.Duration `env:"VAULT_CLIENT_TIMEOUT=60s duration from 0 to 1h"`
	// How often a request that Vault did not answer is sent again.
	MaxRetries int `env:"VAULT_MAX_RETRIES=2 whole number from 0 to 100"` // vault.retry.num_retries
	// Limit on requests to Vault. `0` is no limit. The burst defaults to the rate.
	RateLimit float64   `env:"VAULT_RATE_LIMIT rate or rate:burst, in requests per second"`
	RateBurst int       // of RateLimit
	ProxyURL  ProxyFunc // HTTPS_PROXY, HTTP_PROXY, NO_PROXY, VAULT_PROXY_ADDR/VAULT_HTTP_PROXY; nil: direct
	EnvProxy  ProxyFunc // HTTPS_PROXY, HTTP_PROXY, NO_PROXY alone: for calls to anything but the origin (STS); nil: direct
	// Longest time for a TCP connect, and again for the TLS handshake.
	ConnTimeout time.Duration `env:"THAW_CONNECT_TIMEOUT=1s duration from 10ms to 1m"`
	// A connection that was idle for longer is not used again. A freeze counts as idle.
	IdleConn time.Duration `env:"THAW_IDLE_CONN=30s duration from 0 to 1h"` // on the wall clock
	// Most requests to Vault at a time. Half of them, the long half, may be bodies that are still sent and
	// answers that last.
	MaxInFlight int `env:"THAW_MAX_IN_FLIGHT=64 whole number from 1 to 4096"`
	// Most requests of callers that wait until fewer are in flight. Beyond it the answer is what is cached,
	// marked as stale, or 503.
	MaxQueued int `env:"THAW_MAX_QUEUED=1024 whole number from 1 to 65536"`
	// As Vault Proxy's `enforce_consistency`. Under `always` an identity's reads see what it wrote (Vault
	// Enterprise).
	EnforceConsistency string `env:"THAW_ENFORCE_CONSISTENCY=never never or always"` // api_proxy.enforce_consistency
	// As Vault Proxy's `when_inconsistent`: what to do about a node that lags. No effect under `never`.
	WhenInconsistent string `env:"THAW_WHEN_INCONSISTENT=fail fail, retry or forward"` // api_proxy.when_inconsistent
	// Whose writes a read sees: those of this instance, or through the shared cache those of every instance of
	// the audience.
	ConsistencyScope string `env:"THAW_CONSISTENCY_SCOPE=instance instance or audience"`
	// `auto` subscribes to Vault Enterprise's events, and reads each secret again only every 30s while the
	// stream is whole.
	Events bool `env:"THAW_EVENTS=auto auto or off"`
	// How long `THAW_WHEN_INCONSISTENT=retry` waits for a node that lags before it asks the active node.
	WALWait time.Duration `env:"THAW_WAL_WAIT=2s duration from 0 to 1m"` // 0: not at all

	// How thaw gets a token of its own.

	Auth     Auth
	RoleFrom string // the variable, or the key of the file, that Auth.Role comes from or would: for messages

	// What callers may do, and what is said of it.

	// Addresses to serve on. The default adds `[::1]:8200` on hosts that have IPv6.
	Listeners []Listener `env:"THAW_LISTEN=127.0.0.1:8200 ip:port or unix:///path, comma-separated"` // or the file's listener blocks. None under RunFile
	// A secret that callers must send in the header `X-Thaw-Token`.
	LocalToken Secret `env:"THAW_LOCAL_TOKEN text"`
	// Host names to accept besides loopback ones, for listeners that are not on loopback.
	AllowedHosts []string `env:"THAW_ALLOWED_HOSTS host names, comma-separated"`
	// Longest body of a request.
	MaxBody int64 `env:"THAW_MAX_BODY=32MiB bytes from 1KiB to 1GiB"` // bytes; the default is Vault's max_request_size
	// Longest request line and headers together.
	MaxHeader int `env:"THAW_MAX_HEADER=64KiB bytes from 4KiB to 1MiB"` // bytes
	// Most connections of callers. At this number an idle connection gives way to a new one.
	MaxConns int `env:"THAW_MAX_CONNS=1024 whole number from 1 to 65536"`
	// How long a caller may take to send its request line and headers.
	HeaderTimeout time.Duration `env:"THAW_HEADER_TIMEOUT=5s duration from 100ms to 1m"`
	// Longest pause of a caller that sends or receives a body.
	BodyTimeout time.Duration `env:"THAW_BODY_TIMEOUT=30s duration from 100ms to 1h"`
	// Least number of bytes that a caller sends of a body in each second, on average, beyond
	// `THAW_BODY_TIMEOUT`. `0` is no limit.
	BodyRate  int `env:"THAW_BODY_RATE=16KiB bytes from 0 to 1GiB"` // bytes per second
	BodyBytes int // bytes of bodies on their way, together; not a setting: process.Memory says it. 0: 16 MiB
	// Processors used at a time. `0`: one in Lambda, where the function needs them more; as Go chooses
	// (`GOMAXPROCS`) under Managed Instances and elsewhere.
	MaxProcs int `env:"THAW_MAX_PROCS=0 whole number from 0 to 1024"`
	// The least level that is logged.
	LogLevel slog.Level `env:"VAULT_LOG_LEVEL=INFO TRACE, DEBUG, INFO, WARN, ERROR or OFF"` // log_level; see LevelTrace and LevelOff
	// Write metrics to standard output in CloudWatch's embedded metric format: a line for each invocation that
	// reads, for each run of the warm-up, or, where nothing freezes, for each minute with requests. `true`
	// writes ten metrics, `all` every one.
	EMF    bool `env:"THAW_EMF=false false, true or all"`
	EMFAll bool // THAW_EMF=all
	// Write a JSON line for each request to standard output: path, status, hit or miss, whose token. Vault's
	// audit log has no hits.
	AccessLog        bool     `env:"THAW_ACCESS_LOG=false"`
	OwnToken         OwnToken // use_auto_auth_token; without a file OwnTokenFill
	PrependNamespace bool     // api_proxy.prepend_configured_namespace: the configured namespace goes before the caller's

	// What is kept, for how long, and how it is kept fresh.

	StaticCache bool // cache.cache_static_secrets; true without a file
	// Memory for cached answers, at most half of `GOMEMLIMIT`. `0` turns the cache off.
	CacheBytes int64 `env:"THAW_CACHE_BYTES=16MiB bytes from 0 to 64GiB"`
	// `true`: every GET may be cached. `false`: only what a request asks for. Unset: KV secrets.
	CacheDefault CacheDefault `env:"VAULT_DEFAULT_CACHE_ENABLED true or false"`
	// Longest age of a cached answer. GETs other than KV are cached only if this is set.
	DefaultTTL time.Duration `env:"VAULT_DEFAULT_CACHE_TTL duration from 0 to 365d"` // 0: no bound on age for KV and no caching of other GETs
	// KV mounts with their version, so that thaw need not ask Vault.
	KVMounts []KVMount `env:"THAW_KV_MOUNTS path=1 or path=2, comma-separated"`
	// Paths that are never cached. `*` at the end matches any rest, `+` one segment.
	NoCachePaths []string `env:"THAW_NO_CACHE_PATHS paths, comma-separated"`
	// How long a 404 of a KV path may be cached. `0`: not at all.
	NegativeTTL time.Duration `env:"THAW_NEGATIVE_TTL=0 duration from 0 to 1d"`
	// How long cached secrets are served while Vault is down. `0`: never.
	StaleIfError time.Duration `env:"THAW_STALE_IF_ERROR=24h duration from 0 to 365d"`
	// How long thaw trusts a permission before it asks Vault again.
	RefreshInterval time.Duration `env:"THAW_CAPABILITY_REFRESH_INTERVAL=5m duration from 1ms to 30d"` // static_secret_token_capability_refresh_interval
	// When Vault cannot be asked, `optimistic` goes on serving and `pessimistic` stops.
	Pessimistic bool `env:"THAW_CAPABILITY_REFRESH_BEHAVIOR=optimistic optimistic or pessimistic"` // static_secret_token_capability_refresh_behavior
	// When cached secrets are verified: `invoke`, at each invocation; `read`, at its first read; `auto`, as
	// `invoke` while the function has read in one of its last four invocations, else as `read`; `off`, never
	// (a TTL only).
	Poll PollMode `env:"THAW_POLL=auto auto, invoke, read or off"`
	// How long a verification counts for later invocations.
	MaxAge time.Duration `env:"THAW_MAX_AGE=0 duration from 0 to 1d"`
	// How old a verification may become within an invocation.
	Recheck time.Duration `env:"THAW_RECHECK=1s duration from 10ms to 1h"`
	// How long a read waits for its verification.
	PollTimeout time.Duration `env:"THAW_POLL_TIMEOUT=500ms duration from 10ms to 1m"`
	// How many secrets are verified at a time.
	PollConcurrency int `env:"THAW_POLL_CONCURRENCY=8 whole number from 1 to 256"`
	// Secrets to read ahead, during the function's init.
	Prefetch []string `env:"THAW_PREFETCH API paths, comma-separated"` // "secret/data/app"
	// `work`: thaw connects, logs in and reads `THAW_PREFETCH` while the function starts. `off`: at the first
	// read, and `THAW_PREFETCH` at the first invocation; for functions that seldom read.
	NoInit bool `env:"THAW_INIT=work work or off"`

	// The tier that instances share, and the function that fills it.

	// Turn the shared cache on.
	CacheEnable bool `env:"CACHE_ENABLE=false"`
	// memcached nodes of the shared cache, or ElastiCache's configuration endpoint. Needs `CACHE_ENABLE=true`
	// and a key.
	Memcached         []string `env:"THAW_MEMCACHED host[:port], comma-separated, all with tls:// before them or none"` // host:port each; empty: no shared tier
	MemcachedTLS      bool     // its nodes were given with tls://
	MemcachedDiscover bool     // the one node is ElastiCache's configuration endpoint
	// Longest time for one call of memcached. A later answer counts as a miss.
	MemcachedTimeout time.Duration `env:"THAW_MEMCACHED_TIMEOUT=20ms duration from 1ms to 5s"`
	MemcachedFiles   MemcachedTLS  // what TLS with them needs besides
	// Key that seals the shared cache. Of several, the first writes and all read, which allows rotation.
	CacheKey Secret `env:"THAW_CACHE_KEY 32 bytes in base64, comma-separated"`
	// The shared cache's key as a data key of 32 bytes that a key in Azure Key Vault wrapped with
	// RSA-OAEP-256: the key's identifier with its version, `#`, and the result.
	CacheKeyVault []WrappedKey `azure:"THAW_CACHE_KEY_KEYVAULT https://NAME.vault.azure.net/keys/KEY/VERSION#BASE64, comma-separated"` // the first writes, all read
	// The key as a data key of 32 bytes that AWS KMS encrypted with the encryption context
	// `audience`=`THAW_AUDIENCE`.
	CacheKeyKMS [][]byte `env:"THAW_CACHE_KEY_KMS base64, comma-separated"` // the first writes, all read
	// Functions with the same audience and key share what is cached. Default: derived from auth mount, role
	// and function name.
	Audience string `env:"THAW_AUDIENCE name"`
	// How far the clocks of two instances may be apart.
	ClockSkew time.Duration `env:"THAW_CLOCK_SKEW=1s duration from 0 to 1m"`
	// Paths that never go to the shared cache, written as in `THAW_NO_CACHE_PATHS`.
	NoSharePaths []string `env:"THAW_NO_SHARE_PATHS paths, comma-separated"`
	// Minutes until the warm-up reads a secret again even if nothing seems to have changed. memcached keeps it
	// for `THAW_STALE_IF_ERROR` longer. Default: 60. Used only with `CACHE_ENABLE=true`.
	CacheTTL time.Duration `env:"CACHE_TTL whole number of minutes from 1 to 525600"` // 0 without CacheEnable
	Warm     Warm

	// File mode.

	// `file` only writes files, `proxy` only serves, `default` does both.
	RunMode RunMode      `env:"VAULT_RUN_MODE=default default, file or proxy"`
	Files   []SecretFile // VAULT_SECRET_PATH[_X] with VAULT_SECRET_FILE[_X]
	// Longest time for writing the files before the function starts.
	FileTimeout time.Duration `env:"THAW_FILE_TIMEOUT=5s duration from 100ms to 10m"`
	// Start the function even if a file cannot be written.
	FileOptional bool `env:"THAW_FILE_OPTIONAL=false"`

	Platform Platform // where the process runs
}

// Warm is the warm-up function's part.
type Warm struct {
	// Turn the warm-up on.
	Enable bool `env:"PROACTIVE_CACHE_ENABLE=false"`
	// Use the recommended implementation, with configurable workers and one backoff for all. Without it, five
	// workers ignore Vault's rate limit.
	Recommended bool `env:"NEW_PROACTIVE_CACHE_ENABLE=false"` // false: the legacy implementation
	// Secrets that the warm-up reads at a time.
	Workers int `env:"PROACTIVE_CACHE_WORKERS=3 whole number from 1 to 64"` // of the recommended implementation
	// Minutes between two searches for changed secrets. `0`: every run.
	FetchEvery time.Duration `env:"PROACTIVE_CACHE_MINIMUM_FETCHING_TIME=5 whole number from 0 to 525600"`
	// Minutes between sealed backups to `THAW_DUMP`. Only without `NEW_PROACTIVE_CACHE_ENABLE`.
	DumpEvery time.Duration `env:"PROACTIVE_CACHE_DUMP_INTERVAL whole number from 1 to 525600"` // 0: no backup is written
	// Where backups go. The warm-up restores one when memcached is empty and Vault is down.
	Dump string `env:"THAW_DUMP file, s3://bucket/key or, in thaw-azure, https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB"` // empty: none
	// Mounts and folders to warm for `THAW_AUDIENCE`. `*`: every KV secret that the warm-up's identity may
	// read, which all functions of that audience then share.
	Paths []string `env:"THAW_WARM_PATHS prefixes, comma-separated"` // for Config.Audience and Config.Namespace
	// Several audiences instead of one, each with its prefixes and, unless it is `THAW_CACHE_KEY`, its key.
	Audiences []WarmAudience `env:"THAW_WARM_AUDIENCES JSON list of {\"audience\",\"namespace\",\"paths\",\"key\"}"` // instead of Paths
	// How long a scheduled run goes on to keep verifications in the shared cache young. Needs `THAW_MAX_AGE`
	// above `THAW_CLOCK_SKEW`. `0`: it ends when its work is done.
	For time.Duration `env:"THAW_WARM_FOR=0 duration from 0 to 1h"`
	// Store only secrets that some function of the audience is known to be allowed to read.
	ConfirmedOnly bool `env:"THAW_WARM_CONFIRMED_ONLY=false"`
	// Name of the timer function that runs the warm-up. Your handler never sees its invocations.
	Function string `azure:"THAW_WARM_FUNCTION=ThawWarmup function name"` // empty in other programs
}

// WarmAudience is one audience that the warm-up serves.
type WarmAudience struct {
	Audience  string
	Namespace string   // without slashes at either end; empty: root
	Paths     []string // prefixes: "secret/", "kv/app/"
	Key       Secret   // as Config.CacheKey; empty: that one
}

// MemcachedTLS is what TLS with memcached needs where its certificates are not
// the public ones of its own name.
type MemcachedTLS struct {
	// PEM file of the CA that signed the nodes' certificates. Default: the system's.
	CACert string `env:"THAW_MEMCACHED_CACERT file"`
	// Name in the nodes' certificates. Default: the node's host.
	ServerName string `env:"THAW_MEMCACHED_TLS_SERVER_NAME name"`
	// PEM file of the client certificate shown to the nodes.
	ClientCert string `env:"THAW_MEMCACHED_CLIENT_CERT file"`
	// PEM file of that certificate's key.
	ClientKey string `env:"THAW_MEMCACHED_CLIENT_KEY file"`
}

// TLS says how the origin is verified; the fields are vault/api's variables
// and Vault Proxy's vault block.
type TLS struct {
	// PEM file of the CA that signed Vault's certificate. Wins over `VAULT_CACERT_BYTES` and `VAULT_CAPATH`.
	CACert string `env:"VAULT_CACERT file"` // ca_cert
	// The CA as PEM text instead of a file. Wins over `VAULT_CAPATH`.
	CACertPEM string `env:"VAULT_CACERT_BYTES PEM text"`
	// Directory with the PEM files of CAs.
	CAPath string `env:"VAULT_CAPATH directory"` // ca_path
	// PEM file of the client certificate shown to Vault.
	ClientCert string `env:"VAULT_CLIENT_CERT file"` // client_cert
	// PEM file of that certificate's key.
	ClientKey string `env:"VAULT_CLIENT_KEY file"` // client_key
	// Name expected in Vault's certificate. Default: the address's host.
	ServerName string `env:"VAULT_TLS_SERVER_NAME host name"` // tls_server_name
	// Don't verify Vault's certificate. Anyone in between can then read every secret.
	SkipVerify bool `env:"VAULT_SKIP_VERIFY=false"` // tls_skip_verify
}

// ProxyFunc is the shape of http.Transport.Proxy.
type ProxyFunc = func(*http.Request) (proxyURL *url.URL, err error)
