package azurefn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// child is the user's handler as a process. It and whatever it starts are a
// process group of their own, which ends with it.
type child struct {
	name string
	addr string // where it is to listen
	log  *slog.Logger
	tail *tail

	pid     int
	started time.Time
	done    chan struct{} // closed when it has ended and was waited for
	err     error         // why; written before done is closed
}

// startChild starts the command. The kernel kills it when this process dies.
func startChild(o Options, port int) (*child, error) {
	path, err := exec.LookPath(o.Command[0])
	if err != nil {
		return nil, fmt.Errorf("start the command after -- in host.json: %w", err)
	}
	c := &child{
		name: filepath.Base(path), addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		log: o.Log, tail: &tail{}, done: make(chan struct{}),
	}
	cmd := exec.Command(path, o.Command[1:]...)
	cmd.Env = childEnviron(o.Environ, port)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(o.Stdout, c.tail), io.MultiWriter(o.Stderr, c.tail)
	cmd.SysProcAttr = childAttr()
	cmd.WaitDelay = time.Second // one that it started and left behind may hold its output
	begun := make(chan error, 1)
	go func() {
		// The signal on the parent's death comes when the thread that started
		// the child ends (prctl(2), PR_SET_PDEATHSIG): it is kept until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			begun <- err
			return
		}
		c.pid, c.started = cmd.Process.Pid, time.Now()
		begun <- nil
		if c.err = cmd.Wait(); errors.Is(c.err, exec.ErrWaitDelay) {
			c.err = nil
		}
		killGroup(c.pid) // what it left behind
		close(c.done)
	}()
	if err := <-begun; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return c, nil
}

// childEnviron is ours with the child's port, and without what only thaw needs:
// the keys that seal the shared cache.
func childEnviron(environ []string, port int) []string {
	ours := []string{PortVariable, LegacyPortVariable, "THAW_CACHE_KEY", "THAW_WARM_AUDIENCES"}
	out := slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains(ours, name)
	})
	p := strconv.Itoa(port)
	return append(out, PortVariable+"="+p, LegacyPortVariable+"="+p)
}

// readyEvery is how often the child is tried; the host itself tries every 25ms
// (WorkerConstants.cs).
const readyEvery = 5 * time.Millisecond

// awaitReady waits until the child accepts connections. Its error carries the
// child's last output; errStopped: ctx ended first.
func (c *child) awaitReady(ctx context.Context, timeout time.Duration) error {
	end, tick := time.After(timeout), time.Tick(readyEvery)
	dialer := net.Dialer{Timeout: time.Second}
	for {
		if conn, err := dialer.DialContext(ctx, "tcp", c.addr); err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-c.done:
			return c.ended(false)
		case <-end:
			return &ChildError{Status: statusFailed, what: fmt.Sprintf("%s did not listen on 127.0.0.1 at the port in %s within %s", c.name, PortVariable, timeout), output: c.tail.String()}
		case <-ctx.Done():
			return errStopped
		case <-tick:
		}
	}
}

// stop asks the child to end, and ends it if it does not.
func (c *child) stop() {
	terminate(c.pid)
	select {
	case <-c.done:
	case <-time.After(stopTimeout):
		c.log.Warn("the handler did not end after SIGTERM and is killed", "command", c.name, "after_seconds", stopTimeout.Seconds())
	}
	c.kill()
}

// kill ends the child and what it started, and waits.
func (c *child) kill() {
	select {
	case <-c.done:
		return
	default:
	}
	killGroup(c.pid)
	<-c.done
}

// Statuses that the host tells apart (WorkerProcess.cs): after 0 it never starts
// the handler again, after 200 it does, after any other it does too but counts,
// and stops the host at the third within 30 minutes.
const (
	statusRestart = 200
	statusFailed  = 1
)

// livedLong is how long a child has to live for its end with status 0 to be
// taken for a wish to be started again, and not for a fault.
const livedLong = 10 * time.Second

// ended tells how the child ended. Only after done.
func (c *child) ended(up bool) error {
	lived := clock.Elapsed(c.started, time.Now())
	e := &ChildError{Status: statusFailed, output: c.tail.String()}
	switch exit, ok := errors.AsType[*exec.ExitError](c.err); {
	case c.err == nil && up && lived >= livedLong:
		e.Status, e.what = statusRestart, c.name+" ended with status 0"
	case c.err == nil:
		e.what = c.name + " ended with status 0 after " + lived.Round(time.Millisecond).String()
	case ok && exit.Exited():
		e.Status, e.what = exit.ExitCode(), fmt.Sprintf("%s ended with status %d", c.name, exit.ExitCode())
	case ok:
		e.Status, e.what = signalStatus(exit), fmt.Sprintf("%s ended: %v", c.name, c.err)
	default:
		e.what = fmt.Sprintf("%s ended: %v", c.name, c.err)
	}
	if !up {
		e.what += " before it listened on the port in " + PortVariable
	}
	return e
}

// ChildError says how the user's handler failed.
type ChildError struct {
	Status int // to exit with; never 0, after which the host would not start the handler again
	what   string
	output string // the child's last output
}

// Error says what happened, with the child's last output.
func (e *ChildError) Error() string {
	if e.output == "" {
		return e.what + "; it wrote nothing"
	}
	return e.what + "; its last output: " + e.output
}

// ExitStatus is what Run's error means to the host.
func ExitStatus(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*ChildError](err); ok {
		return e.Status
	}
	return statusFailed
}

// tailSize is how much of the child's output is remembered, in bytes.
const tailSize = 2 << 10

// tail remembers the end of what is written.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-tailSize):]...)
	if extra := len(t.buf) - tailSize; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.ToValidUTF8(bytes.TrimSpace(t.buf), []byte("?")))
}
