package lambda_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/lambda"
	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// raw answers with bytes that need not be HTTP, and closes.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

// faults are answers that are no events. lost says that an INVOKE may have been
// in there.
func faults() map[string]struct {
	serve http.HandlerFunc
	lost  bool
} {
	type fault = struct {
		serve http.HandlerFunc
		lost  bool
	}
	return map[string]fault{
		"500":                  {answer(500, `{"errorType":"InternalServerError","errorMessage":"x"}`), false},
		"503 without document": {answer(503, strings.Repeat("<", 100)), false},
		"503, huge":            {answer(503, strings.Repeat("<", 1<<20)), false},
		"unknown event":        {answer(200, `{"eventType":"RESTORE"}`), false},
		"connection cut":       {cut, true},
		"not JSON":             {answer(200, `<html>`), true},
		"JSON, no event":       {answer(200, `{}`), true},
		"empty":                {answer(200, ``), true},
		"huge body":            {answer(200, `{"eventType":"INVOKE","pad":"`+strings.Repeat("x", 1<<20)+`"}`), true},
		"endless chunks":       {endless, true},
		"not HTTP":             {raw("SSH-2.0-OpenSSH_9.9\r\n"), true},
		"huge head":            {raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n{}"), true},
		"half an event":        {raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"eventType\":\"INV"), true},
		"half a head":          {raw("HTTP/1.1 200 OK\r\nContent-Le"), true},
		"no content":           {answer(204, ``), false},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, false},
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for {
		if _, err := io.WriteString(w, strings.Repeat(" ", 1<<12)); err != nil {
			return
		}
	}
}

// After a fault the loop asks again, the next event is taken, and a fault that
// may have swallowed an INVOKE starts a new epoch.
func TestLoopOutlivesBadAnswers(t *testing.T) {
	t.Parallel()
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newEpochs()
			r := newRig(t, lambdaapi.Function{}, h, lambda.Invoke, lambda.Shutdown)
			// First an event: net/http treats a connection that was used before
			// differently from a new one.
			if err := r.ext.Invoke(t.Context(), lambdaapi.Invocation{RequestID: "before"}); err != nil {
				t.Fatal(err)
			}
			if err := r.ext.Spoil(t.Context(), f.serve); err != nil {
				t.Fatal(err)
			}
			if err := r.ext.AwaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			want, last := 1, "before"
			if f.lost {
				want, last = 2, ""
			}
			if id, n := h.seen(); n != want || id != last {
				t.Errorf("%d epochs, last %q, want %d, %q", n, id, want, last)
			}
			if r.client.Pending() {
				t.Error("pending, though a new Next is outstanding")
			}
			if err := r.ext.Invoke(t.Context(), lambdaapi.Invocation{RequestID: "after", Deadline: time.Now().Add(time.Second)}); err != nil {
				t.Fatal(err)
			}
			if err := r.ext.AwaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			if id, n := h.seen(); n != want+1 || id != "after" {
				t.Errorf("%d epochs, last %q, want %d, after", n, id, want+1)
			}
			r.end(t, "spindown")
			r.api.Check(t)
		})
	}
}

// The loop gives up after six failures in a row and never spins.
func TestLoopGivesUpOnAnAPIThatStaysBad(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"500", "unknown event", "connection cut", "huge body"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := faults()[name]
			r := newRig(t, lambdaapi.Function{}, newEpochs(), lambda.Invoke, lambda.Shutdown)
			begun := time.Now()
			for i := range 6 {
				if err := r.ext.Spoil(t.Context(), f.serve); err != nil {
					t.Fatalf("attempt %d: %v", i+1, err)
				}
			}
			err := <-r.run
			if err == nil || !strings.Contains(err.Error(), "gave up after 6 failures") {
				t.Errorf("run: %v", err)
			}
			if d := time.Since(begun); d < 775*time.Millisecond {
				t.Errorf("six attempts in %v: no pauses between", d)
			}
			if r.client.Pending() {
				t.Error("pending after the end")
			}
			r.api.Check(t)
		})
	}
}

