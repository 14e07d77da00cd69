package config_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

const lambda = "AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001"

func TestContradictionsAreNamedWithTheirRemedy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		environ []string
		name    string
		words   []string
	}{
		{nil, "VLE_VAULT_ADDR", []string{"missing", "VAULT_ADDR", "THAW_VAULT_ADDRS"}},
		{[]string{addr, "VAULT_RUN_MODE=file"}, "VAULT_RUN_MODE", []string{"nothing to do", "VAULT_SECRET_PATH"}},
		{[]string{addr, "VAULT_SECRET_PATH_A=kv/a"}, "VAULT_SECRET_PATH_A", []string{"VAULT_SECRET_FILE_A"}},
		{[]string{addr, "VAULT_SECRET_FILE_A=a"}, "VAULT_SECRET_FILE_A", []string{"VAULT_SECRET_PATH_A"}},
		{[]string{addr, "VAULT_SECRET_PATH_=kv/a"}, "VAULT_SECRET_PATH_", []string{"underscore", "VAULT_SECRET_PATH for"}},
		{[]string{addr, "VAULT_SECRET_FILE_=a"}, "VAULT_SECRET_FILE_", []string{"underscore"}},
		{[]string{addr, "VAULT_SECRET_PATH=kv/a", "VAULT_SECRET_PATH_B=kv/b", "VAULT_SECRET_FILE_B=/tmp/vault/x/../secret.json"}, "VAULT_SECRET_PATH_B", []string{"same file as VAULT_SECRET_PATH", "/tmp/vault/secret.json"}},
		{[]string{addr, "VAULT_SECRET_PATH_A=kv/a", "VAULT_SECRET_FILE_A=/tmp/x", "VAULT_SECRET_PATH_B=kv/b", "VAULT_SECRET_FILE_B=/tmp/x/y"}, "VAULT_SECRET_PATH_B", []string{"directory", "VAULT_SECRET_PATH_A"}},
		{[]string{addr, "THAW_AUTH_METHOD=approle"}, "THAW_AUTH_METHOD", []string{"role id", "THAW_ROLE_ID"}},
		{[]string{addr, "THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=r", "THAW_ROLE_ID_FILE=/r"}, "THAW_ROLE_ID", []string{"THAW_ROLE_ID_FILE", "keep one"}},
		{[]string{addr, "THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=r", "THAW_SECRET_ID=s", "THAW_SECRET_ID_FILE=/s"}, "THAW_SECRET_ID", []string{"THAW_SECRET_ID_FILE"}},
		{[]string{addr, "THAW_AUTH_METHOD=jwt"}, "THAW_AUTH_METHOD", []string{"THAW_JWT_FILE"}},
		{[]string{addr, "THAW_AUTH_METHOD=aws"}, "THAW_AUTH_METHOD", []string{"VAULT_AUTH_ROLE"}},
		{[]string{addr, "THAW_AUTH_METHOD=token"}, "THAW_AUTH_METHOD", []string{"VAULT_TOKEN"}},
		{[]string{addr, "THAW_AUTH_METHOD=token_file"}, "THAW_AUTH_METHOD", []string{"THAW_TOKEN_FILE"}},
		{[]string{addr, "THAW_AUTH_METHOD=azure"}, "THAW_AUTH_METHOD", []string{"thaw-azure", "Azure Functions"}},
		{[]string{addr, "THAW_AUTH_METHOD=none", "THAW_JWT_FILE=/j"}, "THAW_JWT_FILE", []string{"no effect", "THAW_AUTH_METHOD=jwt"}},
		{[]string{addr, "THAW_ROLE_ID=r"}, "THAW_ROLE_ID", []string{"no effect", "THAW_AUTH_METHOD=approle"}},
		{[]string{addr, lambda, "VAULT_AUTH_ROLE=r", "THAW_SECRET_ID_FILE=/s"}, "THAW_SECRET_ID_FILE", []string{"no effect", "aws", "VAULT_AUTH_ROLE"}},
		{[]string{addr, lambda, "VAULT_AUTH_PROVIDER=aws"}, "VAULT_AUTH_ROLE", []string{"missing", "VAULT_AUTH_PROVIDER"}},
		{[]string{addr, "VAULT_CLIENT_CERT=/c"}, "VAULT_CLIENT_CERT", []string{"VAULT_CLIENT_KEY"}},
		{[]string{addr, "VAULT_CLIENT_KEY=/k"}, "VAULT_CLIENT_KEY", []string{"VAULT_CLIENT_CERT"}},
		{[]string{"THAW_VAULT_ADDRS=https://a,http://b"}, "THAW_VAULT_ADDRS", []string{"mixes http and https"}},
		{[]string{"VAULT_ADDR=vault.example.com:8200"}, "VAULT_ADDR", []string{"no scheme", "https://"}},
	} {
		_, _, err := load("", tt.environ...)
		t.Run(strings.Join(tt.environ, " "), func(t *testing.T) { wantOne(t, err, tt.name, tt.words...) })
	}
}

