package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunCapturesBothStreamsAndTheExitCode(t *testing.T) {
	t.Parallel()
	p, err := Run(t.Context(), Command{Path: "/bin/sh", Args: []string{"-c", "echo out; echo err >&2; exit 3"}})
	if err == nil || !strings.Contains(err.Error(), "err") {
		t.Errorf("error = %v, want one that has the output", err)
	}
	if p.Stdout() != "out\n" || p.Stderr() != "err\n" || p.ExitCode() != 3 {
		t.Errorf("stdout %q, stderr %q, code %d", p.Stdout(), p.Stderr(), p.ExitCode())
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	p, err := Run(ctx, Command{Path: "/bin/sleep", Args: []string{"60"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v", err)
	}
	if p.ExitCode() != -1 {
		t.Errorf("exit code %d, want -1 for a signal", p.ExitCode())
	}
}

func TestStartNamesABinaryThatIsNotThere(t *testing.T) {
	t.Parallel()
	if _, err := Start(Command{Path: "/nonexistent/x"}); err == nil || !strings.Contains(err.Error(), "/nonexistent/x") {
		t.Errorf("error = %v", err)
	}
}

func TestFreezeStopsEveryThreadAndThawGoesOn(t *testing.T) {
	t.Parallel()
	p, err := Start(Command{Path: "/bin/sh", Args: []string{"-c", "while :; do :; done"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	for range 3 {
		if err := p.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !threadsStopped(p.PID()) {
			t.Error("running after Freeze")
		}
		if err := p.Thaw(); err != nil {
			t.Fatal(err)
		}
		if err := poll(t.Context(), time.Millisecond, func() bool { return !threadsStopped(p.PID()) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Kill() // a frozen child can be ended
	if err := p.Freeze(t.Context()); err == nil {
		t.Error("froze a child that has ended")
	}
}

// TestChildrenDieWithTheirParent kills this test binary's helper with SIGKILL
// and sees its child gone, which nobody could end any more.
func TestChildrenDieWithTheirParent(t *testing.T) {
	if pidFile := os.Getenv("HARNESS_HELPER"); pidFile != "" {
		p, err := Start(Command{Path: "/bin/sleep", Args: []string{"600"}})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("child %d\n", p.PID())
		<-p.Done()
		return
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	helper, err := Start(Command{
		Path: self, Args: []string{"-test.run=^TestChildrenDieWithTheirParent$", "-test.v"},
		Env: []string{"HARNESS_HELPER=1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer helper.Kill()
	var child int
	said := func() bool {
		_, after, ok := strings.Cut(helper.Stdout(), "child ")
		if !ok || !strings.Contains(after, "\n") {
			return false
		}
		_, err := fmt.Sscan(after, &child)
		return err == nil
	}
	if err := poll(t.Context(), 5*time.Millisecond, said); err != nil {
		t.Fatal(err)
	}
	helper.Kill()
	gone := func() bool { return errors.Is(syscall.Kill(child, 0), syscall.ESRCH) || zombie(child) }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := poll(ctx, 5*time.Millisecond, gone); err != nil {
		_ = syscall.Kill(child, syscall.SIGKILL)
		t.Fatalf("child %d outlived its parent", child)
	}
}

// zombie reports whether a process is dead and only waits for its new parent.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}
