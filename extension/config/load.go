package config

import (
	"cmp"
	"os"
	"slices"
	"strings"
)

// Source is where the configuration comes from.
type Source struct {
	Environ    []string                     // os.Environ(); of a name given twice the first counts, as for os.Getenv
	ReadFile   func(string) ([]byte, error) // reads the configuration file; nil: os.ReadFile
	ConfigFile string                       // -config; empty: THAW_CONFIG
	Azure      *AzureSupport                // ForAzure() in thaw-azure; nil in others, which refuse what is for Azure
	NoListener bool                         // the program serves nothing: listeners are left out, and no address points back at one
}

// Load reads everything the process was told. Its warnings are for one WARN
// line each.
//
// The error, if any, is a *Problems with everything that is wrong. The Config
// that comes with it is fit for its Platform and LogLevel only, so that the
// process can report the error where it runs.
func Load(src Source) (Config, []Warning, error) {
	l := &loader{mute: src.NoListener, azure: src.Azure, env: make(map[string]string, len(src.Environ)), bad: map[string]bool{}}
	l.rows = table(&l.d, src.Azure)
	l.readEnviron(src.Environ)

	l.d.StaticCache, l.d.OwnToken = true, OwnTokenFill
	for i := range l.rows {
		l.apply(&l.rows[i], place{Name: l.rows[i].Name}, l.rows[i].Default)
	}
	if path := cmp.Or(src.ConfigFile, l.env["THAW_CONFIG"]); path != "" {
		read := src.ReadFile
		if read == nil {
			read = os.ReadFile
		}
		fileReader{l}.readFile(path, read)
	}
	for i := range l.rows {
		l.apply(&l.rows[i], place{Name: l.rows[i].Name}, l.env[l.rows[i].Name])
	}
	l.refuseAzure()
	l.checkNames()

	l.resolvePlatform()
	l.resolveListeners()
	l.resolveOrigin()
	l.resolveProxy()
	if l.azure != nil {
		l.azure.resolve(l)
	}
	loginResolver{l}.resolveAuth()
	l.resolveFiles()
	l.resolveShared()
	l.checkAll()

	if len(l.problems) > 0 {
		return l.d.Config, l.warnings, &Problems{list: l.problems}
	}
	return l.d.Config, l.warnings, nil
}

// loader is one run of Load.
type loader struct {
	rows     []Setting
	mute     bool              // see Source.NoListener
	azure    *AzureSupport     // see Source.Azure
	env      map[string]string // trimmed; without empty ones
	names    []string          // of the environment, in order, empty ones too
	d        draft
	file     file
	problems []error
	warnings []Warning
	bad      map[string]bool // names of settings and keys that were refused
}

// draft is a Config while it is put together, with what a Config doesn't keep. A
// field without a name is only looked at here, and read from the environment once
// everything is known.
type draft struct {
	Config

	// The addresses of the cluster's nodes. Wins over `VLE_VAULT_ADDR` and `VAULT_ADDR`.
	_ string `env:"THAW_VAULT_ADDRS addresses, comma-separated"`
	// Vault's address for thaw alone. `VAULT_ADDR` may then point the function's own client at thaw. Wins over
	// `VAULT_ADDR`.
	_ string `env:"VLE_VAULT_ADDR http(s)://host[:port][/base] or unix:///path"`
	// Vault's address. This, `VLE_VAULT_ADDR` or `THAW_VAULT_ADDRS` is required.
	_ string `env:"VAULT_ADDR http(s)://host[:port][/base] or unix:///path"`
	// Further addresses of the same cluster that answer reads. Needs `THAW_READS=standby`.
	_ string `env:"THAW_VAULT_READ_ADDRS addresses, comma-separated"`
	// HTTP proxy for requests to Vault, whatever `NO_PROXY` says.
	_ Secret `env:"VAULT_PROXY_ADDR address"`
	// Older name of `VAULT_PROXY_ADDR`, which wins.
	_ Secret `env:"VAULT_HTTP_PROXY address"`
	// HTTP proxy for https requests. Lower case works too.
	_ Secret `env:"HTTPS_PROXY address"`
	// HTTP proxy for http requests. Lower case works too.
	_ Secret `env:"HTTP_PROXY address"`
	// Hosts that are reached without `HTTPS_PROXY` and `HTTP_PROXY`. Lower case works too.
	_ string `env:"NO_PROXY hosts, comma-separated"`
	// Vault Proxy's configuration file, HCL or JSON. Variables win over it.
	_ string `env:"THAW_CONFIG file"`
	// Require the header `X-Vault-Request: true`, as Vault Proxy's `require_request_header`. Default: what the
	// configuration file says, else false.
	RequireHeader bool `env:"THAW_REQUIRE_REQUEST_HEADER"`
	// Whether a `THAW_` variable that this version does not know is an error. `warn` only logs a WARN, so that
	// an older version starts with a newer version's settings.
	WarnUnknown bool `env:"THAW_UNKNOWN=error error or warn"`
	// Secret to write to a file. `VAULT_SECRET_PATH_<NAME>` names more of them.
	_ string `env:"VAULT_SECRET_PATH API path"`
	// The file, by default `/tmp/vault/secret.json`. A relative path is below `/tmp/vault`.
	// `VAULT_SECRET_FILE_<NAME>` names the file of `VAULT_SECRET_PATH_<NAME>`.
	_ string `env:"VAULT_SECRET_FILE file"`
	// The same, where `AWS_REGION` is unset.
	DefaultRegion string `lambda:"AWS_DEFAULT_REGION region"`
	// Where a container gets credentials, below http://169.254.170.2. Wins over the next.
	_ string `lambda:"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI path"`
	// aws: ignore the `AWS_ENDPOINT_URL` variables.
	IgnoreEndpoints bool `env:"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"`
	// The same, of old.
	LegacyPort int `functions:"FUNCTIONS_HTTPWORKER_PORT port"`
	// Set in Container Apps.
	_ string `functions:"MANAGED_ENVIRONMENT word"`
}

