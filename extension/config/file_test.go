package config_test

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// proxyFile is a Vault Proxy configuration that uses everything thaw knows.
const proxyFile = `
vault {
  address         = "https://vault.example.com:8200/base/"
  namespace       = "/team/a/"
  ca_cert         = "/etc/ca.pem"
  ca_path         = "/etc/ca"
  client_cert     = "/etc/client.pem"
  client_key      = "/etc/client.key"
  tls_server_name = "vault"
  tls_skip_verify = "false"
  retry {
    num_retries = 5
  }
}

cache {
  cache_static_secrets = true
  static_secret_token_capability_refresh_interval = "1d"
  static_secret_token_capability_refresh_behavior = "pessimistic"
}

api_proxy {
  use_auto_auth_token = "force"
  enforce_consistency = "never"
  when_inconsistent   = "retry"
  prepend_configured_namespace = true
}

listener "tcp" {
  address       = "127.0.0.1:8100"
  tls_disable   = true
  require_request_header = true
}

listener "tcp" {
  address       = "127.0.0.1:8101"
  tls_cert_file = "/etc/cert.pem"
  tls_key_file  = "/etc/key.pem"
}

listener "unix" {
  address = "/run/thaw.sock"
}

auto_auth {
  method "aws" {
    mount_path = "auth/aws-prod/"
    namespace  = "team/b"
    config = {
      type         = "iam"
      role         = "orders"
      header_value = "vault.example.com"
      region       = "eu-west-1"
    }
  }
}

log_level = "debug"
`

// around puts a login into a file that is otherwise complete.
func around(method string) string {
	return "vault {\n  address = \"https://v\"\n}\nauto_auth {\n" + method + "\n}\n"
}

const approleMethod = `  method {
    type = "approle"
    config {
      role_id_file_path   = "/role"
      secret_id_file_path = "/secret"
      remove_secret_id_file_after_reading = false
    }
  }`

func TestFileSetsEverythingItCan(t *testing.T) {
	t.Parallel()
	c, warnings := mustLoad(t, proxyFile)
	want, _ := mustLoad(t, "", addr)
	want.Addrs, want.AddrsFrom, want.RoleFrom = []string{"https://vault.example.com:8200/base"}, "vault.address", "auto_auth.method.config.role"
	want.Namespace = "team/a"
	want.TLS = config.TLS{CACert: "/etc/ca.pem", CAPath: "/etc/ca", ClientCert: "/etc/client.pem", ClientKey: "/etc/client.key", ServerName: "vault"}
	want.MaxRetries = 5
	want.RefreshInterval, want.Pessimistic = 24*time.Hour, true
	want.OwnToken, want.WhenInconsistent, want.PrependNamespace = config.OwnTokenForce, "retry", true
	want.Listeners = []config.Listener{
		{Network: "tcp", Address: "127.0.0.1:8100", RequireRequestHeader: true},
		{Network: "tcp", Address: "127.0.0.1:8101", CertFile: "/etc/cert.pem", KeyFile: "/etc/key.pem"},
		{Network: "unix", Address: "/run/thaw.sock"},
	}
	want.Auth = config.Auth{Method: config.AuthAWS, Mount: "aws-prod", Namespace: "team/b", Role: "orders", ServerID: "vault.example.com", STSRegion: "eu-west-1",
		KeepSecret: true, ExpiryGrace: 10 * time.Second}
	want.LogLevel = slog.LevelDebug
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
}

func TestFileHasVaultProxysDefaults(t *testing.T) {
	t.Parallel()
	for what, file := range map[string]string{
		"no blocks":    "vault {\n address = \"https://v\"\n}\n",
		"empty blocks": "vault {\n address = \"https://v\"\n}\ncache {}\napi_proxy = {}\nlistener \"tcp\" {\n tls_disable = true\n}\n",
	} {
		c, _ := mustLoad(t, file)
		if c.StaticCache || c.OwnToken != config.OwnTokenNever || c.EnforceConsistency != "never" || c.WhenInconsistent != "fail" || c.RefreshInterval != 5*time.Minute || c.Pessimistic || c.MaxRetries != 2 {
			t.Errorf("%s: %+v", what, c)
		}
		if c.Listeners[0].Address != "127.0.0.1:8200" {
			t.Errorf("%s: listeners %v", what, c.Listeners)
		}
	}
}

func TestEachLoginOfTheFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method string
		want   config.Auth
	}{
		{approleMethod, config.Auth{Method: config.AuthAppRole, Mount: "approle", RoleIDFile: "/role", SecretFile: "/secret", KeepSecret: true}},
		{strings.ReplaceAll(approleMethod, "remove_", "# "), config.Auth{Method: config.AuthAppRole, Mount: "approle", RoleIDFile: "/role", SecretFile: "/secret"}},
		{strings.ReplaceAll(approleMethod, "secret_id_file_path", "# "), config.Auth{Method: config.AuthAppRole, Mount: "approle", RoleIDFile: "/role", KeepSecret: true}},
		{"method \"JWT\" {\n mount_path = \"auth/k8s\"\n config = {\n path = \"/j\"\n role = \"r\"\n}\n}", config.Auth{Method: config.AuthJWT, Mount: "k8s", JWTFile: "/j", Role: "r", KeepSecret: true}},
		{"method \"token_file\" {\n config = [{\n token_file_path = \"/t\"\n}]\n}", config.Auth{Method: config.AuthTokenFile, TokenFile: "/t", KeepSecret: true}},
		{"method = [{\n type = \"token_file\"\n config {\n token_file_path = \"/t\"\n}\n}]", config.Auth{Method: config.AuthTokenFile, TokenFile: "/t", KeepSecret: true}},
	} {
		c, _ := mustLoad(t, around(tt.method))
		tt.want.ExpiryGrace = 10 * time.Second
		if c.Auth != tt.want {
			t.Errorf("%s\ngot  %+v\nwant %+v", tt.method, c.Auth, tt.want)
		}
	}
	// Files named by variables are the function's, and kept.
	c, _ := mustLoad(t, around(strings.ReplaceAll(approleMethod, "remove_", "# ")), "THAW_SECRET_ID_FILE=/mine", "THAW_ROLE_ID=mine")
	if c.Auth.SecretFile != "/mine" || !c.Auth.KeepSecret || c.Auth.RoleID != "mine" || c.Auth.RoleIDFile != "" {
		t.Errorf("overruled: %+v", c.Auth)
	}
	// Keys written for this login are used for it, whatever the platform gives.
	c, _ = mustLoad(t, around("method \"aws\" {\n config {\n role = \"r\"\n access_key = \"AK\"\n secret_key = \"SK\"\n}\n}"), lambdaEnviron()...)
	if a := c.Platform.AWS; a.AccessKeyID != "AK" || a.SecretAccessKey != "SK" || a.SessionToken != "" {
		t.Errorf("keys of the file: %#v", a)
	}
}

func TestMisspeltKeyIsAnErrorWithFileAndLine(t *testing.T) {
	t.Parallel()
	key := regexp.MustCompile(`^\s*([a-z_]+)[ ={"]`)
	for _, file := range []string{
		proxyFile, around(approleMethod),
		around("  method \"jwt\" {\n    config = {\n      path = \"/j\"\n      remove_jwt_after_reading = false\n    }\n  }"),
		around("  method \"token_file\" {\n    config {\n      token_file_path = \"/t\"\n    }\n  }"),
		around("  method \"aws\" {\n    config {\n      role = \"r\"\n      access_key = \"k\"\n      secret_key = \"k\"\n      session_token = \"k\"\n      nonce = \"n\"\n    }\n  }"),
	} {
		lines := strings.Split(file, "\n")
		for i, line := range lines {
			m := key.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			slip := m[1][:len(m[1])-1] + "q"
			wrong := append([]string(nil), lines...)
			wrong[i] = strings.Replace(line, m[1], slip, 1)
			_, _, err := load(strings.Join(wrong, "\n"))
			if err == nil {
				t.Errorf("line %d: %s is taken", i+1, slip)
				continue
			}
			text := err.Error()
			if !strings.Contains(text, fmt.Sprintf("/thaw.hcl:%d: ", i+1)) || !strings.Contains(text, slip+": unknown key") {
				t.Errorf("line %d: %s: %s", i+1, slip, text)
			}
			if len(slip) > 4 && !strings.Contains(text, "did you mean "+m[1]+"?") {
				t.Errorf("line %d: %s: not told of %s: %s", i+1, slip, m[1], text)
			}
		}
	}
}

