package lambdaapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// caller speaks to the API without help, right or wrong.
type caller struct {
	t   *testing.T
	api *lambdaapi.API
	id  string
}

func (c *caller) do(method, path, body string, head ...string) (int, string, http.Header) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+c.api.Addr()+"/2020-01-01/extension/"+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

func (c *caller) register(name, events string) (int, string) {
	c.t.Helper()
	status, text, head := c.do("POST", "register", `{"events":[`+events+`]}`, "Lambda-Extension-Name", name)
	if status == http.StatusOK {
		c.id = head.Get("Lambda-Extension-Identifier")
	}
	return status, text
}

func (c *caller) with(method, path, body string, head ...string) (int, string) {
	c.t.Helper()
	status, text, _ := c.do(method, path, body, append(head, "Lambda-Extension-Identifier", c.id)...)
	return status, text
}

func newAPI(t *testing.T, fn lambdaapi.Function) *lambdaapi.API {
	t.Helper()
	api, err := lambdaapi.NewAPI(fn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	return api
}

const both = `"INVOKE","SHUTDOWN"`

// A row is one illegal act; prepare makes what must be legal before it.
func TestIllegalCallsAreRefusedAndRecorded(t *testing.T) {
	t.Parallel()
	const typ, body = "Lambda-Extension-Function-Error-Type", `{"errorMessage":"m","errorType":"Extension.X","stackTrace":[]}`
	tests := map[string]struct {
		fn   lambdaapi.Function
		act  func(c *caller, api *lambdaapi.API) (int, string)
		want string // in the answer
	}{
		"register twice": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			c.register("thaw", both)
			return c.register("thaw", both)
		}, want: "Extension.InvalidExtensionState"},
		"register after the Init phase": {act: func(c *caller, api *lambdaapi.API) (int, string) {
			api.CloseRegistration()
			return c.register("thaw", both)
		}, want: "Extension.RegistrationClosed"},
		"register with no name": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			status, text, _ := c.do("POST", "register", `{"events":[]}`)
			return status, text
		}, want: "Extension.InvalidExtensionName"},
		"register with another name": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			return c.register("Thaw", both)
		}, want: "Extension.InvalidExtensionName"},
		"register for an unknown event": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			return c.register("thaw", `"RESTORE"`)
		}, want: "Extension.InvalidEventType"},
		"register for INVOKE under Managed Instances": {
			fn: lambdaapi.Function{InitType: lambdaapi.Managed},
			act: func(c *caller, _ *lambdaapi.API) (int, string) {
				return c.register("thaw", both)
			}, want: "Extension.InvalidEventType"},
		"register without a document": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			return c.register("thaw", `]`)
		}, want: "InvalidRequestFormat"},
		"Next before register": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			status, text, _ := c.do("GET", "event/next", "", "Lambda-Extension-Identifier", "00000000-0000-4000-8000-000000000000")
			return status, text
		}, want: "Extension.UnknownExtensionIdentifier"},
		"Next without identifier": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			c.register("thaw", both)
			status, text, _ := c.do("GET", "event/next", "")
			return status, text
		}, want: "Extension.MissingExtensionIdentifier"},
		"Next with a malformed identifier": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			c.register("thaw", both)
			status, text, _ := c.do("GET", "event/next", "", "Lambda-Extension-Identifier", "thaw")
			return status, text
		}, want: "Extension.InvalidExtensionIdentifier"},
		"Next of a process that has ended": {act: func(c *caller, api *lambdaapi.API) (int, string) {
			c.register("thaw", both)
			api.Launch("thaw")
			return c.with("GET", "event/next", "")
		}, want: "Extension.UnknownExtensionIdentifier"},
		"Next after init/error": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			c.register("thaw", both)
			c.with("POST", "init/error", body, typ, "Extension.X")
			return c.with("GET", "event/next", "")
		}, want: "Extension.InvalidExtensionState"},
		"init/error without a type": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			c.register("thaw", both)
			return c.with("POST", "init/error", body)
		}, want: "Extension.MissingHeader"},
		"exit/error without a type": {act: func(c *caller, _ *lambdaapi.API) (int, string) {
			c.register("thaw", both)
			return c.with("POST", "exit/error", body)
		}, want: "Extension.MissingHeader"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t, tt.fn)
			api.Launch("thaw")
			status, text := tt.act(&caller{t: t, api: api}, api)
			if status != http.StatusForbidden || !strings.Contains(text, tt.want) {
				t.Errorf("answer %d %s, want 403 with %s", status, text, tt.want)
			}
			if v := api.Violations(); len(v) != 1 || !strings.Contains(v[0], tt.want) {
				t.Errorf("violations %q, want one with %s", v, tt.want)
			}
		})
	}
}

func TestUnknownCallsAreRecorded(t *testing.T) {
	t.Parallel()
	api := newAPI(t, lambdaapi.Function{})
	c := &caller{t: t, api: api}
	if status, _, _ := c.do("GET", "register", ""); status != http.StatusMethodNotAllowed {
		t.Errorf("GET register: %d", status)
	}
	if status, _, _ := c.do("GET", "unheard-of", ""); status != http.StatusNotFound {
		t.Errorf("GET unheard-of: %d", status)
	}
	if v := api.Violations(); len(v) != 2 {
		t.Errorf("violations %q", v)
	}
}

