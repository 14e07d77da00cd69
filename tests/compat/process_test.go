package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// thaw is a running `thaw proxy`.
type thaw struct {
	t      testing.TB
	proc   *harness.Process
	logs   *logs
	base   string   // http://address of the first listener
	addrs  []string // every address it serves on
	client *http.Client
}

// environment merges variables: the last of a name wins.
func environment(home string, vars ...string) []string {
	all := harness.Settings{
		"PATH": harness.FromEnv().Path, "HOME": home, "VAULT_LOG_LEVEL": "DEBUG", "THAW_LISTEN": "127.0.0.1:0",
		// A verification lasts for a whole test, unless the test is about that.
		"THAW_RECHECK": "10m",
	}
	for _, kv := range vars {
		name, value, _ := strings.Cut(kv, "=")
		all[name] = value
	}
	return all.List()
}

// start runs `thaw proxy` in front of o, under o's token, until the test ends.
func (o *origin) start(vars ...string) *thaw {
	o.t.Helper()
	return start(o.t, nil, append([]string{"VLE_VAULT_ADDR=" + o.count.Addr(), "VAULT_TOKEN=" + o.token}, vars...)...)
}

// startWith is start without a token of its own.
func (o *origin) startWith(vars ...string) *thaw {
	o.t.Helper()
	return start(o.t, nil, append([]string{"VLE_VAULT_ADDR=" + o.count.Addr()}, vars...)...)
}

// start runs `thaw proxy` with these arguments and variables until the test
// ends, and returns when it serves.
func start(t testing.TB, args []string, vars ...string) *thaw {
	t.Helper()
	p := launch(t, args, vars...)
	p.addrs = p.serving()
	p.base = "http://" + p.addrs[0]
	return p
}

// launch is start without the wait.
func launch(t testing.TB, args []string, vars ...string) *thaw {
	t.Helper()
	p := &thaw{t: t, logs: newLogs(), client: newClient(t)}
	var err error
	p.proc, err = harness.Start(harness.Command{
		Path: suite.binary, Args: append([]string{"proxy"}, args...), Env: environment(t.TempDir(), vars...), Dir: t.TempDir(),
		Stdout: p.logs, Stderr: p.logs,
	})
	harness.Must(t, err)
	t.Cleanup(func() {
		p.proc.Kill()
		if t.Failed() {
			t.Logf("thaw's output:\n%s", p.proc.Tail(6000))
		}
	})
	return p
}

// serving waits for the line that says where it listens.
func (p *thaw) serving() []string {
	p.t.Helper()
	line := p.logs.await(p.t, `"msg":"serving"`, p.proc)
	var said struct{ Addresses []string }
	if err := json.Unmarshal([]byte(line), &said); err != nil || len(said.Addresses) == 0 {
		p.t.Fatalf("no addresses in %s: %v", line, err)
	}
	return said.Addresses
}

// refused runs `thaw proxy`, which must end with exit code 2 by itself, and
// returns what it said.
func refused(t testing.TB, args []string, vars ...string) string {
	t.Helper()
	p := launch(t, args, vars...)
	if code := exitCode(t, p.proc); code != 2 {
		t.Fatalf("exit code %d, not 2:\n%s", code, p.proc.Output())
	}
	return p.proc.Output()
}

// exitCode waits for a process that must end by itself.
func exitCode(t testing.TB, proc *harness.Process) int {
	t.Helper()
	select {
	case <-proc.Done():
		return proc.ExitCode()
	case <-time.After(patience):
		proc.Kill()
		t.Fatalf("it runs on:\n%s", proc.Output())
		return 0
	}
}

// newClient makes connections of its own and uses no proxy.
func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, ResponseHeaderTimeout: patience}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// do sends a request below /v1/. head is names and values in turn.
func (p *thaw) do(method, path, token string, body any, head ...string) *answer {
	p.t.Helper()
	r, err := p.try(p.t.Context(), method, path, token, body, head...)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return &answer{r, p.t}
}

func (p *thaw) try(ctx context.Context, method, path, token string, body any, head ...string) (*harness.Response, error) {
	h := http.Header{}
	for i := 0; i < len(head); i += 2 {
		h[head[i]] = append(h[head[i]], head[i+1])
	}
	return harness.Send(ctx, p.client, p.base, harness.Call{Method: method, Path: path, Token: token, Body: body, Header: h})
}

// get reads without a token.
func (p *thaw) get(path string, head ...string) *answer {
	p.t.Helper()
	return p.do(http.MethodGet, path, "", nil, head...)
}

// as reads with a caller's token.
func (p *thaw) as(token, path string, head ...string) *answer {
	p.t.Helper()
	return p.do(http.MethodGet, path, token, nil, head...)
}

// cached reads until the answer is a hit, which is the second time unless a
// short THAW_RECHECK has passed on a busy machine.
func (p *thaw) cached(path string) {
	p.t.Helper()
	p.get(path).ok()
	harness.Eventually(p.t, patience, "a hit", func() bool { return p.get(path).ok().Header.Get("X-Cache") == "HIT" })
}

// local calls /proxy/v1/.
func (p *thaw) local(method, path, body string, head ...string) *answer {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+"/proxy/v1/"+path, strings.NewReader(body))
	harness.Must(p.t, err)
	for i := 0; i < len(head); i += 2 {
		req.Header[head[i]] = append(req.Header[head[i]], head[i+1])
	}
	res, err := p.client.Do(req)
	harness.Must(p.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	harness.Must(p.t, err)
	return &answer{&harness.Response{Status: res.StatusCode, Header: res.Header, Body: b}, p.t}
}

// metric is one number of /proxy/v1/metrics.
func (p *thaw) metric(name string) float64 {
	p.t.Helper()
	text := string(p.local(http.MethodGet, "metrics", "").ok().Body)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			var f float64
			_, err := fmt.Sscan(value, &f)
			harness.Must(p.t, err)
			return f
		}
	}
	p.t.Fatalf("no %s in\n%s", name, text)
	return 0
}