func TestBadValuesOfTheFile(t *testing.T) {
	t.Parallel()
	const (
		vault    = "vault {\n  address = \"https://v\"\n"
		listener = "vault {\n address = \"https://v\"\n}\nlistener \"tcp\" {\n"
	)
	token := around(`  method "token_file" { config { token_file_path = "/t" } }`)
	for _, tt := range []struct {
		file string
		name string
		line int
		word string
	}{
		{"vault {\n  address = \"v:8200\"\n}", "vault.address", 2, "no scheme"},
		{"vault {\n  address = \"http://127.0.0.1:8200\"\n}", "vault.address", 2, "own listener"},
		{"vault {\n  address = true\n}", "vault.address", 2, "must be text"},
		{"vault {\n  address = [\"https://v\"]\n}", "vault.address", 2, "one value"},
		{vault + "  address = \"https://w\"\n}", "vault.address", 3, "first on line 2"},
		{vault + "}\nvault {\n}", "vault", 4, "first on line 1"},
		{vault + "  tls_skip_verify = \"maybe\"\n}", "vault.tls_skip_verify", 3, "true or false"},
		{vault + "  retry {\n num_retries = 1.5\n}\n}", "vault.retry.num_retries", 4, "-1"},
		{vault + "  retry {\n num_retries = -2\n}\n}", "vault.retry.num_retries", 4, "-1"},
		{vault + "  retry = 5\n}", "vault.retry", 3, "must be a block"},
		{vault + "  retry {}\n  retry {}\n}", "vault.retry", 4, "twice"},
		{vault + "  namespace = \"a/../b\"\n}", "vault.namespace", 3, `".."`},
		{vault + "}\nlog_level = \"loud\"", "log_level", 4, "TRACE"},
		{vault + "}\nlog_level {}", "log_level", 4, "one value"},
		{vault + "}\ncache { cache_static_secrets = true }\nlistener \"tcp\" { tls_disable = true }", "cache.cache_static_secrets", 4, "needs a login"},
		{token + "cache { cache_static_secrets = true }", "cache", 7, "needs a listener"},
		{token + "api_proxy { use_auto_auth_token = true }", "api_proxy", 7, "needs a listener"},
		{listener + "tls_disable = true\n}\napi_proxy { use_auto_auth_token = true }", "api_proxy.use_auto_auth_token", 7, "needs a login"},
		{listener + "tls_disable = true\n}\napi_proxy { use_auto_auth_token = \"yes\" }", "api_proxy.use_auto_auth_token", 7, "force"},
		{listener + "tls_disable = true\n}\napi_proxy { enforce_consistency = \"sometimes\" }", "api_proxy.enforce_consistency", 7, "never or always"},
		{listener + "tls_disable = true\n}\napi_proxy { when_inconsistent = \"wait\" }", "api_proxy.when_inconsistent", 7, "fail, retry or forward"},
		{listener + "tls_disable = true\n}\ncache { static_secret_token_capability_refresh_interval = \"soon\" }", "cache.static_secret_token_capability_refresh_interval", 7, "duration"},
		{listener + "tls_disable = true\n}\ncache { static_secret_token_capability_refresh_behavior = \"mild\" }", "cache.static_secret_token_capability_refresh_behavior", 7, "pessimistic"},
		{listener + "tls_disable = true\n}\ncache { use_auto_auth_token = true }", "cache.use_auto_auth_token", 7, "needs a login"},
		{listener + "tls_disable = true\n}\ncache { when_inconsistent = \"wait\" }", "cache.when_inconsistent", 7, "fail, retry or forward"},
		{listener + "tls_disable = true\n}\ncache { when_inconsistent = \"retry\" }\napi_proxy { when_inconsistent = \"fail\" }", "cache.when_inconsistent", 7, "api_proxy block, too"},
		{listener + "tls_disable = true\nsocket_user = \"vault\"\n}", "listener.socket_user", 6, "as that user"},
		{listener + "tls_disable = true\nredact_addresses = true\n}", "listener.redact_addresses", 6, "Vault's own listener"},
		{listener + "tls_disable = true\nx_forwarded_for_authorized_addrs = \"10.0.0.0/8\"\n}", "listener.x_forwarded_for_authorized_addrs", 6, "X-Forwarded-For"},
		{listener + "tls_disable = true\nproxy_protocol_behavior = \"use_always\"\n}", "listener.proxy_protocol_behavior", 6, "PROXY protocol"},
		{listener + "tls_disable = true\ntls_min_version = \"tls10\"\n}", "listener.tls_min_version", 6, "tls12 or tls13"},
		{listener + "tls_disable = true\ntls_min_version = \"tls13\"\ntls_max_version = \"tls12\"\n}", "listener", 4, "below tls_min_version"},
		{listener + "tls_disable = true\ntls_cipher_suites = \"TLS_RSA_WITH_RC4_128_SHA\"\n}", "listener.tls_cipher_suites", 6, "no cipher suite"},
		{vault + "}\nlistener \"unix\" {\n address = \"/s\"\n socket_mode = \"rw\"\n}", "listener.socket_mode", 6, "octal"},
		{listener + "}", "listener", 4, "tls_disable = true"},
		{listener + "tls_cert_file = \"/c\"\n}", "listener", 4, "go together"},
		{listener + "tls_disable = true\naddress = \"8200\"\n}", "listener.address", 6, "ip:port"},
		{listener + "tls_disable = true\naddress = \"unix:///x\"\n}", "listener.address", 6, `listener "unix"`},
		{listener + "tls_disable = true\nrole = \"metrics_only\"\n}", "listener.role", 6, "/proxy/v1/metrics"},
		{listener + "tls_disable = true\ntls_require_and_verify_client_cert = true\n}", "listener.tls_require_and_verify_client_cert", 6, "THAW_LOCAL_TOKEN"},
		{listener + "tls_disable = true\n}\nlistener \"tcp\" { tls_disable = true }", "listener", 7, "another listener"},
		{vault + "}\nlistener \"udp\" {}", "listener", 4, "tcp or unix"},
		{vault + "}\nlistener {}", "listener", 4, "needs a type"},
		{vault + "}\nlistener \"unix\" { address = \"x\" }", "listener.address", 4, "absolute"},
		{vault + "}\nlistener \"unix\" {}", "listener", 4, "absolute"},
		{vault + "}\nauto_auth {}", "auto_auth", 4, "method"},
		{around("method {}"), "auto_auth.method", 5, "needs a type"},
		{around("method \"ldap\" {}"), "auto_auth.method", 5, "no such login"},
		{around("method \"approl\" {}"), "auto_auth.method", 5, "did you mean approle?"},
		{around("method \"azure\" { config { role = \"r\" } }"), "auto_auth.method", 5, "thaw-azure"},
		{around("method \"aws\" {}"), "auto_auth.method", 5, "VAULT_AUTH_ROLE, or role"},
		{around("method \"approle\" { config {} }"), "auto_auth.method", 5, "role_id_file_path"},
		{around("method \"jwt\" {}"), "auto_auth.method", 5, "THAW_JWT_FILE, or path"},
		{around("method \"token_file\" {}"), "auto_auth.method", 5, "token_file_path"},
		{around("method \"aws\" { config { role = \"r\" } }\nmethod \"jwt\" { config { path = \"/j\" } }"), "auto_auth.method", 6, "twice"},
		{around("method \"aws\" { config { role = \"r\"\n type = \"ec2\" } }"), "auto_auth.method.config.type", 6, "iam"},
		{around("method \"aws\" { config { role = \"r\"\n region = \"a/b\" } }"), "auto_auth.method.config.region", 6, "region"},
		{around("method \"aws\" { config { role = \"r\"\n access_key = \"a\" } }"), "auto_auth.method", 5, "go together"},
		{around("method \"aws\" { mount_path = \"a?b\"\n config { role = \"r\" } }"), "auto_auth.method.mount_path", 5, `"?"`},
		{around("method \"approle\" { config { role_id_file_path = \"/r\"\n secret_id_file_path = \"/s\"\n secret_id_response_wrapping_path = \"p\" } }"), "auto_auth.method.config.secret_id_response_wrapping_path", 7, "unwrap"},
		{around("method \"approle\" { config { role_id_file_path = \"/r\"\n remove_secret_id_file_after_reading = \"x\" } }"), "auto_auth.method.config.remove_secret_id_file_after_reading", 6, "true or false"},
		{vault + "}\nlog_level = \"info", "", 4, "not valid HCL"},
		{vault, "", 3, "not valid HCL"},
		{vault + "}\nx = 99999999999999999999", "x", 4, "unknown key"},
		{"{\n \"vault\": {\n  \"adress\": 1,\n  \"address\": \"https://v\"\n }\n}", "vault.adress", 3, "did you mean address?"},
		{"{\n \"vault\": {\n  \"address\": \n", "", 3, "not valid JSON"},
		{"{}\n{}", "", 2, "not valid JSON"},
		{strings.Repeat("[", 600), "", 0, "brackets"},
		{strings.Repeat("x = [\n", 499) + strings.Repeat("]\n", 499), "", 0, ""},
	} {
		t.Run(tt.file, func(t *testing.T) {
			_, _, err := load(tt.file)
			list := problems(t, err)
			if len(list) != 1 && tt.word != "" {
				t.Fatalf("want one problem: %v", err)
			}
			if tt.word == "" {
				return
			}
			p := list[0]
			if p.Name != tt.name || p.Line != tt.line || p.File != "/thaw.hcl" || !strings.Contains(p.Message, tt.word) {
				t.Errorf("got %q on line %d (%v), want %q on line %d with %q", p.Name, p.Line, err, tt.name, tt.line, tt.word)
			}
		})
	}
}

