package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

const addr = "VAULT_ADDR=https://vault.example.com:8200"

// load is Load with one file, which may be empty for none.
func load(file string, environ ...string) (config.Config, []config.Warning, error) {
	src := config.Source{Environ: environ, ReadFile: func(path string) ([]byte, error) {
		if path != "/thaw.hcl" {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(file), nil
	}}
	if file != "" {
		src.ConfigFile = "/thaw.hcl"
	}
	return config.Load(src)
}

// mustLoad loads what must have no problem.
func mustLoad(t *testing.T, file string, environ ...string) (config.Config, []config.Warning) {
	t.Helper()
	c, w, err := load(file, environ...)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c, w
}

// problems gives the single problems of an error.
func problems(t *testing.T, err error) []*config.Problem {
	t.Helper()
	if err == nil {
		return nil
	}
	all, ok := errors.AsType[*config.Problems](err)
	if !ok {
		t.Fatalf("error is a %T, want *config.Problems", err)
	}
	var list []*config.Problem
	for _, one := range all.Unwrap() {
		p, ok := errors.AsType[*config.Problem](one)
		if !ok {
			t.Fatalf("problem is a %T", one)
		}
		if p.Message == "" || strings.TrimSpace(p.Message) != p.Message {
			t.Errorf("problem without a proper message: %#v", p)
		}
		list = append(list, p)
	}
	if len(list) == 0 {
		t.Fatal("an error without problems")
	}
	return list
}

// wantOne asserts that err is exactly one problem with a name and all words.
func wantOne(t *testing.T, err error, name string, words ...string) {
	t.Helper()
	list := problems(t, err)
	if len(list) != 1 {
		t.Fatalf("got %d problems, want one about %s: %v", len(list), name, err)
	}
	if list[0].Name != name {
		t.Errorf("problem is about %q, want %q: %v", list[0].Name, name, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("message lacks %q: %v", w, err)
		}
	}
}

func warned(list []config.Warning, words ...string) bool {
	return slices.ContainsFunc(list, func(w config.Warning) bool {
		for _, word := range words {
			if !strings.Contains(w.Message, word) {
				return false
			}
		}
		return true
	})
}

func TestDefaultsAreWhatTheContractSays(t *testing.T) {
	t.Parallel()
	c, warnings := mustLoad(t, "", addr)
	want := config.Config{
		Addrs: []string{"https://vault.example.com:8200"}, AddrsFrom: "VAULT_ADDR", RoleFrom: "VAULT_AUTH_ROLE",
		MaxRetries: 2, ClientTimeout: time.Minute, ConnTimeout: time.Second, IdleConn: 30 * time.Second,
		Auth: config.Auth{Method: config.AuthNone, KeepSecret: true, ExpiryGrace: 10 * time.Second},
		Listeners: []config.Listener{
			{Network: "tcp", Address: "127.0.0.1:8200"},
			{Network: "tcp", Address: "[::1]:8200", Optional: true},
		},
		MaxBody: 32 << 20, MaxHeader: 64 << 10, MaxConns: 1024, MaxInFlight: 64, MaxQueued: 1024, BodyRate: 16 << 10,
		HeaderTimeout: 5 * time.Second, BodyTimeout: 30 * time.Second,
		OwnToken: config.OwnTokenFill, EnforceConsistency: "never", WhenInconsistent: "fail", ConsistencyScope: "instance", Events: true, WALWait: 2 * time.Second,
		StaticCache: true, CacheBytes: 16 << 20, Recheck: time.Second, StaleIfError: 24 * time.Hour,
		Poll: config.PollAuto, PollTimeout: 500 * time.Millisecond, PollConcurrency: 8, RefreshInterval: 5 * time.Minute,
		RunMode: config.RunDefault, FileTimeout: 5 * time.Second, LogLevel: slog.LevelInfo,
	}
	want.MemcachedTimeout, want.ClockSkew = 20*time.Millisecond, time.Second
	want.Warm.Workers, want.Warm.FetchEvery = 3, 5*time.Minute
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if len(warnings) != 0 {
		t.Errorf("warnings from a plain configuration: %v", warnings)
	}
}

func TestEveryProblemIsInOneMessage(t *testing.T) {
	t.Parallel()
	_, _, err := load("vault {\n  adress = \"x\"\n}\nlog_level = \"loud\"\n",
		"VAULT_RUN_MODE=flie", "THAW_MAX_AGE=soon", "THAW_RECHEK=1s", "VAULT_SECRET_PATH_A=secret/data/a", "THAW_WAL_WAIT=61s")
	text := fmt.Sprint(err)
	for _, want := range []string{
		"/thaw.hcl:2: vault.adress: unknown key; did you mean address?",
		`/thaw.hcl:4: log_level="loud": `,
		`VAULT_RUN_MODE="flie": did you mean "file"?; allowed: default, file or proxy`,
		`THAW_MAX_AGE="soon": not a duration; allowed: duration from 0 to 1d`,
		"THAW_RECHEK: thaw has no such setting; did you mean THAW_RECHECK?",
		"VAULT_SECRET_PATH_A: names a secret, but VAULT_SECRET_FILE_A",
		`THAW_WAL_WAIT="61s": `,
		"VLE_VAULT_ADDR: Vault's address is missing",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("message lacks %q", want)
		}
	}
	if n := len(problems(t, err)); n != 8 {
		t.Errorf("%d problems, want 8", n)
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestConfigOfAnErrorStillSaysWhereWeRun(t *testing.T) {
	t.Parallel()
	c, _, err := load("", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001", "VAULT_LOG_LEVEL=debug")
	if err == nil {
		t.Fatal("no error without an address")
	}
	if !c.Platform.Lambda || c.Platform.RuntimeAPI != "127.0.0.1:9001" || c.LogLevel != slog.LevelDebug {
		t.Errorf("platform %+v, level %v", c.Platform, c.LogLevel)
	}
}

func TestNamesHaveTheirOrder(t *testing.T) {
	t.Parallel()
	file := "vault {\n  address = \"https://file:1\"\n  namespace = \"file\"\n}\n"
	for _, tt := range []struct {
		environ []string
		want    string
	}{
		{nil, "https://file:1"},
		{[]string{"VAULT_ADDR=https://vault:1"}, "https://vault:1"},
		{[]string{"VAULT_ADDR=https://vault:1", "VLE_VAULT_ADDR=https://vle:1"}, "https://vle:1"},
		{[]string{"VAULT_ADDR=https://vault:1", "VLE_VAULT_ADDR=https://vle:1", "THAW_VAULT_ADDRS=https://thaw:1"}, "https://thaw:1"},
		{[]string{"VAULT_ADDR=https://vault:1", "VLE_VAULT_ADDR= ", "THAW_VAULT_ADDRS="}, "https://vault:1"},
		{[]string{"VAULT_ADDR=https://first:1", "VAULT_ADDR=https://second:1"}, "https://first:1"},
		// What is not in use is the business of the function's own client.
		{[]string{"VAULT_ADDR=http://127.0.0.1:8200", "VLE_VAULT_ADDR=https://vle:1"}, "https://vle:1"},
		{[]string{"VAULT_ADDR=nonsense", "VLE_VAULT_ADDR=https://vle:1"}, "https://vle:1"},
	} {
		c, warnings := mustLoad(t, file, tt.environ...)
		if !slices.Equal(c.Addrs, []string{tt.want}) {
			t.Errorf("%v: addresses %v, want %s", tt.environ, c.Addrs, tt.want)
		}
		if len(warnings) != 0 {
			t.Errorf("%v: warnings %v", tt.environ, warnings)
		}
	}
}

func TestEnvironmentWinsOverFileSilently(t *testing.T) {
	t.Parallel()
	c, warnings := mustLoad(t, proxyFile,
		"VAULT_ADDR=https://env:1", "VAULT_NAMESPACE=env", "VAULT_CACERT=/env/ca", "VAULT_CLIENT_CERT=/env/cert", "VAULT_CLIENT_KEY=/env/key",
		"VAULT_TLS_SERVER_NAME=env", "VAULT_MAX_RETRIES=7", "THAW_CAPABILITY_REFRESH_INTERVAL=7m", "THAW_CAPABILITY_REFRESH_BEHAVIOR=optimistic",
		"THAW_WHEN_INCONSISTENT=forward", "THAW_LISTEN=127.0.0.1:9000", "THAW_REQUIRE_REQUEST_HEADER=true", "VAULT_LOG_LEVEL=error",
		"VAULT_AUTH_PROVIDER=env", "VAULT_AUTH_ROLE=env", "VAULT_IAM_SERVER_ID=env", "VAULT_STS_ENDPOINT_REGION=us-east-2")
	for what, ok := range map[string]bool{
		"address": slices.Equal(c.Addrs, []string{"https://env:1"}), "namespace": c.Namespace == "env",
		"ca": c.TLS.CACert == "/env/ca" && c.TLS.CAPath == "", "cert": c.TLS.ClientCert == "/env/cert" && c.TLS.ClientKey == "/env/key",
		"name": c.TLS.ServerName == "env", "retries": c.MaxRetries == 7, "interval": c.RefreshInterval == 7*time.Minute,
		"behavior": !c.Pessimistic, "inconsistent": c.WhenInconsistent == "forward",
		"listen": reflect.DeepEqual(c.Listeners, []config.Listener{{Network: "tcp", Address: "127.0.0.1:9000", RequireRequestHeader: true}}),
		"level":  c.LogLevel == slog.LevelError, "mount": c.Auth.Mount == "env", "role": c.Auth.Role == "env",
		"server id": c.Auth.ServerID == "env", "region": c.Auth.STSRegion == "us-east-2", "method": c.Auth.Method == config.AuthAWS,
		"kept from file": c.StaticCache && c.OwnToken == config.OwnTokenForce && c.PrependNamespace,
	} {
		if !ok {
			t.Errorf("%s is not the environment's: %+v", what, c)
		}
	}
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
}

func TestAnotherCAInTheEnvironmentReplacesTheFiles(t *testing.T) {
	t.Parallel()
	c, _ := mustLoad(t, proxyFile, "VAULT_CACERT_BYTES=-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----")
	if c.TLS.CACert != "" || c.TLS.CAPath != "" || c.TLS.CACertPEM == "" {
		t.Errorf("CA: %+v", c.TLS)
	}
}

func TestConfigFileIsNamedByFlagThenVariable(t *testing.T) {
	t.Parallel()
	src := config.Source{
		Environ:    []string{"THAW_CONFIG=/env.hcl"},
		ConfigFile: "/flag.hcl",
		ReadFile: func(path string) ([]byte, error) {
			return fmt.Appendf(nil, "vault {\n address = %q\n}", "https:/"+strings.TrimSuffix(path, ".hcl")), nil
		},
	}
	for _, want := range []string{"https://flag", "https://env"} {
		c, _, err := config.Load(src)
		if err != nil || !slices.Equal(c.Addrs, []string{want}) {
			t.Errorf("addresses %v, %v; want %s", c.Addrs, err, want)
		}
		src.ConfigFile = ""
	}
}

func TestFileThatCannotBeReadIsNamed(t *testing.T) {
	t.Parallel()
	_, _, err := load("", "THAW_CONFIG=/nowhere.hcl")
	if got, want := fmt.Sprint(err), "configuration: /nowhere.hcl: no such file; correct THAW_CONFIG or -config"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProxiesOfTheEnvironment(t *testing.T) {
	t.Parallel()
	ask := func(f config.ProxyFunc, target string) string {
		if f == nil {
			return "direct"
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		u, err := f(r)
		switch {
		case err != nil:
			return "error"
		case u == nil:
			return "direct"
		}
		return u.String()
	}
	for _, tt := range []struct {
		environ           []string
		target            string
		origin, elsewhere string
	}{
		{nil, "https://vault.example.com", "direct", "direct"},
		{[]string{"HTTPS_PROXY=http://p:1"}, "https://vault.example.com", "http://p:1", "http://p:1"},
		{[]string{"HTTPS_PROXY=p:1"}, "https://vault.example.com", "http://p:1", "http://p:1"},
		{[]string{"https_proxy=http://p:1"}, "https://vault.example.com", "http://p:1", "http://p:1"},
		{[]string{"https_proxy=http://p:1", "HTTPS_PROXY=http://q:1"}, "https://vault.example.com", "http://p:1", "http://p:1"},
		{[]string{"HTTPS_PROXY=http://p:1"}, "http://vault.example.com", "direct", "direct"},
		{[]string{"HTTP_PROXY=http://p:1"}, "http://vault.example.com", "http://p:1", "http://p:1"},
		{[]string{"HTTP_PROXY=http://p:1", "REQUEST_METHOD=GET"}, "http://vault.example.com", "error", "error"},
		{[]string{"HTTPS_PROXY=http://p:1", "NO_PROXY=.example.com"}, "https://vault.example.com", "direct", "direct"},
		{[]string{"HTTPS_PROXY=http://p:1"}, "https://127.0.0.1:8200", "direct", "direct"},
		{[]string{"VAULT_HTTP_PROXY=http://v:1"}, "https://vault.example.com", "http://v:1", "direct"},
		{[]string{"VAULT_HTTP_PROXY=http://v:1", "VAULT_PROXY_ADDR=socks5://w:1"}, "https://vault.example.com", "socks5://w:1", "direct"},
		{[]string{"VAULT_PROXY_ADDR=http://v:1", "HTTPS_PROXY=http://p:1", "NO_PROXY=*"}, "https://vault.example.com", "http://v:1", "direct"},
	} {
		c, _ := mustLoad(t, "", append(tt.environ, addr)...)
		if got := ask(c.ProxyURL, tt.target); got != tt.origin {
			t.Errorf("%v: the origin is reached by %s, want %s", tt.environ, got, tt.origin)
		}
		if got := ask(c.EnvProxy, tt.target); got != tt.elsewhere {
			t.Errorf("%v: others are reached by %s, want %s", tt.environ, got, tt.elsewhere)
		}
	}
}
