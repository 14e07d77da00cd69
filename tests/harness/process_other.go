//go:build !linux

package harness

import "syscall"

// childAttr has nothing to offer where no parent-death signal exists: there a
// child ends with Close only.
func childAttr() *syscall.SysProcAttr { return nil }