func TestAddressInUseMustNotPointBackAtUs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		listen, addr string
		loop         bool
	}{
		{"", "http://127.0.0.1:8200", true},
		{"", "https://127.0.0.1:8200/base", true},
		{"", "http://localhost:8200", true},
		{"", "http://LocalHost.:8200", true},
		{"", "http://thaw.localhost:8200", true},
		{"", "http://[::1]:8200", true},
		{"", "http://[::ffff:127.0.0.1]:8200", true},
		{"", "http://0.0.0.0:8200", true},
		{"", "http://[::]:8200", true},
		{"", "http://127.0.0.1:08200", true},
		{"", "http://127.0.0.1:8201", false},
		{"", "http://127.0.0.2:8200", false},
		{"", "http://10.0.0.1:8200", false},
		{"", "https://vault.example.com:8200", false},
		{"0.0.0.0:8200", "http://127.0.0.1:8200", true},
		{":8200", "http://localhost:8200", true},
		{"10.0.0.1:8200", "http://10.0.0.1:8200", true},
		{"10.0.0.1:8200", "http://127.0.0.1:8200", false},
		{"127.0.0.1:80", "http://localhost", true},
		{"127.0.0.1:443", "https://localhost", true},
		{"127.0.0.1:0", "http://localhost:8200", false},
		{"127.0.0.1:9000", "http://127.0.0.1:8200", false},
		{"unix:///run/a/../t.sock", "unix:///run/t.sock", true},
		{"unix:///run/t.sock", "unix:///run/v.sock", false},
	} {
		environ := []string{"VAULT_ADDR=" + tt.addr, "THAW_LISTEN=" + tt.listen}
		_, _, err := load("", environ...)
		if !tt.loop {
			if err != nil {
				t.Errorf("%v: %v", environ, err)
			}
			continue
		}
		t.Run(fmt.Sprint(environ), func(t *testing.T) {
			wantOne(t, err, "VAULT_ADDR", "own listener", "VLE_VAULT_ADDR", "THAW_LISTEN")
		})
		if _, _, err := load("", append(environ, "VLE_VAULT_ADDR=https://vault")...); err != nil {
			t.Errorf("%v beside VLE_VAULT_ADDR: %v", environ, err)
		}
		if _, _, err := load("", append(environ, "VAULT_RUN_MODE=file", "VAULT_SECRET_PATH=kv/a")...); err != nil {
			t.Errorf("%v where nothing is served: %v", environ, err)
		}
	}
}

