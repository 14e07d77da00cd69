package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Command says how to start a Process.
type Command struct {
	Path   string    // the binary
	Args   []string  // without the binary's name
	Env    []string  // the whole environment; nil: PATH and HOME only
	Dir    string    // working directory; empty: ours
	Stdin  io.Reader // nil: empty
	Stdout io.Writer // also gets the standard output; nil: captured only
	Stderr io.Writer // also gets the standard error; nil: captured only
	Nice   bool      // run with a lower priority
}

// Process is a child process whose output is captured. It is safe for
// concurrent use.
type Process struct {
	name   string
	pid    int
	stdout *capture
	stderr *capture
	done   chan struct{}
	err    error // why it ended; read after done
}

// Start starts a child. Its lifetime is not bound to a context: end it with
// Kill or Stop. The error says which binary could not be started.
func Start(c Command) (*Process, error) {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = c.Env
	if cmd.Env == nil {
		env := FromEnv()
		cmd.Env = []string{"PATH=" + env.Path, "HOME=" + env.Home}
	}
	cmd.Stdin = c.Stdin
	cmd.SysProcAttr = childAttr()
	cmd.WaitDelay = 2 * time.Second // a grandchild that holds a pipe must not hold us

	p := &Process{
		name:   filepath.Base(c.Path),
		stdout: &capture{tee: c.Stdout},
		stderr: &capture{tee: c.Stderr},
		done:   make(chan struct{}),
	}
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr

	started := make(chan error, 1)
	go func() {
		// The parent-death signal fires when the thread that started the
		// child ends, not the process (prctl(2), PR_SET_PDEATHSIG). So the
		// thread is kept until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		if c.Nice {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, 10)
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	return p, nil
}

// Run starts a child and waits for its end or ctx's, whichever is first. A
// child that ctx ended is killed. The returned error carries the last of its
// output.
func Run(ctx context.Context, c Command) (*Process, error) {
	p, err := Start(c)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return p, fmt.Errorf("%s: %w\n%s", p.name, context.Cause(ctx), p.Tail(2000))
	}
	if p.err != nil {
		return p, fmt.Errorf("%s: %w\n%s", p.name, p.err, p.Tail(4000))
	}
	return p, nil
}

// PID is the child's process id.
func (p *Process) PID() int { return p.pid }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the child ended: nil for exit code 0. Only after Done.
func (p *Process) Err() error { <-p.done; return p.err }

// ExitCode is the child's exit code, -1 if a signal ended it. Only after Done.
func (p *Process) ExitCode() int {
	<-p.done
	if p.err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// Stdout is what the child has written to its standard output so far.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr is what the child has written to its standard error so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// Output is Stdout and Stderr, one after the other.
func (p *Process) Output() string { return p.stdout.String() + p.stderr.String() }

// Tail is the end of Output, at most n bytes.
func (p *Process) Tail(n int) string {
	out := p.Output()
	if len(out) > n {
		out = "..." + out[len(out)-n:]
	}
	return out
}

// Signal sends a signal; a child that has ended is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop sends SIGTERM, waits at most patience, then kills. It reports whether
// the child ended by itself.
func (p *Process) Stop(patience time.Duration) bool {
	_ = p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		p.Kill()
		return false
	}
}

// Freeze stops the child as a frozen sandbox does, and returns when every
// thread of it stands still.
func (p *Process) Freeze(ctx context.Context) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := poll(ctx, time.Millisecond, func() bool { return p.ended() || threadsStopped(p.pid) }); err != nil {
		return fmt.Errorf("freeze %s: %w", p.name, err)
	}
	if p.ended() {
		return fmt.Errorf("freeze %s: it has ended", p.name)
	}
	return nil
}

// Thaw lets a frozen child go on.
func (p *Process) Thaw() error { return p.Signal(syscall.SIGCONT) }

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// threadsStopped reports whether all threads of pid are in state T. The state
// follows the command's name, which stands in parentheses (proc(5),
// /proc/pid/stat).
func threadsStopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			return false
		}
		if i := bytes.LastIndexByte(b, ')'); i < 0 || i+2 >= len(b) || b[i+2] != 'T' {
			return false
		}
	}
	return true
}

// captureLimit bounds what is kept of a stream; the beginning is dropped.
const captureLimit = 16 << 20

// capture keeps the end of a stream and passes it on.
type capture struct {
	tee io.Writer

	mu  sync.Mutex // guards buf, and orders writes to tee
	buf []byte
}

func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.buf)+len(b) > captureLimit {
		c.buf = append([]byte(nil), c.buf[len(c.buf)/2:]...)
	}
	c.buf = append(c.buf, b...)
	if c.tee != nil {
		_, _ = c.tee.Write(b)
	}
	return len(b), nil
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.buf)
}