func TestKeysWithoutUseAreOneWarningEach(t *testing.T) {
	t.Parallel()
	file := proxyFile + `
pid_file = "./pid"
exit_after_auth = true
telemetry { statsite_address = "x" }
disable_idle_connections = ["auto-auth"]
disable_keep_alives = ["auto-auth"]
log_file = "/l"
log_format = "json"
template { source = "x" }
template { source = "y" }
`
	file = strings.Replace(file, "cache_static_secrets = true", "cache_static_secrets = true\n  persist \"kubernetes\" { path = \"/p\" }\n disable_caching_dynamic_secrets = false", 1)
	file = strings.Replace(file, "  method \"aws\" {", "  sink \"file\" { config { path = \"/s\" } }\n  sink { type = \"file\" }\n  enable_reauth_on_new_credentials = true\n  method \"aws\" {\n    exit_on_err = true\n    min_backoff = \"1s\"\n    wrap_ttl = 5", 1)
	file = strings.Replace(file, "tls_disable   = true", "tls_disable = true\n  role = \"default\"\n  proxy_api { enable_quit = true }\n  agent_api { enable_quit = true }\n  socket_mode = \"0600\"\n  tls_min_version = \"tls12\"", 1)
	file = strings.Replace(file, `      type         = "iam"`, "      nonce = \"n\"\n      credential_poll_interval = 5", 1)
	_, warnings := mustLoad(t, file)
	keys := []string{"pid_file", "exit_after_auth", "telemetry", "disable_idle_connections", "disable_keep_alives", "log_file", "log_format", "template",
		"cache.persist", "cache.disable_caching_dynamic_secrets", "auto_auth.sink", "auto_auth.enable_reauth_on_new_credentials", "auto_auth.method.exit_on_err", "auto_auth.method.min_backoff",
		"auto_auth.method.wrap_ttl", "listener.proxy_api", "listener.agent_api", "listener.socket_mode", "auto_auth.method.config.nonce", "auto_auth.method.config.credential_poll_interval"}
	for _, key := range keys {
		if !warned(warnings, "/thaw.hcl:", ": "+key+" has no effect") {
			t.Errorf("no warning of %s", key)
		}
	}
	if len(warnings) != len(keys) {
		t.Errorf("%d warnings for %d keys: %v", len(warnings), len(keys), warnings)
	}
}

