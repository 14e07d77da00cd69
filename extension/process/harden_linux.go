package process

import "syscall"

// prSetDumpable is PR_SET_DUMPABLE of prctl(2).
const prSetDumpable = 4

// Harden keeps the process out of core files and its memory out of
// other processes' reach (/proc/PID/mem, ptrace): it holds secrets.
func Harden() {
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
}