func (l *loader) readEnviron(environ []string) {
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		if _, seen := l.env[name]; seen || !ok || name == "" {
			continue
		}
		l.names = append(l.names, name)
		l.env[name] = strings.TrimSpace(value)
	}
}

// isSet reports whether the environment has name.
func (l *loader) isSet(name string) bool { return l.env[name] != "" }

// firstSet gives the first of names that the environment has, or "".
func (l *loader) firstSet(names ...string) string {
	if i := slices.IndexFunc(names, l.isSet); i >= 0 {
		return names[i]
	}
	return ""
}

// value is what the environment has of a setting, unless it was refused.
func (l *loader) value(name string) string {
	if l.bad[name] {
		return ""
	}
	return l.env[name]
}

// good reports whether none of the settings was refused.
func (l *loader) good(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return l.bad[name] })
}

// row finds a setting, which there is.
func (l *loader) row(name string) *Setting {
	return &l.rows[slices.IndexFunc(l.rows, func(s Setting) bool { return s.Name == name })]
}

// at is where the value of a setting stands: its variable, or the file's key.
func (l *loader) at(name string) place {
	if at, ok := l.file.at[name]; ok && !l.isSet(name) {
		return at
	}
	return place{Name: name}
}

// apply parses value, if there is one, into the draft, and reports what the
// setting refuses.
func (l *loader) apply(row *Setting, at place, value string) {
	if value == "" || row.Azure && l.azure == nil {
		return
	}
	if at.File != "" {
		l.file.at[row.Name] = at
	}
	if err := assign(row.to, row.Type, value); err != nil {
		if row.Secret {
			value = ""
		}
		l.refuse(at, value, err.Error()+"; allowed: "+row.Type)
	}
}

// refuse records a problem with the value that stands at a place. The value is
// shown where it may be.
func (l *loader) refuse(at place, value, message string) {
	l.bad[at.Name] = true
	l.problem(at, shown(value), message)
}

// check refuses the value if there is an error, and reports whether there is none.
//
//go:noinline
func (l *loader) check(at place, value string, err error) bool {
	if err != nil {
		l.refuse(at, value, err.Error())
	}
	return err == nil
}

// wrong records a problem with a setting, or with what it goes with.
func (l *loader) wrong(name, message string) { l.problem(l.at(name), "", message) }

func (l *loader) problem(at place, value, message string) {
	l.problems = append(l.problems, &Problem{at, value, message})
}

// wrongIf is wrong, if it is so.
//
//go:noinline
func (l *loader) wrongIf(is bool, name, message string) {
	if is {
		l.wrong(name, message)
	}
}

func (l *loader) warn(message string) { l.warnings = append(l.warnings, Warning{Message: message}) }

// warnIf is warn, if it is so.
//
//go:noinline
func (l *loader) warnIf(is bool, message string) {
	if is {
		l.warn(message)
	}
}

// together reports a client certificate without its key, or a key without its
// certificate. The last two are their names for the remedy.
func (l *loader) together(cert, key string, hasCert, hasKey bool, setCert, setKey string) {
	l.wrongIf(hasCert && !hasKey && l.good(key), cert, "a client certificate needs its key; set "+setKey)
	l.wrongIf(hasKey && !hasCert && l.good(cert), key, "a key without its client certificate; set "+setCert)
}
