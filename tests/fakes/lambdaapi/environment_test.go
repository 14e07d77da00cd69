package lambdaapi_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// config makes the test binary an extension of that behaviour.
func config(t *testing.T, name string) lambdaapi.Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	return lambdaapi.Config{
		Binary: link,
		Stderr: t.Output(),
		Env:    []string{"GORACE=atexit_sleep_ms=0"}, // else a race build takes a second to exit
	}
}

func nothing(context.Context, lambdaapi.Invocation) error { return nil }

func TestLifecycleOfAGoodExtension(t *testing.T) {
	t.Parallel()
	cfg := config(t, "tiny-good")
	out, in := io.Pipe()
	cfg.Stdout = in
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(out).ReadString('\n')
		line <- s
		_, _ = io.Copy(io.Discard, out)
	}()
	inits := 0
	cfg.Init = func(context.Context) error { inits++; return nil }
	e := lambdaapi.StartForTest(t, cfg)
	if s := <-line; s != "started with 13 variables\n" {
		t.Errorf("output %q: nothing of our own environment may get through", s)
	}
	if times := e.Times(); times.RegisterAt() <= 0 || times.ReadyAt() < times.RegisterAt() {
		t.Errorf("registered after %v, ready after %v", times.RegisterAt(), times.ReadyAt())
	}
	ids := map[string]bool{}
	for range 3 {
		if err := e.Freeze(); err != nil {
			t.Fatal(err)
		}
		if state := stateOf(t, e.PID()); state != "T" {
			t.Errorf("frozen process is %s", state)
		}
		err := e.Invoke(t.Context(), func(ctx context.Context, inv lambdaapi.Invocation) error {
			ids[inv.RequestID] = true
			if d, ok := ctx.Deadline(); !ok || !d.Equal(inv.Deadline) {
				t.Errorf("deadline of the body %v, of the invocation %v", d, inv.Deadline)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		times := e.Times()
		if times.Body.Before(times.Invoked) || times.Next.Before(times.FirstNext) {
			t.Errorf("times out of order: %+v", times)
		}
	}
	if len(ids) != 3 {
		t.Errorf("request ids %v", ids)
	}
	if err := e.Freeze(); err != nil {
		t.Fatal(err)
	}
	old := e.PID()
	exit, err := e.Timeout(t.Context())
	if err != nil || !exit.InTime || exit.Code != 0 {
		t.Errorf("timeout: %v %+v", err, exit)
	}
	if e.PID() == old || inits != 2 {
		t.Errorf("after a timeout: pid %d and %d, %d inits", old, e.PID(), inits)
	}
	if exit, err = e.Crash(t.Context()); err != nil || !exit.InTime {
		t.Errorf("crash: %v %+v", err, exit)
	}
	if err := e.Invoke(t.Context(), nothing); err != nil {
		t.Error(err)
	}
	if exit, err = e.Shutdown("spindown"); err != nil || !exit.InTime || exit.Code != 0 || exit.CPU <= 0 {
		t.Errorf("shutdown: %v %+v", err, exit)
	}
	if err := e.Invoke(t.Context(), nothing); !errors.Is(err, lambdaapi.ErrIllegal) {
		t.Errorf("invoke after shutdown: %v", err)
	}
}

func stateOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

func TestInitFailuresSayWhy(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"tiny-mute":       "took longer than",
		"tiny-vanishes":   "has ended (extension: exit code 3",
		"tiny-init-error": "InitError Extension.ConfigInvalid: no key (extension: exit code 1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, name)
			if name == "tiny-mute" {
				cfg.InitTimeout = 200 * time.Millisecond
			}
			e, err := lambdaapi.Start(t.Context(), cfg)
			var failed *lambdaapi.Failure
			if !errors.As(err, &failed) || failed.Phase != "init" || !strings.Contains(err.Error(), want) {
				t.Fatalf("start: %v, want %q", err, want)
			}
			defer e.Close()
			if err := e.Freeze(); !errors.Is(err, lambdaapi.ErrIllegal) {
				t.Errorf("freeze: %v", err)
			}
			e.API().Check(t)
			if err := e.Reinit(t.Context()); !errors.As(err, &failed) {
				t.Errorf("init again: %v", err)
			}
		})
	}
}

func TestMissingBinaryIsNoFailureOfAPhase(t *testing.T) {
	t.Parallel()
	e, err := lambdaapi.Start(t.Context(), lambdaapi.Config{Binary: filepath.Join(t.TempDir(), "none")})
	if e != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("start: %v %v", e, err)
	}
}

