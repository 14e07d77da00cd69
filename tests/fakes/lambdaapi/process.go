package lambdaapi

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// Exit is how the extension's process ended.
type Exit struct {
	Code   int            // exit code; -1 where a signal ended it
	Signal syscall.Signal // that signal, or 0
	InTime bool           // it ended by itself before the deadline
	Took   time.Duration  // since the SHUTDOWN event was sent, or since exec where there was none
	CPU    time.Duration  // user and system time of its whole life
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("killed by %v after %v", e.Signal, e.Took.Round(time.Millisecond))
	}
	return fmt.Sprintf("exit code %d after %v", e.Code, e.Took.Round(time.Millisecond))
}

// process is one run of the extension's binary.
type process struct {
	cmd     *exec.Cmd
	started time.Time
	done    chan struct{} // closed when the process has been reaped

	exit     Exit      // readable once done is closed
	exitedAt time.Time // readable once done is closed
}

// launch starts the binary. Nothing outlives the caller: the kernel kills the
// process when the thread that started it ends, and that thread waits for it.
// ended is called when it has been reaped.
func launch(cfg Config, env []string, ended func()) (*process, error) {
	p := &process{done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path:   cfg.Binary,
		Args:   []string{cfg.Binary},
		Env:    env,
		Dir:    "/",
		Stdout: cfg.Stdout,
		Stderr: cfg.Stderr,
		// A grandchild that keeps the pipes open must not hold us.
		WaitDelay:   time.Second,
		SysProcAttr: processAttributes(),
	}
	started := make(chan error)
	go func() {
		// PR_SET_PDEATHSIG is about the parent's thread (prctl(2)), so this
		// goroutine keeps its own for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p.started = time.Now()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait() // the state says it all
		p.exitedAt = time.Now()
		p.exit = exitOf(p.cmd.ProcessState)
		p.exit.Took = p.exitedAt.Sub(p.started)
		ended()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start extension %s: %w", cfg.Binary, err)
	}
	return p, nil
}

func exitOf(s *os.ProcessState) Exit {
	e := Exit{Code: s.ExitCode(), CPU: s.UserTime() + s.SystemTime()}
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		e.Signal = w.Signal()
	}
	return e
}

// signal sends sig; a process that has ended already is no error.
func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to the extension: %w", sig, err)
	}
	return nil
}

// kill ends the process, stopped or not, and waits for its end.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// running says that the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop freezes the process and waits until each of its threads stands still.
func (p *process) stop() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); {
		if allStopped(p.cmd.Process.Pid) {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("freeze: the extension has ended: %v", p.exit)
		case <-tick.C:
		}
	}
	return errors.New("freeze: the extension still runs 5s after SIGSTOP, pid " + strconv.Itoa(p.cmd.Process.Pid))
}

func (p *process) cont() error { return p.signal(syscall.SIGCONT) }
