package azure

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/fakes/azurehost"
	"github.com/thaw-project/thaw/tests/harness"
)

// hostJSON is what the host reads of host.json.
type hostJSON struct {
	Version         string `json:"version"`
	FunctionTimeout string `json:"functionTimeout"`
	ExtensionBundle struct{ ID, Version string }
	CustomHandler   struct {
		Description struct {
			DefaultExecutablePath string
			Arguments             []string
		}
		EnableProxyingHTTPRequest bool `json:"enableProxyingHttpRequest"`
	}
}

// parse reads a file of the function app.
func parse(t *testing.T, name string, into any) {
	t.Helper()
	root, err := harness.Root()
	harness.Must(t, err)
	text, err := os.ReadFile(filepath.Join(root, "functions", "azure", name))
	harness.Must(t, err)
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestTheFunctionAppsFilesAreWhatTheHostReads checks what a publish would only
// find out in Azure.
func TestTheFunctionAppsFilesAreWhatTheHostReads(t *testing.T) {
	t.Parallel()
	var host hostJSON
	parse(t, "host.json", &host)
	h := host.CustomHandler
	if host.Version != "2.0" || h.Description.DefaultExecutablePath != "thaw-azure" || len(h.Description.Arguments) < 2 || h.Description.Arguments[0] != "--" || !h.EnableProxyingHTTPRequest {
		t.Errorf("%+v", host)
	}
	type binding struct{ Type, Direction, Name, Schedule, Route string }
	var warm, hello struct{ Bindings []binding }
	parse(t, "ThawWarmup/function.json", &warm)
	parse(t, "Hello/function.json", &hello)
	// Six fields: the first are seconds.
	if len(warm.Bindings) != 1 || warm.Bindings[0].Type != "timerTrigger" || len(strings.Fields(warm.Bindings[0].Schedule)) != 6 {
		t.Errorf("%+v", warm)
	}
	// In and out are HTTP and nothing else: only then does the host proxy.
	if len(hello.Bindings) != 2 || hello.Bindings[0].Type != "httpTrigger" || hello.Bindings[1].Type != "http" || hello.Bindings[0].Route != "hello" {
		t.Errorf("%+v", hello)
	}
	var local struct{ Values map[string]string }
	parse(t, "local.settings.json.example", &local)
	if local.Values["FUNCTIONS_WORKER_RUNTIME"] != "custom" {
		t.Error("the runtime of a custom handler is custom")
	}
	var environ []string
	for name, v := range local.Values {
		environ = append(environ, name+"="+v)
	}
	cfg, warnings, err := config.Load(config.Source{Azure: config.ForAzure(), Environ: append(environ, "IDENTITY_ENDPOINT=http://127.0.0.1/x", "IDENTITY_HEADER=h")})
	if err != nil || len(warnings) > 0 || cfg.Warm.Function != "ThawWarmup" || cfg.Auth.Method != config.AuthAzure {
		t.Error(err, warnings)
	}
}

// TestTheSampleHandlerReadsASecret runs it under the host, as published.
func TestTheSampleHandlerReadsASecret(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		harness.Missing(t, err)
	}
	a := cloud(t)
	v := vaultWithAzure(t, a)
	_, err = v.Put(t.Context(), "secret", "app", map[string]any{"password": "PlantedSecret", "user": "u"})
	harness.Must(t, err)
	root, err := harness.Root()
	harness.Must(t, err)
	p := &app{mode: azurehost.Proxy, command: []string{node, filepath.Join(root, "functions", "azure", "handler.js")},
		env: append(a.Environ(), "VLE_VAULT_ADDR="+v.Addr(), "VAULT_AUTH_ROLE=app", "THAW_AZURE_RESOURCE="+audience)}
	h := start(t, p)
	ready(t, h)
	for _, want := range []string{`"fields":["password","user"]`, `"cache":"thaw; hit`} {
		res, err := h.HTTP(t.Context(), "Hello", httptest.NewRequest(http.MethodGet, "https://app/api/hello", nil))
		harness.Must(t, err)
		body, err := all(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), want) || strings.Contains(string(body), "Planted") {
			t.Errorf("%d %s %v", res.StatusCode, body, err)
		}
	}
	res, err := h.HTTP(t.Context(), "Other", httptest.NewRequest(http.MethodGet, "https://app/api/other", nil))
	harness.Must(t, err)
	if _, err := all(res.Body); err != nil || res.StatusCode != http.StatusNotFound {
		t.Error(res.StatusCode, err)
	}
}