func TestMalformedErrorReportsAreRecorded(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{`, `{"errorMessage":"m"}`, `{"errorMessage":"m","errorType":"Other.Type","stackTrace":[]}`} {
		api := newAPI(t, lambdaapi.Function{})
		api.Launch("thaw")
		c := &caller{t: t, api: api}
		c.register("thaw", both)
		if status, _ := c.with("POST", "init/error", body, "Lambda-Extension-Function-Error-Type", "Extension.X"); status != http.StatusAccepted {
			t.Errorf("%s: %d, Lambda doesn't look at the body", body, status)
		}
		if v := api.Violations(); len(v) != 1 {
			t.Errorf("%s: violations %q", body, v)
		}
	}
}

// A second Next beside an outstanding one is refused, also when the first has
// lost its connection: that is what a client with a timeout meets.
func TestNextTwiceIsRefused(t *testing.T) {
	t.Parallel()
	api := newAPI(t, lambdaapi.Function{})
	x := api.Launch("thaw")
	c := &caller{t: t, api: api}
	c.register("thaw", both)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+api.Addr()+"/2020-01-01/extension/event/next", nil)
	req.Header.Set("Lambda-Extension-Identifier", c.id)
	first := make(chan error, 1)
	go func() {
		_, err := http.DefaultTransport.RoundTrip(req)
		first <- err
	}()
	if err := x.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-first; err == nil {
		t.Fatal("the cancelled Next was answered")
	}
	if status, text := c.with("GET", "event/next", ""); status != http.StatusForbidden || !strings.Contains(text, "InvalidExtensionState") {
		t.Errorf("second Next: %d %s", status, text)
	}
	if v := api.Violations(); len(v) != 1 {
		t.Errorf("violations %q", v)
	}
}

// The bytes of an event are in the socket when Invoke returns.
func TestEventsCarryWhatTheDocsName(t *testing.T) {
	t.Parallel()
	api := newAPI(t, lambdaapi.Function{})
	x := api.Launch("thaw")
	c := &caller{t: t, api: api}
	status, text := c.register("thaw", both)
	if status != http.StatusOK || !strings.Contains(text, `"functionName":"fn"`) || strings.Contains(text, "accountId") {
		t.Fatalf("register: %d %s", status, text)
	}
	answers := make(chan string, 1)
	ask := func() {
		_, text := c.with("GET", "event/next", "")
		answers <- text
	}
	for _, step := range []struct {
		send func() error
		want []string
	}{
		{func() error {
			return x.Invoke(t.Context(), lambdaapi.Invocation{RequestID: "r1", Deadline: time.UnixMilli(1234), ARN: "arn:x", TraceID: "Root=1"})
		}, []string{`"eventType":"INVOKE"`, `"requestId":"r1"`, `"deadlineMs":1234`, `"invokedFunctionArn":"arn:x"`, `"tracing":{"type":"X-Amzn-Trace-Id","value":"Root=1"}`}},
		{func() error { return x.Shutdown(t.Context(), "spindown", time.UnixMilli(99)) },
			[]string{`"eventType":"SHUTDOWN"`, `"shutdownReason":"spindown"`, `"deadlineMs":99`}},
	} {
		go ask()
		if err := step.send(); err != nil {
			t.Fatal(err)
		}
		text := <-answers
		for _, w := range step.want {
			if !strings.Contains(text, w) {
				t.Errorf("event %s lacks %s", text, w)
			}
		}
	}
	api.Check(t)
	// What comes after SHUTDOWN is wrong, though Lambda lets it pass.
	go ask()
	if err := x.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := api.Violations(); !slices.ContainsFunc(v, func(s string) bool { return strings.Contains(s, "after SHUTDOWN") }) {
		t.Errorf("violations %q", v)
	}
	if err := x.Spoil(t.Context(), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }); err != nil {
		t.Fatal(err)
	}
	if text := <-answers; text != "{}" {
		t.Errorf("spoiled answer %q", text)
	}
}

func TestSpoiledNextIsCut(t *testing.T) {
	t.Parallel()
	api := newAPI(t, lambdaapi.Function{})
	x := api.Launch("thaw")
	c := &caller{t: t, api: api}
	c.register("thaw", both)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+api.Addr()+"/2020-01-01/extension/event/next", bytes.NewReader(nil))
	req.Header.Set("Lambda-Extension-Identifier", c.id)
	first := make(chan error, 1)
	go func() {
		_, err := (&http.Transport{}).RoundTrip(req)
		first <- err
	}()
	if err := x.Spoil(t.Context(), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }); err != nil {
		t.Fatal(err)
	}
	if err := <-first; !errors.Is(err, io.EOF) {
		t.Errorf("cut Next: %v", err)
	}
}
