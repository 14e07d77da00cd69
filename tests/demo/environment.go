package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/functions/demo"
	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// environment is an execution environment: the extension and the function.
type environment struct {
	lambda   *lambdaapi.Environment
	addr     string // where the extension listens, with scheme
	function *demo.Function
	log      *transcript

	seen  map[string]string // path -> the value the function was last given; one goroutine at a time
	first time.Time         // when the function had its first answer
}

// extensionBinary is the extension to run, built if none is given.
func extensionBinary(ctx context.Context, given string, getenv func(string) string, out *report) (bin string, cleanup func(), err error) {
	if given != "" {
		bin, err := filepath.Abs(given)
		return bin, func() {}, err
	}
	dir, err := os.MkdirTemp("", "thaw-demo-")
	if err != nil {
		return "", nil, fmt.Errorf("make a folder for the extension: %w", err)
	}
	cleanup = func() { os.RemoveAll(dir) }
	done := out.step("building the extension")
	bin = filepath.Join(dir, "thaw") // Lambda knows an extension by its file's name
	if err := harness.Build(ctx, bin, "./extension"); err != nil {
		cleanup()
		return "", nil, err
	}
	done()
	return bin, cleanup, nil
}

// ownInit is what the function's own start takes, which is little for one of Go's.
const ownInit = 60 * time.Millisecond

// startEnvironment runs the Init phase. The port is chosen here and may be
// taken by another process before the extension listens, so there are three tries.
func startEnvironment(ctx context.Context, bin string, o *origin, extra []string) (*environment, error) {
	var last error
	for range 3 {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		e := &environment{addr: "http://" + port, log: &transcript{}, seen: map[string]string{}}
		e.lambda, err = lambdaapi.Start(ctx, lambdaapi.Config{
			Binary: bin,
			Env: slices.Concat([]string{
				"VAULT_ADDR=" + o.counter.Addr(), "THAW_LISTEN=" + port, "VAULT_LOG_LEVEL=INFO",
			}, o.extEnv, extra),
			Stdout: e.log, Stderr: e.log,
			Init: func(ctx context.Context) error { return wait.For(ctx, ownInit) },
		})
		if err == nil {
			var paths []string
			for _, n := range secretNames() {
				paths = append(paths, o.path(n))
			}
			e.function, err = demo.New(e.addr, paths)
		}
		if err == nil {
			e.function.Use = func(path string, data map[string]any) { e.seen[path], _ = data["value"].(string) }
			return e, nil
		}
		if e.lambda != nil {
			e.lambda.Close()
		}
		last = fmt.Errorf("start the extension: %w\nit printed:\n%s", err, e.log.tail(4000))
		if ctx.Err() != nil || !strings.Contains(e.log.tail(4000), "address already in use") {
			break
		}
	}
	return nil, last
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (e *environment) readyAt() time.Duration { return e.lambda.Times().ReadyAt() }

// invoke is one invocation in which the function reads paths, one after the
// other. before, if any, is done ahead of that, as a part of it.
func (e *environment) invoke(ctx context.Context, before func(context.Context) error, paths []string) ([]demo.Summary, error) {
	var got []demo.Summary
	clear(e.seen)
	err := e.lambda.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
		if before != nil {
			if err := before(ctx); err != nil {
				return err
			}
		}
		for _, p := range paths {
			a, err := e.function.Handle(ctx, demo.Event{Path: p})
			if err != nil {
				return err
			}
			if e.first.IsZero() {
				e.first = time.Now()
			}
			got = append(got, a.Secrets...)
		}
		return nil
	})
	return got, err
}

// shutdown ends the environment as Lambda does and says what was wrong with
// the extension's part in it.
func (e *environment) shutdown() error {
	exit, err := e.lambda.Shutdown("spindown")
	var errs []error
	if err != nil {
		errs = append(errs, err)
	} else if !exit.InTime {
		errs = append(errs, fmt.Errorf("the extension did not end by itself within Lambda's 2s: %v", exit))
	}
	for _, v := range e.lambda.Violations() {
		errs = append(errs, errors.New("against Lambda's protocol: "+v))
	}
	return errors.Join(errs...)
}

func (e *environment) close() {
	e.function.Close()
	e.lambda.Close()
}

// transcript keeps what the extension prints.
type transcript struct {
	mu   sync.Mutex // guards text
	text []byte
}

// Write implements io.Writer.
func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	return len(b), nil
}

func (t *transcript) contains(s string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Contains(string(t.text), s)
}

// tail is the last n bytes.
func (t *transcript) tail(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text[max(0, len(t.text)-n):])
}
