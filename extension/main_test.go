package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/thaw-project/thaw/tests/standin"
)

// ran is what a run of the program left.
type ran struct {
	status         int
	stdout, stderr string
}

func runWith(t *testing.T, environ []string, args ...string) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), append([]string{"/opt/extensions/thaw"}, args...), environ, &stdout, &stderr)
	return ran{status, stdout.String(), stderr.String()}
}

func TestTheCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args           []string
		status         int
		stdout, stderr string // what is in it; empty: it is empty
	}{
		{[]string{"version"}, exitOK, "thaw dev\n", ""},
		{[]string{"--version"}, exitOK, "thaw dev\n", ""},
		{[]string{"help"}, exitOK, "thaw proxy [-config F]", ""},
		{[]string{"help", "proxy"}, exitOK, "THAW_LISTEN", ""},
		{[]string{"help", "doctor"}, exitOK, "what to do", ""},
		{[]string{"help", "status"}, exitOK, "-addr", ""},
		{[]string{"help", "me"}, exitUsage, "", `no help on "me"`},
		{[]string{"-h"}, exitOK, "thaw proxy [-config F]", ""},
		{[]string{"proxy", "-h"}, exitOK, "", "-config FILE"},
		{[]string{"doctor", "-h"}, exitOK, "", "-allow-unchecked"},
		{nil, exitUsage, "", "thaw proxy [-config F]"}, // outside Lambda
		{[]string{"prxy"}, exitUsage, "", `unknown command "prxy"`},
		{[]string{"proxy", "-confg", "x"}, exitUsage, "", "-confg"},
		{[]string{"proxy", "thaw.hcl"}, exitUsage, "", `unexpected argument "thaw.hcl"`},
		{[]string{"proxy", "-config", "/nowhere/thaw.hcl"}, exitUsage, "", "/nowhere/thaw.hcl: no such file"},
	} {
		got := runWith(t, nil, c.args...)
		if got.status != c.status || !strings.Contains(got.stdout, c.stdout) || !strings.Contains(got.stderr, c.stderr) ||
			c.stdout == "" && got.stdout != "" || c.stderr == "" && got.stderr != "" {
			t.Errorf("thaw %q: %+v, want status %d, %q and %q", c.args, got, c.status, c.stdout, c.stderr)
		}
	}
}

func TestABadConfigurationIsReportedWhole(t *testing.T) {
	t.Parallel()
	got := runWith(t, []string{
		"VAULT_ADDR=ftp://vault", "THAW_MAXAGE=1s", "VAULT_MAX_RETRIES=many", "THAW_LOCAL_TOKEN=planted\x01secret", "VAULT_TOKEN=planted\x02secret",
		"VAULT_SECRET_PATH_A=secret/data/a",
	}, "proxy")
	if got.status != exitUsage || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{"VAULT_ADDR=", "THAW_MAXAGE", "did you mean THAW_MAX_AGE?", `VAULT_MAX_RETRIES="many"`, "THAW_LOCAL_TOKEN", "VAULT_TOKEN", "VAULT_SECRET_FILE_A"} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("the report lacks %q:\n%s", want, got.stderr)
		}
	}
	if strings.Contains(got.stderr, "planted") {
		t.Errorf("the report shows a secret:\n%s", got.stderr)
	}
}

func TestAPortInUseIsReported(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	got := runWith(t, []string{"VAULT_ADDR=http://127.0.0.1:1", "THAW_LISTEN=" + taken.Addr().String()}, "proxy")
	if got.status != exitFailed || !strings.Contains(got.stderr, taken.Addr().String()) || !strings.Contains(got.stderr, "THAW_LISTEN") {
		t.Errorf("%+v", got)
	}
}

// serving runs `thaw proxy` until the test ends or stop is called, which
// returns how it ended.
func serving(t *testing.T, environ []string, args ...string) (addr string, stop func() ran) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stderr := &watched{seen: make(chan string, 1)}
	var stdout bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"thaw", "proxy"}, args...), append(environ, "THAW_LISTEN=127.0.0.1:0"), &stdout, stderr)
	}()
	stop = sync.OnceValue(func() ran {
		cancel()
		return ran{<-ended, stdout.String(), stderr.String()}
	})
	t.Cleanup(func() { stop() })
	select {
	case addr = <-stderr.seen:
	case status := <-ended:
		ended <- status
		t.Fatalf("ended with %d:\n%s", status, stderr)
	}
	return addr, stop
}