func TestLoginIsChosenByTheRule(t *testing.T) {
	t.Parallel()
	jwtFile := "vault {\n address = \"https://v\"\n}\nauto_auth {\n method \"jwt\" {\n config {\n path = \"/j\"\n role = \"file\"\n}\n}\n}\n"
	for _, tt := range []struct {
		what    string
		file    string
		environ []string
		want    config.AuthMethod
		mount   string
		role    string
		warning string
	}{
		{"nothing", "", nil, config.AuthNone, "", "", ""},
		{"nothing in Lambda", "", []string{lambda}, config.AuthNone, "", "", "no login is configured"},
		{"none, meant", "", []string{lambda, "THAW_AUTH_METHOD=none"}, config.AuthNone, "", "", ""},
		{"role in Lambda", "", []string{lambda, "VAULT_AUTH_ROLE=r"}, config.AuthAWS, "aws", "r", ""},
		{"role and token in Lambda", "", []string{lambda, "VAULT_AUTH_ROLE=r", "VAULT_TOKEN=t"}, config.AuthAWS, "aws", "r", ""},
		{"token in Lambda", "", []string{lambda, "VAULT_TOKEN=t"}, config.AuthToken, "", "", ""},
		{"token", "", []string{"VAULT_TOKEN=t"}, config.AuthToken, "", "", ""},
		{"role and token elsewhere", "", []string{"VAULT_AUTH_ROLE=r", "VAULT_TOKEN=t"}, config.AuthToken, "", "r", "VAULT_AUTH_ROLE has no effect"},
		{"role elsewhere", "", []string{"VAULT_AUTH_ROLE=r"}, config.AuthNone, "", "r", "VAULT_AUTH_ROLE has no effect"},
		{"file", jwtFile, nil, config.AuthJWT, "jwt", "file", ""},
		{"file beside role and token in Lambda", jwtFile, []string{lambda, "VAULT_AUTH_ROLE=r", "VAULT_TOKEN=t"}, config.AuthJWT, "jwt", "r", ""},
		{"file, overruled", jwtFile, []string{"THAW_AUTH_METHOD=aws", "VAULT_AUTH_ROLE=r"}, config.AuthAWS, "aws", "r", ""},
		{"file, switched off", jwtFile, []string{"THAW_AUTH_METHOD=none"}, config.AuthNone, "", "", ""},
		{"mount", "", []string{lambda, "VAULT_AUTH_ROLE=r", "VAULT_AUTH_PROVIDER=aws-eu"}, config.AuthAWS, "aws-eu", "r", ""},
	} {
		environ := append([]string{addr}, tt.environ...)
		c, warnings := mustLoad(t, tt.file, environ...)
		if c.Auth.Method != tt.want || c.Auth.Mount != tt.mount || c.Auth.Role != tt.role {
			t.Errorf("%s: method %q at %q with %q, want %q at %q with %q", tt.what, c.Auth.Method, c.Auth.Mount, c.Auth.Role, tt.want, tt.mount, tt.role)
		}
		if tt.want != config.AuthToken && c.Auth.Token != "" {
			t.Errorf("%s: the token of somebody else is kept", tt.what)
		}
		if tt.warning == "" && len(warnings) != 0 || tt.warning != "" && (len(warnings) != 1 || !warned(warnings, tt.warning)) {
			t.Errorf("%s: warnings %v, want %q", tt.what, warnings, tt.warning)
		}
	}
}

func TestFilePairsAreVLEs(t *testing.T) {
	t.Parallel()
	c, warnings := mustLoad(t, "", addr,
		"VAULT_SECRET_FILE_B=b.json", "VAULT_SECRET_PATH_B=kv/data/b", "VAULT_SECRET_PATH=/secret/data/x", "VAULT_SECRET_PATH_a_1=/kv/data/a", "VAULT_SECRET_FILE_a_1=/tmp/a",
		"VAULT_SECRET_PATH_EMPTY=", "VAULT_SECRET_FILE_EMPTY=")
	want := []config.SecretFile{
		{Path: "secret/data/x", File: "/tmp/vault/secret.json", Var: "VAULT_SECRET_PATH"},
		{Path: "kv/data/b", File: "/tmp/vault/b.json", Var: "VAULT_SECRET_PATH_B"},
		{Path: "kv/data/a", File: "/tmp/a", Var: "VAULT_SECRET_PATH_a_1"},
	}
	if !reflect.DeepEqual(c.Files, want) || len(warnings) != 0 {
		t.Errorf("files %+v, warnings %v", c.Files, warnings)
	}
	// As in VLE, what file mode would refuse is nobody's business without it.
	c, warnings = mustLoad(t, "", addr, "VAULT_RUN_MODE=proxy", "VAULT_SECRET_PATH_B=kv/data/b")
	if len(c.Files) != 0 || !warned(warnings, "VAULT_RUN_MODE=proxy", "no effect") {
		t.Errorf("proxy mode: files %v, warnings %v", c.Files, warnings)
	}
	c, _ = mustLoad(t, "", addr, "VAULT_RUN_MODE=file", "VAULT_SECRET_PATH=kv/data/b")
	if len(c.Files) != 1 || len(c.Listeners) != 0 {
		t.Errorf("file mode: %v, listeners %v", c.Files, c.Listeners)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		environ []string
		want    [][]string
	}{
		{[]string{"VAULT_ADDR=http://vault.example.com"}, [][]string{{"plain http", "vault.example.com"}}},
		{[]string{"VAULT_ADDR=http://127.0.0.1:1"}, nil},
		{[]string{"VAULT_ADDR=unix:///v.sock"}, nil},
		{[]string{"VAULT_ADDR=https://vault/v1"}, [][]string{{"/v1"}}},
		{[]string{addr, "VAULT_SKIP_VERIFY=1"}, [][]string{{"VAULT_SKIP_VERIFY", "VAULT_CACERT"}}},
		{[]string{addr, "VAULT_SKIP_VERIFY=1", "VAULT_CAPATH=/ca"}, [][]string{{"VAULT_SKIP_VERIFY", "although a CA"}}},
		{[]string{addr, "THAW_POLL=off", "VAULT_DEFAULT_CACHE_TTL=1m"}, [][]string{{"THAW_POLL=off", "TTL"}}},
		{[]string{addr, "THAW_POLL=off"}, [][]string{{"not verified"}, {"nothing bounds"}}},
		{[]string{addr, "THAW_LISTEN=0.0.0.0:8200", "THAW_ALLOWED_HOSTS=t", "THAW_LOCAL_TOKEN=0123456789abcdef"}, [][]string{{"0.0.0.0:8200", "no TLS"}}},
		{[]string{addr, "THAW_LISTEN=0.0.0.0:8200"}, [][]string{{"THAW_ALLOWED_HOSTS"}, {"THAW_LOCAL_TOKEN"}, {"no TLS"}}},
		{[]string{addr, "THAW_LISTEN=unix:///t.sock"}, nil},
		{[]string{addr, "THAW_ALLOWED_HOSTS=t"}, [][]string{{"THAW_ALLOWED_HOSTS has no effect"}}},
		{[]string{addr, "THAW_LOCAL_TOKEN=short"}, [][]string{{"THAW_LOCAL_TOKEN", "guessed"}}},
		{[]string{addr, "VAULT_SECRET_FILE=x"}, [][]string{{"VAULT_SECRET_FILE", "VAULT_SECRET_PATH"}}},
		{[]string{addr, lambda, "VAULT_AUTH_ROLE=r", "VAULT_SECRET_PATH=kv/a", "THAW_FILE_TIMEOUT=10s"}, [][]string{{"THAW_FILE_TIMEOUT", "10 seconds"}}},
	} {
		_, warnings := mustLoad(t, "", tt.environ...)
		if len(warnings) != len(tt.want) {
			t.Errorf("%v: warnings %v, want %d", tt.environ, warnings, len(tt.want))
		}
		for _, words := range tt.want {
			if !warned(warnings, words...) {
				t.Errorf("%v: no warning with %q in %v", tt.environ, words, warnings)
			}
		}
	}
}