func TestEventsBetweenFaultsKeepTheLoopAlive(t *testing.T) {
	t.Parallel()
	r := newRig(t, lambdaapi.Function{}, newEpochs(), lambda.Invoke, lambda.Shutdown)
	for range 8 {
		if err := r.ext.Spoil(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		if err := r.ext.Invoke(t.Context(), lambdaapi.Invocation{RequestID: "r"}); err != nil {
			t.Fatal(err)
		}
	}
	r.end(t, "spindown")
	r.api.Check(t)
}

func TestRefusedNextIsFatalAtOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 403, 404, 410} {
		r := newRig(t, lambdaapi.Function{}, newEpochs(), lambda.Invoke, lambda.Shutdown)
		if err := r.ext.Spoil(t.Context(), answer(status, `{"errorType":"Extension.X","errorMessage":"a\nb"}`)); err != nil {
			t.Fatal(err)
		}
		err := <-r.run
		var refused *lambda.APIError
		if !errors.As(err, &refused) || refused.Status != status || refused.Type != "Extension.X" {
			t.Errorf("run: %v", err)
		}
		if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("the API's text breaks the line: %q", err)
		}
		if err := r.client.ExitError(t.Context(), "Extension.EventsFailed", err); err != nil {
			t.Errorf("exit/error: %v", err)
		}
		r.api.Check(t)
	}
}

// An extension without INVOKE never gets one made up.
func TestLostAnswersAreNoInvocationUnderManagedInstances(t *testing.T) {
	t.Parallel()
	h := newEpochs()
	r := newRig(t, lambdaapi.Function{InitType: lambdaapi.Managed}, h, lambda.Shutdown)
	if err := r.ext.Spoil(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	r.end(t, "spindown")
	if _, n := h.seen(); n != 0 {
		t.Errorf("%d epochs", n)
	}
}

func TestLoopEndsWhenTheAPIIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, lambdaapi.Function{}, newEpochs(), lambda.Invoke, lambda.Shutdown)
	r.api.Close()
	var op *net.OpError
	if err := <-r.run; !errors.As(err, &op) {
		t.Errorf("run: %v", err)
	}
}

// Register and the reports must not trust the answer either.
func TestBadAnswersToRegisterAreErrors(t *testing.T) {
	t.Parallel()
	const id = "Lambda-Extension-Identifier: 1\r\n"
	for name, text := range map[string]string{
		"not HTTP":         "hello\r\n\r\n",
		"closed":           "",
		"no identifier":    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"not JSON":         "HTTP/1.1 200 OK\r\n" + id + "Content-Length: 2\r\n\r\n[]",
		"huge identifier":  "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: " + strings.Repeat("1", 300) + "\r\nContent-Length: 2\r\n\r\n{}",
		"huge body":        "HTTP/1.1 200 OK\r\n" + id + "\r\n" + strings.Repeat(" ", 1<<20) + "{}",
		"cut body":         "HTTP/1.1 200 OK\r\n" + id + "Content-Length: 20\r\n\r\n{}",
		"redirect":         "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
		"error, no detail": "HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\n<",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- serveOnce(l, text) }()
			c := lambda.New(lambda.Options{API: l.Addr().String(), Name: "thaw"})
			if err := c.Register(t.Context(), lambda.Shutdown); err == nil {
				t.Error("registered")
			}
			if err := c.InitError(t.Context(), "Extension.X", nil); !errors.Is(err, lambda.ErrNotRegistered) {
				t.Errorf("init/error: %v", err)
			}
			_ = l.Close()
			if err := <-served; err != nil {
				t.Log(err) // the client hangs up on a huge answer
			}
		})
	}
}

func serveOnce(l net.Listener, text string) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	_, err = io.WriteString(conn, text)
	return err
}

// AWS's emulator starts an extension before its API listens (seen in tests/lambda).
func TestRegisterWaitsUntilTheAPIListens(t *testing.T) {
	t.Parallel()
	addr := harness.FreeAddr(t)
	var server http.Server
	defer server.Close()
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Lambda-Extension-Identifier", "id")
		_, _ = io.WriteString(w, `{"functionName":"fn"}`)
	})
	defer time.AfterFunc(50*time.Millisecond, func() {
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = server.Serve(l) // until Close
		}
	}).Stop()
	c := lambda.New(lambda.Options{API: addr, Name: "thaw"})
	if err := c.Register(t.Context(), lambda.Shutdown); err != nil {
		t.Fatal(err)
	}
}
