package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// environment is an execution environment: the extension's process, and the
// function's side of it.
type environment struct {
	*lambdaapi.Environment
	t      testing.TB
	base   string // where the extension serves
	client *http.Client
	log    *harness.Transcript
}

// option changes how an environment is made.
type option func(*environment, *lambdaapi.Config)

func initType(kind string) option {
	return func(_ *environment, c *lambdaapi.Config) { c.Function.InitType = kind }
}

// functionInit is the function's own code outside its handler.
func functionInit(body func(ctx context.Context, e *environment)) option {
	return func(e *environment, c *lambdaapi.Config) {
		c.Init = func(ctx context.Context) error { body(ctx, e); return nil }
	}
}

// tryStart makes an environment and runs its Init phase. The environment is
// there also when that failed.
func tryStart(t testing.TB, s harness.Settings, options ...option) (*environment, error) {
	t.Helper()
	addr := suite.address(t)
	e := &environment{t: t, base: "http://" + addr, log: &harness.Transcript{}}
	e.client = newFunctionClient()
	out := io.MultiWriter(e.log, suite.transcript)
	cfg := lambdaapi.Config{
		Binary: suite.binary,
		Env:    harness.Settings{"THAW_LISTEN": addr, "VAULT_LOG_LEVEL": "TRACE"}.With(s).List(),
		Stdout: out, Stderr: out,
	}
	for _, o := range options {
		o(e, &cfg)
	}
	var err error
	e.Environment, err = lambdaapi.Start(t.Context(), cfg)
	if e.Environment == nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.client.CloseIdleConnections()
		e.Close()
		e.API().Check(t)
		if t.Failed() {
			t.Logf("the extension at %s wrote, at last:\n%s", addr, e.log.Tail(6000))
		}
	})
	if failure := new(lambdaapi.Reported); errors.As(err, &failure) {
		_, _ = suite.transcript.Write([]byte(failure.Report.Message)) // Lambda shows it
	}
	return e, err
}

// newFunctionClient is the client of the function's own code, which keeps its
// connections across freezes.
func newFunctionClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: time.Minute}
}

// start makes an environment that must initialise.
func start(t testing.TB, s harness.Settings, options ...option) *environment {
	t.Helper()
	e, err := tryStart(t, s, options...)
	if err != nil {
		t.Fatalf("init: %v", err)
	}
	return e
}

// prepared waits until what is done ahead of the first read is done.
func (e *environment) prepared() {
	e.t.Helper()
	harness.Eventually(e.t, patience, "all is prepared", func() bool { return strings.Contains(e.log.String(), "prepared for the first read") })
}

// invoke is one invocation that must succeed.
func (e *environment) invoke(body func(ctx context.Context)) {
	e.t.Helper()
	if err := e.Invoke(e.t.Context(), func(ctx context.Context, _ lambdaapi.Invocation) error { body(ctx); return nil }); err != nil {
		e.t.Fatalf("invocation: %v", err)
	}
}

// freeze stops the environment for d. The next invocation thaws it.
func (e *environment) freeze(d time.Duration) {
	e.t.Helper()
	harness.Must(e.t, e.Freeze())
	harness.Pause(e.t.Context(), d)
}

// answer is what the function got.
type answer struct {
	*harness.Response
	Begun, Ended time.Time
	Err          error // there was no answer
}

// send is one request of the function to the extension.
func (e *environment) send(ctx context.Context, c harness.Call) answer {
	begun := time.Now()
	r, err := harness.Send(ctx, e.client, e.base, c)
	a := answer{Response: r, Begun: begun, Ended: time.Now(), Err: err}
	if err != nil {
		a.Response = &harness.Response{Header: http.Header{}}
	} else if a.own() != "" {
		_, _ = suite.transcript.Write(r.Body) // a function would log it
	}
	return a
}

// get reads an API path with the extension's own token.
func (e *environment) get(ctx context.Context, path string) answer {
	return e.send(ctx, harness.Call{Method: http.MethodGet, Path: path})
}

// getAs reads an API path with a caller's token.
func (e *environment) getAs(ctx context.Context, path, token string) answer {
	return e.send(ctx, harness.Call{Method: http.MethodGet, Path: path, Token: token})
}

// put is a write of a KV v2 secret.
func put(path, value string) harness.Call {
	return harness.Call{Method: http.MethodPost, Path: path, Body: map[string]any{"data": map[string]string{"password": value}}}
}

func (a answer) took() time.Duration { return a.Ended.Sub(a.Begun) }

// own is the message of an error that is thaw's and not the origin's.
func (a answer) own() string {
	if a.Status < 400 {
		return ""
	}
	var body struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(a.Body, &body) != nil || len(body.Errors) != 1 || !strings.HasPrefix(body.Errors[0], "thaw: ") {
		return ""
	}
	return body.Errors[0]
}

// cacheStatus is the header Cache-Status.
func (a answer) cacheStatus() string { return a.Header.Get("Cache-Status") }

// stale reports whether the answer says that it is stale, which it must say in
// both ways or in neither.
func (a answer) stale() bool {
	return strings.Contains(a.cacheStatus(), "detail=stale") && strings.HasPrefix(a.Header.Get("Warning"), "110 ")
}

// value is the field "password" of a KV v1 or v2 secret.
func (a answer) value() string {
	data, err := a.Data()
	if err != nil {
		return ""
	}
	if inner, ok := data["data"].(map[string]any); ok {
		data = inner
	}
	s, _ := data["password"].(string)
	return s
}

// fresh fails the test unless the answer is 200, holds the value and is not
// marked stale.
func (a answer) fresh(t testing.TB, value string) {
	t.Helper()
	if a.Err != nil || a.Status != http.StatusOK || a.value() != value || a.stale() || a.Header.Get("Warning") != "" {
		t.Fatalf("answer %d %v %.300s, want 200 with %s, fresh: %v", a.Status, a.Header, a.Body, value, a.Err)
	}
}

// servedStale fails the test unless the answer is 200, holds the value and is
// marked stale in every way.
func (a answer) servedStale(t testing.TB, value string) {
	t.Helper()
	if a.Err != nil || a.Status != http.StatusOK || a.value() != value || !a.stale() {
		t.Fatalf("answer %d %v %.300s, want 200 with %s, marked stale: %v", a.Status, a.Header, a.Body, value, a.Err)
	}
	if got := a.Header.Get("X-Cache"); got != "HIT" {
		t.Errorf("X-Cache %q, want HIT", got)
	}
	if got := a.Header.Get("Warning"); got != `110 - "Response is Stale"` {
		t.Errorf("Warning %q", got)
	}
	if _, err := strconv.Atoi(a.Header.Get("Age")); err != nil {
		t.Errorf("Age %q", a.Header.Get("Age"))
	}
}

// refused fails the test unless the answer is an error of thaw's own with a
// status of 500 or more, as JSON, and names all the words.
func (a answer) refused(t testing.TB, words ...string) {
	t.Helper()
	message := a.own()
	if a.Err != nil || a.Status < 500 || message == "" || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/json") {
		t.Fatalf("answer %d %v %.300s, want thaw's own error: %v", a.Status, a.Header, a.Body, a.Err)
	}
	for _, w := range words {
		if !strings.Contains(message, w) {
			t.Errorf("error %q does not say %q", message, w)
		}
	}
}
