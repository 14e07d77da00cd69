package harness

import "syscall"

// childAttr makes a child die with the thread that started it (prctl(2)).
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
