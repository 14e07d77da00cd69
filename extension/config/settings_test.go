package config_test

import (
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

const pemText = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"

// variable is how one variable is used rightly and wrongly.
type variable struct {
	good string                  // a value that is not the default
	got  func(config.Config) any // what it sets
	want any                     // to what
	also []string                // what else the good value needs
	lone bool                    // the good value must not stand beside VAULT_ADDR
	bad  []string                // values that are refused

	azure bool // it is thaw-azure's
}

func variables() map[string]variable {
	type cfg = config.Config
	role := "VAULT_AUTH_ROLE=r"
	lambda := "AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001"
	durations := []string{"x", "-1", "-5s", "1d2h", "5 m", "99999999999999999999", "9999999999999", "300000d", "1e9h", "٣"}
	numbers := []string{"x", "-1", "1.5", "0x10", "99999999999999999999", "1000000"}
	sizes := []string{"x", "-1", "1.5MiB", "16MB", "9999999999GiB", "99999999999999999999", "1TiB", "MiB"}
	bools := []string{"x", "yes", "2", "tru"}
	line := []string{"a\x01b", "a\nb", strings.Repeat("x", 5000), "\xff"}
	all := map[string]variable{
		"THAW_VAULT_ADDRS": {good: "https://a:1, https://b:1/base/,https://a:1", got: func(c cfg) any { return c.Addrs }, want: []string{"https://a:1", "https://b:1/base"},
			bad: []string{"a:1", "https://a:1,b", "https://a,http://b", "https://u:p@a", "https://a?x=1"}},
		"VLE_VAULT_ADDR": {good: "HTTPS://Vault:1/v1/", got: func(c cfg) any { return c.Addrs }, want: []string{"https://vault:1"},
			bad: []string{"vault", "vault:8200", "ftp://vault", "https://", "https://vault:99999", "https://vault:", "https://:8200", "https://user:pw@vault", "https://vault?a=b", "https://vault#x", "https://va ult", "https://vault/a/../b", "https://vault/%2e%2e/b", "https://vault/a//b", "unix://relative", "unix:///dir/", "https://[::1", "https://vault_\x01", "https://müller.example"}},
		"VAULT_ADDR": {good: "unix:///run/vault.sock", got: func(c cfg) any { return c.Addrs }, want: []string{"unix:///run/vault.sock"}, lone: true,
			bad: []string{"http//vault", "https://-vault", "http://127.0.0.1:8200", "https://@vault"}},
		"VAULT_NAMESPACE":       {good: "/team/a/", got: func(c cfg) any { return c.Namespace }, want: "team/a", bad: []string{"a/../b", "a//b", "a?b", "a\\b", "a\x01"}},
		"VAULT_CACERT":          {good: "/ca", got: func(c cfg) any { return c.TLS.CACert }, want: "/ca", bad: line},
		"VAULT_CACERT_BYTES":    {good: pemText, got: func(c cfg) any { return c.TLS.CACertPEM }, want: pemText, bad: []string{"x", "-----BEGIN PRIVATE KEY-----"}},
		"VAULT_CAPATH":          {good: "/ca", got: func(c cfg) any { return c.TLS.CAPath }, want: "/ca", bad: line},
		"VAULT_CLIENT_CERT":     {good: "/c", got: func(c cfg) any { return c.TLS.ClientCert }, want: "/c", also: []string{"VAULT_CLIENT_KEY=/k"}, bad: line},
		"VAULT_CLIENT_KEY":      {good: "/k", got: func(c cfg) any { return c.TLS.ClientKey }, want: "/k", also: []string{"VAULT_CLIENT_CERT=/c"}, bad: line},
		"VAULT_TLS_SERVER_NAME": {good: "v", got: func(c cfg) any { return c.TLS.ServerName }, want: "v", bad: line},
		"VAULT_SKIP_VERIFY":     {good: "True", got: func(c cfg) any { return c.TLS.SkipVerify }, want: true, bad: bools},
		"VAULT_HEADERS": {good: `{"x-one":"1","X-Two":""}`, got: func(c cfg) any { return fmt.Sprint(c.Headers) }, want: "map[X-One:[1] X-Two:[]]",
			bad: []string{"x", "[]", "null", `{"a":1}`, `{"a":null}`, `{"x-vault-token":"t"}`, `{"X-Vault-Namespace":"t"}`, `{"a b":"c"}`, `{"a":"b\nc"}`, `{"":"x"}`, `{"Host":"x"}`, `{"content-length":"1"}`, `{"Authorization":"Bearer x"}`, `{"a":"b"} {}`, `{"x-thaw-token":"x"}`}},
		"VAULT_CLIENT_TIMEOUT": {good: "90", got: func(c cfg) any { return c.ClientTimeout }, want: 90 * time.Second, bad: durations},
		"VAULT_MAX_RETRIES":    {good: "0", got: func(c cfg) any { return c.MaxRetries }, want: 0, bad: numbers},
		"THAW_VAULT_READ_ADDRS": {good: "https://r1:8200,https://r2:8200", got: func(c cfg) any { return c.ReadAddrs }, want: []string{"https://r1:8200", "https://r2:8200"},
			also: []string{"THAW_READS=standby"}, bad: []string{"r1:8200", "https://user@r1"}},
		"VAULT_SRV_LOOKUP":                 {good: "true", got: func(c cfg) any { return c.SRVLookup }, want: true, bad: bools},
		"THAW_READS":                       {good: "Standby", got: func(c cfg) any { return c.StandbyReads }, want: true, bad: []string{"standbys", "any"}},
		"THAW_DISABLE_PERFORMANCE_STANDBY": {good: "1", got: func(c cfg) any { return c.ActiveOnly }, want: true, bad: bools},
		"VAULT_RATE_LIMIT": {good: "2.5:7", got: func(c cfg) any { return fmt.Sprint(c.RateLimit, c.RateBurst) }, want: "2.5 7",
			bad: []string{"x", "-1", "NaN", "Inf", "1:x", "1:0", "1:-1", "1e9", "1:2:3"}},
		"VAULT_PROXY_ADDR":         {good: "http://u:p@p:1", got: func(c cfg) any { return c.ProxyURL != nil }, want: true, bad: []string{"ftp://p", "http://", "http://p:99999", "http://p/x", "a b"}},
		"VAULT_HTTP_PROXY":         {good: "http://p:1", got: func(c cfg) any { return c.ProxyURL != nil }, want: true, bad: []string{"ftp://p", "http://", "http://p:99999"}},
		"HTTPS_PROXY":              {good: "http://p:1", got: func(c cfg) any { return c.EnvProxy != nil }, want: true, bad: []string{"ftp://p", "http://", "http://p:99999"}},
		"HTTP_PROXY":               {good: "p:1", got: func(c cfg) any { return c.EnvProxy != nil }, want: true, bad: []string{"ftp://p", "http://", "http://p:99999"}},
		"NO_PROXY":                 {good: "*", got: func(c cfg) any { return c.EnvProxy == nil }, want: true, bad: line},
		"THAW_CONNECT_TIMEOUT":     {good: "250ms", got: func(c cfg) any { return c.ConnTimeout }, want: 250 * time.Millisecond, bad: append(durations, "0", "1ms", "2m")},
		"THAW_IDLE_CONN":           {good: "0", got: func(c cfg) any { return c.IdleConn }, want: time.Duration(0), bad: durations},
		"THAW_MAX_IN_FLIGHT":       {good: "1", got: func(c cfg) any { return c.MaxInFlight }, want: 1, bad: append(numbers, "0")},
		"THAW_MAX_QUEUED":          {good: "1", got: func(c cfg) any { return c.MaxQueued }, want: 1, bad: append(numbers, "0")},
		"THAW_BODY_RATE":           {good: "1 KiB", got: func(c cfg) any { return c.BodyRate }, want: 1 << 10, bad: sizes},
		"THAW_MAX_PROCS":           {good: "2", got: func(c cfg) any { return c.MaxProcs }, want: 2, bad: append(numbers, "-1")},
		"THAW_ENFORCE_CONSISTENCY": {good: "Always", got: func(c cfg) any { return c.EnforceConsistency }, want: "always", bad: []string{"alway", "true"}},
		"THAW_CONSISTENCY_SCOPE":   {good: "Audience", got: func(c cfg) any { return c.ConsistencyScope }, want: "audience", also: []string{"CACHE_ENABLE=true", "THAW_MEMCACHED=127.0.0.1:11211", "THAW_CACHE_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}, bad: []string{"function", "true"}},
		"THAW_EVENTS":              {good: "Off", got: func(c cfg) any { return c.Events }, want: false, bad: []string{"on", "false"}},
		"THAW_WAL_WAIT":            {good: "500ms", got: func(c cfg) any { return c.WALWait }, want: 500 * time.Millisecond, bad: append(durations, "61s")},
		"THAW_WHEN_INCONSISTENT":   {good: "Retry", got: func(c cfg) any { return c.WhenInconsistent }, want: "retry", bad: []string{"retr", "wait"}},

		"THAW_AUTH_METHOD":                {good: "Token", got: func(c cfg) any { return c.Auth.Method }, want: config.AuthToken, also: []string{"VAULT_TOKEN=t"}, bad: []string{"aw", "kubernetes", "azure", "token-file"}},
		"VAULT_AUTH_PROVIDER":             {good: "/auth/aws/prod/", got: func(c cfg) any { return c.Auth.Mount }, want: "aws/prod", also: []string{role, lambda}, bad: []string{"/", "auth", "auth/", "a/../b", "a?b", "a//b"}},
		"VAULT_AUTH_ROLE":                 {good: "r", got: func(c cfg) any { return c.Auth.Role }, want: "r", also: []string{lambda}, bad: line},
		"VAULT_IAM_SERVER_ID":             {good: "v", got: func(c cfg) any { return c.Auth.ServerID }, want: "v", bad: []string{"a\nb", "ü"}},
		"VAULT_STS_ENDPOINT_REGION":       {good: "eu-west-1", got: func(c cfg) any { return c.Auth.STSRegion }, want: "eu-west-1", bad: []string{"EU", "a.b", "evil.example/", "a b", "-a"}},
		"VAULT_ASSUMED_ROLE_ARN":          {good: "arn:aws:iam::1:role/x", got: func(c cfg) any { return c.Auth.AssumeRole }, want: "arn:aws:iam::1:role/x", bad: []string{"x", "arn:aws:iam::1:user/x", "arn:aws:iam::1:role/"}},
		"THAW_ROLE_ID":                    {good: "r", got: func(c cfg) any { return c.Auth.RoleID }, want: "r", also: []string{"THAW_AUTH_METHOD=approle"}, bad: line},
		"THAW_ROLE_ID_FILE":               {good: "/r", got: func(c cfg) any { return c.Auth.RoleIDFile }, want: "/r", also: []string{"THAW_AUTH_METHOD=approle"}, bad: line},
		"THAW_SECRET_ID":                  {good: "s", got: func(c cfg) any { return c.Auth.SecretID }, want: config.Secret("s"), also: []string{"THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=r"}, bad: []string{"a\nb", "ü"}},
		"THAW_SECRET_ID_FILE":             {good: "/s", got: func(c cfg) any { return c.Auth.SecretFile }, want: "/s", also: []string{"THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=r"}, bad: line},
		"THAW_JWT_FILE":                   {good: "/j", got: func(c cfg) any { return c.Auth.JWTFile }, want: "/j", also: []string{"THAW_AUTH_METHOD=jwt"}, bad: line},
		"VAULT_TOKEN":                     {good: "t", got: func(c cfg) any { return c.Auth.Token }, want: config.Secret("t"), bad: []string{"a\nb", "ü"}},
		"THAW_TOKEN_FILE":                 {good: "/t", got: func(c cfg) any { return c.Auth.TokenFile }, want: "/t", also: []string{"THAW_AUTH_METHOD=token_file"}, bad: line},
		"VAULT_TOKEN_EXPIRY_GRACE_PERIOD": {good: "1m", got: func(c cfg) any { return c.Auth.ExpiryGrace }, want: time.Minute, bad: durations},

		"THAW_CONFIG": {}, // its own tests
		"THAW_LISTEN": {good: "127.0.0.1:0,[::1]:0,localhost:9,unix:///run/t.sock", got: func(c cfg) any { return fmt.Sprint(c.Listeners) },
			want: fmt.Sprint([]config.Listener{{Network: "tcp", Address: "127.0.0.1:0"}, {Network: "tcp", Address: "[::1]:0"}, {Network: "tcp", Address: "localhost:9"}, {Network: "unix", Address: "/run/t.sock"}}),
			bad:  []string{"8200", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "vault.example:1", "http://127.0.0.1:1", "unix://x", "unix:///", ",", "127.0.0.1:1,127.0.0.1:1", "[::1:1"}},
		"THAW_REQUIRE_REQUEST_HEADER": {good: "1", got: func(c cfg) any { return c.Listeners[0].RequireRequestHeader && c.Listeners[1].RequireRequestHeader }, want: true, bad: bools},
		"THAW_LOCAL_TOKEN":            {good: "0123456789abcdef", got: func(c cfg) any { return c.LocalToken }, want: config.Secret("0123456789abcdef"), bad: []string{"a\nb", "ü"}},
		"THAW_ALLOWED_HOSTS":          {good: "Thaw.Internal., 10.0.0.1,[fd00::1]", got: func(c cfg) any { return c.AllowedHosts }, want: []string{"thaw.internal", "10.0.0.1", "fd00::1"}, bad: []string{"http://a", "a:1", "*", "a b", "a,,-"}},
		"THAW_MAX_BODY":               {good: "1 MiB", got: func(c cfg) any { return c.MaxBody }, want: int64(1 << 20), bad: append(sizes, "0")},
		"THAW_MAX_HEADER":             {good: "8k", got: func(c cfg) any { return c.MaxHeader }, want: 8 << 10, bad: append(sizes, "0")},
		"THAW_MAX_CONNS":              {good: "5", got: func(c cfg) any { return c.MaxConns }, want: 5, bad: append(numbers, "0")},
		"THAW_HEADER_TIMEOUT":         {good: "1s", got: func(c cfg) any { return c.HeaderTimeout }, want: time.Second, bad: append(durations, "0")},
		"THAW_BODY_TIMEOUT":           {good: "1s", got: func(c cfg) any { return c.BodyTimeout }, want: time.Second, bad: append(durations, "0")},
		"VAULT_LOG_LEVEL":             {good: "warn", got: func(c cfg) any { return c.LogLevel }, want: slog.LevelWarn, bad: []string{"loud", "warm"}},
		"THAW_EMF":                    {good: "TRUE", got: func(c cfg) any { return c.EMF }, want: true, bad: append(bools, "al", "main")},
		"THAW_UNKNOWN":                {good: "Warn", got: func(cfg) any { return nil }, bad: []string{"off", "false"}},
		"THAW_ACCESS_LOG":             {good: "true", got: func(c cfg) any { return c.AccessLog }, want: true, bad: bools},

		"THAW_CACHE_BYTES":                 {good: "1GiB", got: func(c cfg) any { return c.CacheBytes }, want: int64(1 << 30), bad: sizes},
		"VAULT_DEFAULT_CACHE_ENABLED":      {good: "False", got: func(c cfg) any { return c.CacheDefault }, want: config.CacheNone, bad: bools},
		"VAULT_DEFAULT_CACHE_TTL":          {good: "1d", got: func(c cfg) any { return c.DefaultTTL }, want: 24 * time.Hour, bad: durations},
		"THAW_KV_MOUNTS":                   {good: "secret=2, /a/kv/ = 1", got: func(c cfg) any { return c.KVMounts }, want: []config.KVMount{{Path: "secret", Version: 2}, {Path: "a/kv", Version: 1}}, bad: []string{"secret", "secret=3", "=2", "a=1,a=2", "a/../b=1", "a//b=1"}},
		"THAW_NO_CACHE_PATHS":              {good: "/v1/secret/data/a, secret/+/b/*,pki/*,*", got: func(c cfg) any { return c.NoCachePaths }, want: []string{"secret/data/a", "secret/+/b/*", "pki/*", "*"}, bad: []string{"a/*/b", "a+/b", "a/../b", "a//b", "a?b", "**"}},
		"THAW_NEGATIVE_TTL":                {good: "5s", got: func(c cfg) any { return c.NegativeTTL }, want: 5 * time.Second, bad: durations},
		"THAW_STALE_IF_ERROR":              {good: "0", got: func(c cfg) any { return c.StaleIfError }, want: time.Duration(0), bad: durations},
		"THAW_CAPABILITY_REFRESH_INTERVAL": {good: "1m", got: func(c cfg) any { return c.RefreshInterval }, want: time.Minute, bad: append(durations, "0", "10us")},
		"THAW_CAPABILITY_REFRESH_BEHAVIOR": {good: "Pessimistic", got: func(c cfg) any { return c.Pessimistic }, want: true, bad: []string{"pessimist", "x"}},
		"THAW_POLL":                        {good: "READ", got: func(c cfg) any { return c.Poll }, want: config.PollRead, bad: []string{"on", "invok"}},
		"THAW_MAX_AGE":                     {good: "90", got: func(c cfg) any { return c.MaxAge }, want: 90 * time.Second, bad: append(durations, "2d")},
		"THAW_RECHECK":                     {good: "10ms", got: func(c cfg) any { return c.Recheck }, want: 10 * time.Millisecond, bad: append(durations, "0", "9ms")},
		"THAW_INIT":                        {good: "Off", got: func(c cfg) any { return c.NoInit }, want: true, bad: []string{"on", "true", "wor"}},
		"THAW_POLL_TIMEOUT":                {good: "2s", got: func(c cfg) any { return c.PollTimeout }, want: 2 * time.Second, bad: append(durations, "0")},
		"THAW_POLL_CONCURRENCY":            {good: "3", got: func(c cfg) any { return c.PollConcurrency }, want: 3, bad: append(numbers, "0")},
		"THAW_PREFETCH":                    {good: "/v1/secret/data/a,/secret/data/b,secret/data/a", got: func(c cfg) any { return c.Prefetch }, want: []string{"secret/data/a", "secret/data/b"}, bad: []string{"a/*", "a/+/b", "a/../b", "a?version=1", "/"}},

		"VAULT_RUN_MODE":     {good: "PROXY", got: func(c cfg) any { return c.RunMode }, want: config.RunProxy, bad: []string{"flie", "both"}},
		"VAULT_SECRET_PATH":  {good: "/kv/data/a", got: func(c cfg) any { return c.Files }, want: []config.SecretFile{{Path: "kv/data/a", File: "/tmp/vault/secret.json", Var: "VAULT_SECRET_PATH"}}, bad: []string{"a/../b", "a//b", "/", "a?b", "a\x01"}},
		"VAULT_SECRET_FILE":  {good: "x/y.json", got: func(c cfg) any { return c.Files }, want: []config.SecretFile{{Path: "kv/data/a", File: "/tmp/vault/x/y.json", Var: "VAULT_SECRET_PATH"}}, also: []string{"VAULT_SECRET_PATH=kv/data/a"}, bad: []string{"../x", "a/", "a\x01", "/", "..", "."}},
		"THAW_FILE_TIMEOUT":  {good: "1s", got: func(c cfg) any { return c.FileTimeout }, want: time.Second, bad: append(durations, "0")},
		"THAW_FILE_OPTIONAL": {good: "t", got: func(c cfg) any { return c.FileOptional }, want: true, bad: bools},

		"AWS_LAMBDA_RUNTIME_API":                 {good: "h:1", got: func(c cfg) any { return c.Platform.Lambda }, want: true, bad: line},
		"AWS_LAMBDA_INITIALIZATION_TYPE":         {good: "snap-start", got: func(c cfg) any { return c.Platform.InitType }, want: config.InitSnapStart, bad: line},
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE":        {good: "128", got: func(c cfg) any { return c.Platform.MemoryMB }, want: 128, bad: append(numbers, "-1")},
		"AWS_LAMBDA_FUNCTION_NAME":               {good: "f", got: func(c cfg) any { return c.Platform.FunctionName }, want: "f", bad: line},
		"AWS_REGION":                             {good: "eu-west-1", got: func(c cfg) any { return c.Platform.Region }, want: "eu-west-1", bad: []string{"a/b", "a.b"}},
		"AWS_DEFAULT_REGION":                     {good: "eu-west-2", got: func(c cfg) any { return c.Platform.Region }, want: "eu-west-2", bad: []string{"a/b"}},
		"AWS_ACCESS_KEY_ID":                      {good: "k", got: func(c cfg) any { return c.Platform.AWS.AccessKeyID }, want: "k", bad: line},
		"AWS_SECRET_ACCESS_KEY":                  {good: "k", got: func(c cfg) any { return c.Platform.AWS.SecretAccessKey }, want: config.Secret("k"), bad: []string{"a\nb"}},
		"AWS_SESSION_TOKEN":                      {good: "k", got: func(c cfg) any { return c.Platform.AWS.SessionToken }, want: config.Secret("k"), bad: []string{"a\nb"}},
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": {good: "/x", got: func(c cfg) any { return c.Platform.AWS.CredentialsURI }, want: "http://169.254.170.2/x", bad: []string{"x", "@evil"}},
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     {good: "http://127.0.0.1:1/x", got: func(c cfg) any { return c.Platform.AWS.CredentialsURI }, want: "http://127.0.0.1:1/x", bad: []string{"http://example.com/x", "ftp://127.0.0.1", "x", "http://u@127.0.0.1/", "http://169.254.169.254/"}},
		"AWS_CONTAINER_AUTHORIZATION_TOKEN":      {good: "k", got: func(c cfg) any { return c.Platform.AWS.CredentialsAuth }, want: config.Secret("k"), bad: []string{"a\nb"}},
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": {good: "/k", got: func(c cfg) any { return c.Platform.AWS.CredentialsFile }, want: "/k", bad: line},
		"AWS_STS_REGIONAL_ENDPOINTS":             {good: "regional", got: func(c cfg) any { return c.Platform.AWS.RegionalSTS }, want: true, bad: []string{"global"}},
		"AWS_USE_FIPS_ENDPOINT":                  {good: "true", got: func(c cfg) any { return c.Platform.AWS.UseFIPS }, want: true, bad: bools},
		"AWS_ENDPOINT_URL_STS":                   {good: "http://127.0.0.1:1", got: func(c cfg) any { return c.Platform.AWS.EndpointSTS }, want: "http://127.0.0.1:1", bad: []string{"x", "unix:///x", "http://u:p@h"}},
		"AWS_ENDPOINT_URL_KMS":                   {good: "http://127.0.0.1:1", got: func(c cfg) any { return c.Platform.AWS.EndpointKMS }, want: "http://127.0.0.1:1", bad: []string{"x", "unix:///x", "http://u:p@h"}},
		"AWS_ENDPOINT_URL":                       {good: "http://127.0.0.1:2", got: func(c cfg) any { return c.Platform.AWS.EndpointSTS }, want: "http://127.0.0.1:2", bad: []string{"x"}},
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS":    {good: "true", also: []string{"AWS_ENDPOINT_URL_STS=x", "AWS_ENDPOINT_URL=x"}, got: func(c cfg) any { return c.Platform.AWS.EndpointSTS }, want: "", bad: bools},
	}
	maps.Copy(all, azureVariables())
	maps.Copy(all, sharedVariables())
	return all
}

func TestEveryVariableSetsItsField(t *testing.T) {
	t.Parallel()
	cases := variables()
	for _, s := range config.Settings(config.ForAzure()) {
		v, ok := cases[s.Name]
		if !ok {
			t.Errorf("%s has no case", s.Name)
			continue
		}
		if v.got == nil {
			continue
		}
		// Blanks around a value never matter.
		environ := append([]string{s.Name + "=  " + v.good + " "}, v.also...)
		if !v.lone {
			environ = append(environ, addr)
		}
		load := load
		if s.Azure {
			load = loadAzure
		}
		c, _, err := load("", environ...)
		if err != nil {
			t.Errorf("%s=%s: %v", s.Name, v.good, err)
			continue
		}
		if got := v.got(c); !reflect.DeepEqual(got, v.want) {
			t.Errorf("%s=%s: got %#v, want %#v", s.Name, v.good, got, v.want)
		}
		// Empty is as good as not set.
		if _, _, err := load("vault {\n address = \"https://v\"\n}", s.Name+"= "); err != nil {
			t.Errorf("%s empty: %v", s.Name, err)
		}
	}
	if len(cases) != len(config.Settings(config.ForAzure())) {
		t.Errorf("%d cases for %d settings", len(cases), len(config.Settings(config.ForAzure())))
	}
}

func TestEveryVariableRefusesNonsense(t *testing.T) {
	t.Parallel()
	for name, v := range variables() {
		if len(v.bad) == 0 && v.got != nil {
			t.Errorf("%s has no bad values", name)
		}
		for _, bad := range v.bad {
			environ := []string{name + "=" + bad}
			environ = append(environ, v.also...)
			if !strings.Contains(name, "VAULT_ADDR") {
				environ = append(environ, addr)
			}
			load := load
			if v.azure {
				load = loadAzure
			}
			_, _, err := load("", environ...)
			if err == nil {
				t.Errorf("%s=%q is taken", name, bad)
				continue
			}
			list := problems(t, err)
			if len(list) != 1 || list[0].Name != name {
				t.Errorf("%s=%q: want one problem about it, got %v", name, bad, err)
			}
		}
	}
}