func TestCrashInAnInvocationFailsItAndCanBeReinitialised(t *testing.T) {
	t.Parallel()
	e := lambdaapi.StartForTest(t, config(t, "tiny-crash"))
	for range 2 {
		var failed *lambdaapi.Failure
		if err := e.Invoke(t.Context(), nothing); !errors.As(err, &failed) || failed.Exit.Code != 4 {
			t.Fatalf("invoke: %v", err)
		}
		if err := e.Reinit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExtensionThatHoldsAnInvocationFailsIt(t *testing.T) {
	t.Parallel()
	cfg := config(t, "tiny-slow")
	cfg.Timeout = 200 * time.Millisecond
	e := lambdaapi.StartForTest(t, cfg)
	var failed *lambdaapi.Failure
	if err := e.Invoke(t.Context(), nothing); !errors.As(err, &failed) || failed.Phase != "invoke" || !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "took longer") {
		t.Errorf("invoke: %v", err)
	}
}

func TestShutdownEndsWithSIGKILLAfterTwoSeconds(t *testing.T) {
	t.Parallel()
	e := lambdaapi.StartForTest(t, config(t, "tiny-stubborn"))
	exit, err := e.Shutdown("timeout")
	if err != nil || exit.InTime || exit.Signal == 0 || exit.Took < 2*time.Second {
		t.Errorf("shutdown: %v %+v", err, exit)
	}
}

func TestUnsubscribedExtensionsAreLeftOutOfEvents(t *testing.T) {
	t.Parallel()
	t.Run("tiny-no-events", func(t *testing.T) {
		t.Parallel()
		e := lambdaapi.StartForTest(t, config(t, "tiny-no-events"))
		if err := e.Invoke(t.Context(), nothing); err != nil {
			t.Error(err)
		}
		if exit, err := e.Shutdown("spindown"); err != nil || exit.Signal == 0 {
			t.Errorf("shutdown: %v %+v, want SIGKILL at once", err, exit)
		}
	})
	t.Run("managed", func(t *testing.T) {
		t.Parallel()
		cfg := config(t, "tiny-shutdown-only")
		cfg.Function.InitType = lambdaapi.Managed
		e := lambdaapi.StartForTest(t, cfg)
		err := e.Invoke(t.Context(), func(ctx context.Context, _ lambdaapi.Invocation) error {
			return e.Invoke(ctx, nothing) // concurrent invocations
		})
		if err != nil {
			t.Error(err)
		}
		if err := e.Freeze(); !errors.Is(err, lambdaapi.ErrIllegal) {
			t.Errorf("freeze: %v", err)
		}
		if exit, err := e.Shutdown("spindown"); err != nil || !exit.InTime {
			t.Errorf("shutdown: %v %+v", err, exit)
		}
	})
}

func TestIllegalStepsOfTheDriverAreRefused(t *testing.T) {
	t.Parallel()
	e := lambdaapi.StartForTest(t, config(t, "tiny-good"))
	err := e.Invoke(t.Context(), func(ctx context.Context, _ lambdaapi.Invocation) error {
		if err := e.Freeze(); !errors.Is(err, lambdaapi.ErrIllegal) {
			t.Errorf("freeze within an invocation: %v", err)
		}
		if err := e.Invoke(ctx, nothing); !errors.Is(err, lambdaapi.ErrIllegal) {
			t.Errorf("invoke within an invocation: %v", err)
		}
		if err := e.FreezeNow(); err != nil {
			t.Error(err)
		}
		return e.Thaw()
	})
	if err != nil {
		t.Error(err)
	}
}

func TestViolationsOfARealProcessAreSeen(t *testing.T) {
	t.Parallel()
	e, err := lambdaapi.Start(t.Context(), config(t, "tiny-twice"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if v := e.Violations(); len(v) != 1 || !strings.Contains(v[0], "InvalidExtensionState") {
		t.Errorf("violations %q", v)
	}
}

// The extension holds the other end of our pipe, so the pipe ends only when both
// the driver and the extension have.
func TestExtensionDiesWithItsDriver(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ties the two lives together")
	}
	dir := filepath.Dir(config(t, "tiny-good").Binary)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	driver := filepath.Join(dir, "driver")
	if err := os.Symlink(self, driver); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), driver)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil || !strings.Contains(string(text), "started: <nil>") || !strings.Contains(string(text), "variables") {
		t.Errorf("output %q, %v", text, err)
	}
	_ = cmd.Wait() // it ends by SIGKILL
}

func TestKillLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	e := lambdaapi.StartForTest(t, config(t, "tiny-good"))
	if err := e.Freeze(); err != nil {
		t.Fatal(err)
	}
	pid := e.PID()
	e.Close()
	e.Close()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Errorf("process %d is still there", pid)
	}
}
