// Package rescue keeps a panic from ending the process: it becomes an error, whose
// stack the log shows. The value of a panic is shown nowhere unless it is the
// runtime's own, since it may hold a secret.
package rescue

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
)

// Error is a panic.
type Error struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

// Error says what kind of panic it was.
func (e *Error) Error() string {
	if err, ok := e.Value.(runtime.Error); ok {
		return "an internal error: " + err.Error()
	}
	return fmt.Sprintf("an internal error: a panic with a %T", e.Value)
}

// Recovered makes an error of what recover returned; nil of nil.
func Recovered(value any) error {
	if value == nil {
		return nil
	}
	return &Error{value, debug.Stack()}
}

// Do runs f, and logs its panic. It reports whether there was none.
func Do(log *slog.Logger, what string, f func()) (ok bool) {
	defer func() {
		if err := Recovered(recover()); err != nil {
			log.Error(what, "error", err)
		}
	}()
	f()
	return true
}

// Each is Do for each number below n, at most so many at a time, the caller's goroutine
// among them. It returns when all are through.
func Each(log *slog.Logger, what string, most, n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			Do(log, what, func() { f(i) })
		}
	}
	for range min(most, n) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// Try runs f, and returns its panic as its error.
func Try(f func() error) (err error) {
	defer func() {
		if panicked := Recovered(recover()); panicked != nil {
			err = panicked
		}
	}()
	return f()
}

// pause is how long Keep waits before what panicked runs again.
const pause = time.Second

// Keep is Do for what runs until ctx ends: after a panic it is run again.
func Keep(ctx context.Context, log *slog.Logger, what string, f func(context.Context)) {
	for !Do(log, what, func() { f(ctx) }) && wait.For(ctx, pause) == nil {
	}
}

// Handler answers a request whose handler panics with answer, or cuts the
// connection off once something was answered.
func Handler(log *slog.Logger, w http.ResponseWriter, answer func(http.ResponseWriter), handle func(http.ResponseWriter)) {
	noted := &notedWriter{ResponseWriter: w}
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		if value == http.ErrAbortHandler {
			panic(value)
		}
		log.Error("answer a request", "error", Recovered(value))
		if noted.begun {
			panic(http.ErrAbortHandler)
		}
		clear(w.Header())
		answer(w)
	}()
	handle(noted)
}

// notedWriter knows whether an answer has begun.
type notedWriter struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader begins an answer; an interim one (1xx) does not.
func (w *notedWriter) WriteHeader(status int) {
	w.begun = w.begun || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

// Write writes a part of the body.
func (w *notedWriter) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *notedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
