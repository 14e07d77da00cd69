//go:build unix && !linux

package lambdaapi

import "syscall"

// processAttributes keeps a terminal's signals from the child. Other systems
// cannot tie its life to ours; Close ends it.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// allStopped believes the signal: there is no /proc to ask.
func allStopped(int) bool { return true }
