package azurefn

import (
	"os/exec"
	"syscall"
)

// childAttr makes the child a process group of its own, and has the kernel kill
// it when the thread that starts it ends.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// terminate asks the child's group to end.
func terminate(pid int) { _ = syscall.Kill(-pid, syscall.SIGTERM) }

// killGroup ends whatever is left of the child's group.
func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// signalStatus is a shell's for a process that a signal ended.
func signalStatus(e *exec.ExitError) int {
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return statusFailed
}
