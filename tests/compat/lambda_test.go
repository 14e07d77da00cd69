package compat

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"testing"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// function is thaw as the extension of one Lambda function.
type function struct {
	*thaw
	env *lambdaapi.Environment
}

// lambda starts an execution environment. Its Init phase must succeed.
func lambda(t *testing.T, fn lambdaapi.Function, init func(context.Context, *thaw) error, vars ...string) *function {
	t.Helper()
	p, cfg := lambdaConfig(t, fn, init, vars...)
	env := lambdaapi.StartForTest(t, cfg)
	return &function{p, env}
}

func lambdaConfig(t *testing.T, fn lambdaapi.Function, init func(context.Context, *thaw) error, vars ...string) (*thaw, lambdaapi.Config) {
	t.Helper()
	listen := harness.FreeAddr(t)
	p := &thaw{t: t, logs: newLogs(), client: newClient(t), base: "http://" + listen, addrs: []string{listen}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("thaw's output:\n%s", p.logs)
		}
	})
	cfg := lambdaapi.Config{
		Binary: suite.binary, Function: fn, Stdout: p.logs, Stderr: p.logs,
		Env: environment(t.TempDir(), append([]string{"THAW_LISTEN=" + listen, "THAW_RECHECK=30s"}, vars...)...),
	}
	if init != nil {
		cfg.Init = func(ctx context.Context) error { return init(ctx, p) }
	}
	return p, cfg
}

// invoke runs one invocation and freezes the environment afterwards.
func (f *function) invoke(body func()) {
	f.t.Helper()
	harness.Must(f.t, f.env.Invoke(f.t.Context(), func(context.Context, lambdaapi.Invocation) error { body(); return nil }))
	harness.Must(f.t, f.env.Freeze())
}

// initFails runs an Init phase that the extension must report as failed.
func initFails(t *testing.T, vars ...string) lambdaapi.Report {
	t.Helper()
	_, cfg := lambdaConfig(t, lambdaapi.Function{}, nil, vars...)
	env, err := lambdaapi.Start(t.Context(), cfg)
	if env != nil {
		t.Cleanup(func() {
			env.Close()
			env.API().Check(t)
		})
	}
	var reported *lambdaapi.Reported
	if !errors.As(err, &reported) || reported.State != lambdaapi.InitError {
		t.Fatalf("no init error was reported: %v", err)
	}
	return reported.Report
}

// unixClient talks to a unix socket.
func unixClient(t testing.TB, sock string) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// field is one value of a JSON answer, by a path of keys; nil where there is
// none.
func (a *answer) field(keys ...string) any {
	a.t.Helper()
	var v any
	if err := json.Unmarshal(a.Body, &v); err != nil {
		a.t.Fatalf("%v in %s", err, a.Body)
	}
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}