// The document on eventual consistency has these keys in the cache block.
func TestConsistencyKeysCountInTheCacheBlockToo(t *testing.T) {
	t.Parallel()
	file := around(approleMethod) + `listener "tcp" { tls_disable = true }
cache {
  cache_static_secrets = true
  use_auto_auth_token  = true
  enforce_consistency  = "always"
  when_inconsistent    = "forward"
}
`
	c, warnings := mustLoad(t, file)
	if c.OwnToken != config.OwnTokenFill || c.EnforceConsistency != "always" || c.WhenInconsistent != "forward" || !c.StaticCache {
		t.Errorf("%q, %q, %q", c.OwnToken, c.EnforceConsistency, c.WhenInconsistent)
	}
	if len(warnings) != 1 || !warned(warnings, "/thaw.hcl:", "use_auto_auth_token, enforce_consistency, when_inconsistent", "api_proxy") {
		t.Errorf("warnings: %v", warnings)
	}
}

// What would make a listener safer is honoured, or an error (TestBadValuesOfTheFile).
func TestListenerKeysThatMakeItSaferAreHonoured(t *testing.T) {
	t.Parallel()
	c, warnings := mustLoad(t, around(approleMethod)+`listener "tcp" {
  tls_cert_file = "/c"
  tls_key_file  = "/k"
  tls_min_version = "tls13"
  tls_max_version = "tls13"
  tls_cipher_suites = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
  redact_version = false
}
listener "unix" {
  address     = "/run/thaw.sock"
  socket_mode = "0660"
}
`)
	want := []config.Listener{
		{Network: "tcp", Address: "127.0.0.1:8200", CertFile: "/c", KeyFile: "/k", MinTLS: tls.VersionTLS13, MaxTLS: tls.VersionTLS13,
			CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}},
		{Network: "unix", Address: "/run/thaw.sock", SocketMode: 0o660},
	}
	if !reflect.DeepEqual(c.Listeners, want) || len(warnings) > 0 {
		t.Errorf("got %+v, want %+v; %v", c.Listeners, want, warnings)
	}
}

