package main

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// cpuTime is the processor time that a process has used so far, user and
// system, of all its threads, also those that ended. It is the process's
// CPU-time clock, which counts in nanoseconds where /proc/PID/stat counts in
// hundredths of a second: clock_getcpuclockid(3), and CPUCLOCK_SCHED in
// Linux's include/linux/posix-timers_types.h.
func cpuTime(pid int) (time.Duration, error) {
	const cpuclockSched = 2
	clock := uintptr(^pid<<3 | cpuclockSched)
	var ts syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, errno)
	}
	return time.Duration(ts.Nano()), nil
}
