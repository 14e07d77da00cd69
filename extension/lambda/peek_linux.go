package lambda

import (
	"syscall"
	"time"
	"unsafe"
)

// canPeek says that await looks at the socket.
const canPeek = true

// pollIn is POLLIN of poll(2).
const pollIn = 1

// await waits until a read of the socket would return at once, for bytes, the end of the
// stream or an error, at most d; 0: it only looks. It takes nothing (ppoll(2)): the kernel
// wakes us, nothing spins, and the processor is free for whoever has still to write.
func await(fd uintptr, d time.Duration) bool {
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: pollIn}
	limit := syscall.NsecToTimespec(int64(d))
	// The error is a signal's or none: the answer is in revents.
	_, _, _ = syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return poll.revents != 0
}