func TestRefreshIntervalsMayBeUnderASecond(t *testing.T) {
	t.Parallel()
	if c, _ := mustLoad(t, proxyFileWith(`"1d"`, `"250ms"`)); c.RefreshInterval != 250*time.Millisecond {
		t.Error(c.RefreshInterval)
	}
	if c, _ := mustLoad(t, "", addr, "THAW_CAPABILITY_REFRESH_INTERVAL=100ms"); c.RefreshInterval != 100*time.Millisecond {
		t.Error(c.RefreshInterval)
	}
}

// A message names what the user wrote: the variable, or the file's key.
func TestMessagesNameWhereTheValueStands(t *testing.T) {
	t.Parallel()
	half := strings.Replace(proxyFile, "  client_key      = \"/etc/client.key\"\n", "", 1)
	_, _, err := load(half)
	wantOne(t, err, "vault.client_cert", "/thaw.hcl:7: vault.client_cert: a client certificate needs its key")
	_, _, err = load(half, "VAULT_CLIENT_CERT=/c")
	wantOne(t, err, "VAULT_CLIENT_CERT", "needs its key")
	_, warnings := mustLoad(t, proxyFileWith(`"false"`, `"true"`))
	if !warned(warnings, "/thaw.hcl:10: vault.tls_skip_verify: ", "Remove vault.tls_skip_verify") {
		t.Error(warnings)
	}
	for _, name := range []string{"VAULT_ADDR", "VLE_VAULT_ADDR", "THAW_VAULT_ADDRS"} {
		if c, _ := mustLoad(t, "", name+"=https://v"); c.AddrsFrom != name {
			t.Errorf("%s: addresses from %s", name, c.AddrsFrom)
		}
	}
}

