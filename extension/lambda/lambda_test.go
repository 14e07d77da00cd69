package lambda_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/lambda"
	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// epochs is a Handler that keeps what a cache would: which invocation it is in.
type epochs struct {
	onInvoke func(lambda.Event) // may be nil
	invoked  chan lambda.Event

	mu       sync.Mutex
	last     string        // guarded by mu
	count    int           // guarded by mu
	reasons  []string      // guarded by mu
	shutdown time.Duration // guarded by mu; what the context of Shutdown left
}

func newEpochs() *epochs { return &epochs{invoked: make(chan lambda.Event, 16)} }

func (e *epochs) Invoke(ev lambda.Event) {
	if e.onInvoke != nil {
		e.onInvoke(ev)
	}
	e.mu.Lock()
	e.last = ev.RequestID
	e.count++
	e.mu.Unlock()
	select {
	case e.invoked <- ev:
	default:
	}
}

func (e *epochs) Shutdown(ctx context.Context, reason string) {
	d, _ := ctx.Deadline()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reasons = append(e.reasons, reason)
	e.shutdown = time.Until(d)
}

func (e *epochs) seen() (string, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last, e.count
}

// rig is a registered client whose loop runs against the strict fake.
type rig struct {
	api    *lambdaapi.API
	ext    *lambdaapi.Extension
	client *lambda.Client
	h      *epochs
	run    chan error
	cancel context.CancelFunc
}

