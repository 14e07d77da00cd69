//go:build !linux

package azurefn

import (
	"os"
	"os/exec"
	"syscall"
)

// Only the Linux plans of Azure Functions are supported. Elsewhere this serves
// to develop with: the child does not die with its parent there.

func childAttr() *syscall.SysProcAttr { return nil }

func terminate(pid int) { killGroup(pid) }

func killGroup(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

func signalStatus(*exec.ExitError) int { return statusFailed }