func TestJSONMeansTheSame(t *testing.T) {
	t.Parallel()
	want, _ := mustLoad(t, proxyFile)
	for what, listeners := range map[string]string{
		"a list of labels": `[{"tcp": {"address": "127.0.0.1:8100", "tls_disable": true, "require_request_header": true}},
			{"tcp": {"address": "127.0.0.1:8101", "tls_cert_file": "/etc/cert.pem", "tls_key_file": "/etc/key.pem"}}, {"unix": {"address": "/run/thaw.sock"}}]`,
		"lists below labels": `{"tcp": [{"address": "127.0.0.1:8100", "tls_disable": "true", "require_request_header": 1},
			{"address": "127.0.0.1:8101", "tls_cert_file": "/etc/cert.pem", "tls_key_file": "/etc/key.pem"}], "unix": {"address": "/run/thaw.sock"}}`,
		"types": `[{"type": "tcp", "address": "127.0.0.1:8100", "tls_disable": true, "require_request_header": true},
			{"type": "tcp", "address": "127.0.0.1:8101", "tls_cert_file": "/etc/cert.pem", "tls_key_file": "/etc/key.pem"}, {"type": "unix", "address": "/run/thaw.sock"}]`,
	} {
		got, warnings := mustLoad(t, `
{
  "vault": {"address": "https://vault.example.com:8200/base/", "namespace": "/team/a/", "ca_cert": "/etc/ca.pem", "ca_path": "/etc/ca",
    "client_cert": "/etc/client.pem", "client_key": "/etc/client.key", "tls_server_name": "vault", "tls_skip_verify": false, "retry": [{"num_retries": 5}]},
  "cache": {"cache_static_secrets": true, "static_secret_token_capability_refresh_interval": 86400, "static_secret_token_capability_refresh_behavior": "pessimistic"},
  "api_proxy": [{"use_auto_auth_token": "force", "enforce_consistency": "never", "when_inconsistent": "retry", "prepend_configured_namespace": true}],
  "listener": `+listeners+`,
  "auto_auth": {"method": {"aws": {"mount_path": "auth/aws-prod/", "namespace": "team/b", "config": {"type": "iam", "role": "orders", "header_value": "vault.example.com", "region": "eu-west-1"}}}},
  "log_level": "debug"
}`)
		if !reflect.DeepEqual(got, want) || len(warnings) != 0 {
			t.Errorf("%s: got  %+v\nwant %+v\n%v", what, got, want, warnings)
		}
	}
}

func TestUseAutoAuthTokenInEverySpelling(t *testing.T) {
	t.Parallel()
	for spelling, want := range map[string]config.OwnToken{
		"true": config.OwnTokenFill, `"true"`: config.OwnTokenFill, "1": config.OwnTokenFill, "false": config.OwnTokenNever, `"false"`: config.OwnTokenNever,
		`"force"`: config.OwnTokenForce, `"Force"`: config.OwnTokenForce, `""`: config.OwnTokenNever,
	} {
		c, _ := mustLoad(t, proxyFileWith("use_auto_auth_token = \"force\"", "use_auto_auth_token = "+spelling))
		if c.OwnToken != want {
			t.Errorf("%s: %q, want %q", spelling, c.OwnToken, want)
		}
	}
}

func TestRetriesAreVaultProxys(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"5": 5, "0": 12, "-1": 0, `"7"`: 7} {
		if c, _ := mustLoad(t, proxyFileWith("num_retries = 5", "num_retries = "+in)); c.MaxRetries != want {
			t.Errorf("num_retries = %s: %d, want %d", in, c.MaxRetries, want)
		}
	}
}

func TestRefreshSettingsCountForStaticCachingOnly(t *testing.T) {
	t.Parallel()
	c, _ := mustLoad(t, proxyFileWith("cache_static_secrets = true", "cache_static_secrets = false"))
	if c.StaticCache || c.RefreshInterval != 5*time.Minute || c.Pessimistic {
		t.Errorf("%v, %v, %v", c.StaticCache, c.RefreshInterval, c.Pessimistic)
	}
}

func TestListenerOfTheEnvironmentWillDo(t *testing.T) {
	t.Parallel()
	file := around(`  method "token_file" { config { token_file_path = "/t" } }`) + "cache { cache_static_secrets = true }\n"
	c, _ := mustLoad(t, file, "THAW_LISTEN=127.0.0.1:9000")
	if !c.StaticCache || len(c.Listeners) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestLoginOfTheEnvironmentWillDo(t *testing.T) {
	t.Parallel()
	c, _ := mustLoad(t, "cache { cache_static_secrets = true }\nlistener \"tcp\" { tls_disable = true }\napi_proxy { use_auto_auth_token = true }", addr, lambda, "VAULT_AUTH_ROLE=r")
	if !c.StaticCache || c.OwnToken != config.OwnTokenFill || c.Auth.Method != config.AuthAWS {
		t.Errorf("%+v", c)
	}
}

// proxyFileWith is proxyFile with one text replaced.
func proxyFileWith(old, new string) string {
	if !strings.Contains(proxyFile, old) {
		panic("proxyFile lacks " + old)
	}
	return strings.Replace(proxyFile, old, new, 1)
}