func newRig(t *testing.T, fn lambdaapi.Function, h *epochs, events ...lambda.EventType) *rig {
	t.Helper()
	api, err := lambdaapi.NewAPI(fn)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{api: api, h: h, run: make(chan error, 1)}
	t.Cleanup(api.Close)
	r.ext = api.Launch("thaw")
	r.client = lambda.New(lambda.Options{API: api.Addr(), Name: "thaw"})
	if err := r.client.Register(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.run <- r.client.Run(ctx, h) }()
	if err := r.ext.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) end(t *testing.T, reason string) {
	t.Helper()
	if err := r.ext.Shutdown(t.Context(), reason, time.Now().Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := <-r.run; err != nil {
		t.Errorf("run: %v", err)
	}
}

// One connection carries every Next, and each event reaches the Handler before
// the next Next.
func TestEveryInitTypeLoopsUntilShutdown(t *testing.T) {
	t.Parallel()
	both := []lambda.EventType{lambda.Invoke, lambda.Shutdown}
	for initType, events := range map[string][]lambda.EventType{
		lambdaapi.OnDemand:    both,
		lambdaapi.Provisioned: both,
		lambdaapi.SnapStart:   both,
		lambdaapi.Managed:     {lambda.Shutdown},
	} {
		t.Run(initType, func(t *testing.T) {
			t.Parallel()
			h := newEpochs()
			r := newRig(t, lambdaapi.Function{InitType: initType}, h, events...)
			h.onInvoke = func(lambda.Event) {
				if s := r.ext.State(); s != lambdaapi.Running {
					t.Errorf("the Handler runs while the extension is %s: Next was sent too early", s)
				}
			}
			deadline := time.UnixMilli(time.Now().Add(3 * time.Second).UnixMilli())
			for i := 0; len(events) == 2 && i < 5; i++ {
				id := string(rune('a' + i))
				err := r.ext.Invoke(t.Context(), lambdaapi.Invocation{RequestID: id, Deadline: deadline, ARN: "arn:" + id, TraceID: "Root=" + id})
				if err != nil {
					t.Fatal(err)
				}
				ev := <-h.invoked
				received := ev.ReceivedAt
				ev.ReceivedAt = time.Time{}
				if want := (lambda.Event{RequestID: id, Deadline: deadline, TraceID: "Root=" + id}); ev != want {
					t.Errorf("event %+v, want %+v", ev, want)
				}
				if d := time.Since(received); d < 0 || d > time.Minute {
					t.Errorf("received %v ago", d)
				}
				if err := r.ext.AwaitReady(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			r.end(t, "spindown")
			r.api.Check(t)
			if n := r.api.Connections(); n != 1 {
				t.Errorf("%d connections, want one for all calls", n)
			}
		})
	}
}

func TestAnyShutdownReasonEndsTheLoop(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"spindown", "SandboxTerminated", "Timeout", "ReleaseFail", "failure", "", "no such reason\n"} {
		h := newEpochs()
		r := newRig(t, lambdaapi.Function{}, h, lambda.Invoke, lambda.Shutdown)
		r.end(t, reason)
		if len(h.reasons) != 1 || h.reasons[0] != reason {
			t.Errorf("reasons %q, want %q", h.reasons, reason)
		}
		if h.shutdown <= 0 || h.shutdown > time.Second {
			t.Errorf("%v for the shutdown", h.shutdown)
		}
		if r.client.Pending() {
			t.Error("something is pending after the end")
		}
		r.api.Check(t)
	}
}

func TestManagedInstancesRefuseInvokeByATypedError(t *testing.T) {
	t.Parallel()
	api, err := lambdaapi.NewAPI(lambdaapi.Function{InitType: lambdaapi.Managed})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	api.Launch("thaw")
	c := lambda.New(lambda.Options{API: api.Addr(), Name: "thaw"})
	err = c.Register(t.Context(), lambda.Invoke, lambda.Shutdown)
	var refused *lambda.APIError
	if !errors.As(err, &refused) || refused.Status != http.StatusForbidden || refused.Type != "Extension.InvalidEventType" {
		t.Fatalf("register: %v", err)
	}
	if err := c.Register(t.Context(), lambda.Shutdown); err != nil {
		t.Errorf("register for SHUTDOWN after the refusal: %v", err)
	}
}

func TestWrongNameIsRefused(t *testing.T) {
	t.Parallel()
	api, err := lambdaapi.NewAPI(lambdaapi.Function{})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	api.Launch("thaw")
	for _, name := range []string{"", "other"} {
		c := lambda.New(lambda.Options{API: api.Addr(), Name: name})
		var refused *lambda.APIError
		if err := c.Register(t.Context(), lambda.Shutdown); err == nil || errors.As(err, &refused) && refused.Type == "Extension.InvalidEventType" {
			t.Errorf("register as %q: %v", name, err)
		}
	}
}

func TestErrorsReachThePlatform(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 10_000)
	for name, tt := range map[string]struct {
		send  func(c *lambda.Client) error
		state lambdaapi.State
		want  lambdaapi.Report
	}{
		"init": {
			func(c *lambda.Client) error {
				return c.InitError(t.Context(), "Extension.ConfigInvalid", errors.New("VAULT_ADDR is \"\nbad\""))
			}, lambdaapi.InitError, lambdaapi.Report{Type: "Extension.ConfigInvalid", Message: "VAULT_ADDR is \"\nbad\""},
		},
		"exit": {
			func(c *lambda.Client) error {
				return c.ExitError(t.Context(), "Extension.EventsFailed", errors.New(long))
			}, lambdaapi.ExitError, lambdaapi.Report{Type: "Extension.EventsFailed", Message: long[:8192]},
		},
		"untyped": {
			func(c *lambda.Client) error { return c.InitError(t.Context(), "", nil) },
			lambdaapi.InitError, lambdaapi.Report{Type: "Extension.UnknownFailure"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			api, err := lambdaapi.NewAPI(lambdaapi.Function{})
			if err != nil {
				t.Fatal(err)
			}
			defer api.Close()
			x := api.Launch("thaw")
			c := lambda.New(lambda.Options{API: api.Addr(), Name: "thaw"})
			if err := tt.send(c); !errors.Is(err, lambda.ErrNotRegistered) {
				t.Errorf("before register: %v", err)
			}
			if err := c.Run(t.Context(), newEpochs()); !errors.Is(err, lambda.ErrNotRegistered) {
				t.Errorf("run before register: %v", err)
			}
			if err := c.Register(t.Context(), lambda.Shutdown); err != nil {
				t.Fatal(err)
			}
			if err := tt.send(c); err != nil {
				t.Fatal(err)
			}
			if got := x.Report(); x.State() != tt.state || *got != tt.want {
				t.Errorf("state %s, report %s of %d bytes", x.State(), got.Type, len(got.Message))
			}
			api.Check(t)
			var refused *lambda.APIError
			if err := c.Run(t.Context(), newEpochs()); !errors.As(err, &refused) || refused.Type != "Extension.InvalidExtensionState" {
				t.Errorf("run after the report: %v", err)
			}
		})
	}
}

func TestCancelledLoopEndsAtOnce(t *testing.T) {
	t.Parallel()
	h := newEpochs()
	r := newRig(t, lambdaapi.Function{}, h, lambda.Invoke, lambda.Shutdown)
	r.cancel()
	if err := <-r.run; !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	if _, n := h.seen(); n != 0 || len(h.reasons) != 0 {
		t.Errorf("the Handler saw %d events, reasons %q", n, h.reasons)
	}
}

func TestARegistrationLeavesNothingPending(t *testing.T) {
	t.Parallel()
	api, err := lambdaapi.NewAPI(lambdaapi.Function{})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	api.Launch("thaw")
	c := lambda.New(lambda.Options{API: api.Addr(), Name: "thaw"})
	if err := c.Register(t.Context(), lambda.Invoke, lambda.Shutdown); err != nil {
		t.Fatal(err)
	}
	// Its answer came on the connection that events come on.
	if c.Pending() {
		t.Error("the answer to Register is taken for an event: reads would wait for it")
	}
}