func TestPlatformIsLambdas(t *testing.T) {
	t.Parallel()
	c, _ := mustLoad(t, "", append(lambdaEnviron(), "AWS_ENDPOINT_URL=http://moto:1", "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN=tok")...)
	p := c.Platform
	want := config.Platform{
		Lambda: true, RuntimeAPI: "127.0.0.1:9001", InitType: config.InitOnDemand, FunctionName: "orders", MemoryMB: 512, Region: "eu-west-1",
		AWS: config.AWS{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "examplekey", SessionToken: "exampletoken", EndpointSTS: "http://moto:1", EndpointKMS: "http://moto:1", Endpoint: "http://moto:1",
			CredentialsURI: "http://169.254.170.23/v1/x", CredentialsAuth: "tok"},
	}
	if p != want {
		t.Errorf("got  %#v\nwant %#v", p, want)
	}
	if c.MaxAge != 5*time.Second || !slices.Equal(c.Addrs, []string{"https://vault.example.com:8200"}) || c.Auth.Method != config.AuthAWS || c.Auth.Role != "orders" || len(c.Files) != 1 {
		t.Errorf("config %+v", c)
	}
	c, _ = mustLoad(t, "", addr, lambda, "VAULT_AUTH_ROLE=r")
	if c.Platform.InitType != config.InitOnDemand {
		t.Errorf("init type %q", c.Platform.InitType)
	}
}

func TestHugeFileIsRefusedUnparsed(t *testing.T) {
	t.Parallel()
	_, _, err := load(strings.Repeat("a = 1\n", 60000))
	if err == nil || !strings.Contains(err.Error(), "256 KiB") {
		t.Errorf("%.200v", err)
	}
}

func TestAProgramWithoutListenersMayAskVaultWhereOthersListen(t *testing.T) {
	t.Parallel()
	environ := []string{"VAULT_ADDR=http://127.0.0.1:8200"}
	if _, _, err := config.Load(config.Source{Environ: environ}); err == nil {
		t.Error("the proxy would ask itself")
	}
	c, _, err := config.Load(config.Source{Environ: environ, NoListener: true})
	if err != nil || len(c.Listeners) > 0 {
		t.Errorf("%v, listeners %v", err, c.Listeners)
	}
}