// watched keeps what is logged and tells the address that is served.
type watched struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
	seen chan string
}

func (w *watched) Write(p []byte) (int, error) {
	var line struct {
		Msg       string
		Addresses []string
	}
	if json.Unmarshal(p, &line) == nil && line.Msg == "serving" && len(line.Addresses) == 1 {
		w.seen <- line.Addresses[0]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func fetch(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// startVault starts the stand-in with one secret. Each of asked is told the
// paths of requests, as far as it has room.
func startVault(t *testing.T, asked ...chan<- string) string {
	t.Helper()
	stand := standin.New(standin.Options{RootToken: "planted-token"})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, c := range asked {
			select {
			case c <- r.URL.Path:
			default:
			}
		}
		stand.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	stand.Root(http.MethodPost, "secret/data/app", `{"data":{"v":"planted-value"}}`)
	return server.URL
}

func TestTheProxyServesUntilItIsToldToEnd(t *testing.T) {
	t.Parallel()
	addr, stop := serving(t, []string{"VAULT_ADDR=" + startVault(t), "VAULT_TOKEN=planted-token", "VAULT_LOG_LEVEL=TRACE"})
	for _, want := range []string{"MISS", "HIT"} {
		res, body := fetch(t, "http://"+addr+"/v1/secret/data/app")
		if res.StatusCode != 200 || res.Header.Get("X-Cache") != want || !strings.Contains(body, "planted-value") {
			t.Errorf("%d %q %s, want %s", res.StatusCode, res.Header.Get("X-Cache"), body, want)
		}
	}
	got := stop()
	if got.status != exitOK || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	if strings.Contains(got.stderr, "planted") {
		t.Errorf("the log holds a secret:\n%s", got.stderr)
	}
	for line := range strings.Lines(got.stderr) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listening")
	}
}

func TestTheProxyReadsVaultProxysFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	file := filepath.Join(dir, "proxy.hcl")
	for name, content := range map[string]string{
		token: "planted-token\n",
		file: `vault { address = "` + startVault(t) + `" }
			auto_auth { method "token_file" { config = { token_file_path = "` + token + `" } } }
			api_proxy { use_auto_auth_token = true }
			cache { cache_static_secrets = true }
			listener "tcp" { address = "127.0.0.1:1", tls_disable = true }`,
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr, _ := serving(t, nil, "-config", file)
	for _, want := range []string{"MISS", "HIT"} {
		if res, body := fetch(t, "http://"+addr+"/v1/secret/data/app"); res.StatusCode != 200 || res.Header.Get("X-Cache") != want {
			t.Errorf("%d %s %s", res.StatusCode, res.Header.Get("X-Cache"), body)
		}
	}
}

func TestThePageOfOperationsNamesEveryMetric(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	// The shared tier has metrics of its own, and so have consistency and events.
	addr, _ := serving(t, []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x", "THAW_ENFORCE_CONSISTENCY=always", "CACHE_ENABLE=true", "THAW_MEMCACHED=127.0.0.1:1", "THAW_CACHE_KEY=" + strings.Repeat("QUFB", 10) + "QUE="})
	_, body := fetch(t, "http://"+addr+"/proxy/v1/metrics")
	named := map[string]bool{}
	for line := range strings.Lines(body) {
		name, _, _ := strings.Cut(strings.ReplaceAll(line, "{", " "), " ")
		if name == "#" {
			continue
		}
		named[name] = true
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/operations.md does not name %s", name)
		}
	}
	for word := range strings.SplitSeq(string(text), "`") {
		if strings.HasPrefix(word, "thaw_") && !strings.HasPrefix(word, "thaw_warm_") && !named[word] {
			t.Errorf("docs/operations.md names %s, which there is not", word)
		}
	}
}
